from __future__ import annotations

import pytest

from tests.e2e.admin.people import Admin
from tests.fakes.gateway import RunningGateway


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    with RunningGateway(tmp_path_factory.mktemp("admin")) as running:
        yield running


@pytest.fixture(scope="module")
def admin(gateway):
    with Admin(gateway) as client:
        yield client
