"""The dashboards, as far as they can be checked without a Grafana: shape, layout, names, units, and words.

What their expressions return is looked at in test_live.py.
"""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.monitoring.shipped import DASHBOARDS, GRAFANA, VARIABLES, dashboard, panels, written

DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
COLUMNS = 24
# Of Grafana's own list (packages/grafana-data/src/valueFormats/categories.ts).
UNITS = {"none", "short", "percentunit", "currencyUSD", "bytes", "s", "reqps", "cps", "dateTimeFromNow"}
OPTIONS = {
    "timeseries": {"legend", "tooltip"},
    "stat": {"reduceOptions", "colorMode", "graphMode", "justifyMode", "orientation", "textMode"},
    "bargauge": {"reduceOptions", "orientation", "displayMode", "showUnfilled"},
    "state-timeline": {"showValue", "mergeValues", "rowHeight", "legend", "tooltip"},
    "heatmap": {"calculate", "color", "yAxis", "tooltip", "legend"},
    "table": {"showHeader", "cellHeight", "footer"},
}
INSTANT = {"stat", "bargauge", "table"}
BUILT_IN = {"__rate_interval", "__range"}
COLORS = {"green", "orange", "red"}

BOARDS = [pytest.param(path, id=path.stem) for path in DASHBOARDS]
PANELS = [
    pytest.param(panel, id=f"{path.stem}-{panel['id']}") for path in DASHBOARDS for panel in panels(dashboard(path))
]


def test_there_is_one_for_each_question():
    assert [path.stem for path in DASHBOARDS] == ["cost", "health", "latency", "limits-and-cache", "traffic"]


@pytest.mark.parametrize("path", BOARDS)
def test_it_stands_as_it_is_written(path):
    """So that a change shows what was changed: python -m tests.monitoring."""
    assert path.read_text() == written(dashboard(path))


@pytest.mark.parametrize("path", BOARDS)
def test_it_has_a_name_that_stays_and_what_grafana_needs(path):
    board = dashboard(path)
    assert board["uid"] == f"headgate-{path.stem}", "links and bookmarks go by it"
    assert len(board["uid"]) <= 40
    assert "id" not in board, "that is one installation's number"
    assert board["title"] == f"Headgate: {path.stem.replace('-', ' ')}"
    assert board["description"].endswith(".")
    assert board["tags"] == ["headgate"]
    assert board["schemaVersion"] == 39
    assert re.fullmatch(r"now-\d+[hd]", board["time"]["from"]) and board["time"]["to"] == "now"
    assert re.fullmatch(r"\d+m", board["refresh"])
    assert "__inputs" not in board and "__requires" not in board


@pytest.mark.parametrize("path", BOARDS)
def test_its_variables_are_used_and_those_that_are_used_are_there(path):
    board = dashboard(path)
    variables = board["templating"]["list"]
    names = [variable["name"] for variable in variables]
    assert names[0] == "datasource" and variables[0]["type"] == "datasource"
    assert len(names) == len(set(names))
    for variable in variables[1:]:
        assert variable["name"] in VARIABLES
        assert variable["datasource"] == DATASOURCE
        assert variable["multi"] and variable["includeAll"]
        assert variable["label"] and variable["description"].endswith(".")
    expressions = " ".join(target["expr"] for panel in panels(board) for target in panel["targets"])
    used = set(re.findall(r"\$(\w+)", expressions))
    assert used - BUILT_IN == set(names) - {"datasource"}
    for name in set(names) - {"datasource"}:
        assert re.search(rf"{name}=~\"\${name}\"", expressions), "several values need a regular expression"
        assert not re.search(rf"{name}!?=\"\${name}\"", expressions)


@pytest.mark.parametrize("path", BOARDS)
def test_panels_lie_beside_one_another(path):
    board = dashboard(path)
    ids = [panel["id"] for panel in board["panels"]]
    assert len(ids) == len(set(ids)) and all(ids)
    titles = [panel["title"] for panel in board["panels"]]
    for title in {title for title in titles if titles.count(title) > 1}:
        kinds = [panel["type"] for panel in board["panels"] if panel["title"] == title]
        assert len(set(kinds)) == len(kinds), f"{title}: a figure and its course may share a question"
    taken = [(panel["title"], panel["gridPos"]) for panel in board["panels"]]
    for title, box in taken:
        assert set(box) == {"x", "y", "w", "h"} and min(box["w"], box["h"]) > 0 and min(box["x"], box["y"]) >= 0, title
        assert box["x"] + box["w"] <= COLUMNS, title
    for (one, first), (other, second) in itertools.combinations(taken, 2):
        beside = first["x"] + first["w"] <= second["x"] or second["x"] + second["w"] <= first["x"]
        above = first["y"] + first["h"] <= second["y"] or second["y"] + second["h"] <= first["y"]
        assert beside or above, f"{one} lies over {other}"
    # Grafana moves panels up into room that is left: then they do not lie as they are written.
    for title, box in taken:
        above = [other["y"] + other["h"] for _, other in taken if other["y"] < box["y"] and _share_columns(box, other)]
        assert box["y"] == max(above, default=0), f"{title} would move up"


