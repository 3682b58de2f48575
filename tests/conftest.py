"""Servers that many tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.fakes.gateway import RunningGateway

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    """A gateway whose models all go to the built-in simulator."""
    with RunningGateway(tmp_path_factory.mktemp("gateway")) as gateway:
        yield gateway


@pytest.fixture(scope="session")
def recordings() -> Path:
    """Real streams: ``HEADGATE_RECORDINGS``, else beside the repository."""
    folder = Path(os.environ.get("HEADGATE_RECORDINGS", ROOT.parent / "shared" / "recordings"))
    if not any(folder.glob("*.sse")):
        pytest.skip("no recordings: set HEADGATE_RECORDINGS to the folder that has them")
    return folder
