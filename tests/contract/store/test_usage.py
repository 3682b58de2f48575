from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from app.core.clock import QUARTER_MS, quarter_of
from app.core.ids import new_request_id
from app.core.usage import Usage
from app.store.batch import write_batch
from app.store.keys import create_key
from app.store.teams import create_team
from app.store.usage import UsageFilter, usage
from tests.contract.store.samples import entry_of, record_of

BERLIN = ZoneInfo("Europe/Berlin")
KATHMANDU = ZoneInfo("Asia/Kathmandu")


def ms(*parts, zone=UTC):
    return int(datetime(*parts, tzinfo=zone).timestamp()) * 1000


async def used(database, *args, **kwargs):
    async with database.read() as connection:
        return (await usage(connection, *args, **kwargs)).rows


async def test_all_numbers_are_summed_and_names_are_shown(database):
    async with database.transaction() as connection:
        team = await create_team(connection, name="search", now_ms=1)
        await create_key(connection, team_id=team.id, name="web", secret_id="key0000001", digest=b"1", now_ms=1)
    first, second, third = (new_request_id(1) for _ in range(3))
    await write_batch(
        database,
        [
            record_of(first, team_id=team.id, saved_nanousd=5),
            record_of(second, team_id=team.id, outcome="failed", entries=(entry_of(second, kind="estimate"),)),
            record_of(third, team_id=team.id, entries=(entry_of(third, cost_nanousd=None, usage=Usage()),)),
        ],
    )
    (row,) = await used(database, ("team", "key"), 0, ms(2100, 1, 1))
    assert row.group == {"team": "search", "key": "web"}
    assert (row.team_id, row.key_id) == (team.id, "key0000001")
    assert (row.requests, row.failed, row.unpriced, row.estimated) == (3, 1, 1, 1)
    assert (row.input_tokens, row.cached_tokens, row.cache_write_tokens) == (200, 80, 10)
    assert (row.output_tokens, row.reasoning_tokens) == (40, 14)
    assert (row.cost_nanousd, row.saved_nanousd) == (122_000, 5)


async def test_groups_come_in_the_order_that_was_asked_for(database):
    for model, upstream in (("b", "x"), ("a", "y"), ("a", "x")):
        request_id = new_request_id(1)
        entry = entry_of(request_id, model=model, upstream=upstream)
        await write_batch(database, [record_of(request_id, model=model, upstream=upstream, entries=(entry,))])
    end_ms = ms(2100, 1, 1)
    rows = await used(database, ("model", "upstream"), 0, end_ms)
    assert [list(row.group.items()) for row in rows] == [
        [("model", "a"), ("upstream", "x")],
        [("model", "a"), ("upstream", "y")],
        [("model", "b"), ("upstream", "x")],
    ]
    first = (await used(database, ("upstream", "model"), 0, end_ms))[0]
    assert list(first.group) == ["upstream", "model"]
    (total,) = await used(database, (), 0, end_ms)
    assert (total.group, total.requests) == ({}, 3)
    assert await used(database, (), 0, 1) == []
    # A team and a key that are not rows any more keep their ids.
    (row,) = await used(database, ("team", "key"), 0, end_ms)
    assert row.group == {"team": "team000001", "key": "key0000001"}


async def test_a_fallback_is_counted_where_it_ended_and_paid_where_it_was_used(database):
    request_id = new_request_id(1)
    entries = (
        entry_of(request_id, 1, kind="void", upstream="a", usage=Usage(), cost_nanousd=0),
        entry_of(request_id, 2, upstream="b"),
    )
    await write_batch(database, [record_of(request_id, upstream="b", attempts=2, entries=entries)])
    rows = await used(database, ("upstream",), 0, ms(2100, 1, 1))
    assert [(row.group["upstream"], row.requests, row.cost_nanousd) for row in rows] == [("a", 0, 0), ("b", 1, 61_000)]


async def test_a_span_has_its_start_and_not_its_end(database):
    start = ms(2026, 11, 20)
    for at_ms in (start - 1, start, start + QUARTER_MS - 1, start + QUARTER_MS):
        await write_batch(database, [record_of(at_ms=at_ms)])
    (row,) = await used(database, (), start, start + QUARTER_MS)
    assert row.requests == 2


async def test_one_team_or_key_alone(database):
    await write_batch(database, [record_of(), record_of(team_id="t2"), record_of(key_id="k2")])
    end_ms = ms(2100, 1, 1)
    assert [
        row.requests for row in await used(database, (), 0, end_ms, only=UsageFilter(team_ids=("team000001",)))
    ] == [2]
    assert [row.requests for row in await used(database, (), 0, end_ms, only=UsageFilter(key_ids=("k2",)))] == [1]


@pytest.mark.parametrize("zone", [UTC, BERLIN, KATHMANDU, ZoneInfo("America/St_Johns")])
@pytest.mark.parametrize("period", ["hour", "day", "month"])
async def test_hours_days_and_months_are_those_of_the_time_zone(database, zone, period):
    """Against the plain way: each record's own local time; over both changes of the clock."""
    moments = [ms(2026, 3, 28, 20) + step * QUARTER_MS for step in range(0, 190, 3)]
    moments += [ms(2026, 10, 24, 20) + step * QUARTER_MS for step in range(0, 190, 3)]
    await write_batch(database, [record_of(at_ms=moment) for moment in moments])
    shapes = {"day": "%Y-%m-%d", "month": "%Y-%m"}
    wanted: dict[str, int] = {}
    for moment in moments:
        local = datetime.fromtimestamp(quarter_of(moment) / 1000, zone)
        if period == "hour":
            text = local.replace(minute=0).isoformat(timespec="minutes")
        else:
            text = local.strftime(shapes[period])
        wanted[text] = wanted.get(text, 0) + 1
    rows = await used(database, (period, "model"), ms(2026, 1, 1), ms(2027, 1, 1), zone)
    assert {row.group[period]: row.requests for row in rows} == wanted
    assert sum(wanted.values()) == len(moments)


async def test_the_repeated_hour_of_autumn_is_two_rows(database):
    for hour in (0, 1):
        await write_batch(database, [record_of(at_ms=ms(2026, 10, 25, hour))])
    rows = await used(database, ("hour",), ms(2026, 10, 25), ms(2026, 10, 26), BERLIN)
    assert [row.group["hour"] for row in rows] == ["2026-10-25T02:00+01:00", "2026-10-25T02:00+02:00"]


async def test_two_periods_at_once_are_refused(database):
    with pytest.raises(ValueError, match="day and hour"):
        await used(database, ("day", "hour"), 0, 1)


async def test_teams_keys_of_one_name_stay_apart(database):
    async with database.transaction() as connection:
        for number in (1, 2):
            team = await create_team(connection, name=f"team{number}", now_ms=1)
            await create_key(
                connection, team_id=team.id, name="web", secret_id=f"k{number}", digest=b"%d" % number, now_ms=1
            )
    await write_batch(database, [record_of(key_id="k1"), record_of(key_id="k2")])
    rows = await used(database, ("key",), 0, ms(2100, 1, 1))
    assert [(row.group["key"], row.key_id) for row in rows] == [("web", "k1"), ("web", "k2")]
