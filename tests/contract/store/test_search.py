"""Finding records: what is found, in which order, and that pages leave nothing out and say nothing twice."""

from __future__ import annotations

import random

import pytest

from app.core.ids import new_request_id
from app.store import search as search_module
from app.store.batch import write_batch
from app.store.keys import add_secret, create_key
from app.store.search import RecordFilter, RecordPlace, search_records
from app.store.teams import create_team
from app.store.usage import UsageFilter
from tests.contract.store.samples import NOON_MS, record_of

ANY = RecordFilter()


async def found(database, only=ANY, **more):
    async with database.read() as connection:
        return await search_records(connection, only, **more)


async def ids(database, only=ANY, **more):
    return [record.request_id for record in (await found(database, only, **more)).records]


async def all_ids(database, only=ANY, **more):
    """Page by page."""
    pages, before = [], None
    while True:
        page = await found(database, only, before=before, **more)
        pages += [record.request_id for record in page.records]
        if page.next is None:
            return pages
        before = page.next


async def write(database, *records):
    await write_batch(database, list(records))
    return [record.request_id for record in records]


async def test_newest_first_with_their_entries(database):
    older, newer = await write(database, record_of(at_ms=NOON_MS), record_of(at_ms=NOON_MS + 1))
    page = await found(database)
    assert [record.request_id for record in page.records] == [newer, older]
    assert page.next is None
    assert page.records[0].cost_nanousd == 61_000
    assert len(page.records[0].entries) == 1


async def test_a_span_has_its_start_and_not_its_end(database):
    await write(database, *(record_of(at_ms=NOON_MS + each) for each in range(4)))
    span = await found(database, start_ms=NOON_MS + 1, end_ms=NOON_MS + 3)
    assert [record.started_at_ms - NOON_MS for record in span.records] == [2, 1]


async def test_every_filter(database):
    one = record_of(
        team_id="t1", key_id="k1", model="a", upstream="x", outcome="failed", end_user="bob", tags={"project": "s"}
    )
    two = record_of(team_id="t2", key_id="k2", model="b", upstream="y", tags={"project": "t", "env": "prod"})
    three = record_of(team_id="t2", key_id="k3", model="c", upstream="y")
    await write(database, one, two, three)
    all_of = [one.request_id, two.request_id, three.request_id]

    async def only(**conditions):
        inner = {name: value for name, value in conditions.items() if name in UsageFilter.__struct_fields__}
        outer = {name: value for name, value in conditions.items() if name not in inner}
        got = await ids(database, RecordFilter(only=UsageFilter(**inner), **outer))
        return [all_of.index(each) + 1 for each in sorted(got, key=all_of.index)]

    assert await only(team_ids=("t2",)) == [2, 3]
    assert await only(team_ids=("t1", "t2")) == [1, 2, 3]
    assert await only(team_ids=("t1",), key_ids=("k2",)) == []
    assert await only(key_ids=("k1", "k3")) == [1, 3]
    assert await only(models=("a", "b")) == [1, 2]
    assert await only(upstreams=("y",), not_models=("b",)) == [3]
    assert await only(not_team_ids=("t1",)) == [2, 3]
    assert await only(not_key_ids=("k1", "k2")) == [3]
    assert await only(not_upstreams=("x",)) == [2, 3]
    assert await only(tags=(("project", ("s", "t")),)) == [1, 2]
    assert await only(tags=(("project", ("t",)), ("env", ("prod",)))) == [2]
    assert await only(tags=(("project", ("S",)),)) == []
    assert await only(tags=(("project", ("",)),)) == [3]
    assert await only(not_tags=(("project", ("s",)),)) == [2, 3]
    assert await only(not_tags=(("project", ("",)),)) == [1, 2]
    assert await only(outcomes=("failed",)) == [1]
    assert await only(end_user="bob") == [1]
    assert await only(response_id=two.response_id) == [2]