def _share_columns(one: dict[str, int], other: dict[str, int]) -> bool:
    return one["x"] < other["x"] + other["w"] and other["x"] < one["x"] + one["w"]


@pytest.mark.parametrize("panel", PANELS)
def test_a_panel_answers_one_question(panel: dict[str, Any]):
    assert panel["title"].endswith("?")
    assert panel["description"].endswith(".")
    assert panel["type"] in OPTIONS
    assert OPTIONS[panel["type"]] <= panel["options"].keys()
    assert panel["datasource"] == DATASOURCE


@pytest.mark.parametrize("panel", PANELS)
def test_its_queries_are_prometheus(panel: dict[str, Any]):
    targets = panel["targets"]
    refs = [target["refId"] for target in targets]
    assert refs and refs == sorted(set(refs))
    for target in targets:
        assert target["datasource"] == DATASOURCE
        assert target["expr"].strip() == target["expr"] != ""
        instant = panel["type"] in INSTANT
        assert (target["instant"], target["range"]) == (instant, not instant)
        # A stat that is asked at one moment has no interval of its own in view.
        assert "[$__interval]" not in target["expr"]
        if len(targets) > 1:
            assert target["legendFormat"] != "__auto"
        if panel["type"] in {"heatmap", "table"}:
            assert target["format"] == panel["type"]
    legends = [target["legendFormat"] for target in targets]
    assert len(legends) == len(set(legends))


@pytest.mark.parametrize("panel", PANELS)
def test_its_figures_have_units_and_colours_mean_something(panel: dict[str, Any]):
    defaults = panel["fieldConfig"]["defaults"]
    assert defaults["unit"] in UNITS
    steps = defaults["thresholds"]["steps"]
    assert defaults["thresholds"]["mode"] == "absolute"
    assert steps[0]["value"] is None and {step["color"] for step in steps} <= COLORS
    values = [step["value"] for step in steps[1:]]
    assert values == sorted(set(values))
    if "percent" in defaults["unit"]:
        assert "/" in " ".join(target["expr"] for target in panel["targets"]) or "ratio" in str(panel["targets"])
    for mapping in defaults["mappings"]:
        assert mapping["type"] == "value"
        assert {each["color"] for each in mapping["options"].values()} <= COLORS


def test_a_threshold_that_is_also_an_alerts_is_the_same():
    """Both are read beside each other: whoever moves one has to move the other."""
    alerts = (Path(GRAFANA).parent / "prometheus/rules/alerts.yml").read_text()
    health = {panel["title"]: panel for panel in panels(dashboard(GRAFANA / "dashboards/health.json"))}

    def marks(title: str) -> list[float]:
        return [step["value"] for step in health[title]["fieldConfig"]["defaults"]["thresholds"]["steps"][1:]]

    assert f"headgate_loop_lag_seconds > {marks('How late is the event loop?')[0]:g}" in alerts
    assert marks("How much room is on the disks?") == [512 * 1024 * 1024]
    assert "headgate_disk_free_bytes < 512 * 1024 * 1024" in alerts
    assert f"}} > {marks('How near is the limit of open files?')[0]:g}" in alerts


def test_it_is_provisioned_where_compose_puts_it():
    root = GRAFANA.parent.parent
    (source,) = yaml.safe_load((GRAFANA / "provisioning/datasources/prometheus.yml").read_text())["datasources"]
    (provider,) = yaml.safe_load((GRAFANA / "provisioning/dashboards/headgate.yml").read_text())["providers"]
    compose = yaml.safe_load((root / "docker-compose.yml").read_text())["services"]
    mounts = dict(volume.split(":")[:2] for volume in compose["grafana"]["volumes"])
    assert mounts["./deploy/grafana/dashboards"] == provider["options"]["path"]
    assert mounts["./deploy/grafana/provisioning"] == "/etc/grafana/provisioning"
    assert source["url"] == "http://prometheus:9090" and "prometheus" in compose
    for path in DASHBOARDS:
        chosen = dashboard(path)["templating"]["list"][0]
        assert chosen["current"]["value"] == source["uid"]
        assert chosen["query"] == source["type"]
