"""The table of families in ``docs/api.md``: it says what the endpoint table says."""

from __future__ import annotations

import re
from pathlib import Path

from app.edge.endpoints import SOCKET_PATHS
from app.edge.table import FAMILIES

DOCUMENT = Path(__file__).resolve().parents[3] / "docs/api.md"
ROW = re.compile(r"\| `(\w+)` \| (yes|no) \| (.*?) \| (.*?) \|")
TOLD = {name: (on, covered, owned) for name, on, covered, owned in ROW.findall(DOCUMENT.read_text())}


def quoted(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


def paths_of(family) -> set[str]:
    # What is a WebSocket alone has no method in the table.
    return {endpoint.path for endpoint in family.endpoints} or {f"/{family.name}"}


def test_every_family_is_there_in_the_tables_order_with_whether_it_is_on():
    assert [(name, row[0]) for name, row in TOLD.items()] == [
        (family.name, "yes" if family.on else "no") for family in FAMILIES
    ]


def test_what_a_family_covers_is_all_that_it_has_and_nothing_else():
    for family in FAMILIES:
        told = [path for path in quoted(TOLD[family.name][1]) if path.startswith("/")]
        paths = paths_of(family)
        below = {root: {path for path in paths if path == root or path.startswith(f"{root}/")} for root in told}
        assert set().union(*below.values()) == paths, family.name
        assert all(below.values()), (family.name, below)


def test_a_family_without_a_method_is_a_websocket():
    bare = {f"/{family.name}" for family in FAMILIES if not family.endpoints}
    assert bare < {path for path, _ in SOCKET_PATHS}


def test_what_is_owned_is_what_its_endpoints_make_and_list():
    for family in FAMILIES:
        kinds = {kind for endpoint in family.endpoints for kind in (endpoint.creates, endpoint.learns) if kind}
        assert set(quoted(TOLD[family.name][2])) == kinds, family.name
