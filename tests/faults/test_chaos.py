"""The short form of ``make chaos``: a few seeds, each with every oracle."""

from __future__ import annotations

import pytest

from tests.fakes.postgres import PostgresServer
from tests.faults.chaos.run import run_story
from tests.faults.chaos.story import directed, story_of


@pytest.fixture(scope="module")
def server():
    made = PostgresServer()
    yield made
    made.remove()


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_whatever_befalls_it_the_bill_is_right(server, seed):
    verdict = await run_story(story_of(seed), server)
    assert verdict.broken == [], verdict.faults
    assert verdict.billed > 50


@pytest.mark.long
@pytest.mark.parametrize("name", ["lose-node", "fill-disk", "fail-syncs"])
async def test_a_rare_fault_leaves_the_bill_right(server, name):
    verdict = await run_story(directed(name), server)
    assert verdict.broken == [], verdict.faults
