"""Where budgets stand, over both databases: against sums made by hand."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest

from app.admin.standings import sooner, stand_budgets, stand_near
from app.core.clock import quarter_of
from app.core.identity import LimitRule
from app.core.ids import new_request_id
from app.core.records import BudgetWindow
from app.store.batch import write_batch
from app.store.budgets import read_budgets
from app.store.keys import create_key
from app.store.limits import add_limit
from app.store.spending import spent_by_rule, start_of_window
from app.store.teams import create_team
from tests.contract.store.samples import entry_of, record_of

USD = 1_000_000_000


def ms(*parts):
    return round(datetime(*parts, tzinfo=UTC).timestamp() * 1000)


NOW_MS = ms(2026, 11, 24, 15, 40)
TODAY = date(2026, 11, 24)
LONG_AGO_MS = ms(2026, 1, 1)


def at(day: date, hour: int = 12) -> int:
    return ms(day.year, day.month, day.day, hour)


def spent(at_ms, nanousd, *, team_id, key_id="key0000001", **changes):
    request_id = new_request_id(at_ms)
    model = changes.get("model", "gpt-4.1-mini")
    entry = entry_of(request_id, cost_nanousd=nanousd, model=model)
    return record_of(
        request_id,
        at_ms=at_ms,
        quarter_ms=quarter_of(at_ms),
        team_id=team_id,
        key_id=key_id,
        entries=(entry,),
        **{"model_requested": model, **changes},
    )


@pytest.fixture
async def team(database):
    async with database.transaction() as connection:
        made = await create_team(connection, name="support", now_ms=1)
        await create_key(connection, team_id=made.id, name="bot", secret_id="key0000001", digest=b"1", now_ms=1)
    return made.id


async def budget(database, team_id, maximum, window="month", key_id=None, warn=(80, 95), made_ms=LONG_AGO_MS, **more):
    rule = LimitRule(id="", kind="money", maximum=maximum, window=window, **more)
    async with database.transaction() as connection:
        return await add_limit(connection, rule, team_id=team_id, key_id=key_id, now_ms=made_ms, warn_percents=warn)


async def standing(database, *rows):
    async with database.read() as connection:
        return await stand_budgets(connection, rows, NOW_MS)


async def daily(database, team_id, nanousd, days, **more):
    """So much on each of the days before today."""
    await write_batch(
        database,
        [spent(at(TODAY - timedelta(days=each)), nanousd, team_id=team_id, **more) for each in range(1, days + 1)],
    )


async def test_nothing_is_spent(database, team):
    (stands,) = await standing(database, await budget(database, team, 100 * USD))
    assert (stands.spent_nanousd, stands.left_nanousd, stands.spent_percent, stands.state) == (0, 100 * USD, 0.0, "ok")
    assert (stands.forecast_nanousd, stands.exhausted_at_ms, stands.values) == (None, None, None)
    assert stands.days[0] == (date(2026, 11, 1), 0)
    assert stands.days[-1] == (TODAY, 0)


async def test_a_month_at_an_even_pace(database, team):
    await daily(database, team, 10 * USD, 40)
    (stands,) = await standing(database, await budget(database, team, 260 * USD))
    # 23 days of November, without today; seven to come at ten dollars.
    assert stands.spent_nanousd == 230 * USD
    assert sum(amount for _, amount in stands.days) == 230 * USD
    assert stands.forecast_nanousd == 300 * USD
    assert (stands.state, stands.spent_percent) == ("warned", 88.5)
    # Ten more today, ten tomorrow, ten on the 26th.
    assert stands.exhausted_at_ms == ms(2026, 11, 27)
    assert (stands.start_ms, stands.end_ms) == (ms(2026, 11, 1), ms(2026, 12, 1))


async def test_it_lasts(database, team):
    await daily(database, team, 10 * USD, 40)
    (stands,) = await standing(database, await budget(database, team, 1000 * USD))
    assert (stands.state, stands.exhausted_at_ms, stands.forecast_nanousd) == ("ok", None, 300 * USD)


async def test_it_is_spent(database, team):
    await daily(database, team, 10 * USD, 40)
    (stands,) = await standing(database, await budget(database, team, 205 * USD))
    assert (stands.state, stands.left_nanousd) == ("exhausted", 0)
    # The twenty-first day, half of it.
    assert stands.exhausted_at_ms == ms(2026, 11, 21, 12)


async def test_early_days(database, team):
    await daily(database, team, 10 * USD, 5)
    (stands,) = await standing(database, await budget(database, team, 60 * USD))
    assert (stands.spent_nanousd, stands.forecast_nanousd, stands.exhausted_at_ms) == (50 * USD, None, None)


async def test_windows_of_every_kind(database, team):
    await daily(database, team, 10 * USD, 60)
    await write_batch(database, [spent(at(TODAY), 3 * USD, team_id=team)])
    rows = [await budget(database, team, 10_000 * USD, window) for window in ("day", "week", "month", "total")]
    day, week, month, total = await standing(database, *rows)
    assert (day.spent_nanousd, day.forecast_nanousd) == (3 * USD, 10 * USD)
    assert (week.spent_nanousd, week.forecast_nanousd, len(week.days)) == (13 * USD, 70 * USD, 2)
    assert month.spent_nanousd == 233 * USD
    assert (total.spent_nanousd, total.forecast_nanousd, total.end_ms) == (603 * USD, None, None)
    assert total.start_ms == ms(2026, 9, 25)
    # 9397 dollars left, seven of them today, at ten a day: later than a year from now.
    assert total.exhausted_at_ms is None
    (sooner_gone,) = await standing(database, await budget(database, team, 700 * USD, "total", key_id="key0000001"))
    assert sooner_gone.exhausted_at_ms == ms(2026, 12, 4)


async def test_the_counter_is_believed(database, team):
    row = await budget(database, team, 100 * USD)
    start_ms = start_of_window(row.rule, NOW_MS)
    window = BudgetWindow(row.rule.id, start_ms)
    await write_batch(database, [spent(at(TODAY), 7 * USD, team_id=team, budgets=(window,))])
    (stands,) = await standing(database, row)
    assert stands.spent_nanousd == 7 * USD
    async with database.transaction() as connection:
        assert (await read_budgets(connection, [(team, window)]))[window][0] == 7 * USD


async def test_budgets_of_keys_models_and_tags(database, team):
    await write_batch(
        database,
        [
            spent(at(TODAY), 1 * USD, team_id=team, key_id="other00001"),
            spent(at(TODAY), 2 * USD, team_id=team, model="gpt-5.6"),
            spent(at(TODAY), 4 * USD, team_id=team, tags={"project": "a"}),
            spent(at(TODAY), 8 * USD, team_id=team, tags={"project": "b"}),
            spent(at(TODAY), 16 * USD, team_id="another", key_id="other00002"),
        ],
    )
    key = await budget(database, team, 100 * USD, key_id="key0000001")
    model = await budget(database, team, 100 * USD, model="gpt-5*")
    tag = await budget(database, team, 100 * USD, tag_name="project", tag_value="b")
    whole = await budget(database, team, 100 * USD)
    found = await standing(database, key, model, tag, whole)
    assert [stands.spent_nanousd for stands in found] == [14 * USD, 2 * USD, 8 * USD, 15 * USD]
    assert [stands.days[-1][1] for stands in found] == [14 * USD, 2 * USD, 8 * USD, 15 * USD]


async def test_each_value_of_a_tag(database, team):
    row = await budget(database, team, 10 * USD, tag_name="project")
    start_ms = start_of_window(row.rule, NOW_MS)
    windows = {value: BudgetWindow(f"{row.rule.id}:{value}", start_ms) for value in "ab"}
    await write_batch(
        database,
        [
            spent(at(TODAY), amount * USD, team_id=team, tags={"project": value}, budgets=(windows[value],))
            for value, amount in (("a", 4), ("b", 9))
        ],
    )
    (stands,) = await standing(database, row)
    assert [(each.tag_value, each.spent_percent) for each in stands.values or ()] == [("b", 90.0), ("a", 40.0)]
    assert (stands.spent_nanousd, stands.state, stands.days[-1][1]) == (9 * USD, "warned", 9 * USD)


async def test_values_of_a_tag_without_counters_are_told_by_the_bill(database, team):
    """A budget that was just made: the first request of each value makes its counter, with what was spent before."""
    await write_batch(
        database,
        [
            spent(ms(2026, 10, 31), 16 * USD, team_id=team, tags={"project": "a"}),
            spent(at(TODAY), 1 * USD, team_id=team, tags={"project": "a"}),
            spent(at(TODAY), 2 * USD, team_id=team, tags={"project": "b"}, model="gpt-5.6", key_id="other00001"),
            spent(at(TODAY), 4 * USD, team_id=team, tags={"project": "b", "env": "c"}),
            spent(at(TODAY), 8 * USD, team_id=team),
            spent(at(TODAY), 0, team_id=team, tags={"project": "d"}),
        ],
    )
    rows = [
        await budget(database, team, 10 * USD, made_ms=NOW_MS, tag_name="project"),
        await budget(database, team, 10 * USD, "total", made_ms=NOW_MS, tag_name="project"),
        await budget(database, team, 10 * USD, made_ms=NOW_MS, tag_name="project", key_id="key0000001"),
        await budget(database, team, 10 * USD, made_ms=NOW_MS, tag_name="project", model="gpt-4*"),
        await budget(database, team, 10 * USD, made_ms=NOW_MS, tag_name="project", model="gpt-4*", key_id="key0000001"),
    ]
    wanted = [
        {"b": 6 * USD, "a": 1 * USD},
        {"a": 17 * USD, "b": 6 * USD},
        {"b": 4 * USD, "a": 1 * USD},
        {"b": 4 * USD, "a": 1 * USD},
        {"b": 4 * USD, "a": 1 * USD},
    ]
    async with database.read() as connection:
        found = await spent_by_rule(connection, rows, NOW_MS)
    assert [list(found[row.rule.id].items()) for row in rows] == [list(values.items()) for values in wanted]
    for row, values in zip(rows, wanted, strict=True):
        start_ms = start_of_window(row.rule, NOW_MS)
        windows = [(team, BudgetWindow(f"{row.rule.id}:{value}", start_ms)) for value in values]
        async with database.transaction() as connection:
            counters = await read_budgets(connection, windows)
        assert {window.budget_id.partition(":")[2]: spent for window, (spent, _) in counters.items()} == values
    async with database.read() as connection:
        assert await spent_by_rule(connection, rows, NOW_MS) == found


async def test_days_are_those_of_the_budgets_zone(database, team):
    # Half past eleven in the evening of the last of October in UTC is November in Berlin.
    await write_batch(database, [spent(ms(2026, 10, 31, 23, 30), 5 * USD, team_id=team)])
    row = await budget(database, team, 100 * USD, time_zone="Europe/Berlin")
    (stands,) = await standing(database, row)
    assert stands.start_ms == ms(2026, 10, 31, 23)
    assert stands.days[0] == (date(2026, 11, 1), 5 * USD)
    assert stands.spent_nanousd == 5 * USD


async def test_many_at_once_are_each_themselves(database):
    rows = []
    for number in range(12):
        async with database.transaction() as connection:
            team = await create_team(connection, name=f"t{number}", now_ms=1)
        await write_batch(database, [spent(at(TODAY), number * USD, team_id=team.id, key_id=f"k{number}")])
        zone = ("UTC", "Europe/Berlin", "Asia/Kathmandu")[number % 3]
        rows.append(await budget(database, team.id, 11 * USD, time_zone=zone))
    found = await standing(database, *rows)
    assert [stands.spent_nanousd for stands in found] == [number * USD for number in range(12)]
    assert min(found, key=sooner).spent_nanousd == 11 * USD


async def test_without_counters_the_bill_tells(database, team):
    await write_batch(database, [spent(at(TODAY), 3 * USD, team_id=team), spent(ms(2026, 10, 31), USD, team_id=team)])
    rows = [
        await budget(database, team, USD),
        await budget(database, team, USD, "total"),
        await budget(database, team, USD, "week", key_id="key0000001"),
        await budget(database, team, USD, key_id="key0000001", model="gpt*"),
        await budget(database, team, USD, tag_name="project"),
    ]
    async with database.read() as connection:
        found = await spent_by_rule(connection, rows, NOW_MS)
    assert [found[row.rule.id] for row in rows] == [
        {None: 3 * USD},
        {None: 4 * USD},
        {None: 3 * USD},
        {None: 3 * USD},
        {},
    ]


async def test_only_those_that_are_near(database, team):
    await write_batch(database, [spent(at(TODAY), 9 * USD, team_id=team)])
    far, near = await budget(database, team, 11 * USD), await budget(database, team, 10 * USD, "week")
    async with database.read() as connection:
        found = await stand_near(connection, [far, near], NOW_MS, 90.0)
    assert [stands.row for stands in found] == [near]
