"""Servers that many tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.fakes.gateway import RunningGateway
from tests.quiet import SideBySide, folder_of

ROOT = Path(__file__).parents[1]

# A busy machine takes as long as it takes over an example: a fifth of a second, as it comes, fails what is right.
settings.register_profile("headgate", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("headgate")


def pytest_configure(config: pytest.Config) -> None:
    """Where tests run in several processes those that measure time still run alone."""
    run_id = os.environ.get("PYTEST_XDIST_TESTRUNUID")
    if run_id is not None:
        config.pluginmanager.register(SideBySide(folder_of(run_id)))


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
