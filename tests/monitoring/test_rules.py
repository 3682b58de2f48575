"""The rules for Prometheus: taken by promtool, each alert made to fire and not to fire, each with a place to read on."""

from __future__ import annotations

import copy
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.fakes.prometheus import promtool
from tests.monitoring.shipped import (
    ALERTS,
    CONFIGURATION,
    PROMETHEUS,
    RECORDING,
    ROOT,
    RULE_TESTS,
    alerts,
    groups,
    rules,
)

SLOW = "slow.yml"
RIGHT = "nothing"
SHIPPED = "../../../deploy/prometheus/rules/*.yml"
# Comparisons with a number that is not zero, and what comes closer to being true.
THRESHOLD = re.compile(r"(?P<sign> [<>] )(?P<number>[\d.]+(?: \* [\d.]+)*)")
NAMES = [alert.place for alert in alerts()]


def cases(path: Path) -> list[dict[str, Any]]:
    return yaml.safe_load(path.read_text())["tests"]


def expected() -> dict[str, list[int]]:
    """Of each alert, how many times its series was expected in each look at it."""
    found: dict[str, list[int]] = {name: [] for name in NAMES}
    for path in RULE_TESTS:
        for case in cases(path):
            for look in case.get("promql_expr_test", []):
                asked = re.search(r'alertname="(\w+)"', look["expr"])
                labels = [sample["labels"] for sample in look["exp_samples"]]
                fired = [re.search(r'alertname="(\w+)"', text)[1] for text in labels if text.startswith("ALERTS")]
                for name in NAMES if look["expr"].startswith("ALERTS") else ():
                    if name == asked[1] if asked is not None else name in case["name"]:
                        found[name].append(fired.count(name))
    return found


def test_promtool_takes_the_configuration_and_its_rules(tmp_path):
    """All of it, with a token in a file where the shipped one is in none."""
    shutil.copytree(PROMETHEUS / "rules", tmp_path / "rules")
    token = tmp_path / "metrics_token"
    token.write_text("t")
    text = CONFIGURATION.read_text()
    assert "/run/secrets/metrics_token" in text
    path = tmp_path / CONFIGURATION.name
    path.write_text(text.replace("/run/secrets/metrics_token", str(token)))
    told = promtool("check", "config", path)
    assert told.returncode == 0, told.stderr
    for rules_path in (RECORDING, ALERTS):
        told = promtool("check", "rules", "--lint=all", "--lint-fatal", rules_path)
        assert told.returncode == 0, told.stderr


@pytest.mark.parametrize(
    "path", [pytest.param(path, id=path.stem, marks=[pytest.mark.long] * (path.name == SLOW)) for path in RULE_TESTS]
)
def test_the_rules_do_what_their_tests_say(path):
    told = promtool("test", "rules", path)
    assert told.returncode == 0, told.stderr + told.stdout


@pytest.mark.parametrize("name", NAMES)
def test_each_alert_is_seen_to_fire_and_not_to_fire(name):
    looks = expected()[name]
    assert any(looks), "it fires in no test"
    assert not all(looks), "there is no moment at which it does not fire"


def mutants(rule: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What is wrong with the rule, and the rule that has it wrong; first the rule as it is."""
    found = {RIGHT: rule, "never fires": {**rule, "expr": "vector(0) > 1"}}
    if "for" in rule:
        found["does not wait"] = {name: value for name, value in rule.items() if name != "for"}
    for match in THRESHOLD.finditer(rule["expr"]):
        if float(match["number"].split()[0]) == 0:
            continue
        nearer = f"{match['sign']}{'0.5' if '>' in match['sign'] else '2'} * {match['number']}"
        text = rule["expr"][: match.start()] + nearer + rule["expr"][match.end() :]
        found[f"looser at {match.start()}"] = {**rule, "expr": text}
    return found


@pytest.mark.long
@pytest.mark.parametrize("name", NAMES)
def test_a_rule_that_is_wrong_is_found(name, tmp_path):
    """The tests are worth something: each mutant of each rule fails one of them."""
    (rule,) = (rule for rule in rules(ALERTS) if rule["alert"] == name)
    named = [path for path in RULE_TESTS if f'"{name}"' in path.read_text()]
    shutil.copy(RECORDING, tmp_path)
    survivors = []
    for wrong, mutant in mutants(rule).items():
        changed = copy.deepcopy(groups(ALERTS))
        for group in changed:
            group["rules"] = [mutant if each["alert"] == name else each for each in group["rules"]]
        (tmp_path / ALERTS.name).write_text(yaml.safe_dump({"groups": changed}))
        for path in named:
            text = path.read_text().replace(SHIPPED, str(tmp_path / "*.yml"))
            copied = tmp_path / f"tested-{path.stem}.test"
            kept = [case for case in yaml.safe_load(text)["tests"] if f'"{name}"' in str(case)]
            copied.write_text(yaml.safe_dump({**yaml.safe_load(text), "tests": kept}))
            if promtool("test", "rules", copied).returncode != 0:
                break
        else:
            survivors.append(wrong)
    assert survivors == [RIGHT]


def test_alerts_say_what_is_wrong_whom_to_wake_and_where_to_read_on():
    runbook = (ROOT / "docs/operations.md").read_text()
    table = (ROOT / "docs/monitoring.md").read_text()
    assert len(NAMES) == len(set(NAMES))
    for rule in rules(ALERTS):
        name, told = rule["alert"], rule["annotations"]
        assert re.fullmatch(r"Headgate[A-Z]\w+", name)
        assert rule["labels"]["severity"] in {"critical", "warning"}, name
        assert set(told) == {"summary", "description", "runbook_url"}, name
        assert told["summary"].endswith(".") and told["description"].endswith("."), name
        assert told["runbook_url"] == f"docs/operations.md#{name.lower()}", name
        assert f"\n#### {name}\n" in runbook, name
        (row,) = re.findall(rf"^\| \[`{name}`\]\(operations\.md#{name.lower()}\) \| (\w+) \|", table, re.MULTILINE)
        assert row == rule["labels"]["severity"], name
    assert set(re.findall(r"^#### (\w+)$", runbook, re.MULTILINE)) == set(NAMES)


def test_recorded_series_are_named_by_what_they_keep():
    for rule in rules(RECORDING):
        level, metric, operation = rule["record"].split(":")
        assert metric.startswith("headgate_") and operation, rule["record"]
        grouped = re.findall(r"\bby \(([^)]*)\)", rule["expr"])
        assert all(labels.replace(", ", "_") == level for labels in grouped), rule["record"]
