"""The official SDKs, from the first version with Responses to the newest: every scenario finds the same in all of them."""

from __future__ import annotations

import pytest

from tests.sdks.expected import FOUND, SINCE

pytestmark = pytest.mark.sdks

PYTHON = ("1.66", "1.109", "2.54", "3.57")
NODE = {"6.49": "openai", "7.59": "openai-7"}
"""By version, the name under which it is installed."""


def names_of(version: str) -> list[str]:
    major, minor = map(int, version.split("."))
    return [name for name in FOUND if (major, minor) >= SINCE.get(name, (0, 0))]


OF_PYTHON = [(version, kind, name) for version in PYTHON for kind in ("sync", "async") for name in names_of(version)]


@pytest.mark.parametrize(("version", "kind", "scenario"), OF_PYTHON)
def test_python(clients, version, kind, scenario):
    found = clients.found(f"openai-{version}", "openai_python.py", [kind], names_of(version), scenario)
    assert found == FOUND[scenario]


@pytest.mark.parametrize("scenario", FOUND)
@pytest.mark.parametrize("version", NODE)
def test_node(clients, version, scenario):
    found = clients.found("node", "openai_node.mjs", [NODE[version]], list(FOUND), scenario)
    assert found == FOUND[scenario]
