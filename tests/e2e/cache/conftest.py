"""Gateways that all of these files share: a key of its own, and words of its own, keep each test to itself."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.cache.sites import Site, opened_site
from tests.e2e.doors import EMBEDDED, FORMS, SHARED
from tests.fakes.people import Key


@pytest.fixture(scope="package")
def embedded(tmp_path_factory) -> Iterator[Site]:
    with opened_site(tmp_path_factory.mktemp("embedded"), EMBEDDED) as site:
        yield site


@pytest.fixture(scope="package")
def shared(tmp_path_factory) -> Iterator[Site]:
    with opened_site(tmp_path_factory.mktemp("shared"), SHARED) as site:
        yield site


@pytest.fixture(scope="package")
def pair(shared, tmp_path_factory) -> Iterator[tuple[Site, Site]]:
    """Two replicas on one Redis and one PostgreSQL."""
    with shared.twin(tmp_path_factory.mktemp("twin")) as twin:
        yield shared, twin


@pytest.fixture(params=FORMS)
def site(request) -> Site:
    """One gateway, in each form."""
    return request.getfixturevalue(request.param)


@pytest.fixture(params=[*FORMS, "replicas"])
def places(request) -> tuple[Site, Site]:
    """Where a first request goes, and where those after it go."""
    if request.param == "replicas":
        return request.getfixturevalue("pair")
    site = request.getfixturevalue(request.param)
    return site, site


@pytest.fixture
def key(site) -> Key:
    """Of a team of its own."""
    return site.key()