async def test_a_tag_is_not_a_part_of_another(database):
    await write(database, record_of(tags={"a": "b"}))
    for name, value in (("a", "b b"), ("a", "B"), ("A", "b"), ("a", "%"), ("_", "b")):
        assert await ids(database, RecordFilter(only=UsageFilter(tags=((name, (value,)),)))) == []


async def test_text_finds_what_it_may_be(database):
    async with database.transaction() as connection:
        team = await create_team(connection, name="search", now_ms=1)
        await create_key(connection, team_id=team.id, name="web", secret_id="key0000001", digest=b"1", now_ms=1)
        await add_secret(connection, key_id="key0000001", secret_id="key0000002", digest=b"2", now_ms=2)
    first = record_of(tags={"project": "s"}, end_user="u=1")
    second = record_of(secret_id="key0000002", end_user="bob")
    other = record_of(key_id="other00001", secret_id="other00001")
    await write(database, first, second, other)

    async def by(text):
        return set(await ids(database, RecordFilter(text=text)))

    assert await by(first.request_id) == {first.request_id}
    assert await by(first.request_id.upper()) == {first.request_id}
    assert await by(second.response_id) == {second.request_id}
    assert await by("bob") == {second.request_id}
    assert await by("project=s") == {first.request_id}
    assert await by("project=t") == set()
    assert await by("key0000001") == {first.request_id, second.request_id}
    assert await by("key0000002") == {second.request_id}
    assert await by("sk-hg-key0000002-") == {second.request_id}
    assert await by(new_request_id(1)) == set()
    assert await by("' OR 1=1 --") == set()
    # Text finds nothing beyond what the other conditions leave.
    mine = UsageFilter(team_ids=("nobody",))
    assert await ids(database, RecordFilter(only=mine, text=first.request_id)) == []
    assert await ids(database, RecordFilter(only=mine, text="key0000001")) == []


@pytest.mark.parametrize("limit", [1, 3, 50])
@pytest.mark.parametrize("piece", [4, 20_000])
async def test_pages_hold_everything_once(database, limit, piece, monkeypatch):
    """Many at one moment, rare ones among them; with slices that are shorter than a page, and longer."""
    monkeypatch.setattr(search_module, "SLICE", piece)
    source = random.Random(3)
    records = [
        record_of(at_ms=NOON_MS + source.randrange(5), model="rare" if number % 9 == 0 else "plain")
        for number in range(60)
    ]
    await write(database, *records)
    expected = sorted(records, key=lambda record: (record.admitted_at_ms, record.request_id), reverse=True)
    everything = [record.request_id for record in expected]
    assert await all_ids(database, limit=limit) == everything
    rare = RecordFilter(only=UsageFilter(models=("rare",)))
    assert await all_ids(database, rare, limit=limit) == [
        record.request_id for record in expected if record.model == "rare"
    ]
    assert await all_ids(database, rare, limit=limit, seconds=0.0) == await all_ids(database, rare, limit=limit)


async def test_a_search_that_takes_too_long_says_where_to_go_on(database, monkeypatch):
    monkeypatch.setattr(search_module, "SLICE", 2)
    await write(database, *(record_of(at_ms=NOON_MS + each, model="m" if each == 0 else "x") for each in range(10)))
    only = RecordFilter(only=UsageFilter(models=("m",)))
    page = await found(database, only, seconds=0.0)
    assert page.records == []
    assert page.next == RecordPlace(NOON_MS + 7, "")
    assert len(await all_ids(database, only, seconds=0.0)) == 1


async def test_what_is_written_meanwhile_disturbs_no_page(database):
    await write(database, *(record_of(at_ms=NOON_MS + each) for each in range(4)))
    first = await found(database, limit=2)
    await write(database, record_of(at_ms=NOON_MS + 99))
    second = await found(database, limit=2, before=first.next)
    assert [record.started_at_ms - NOON_MS for record in [*first.records, *second.records]] == [3, 2, 1, 0]
