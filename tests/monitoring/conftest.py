from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fakes.prometheus import binary
from tests.monitoring.worlds import World, opened_world

EMBEDDED, BOTH = "embedded", "both"


@pytest.fixture(scope="package", params=[EMBEDDED, pytest.param(BOTH, marks=pytest.mark.long)])
def world(request, tmp_path_factory) -> Iterator[World]:
    binary("prometheus")
    with opened_world(tmp_path_factory.mktemp("world"), whole=request.param == BOTH) as world:
        yield world
