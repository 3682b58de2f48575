"""What is shipped for Prometheus and Grafana, and every expression in it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "deploy/prometheus"
CONFIGURATION = PROMETHEUS / "prometheus.yml"
RECORDING = PROMETHEUS / "rules/recording.yml"
ALERTS = PROMETHEUS / "rules/alerts.yml"
GRAFANA = ROOT / "deploy/grafana"
DASHBOARDS = sorted((GRAFANA / "dashboards").glob("*.json"))
RULE_TESTS = sorted((Path(__file__).parent / "rules").glob("*.yml"))
LINE_CHARS_MAX = 120

# What Grafana would put in place of its variables: all of everything, in a span of five minutes.
VARIABLES = {
    "job": ".*",
    "instance": ".*",
    "team": ".*",
    "model": ".*",
    "upstream": ".*",
    "__rate_interval": "1m",
    "__range": "5m",
}
# A metric with or without its matchers; what is followed by a bracket is a function, or a keyword.
_SELECTOR = re.compile(r"(?<![\w:$\"'])([a-zA-Z_:][\w:]*)(\{[^}]*\})?(?![\w:(])")
_GROUPED = re.compile(r"\b(by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)")
_WORDS = frozenset("and or unless by without on ignoring group_left group_right offset bool inf nan".split())
_AGGREGATED = frozenset("sum min max avg count topk bottomk quantile".split())


@dataclass(frozen=True)
class Expression:
    """``place`` names it for people: the rule, or the dashboard, panel and query."""

    place: str
    text: str

    def __str__(self) -> str:
        return self.place

    @property
    def filled(self) -> str:
        """With its variables filled in."""
        return re.sub(r"\$(\w+)", lambda found: VARIABLES[found[1]], self.text)

    @property
    def selectors(self) -> list[str]:
        """What it selects, each as it stands there, without ranges and offsets."""
        text = _GROUPED.sub(" ", re.sub(r"#.*", "", self.filled))
        # A label's value may hold anything.
        values: list[str] = []

        def keep(found: re.Match[str]) -> str:
            values.append(found[0])
            return f'"{len(values) - 1}"'

        text = re.sub(r'"(?:[^"\\]|\\.)*"', keep, text)
        text = re.sub(r"\[[^\]]*\]|\boffset\s+\w+", " ", text)
        found = [name + (matchers or "") for name, matchers in _SELECTOR.findall(text) if _is_metric(name)]
        return [re.sub(r'"(\d+)"', lambda number: values[int(number[1])], selector) for selector in found]

    @property
    def names(self) -> set[str]:
        """The metrics that it selects."""
        return {re.split(r"\{", selector)[0] for selector in self.selectors}


def _is_metric(name: str) -> bool:
    return name.lower() not in _WORDS | _AGGREGATED


def groups(path: Path) -> list[dict[str, Any]]:
    return yaml.safe_load(path.read_text())["groups"]


def rules(path: Path) -> list[dict[str, Any]]:
    return [rule for group in groups(path) for rule in group["rules"]]


def recorded() -> list[Expression]:
    return [Expression(f"{rule['record']} {rule.get('labels', '')}".strip(), rule["expr"]) for rule in rules(RECORDING)]


def alerts() -> list[Expression]:
    return [Expression(rule["alert"], rule["expr"]) for rule in rules(ALERTS)]


def dashboard(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


def panels(board: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """All but the rows."""
    return (panel for panel in board["panels"] if panel["type"] != "row")


def shown() -> list[Expression]:
    """Those of all panels."""
    return [
        Expression(f"{path.stem}: {panel['title']} ({target['refId']})", target["expr"])
        for path in DASHBOARDS
        for panel in panels(dashboard(path))
        for target in panel["targets"]
    ]


def annotated() -> list[Expression]:
    """Those of the marks in time."""
    return [
        Expression(f"{path.stem}: {mark['name']}", mark["expr"])
        for path in DASHBOARDS
        for mark in dashboard(path)["annotations"]["list"]
    ]


def written(value: Any) -> str:
    """JSON in which what fits on a line is on one."""
    return _written(value, 0, 0) + "\n"


def _written(value: Any, depth: int, before: int) -> str:
    line = json.dumps(value, ensure_ascii=False)
    if not isinstance(value, dict | list) or not value or before + len(line) + 1 <= LINE_CHARS_MAX:
        return line
    inner = "  " * (depth + 1)
    if isinstance(value, dict):
        keys = [f"{json.dumps(key, ensure_ascii=False)}: " for key in value]
        parts = [
            key + _written(each, depth + 1, len(inner) + len(key))
            for key, each in zip(keys, value.values(), strict=True)
        ]
        opened, closed = "{}"
    else:
        parts = [_written(each, depth + 1, len(inner)) for each in value]
        opened, closed = "[]"
    return f"{opened}\n" + ",\n".join(inner + part for part in parts) + f"\n{'  ' * depth}{closed}"
