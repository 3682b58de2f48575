from __future__ import annotations

import pytest

from tests.contract.store.databases import KINDS
from tests.e2e.admin.tie_out.books import NEW_YEAR, opened_books


@pytest.fixture(scope="package", params=KINDS)
def year(request, tmp_path_factory):
    with opened_books(request.param, tmp_path_factory.mktemp(request.param)) as books:
        yield books


@pytest.fixture
def books(year):
    """Whatever time it was in the test before."""
    year.at(NEW_YEAR)
    return year
