"""Counters of budgets: what a window counts, where it begins, and what becomes of it in a crowd."""

from __future__ import annotations

import asyncio
import random
from datetime import datetime
from zoneinfo import ZoneInfo

import msgspec
import pytest
from sqlalchemy import delete, insert, select, update

from app.core.calendar import FOREVER_MS, window_of
from app.core.identity import LimitRule
from app.core.ids import new_request_id
from app.core.records import BudgetWindow
from app.store import budgets as budgets_module
from app.store.batch import write_batch
from app.store.budgets import read_budgets, spent_in_history
from app.store.database import Database
from app.store.proof import prove
from app.store.prune import prune
from app.store.tables import budgets, limits, teams
from tests.contract.store.samples import NOON_MS, entry_of, record_of

DAY_MS = 86_400_000
MIDNIGHT_MS = NOON_MS - NOON_MS % DAY_MS
TEAM = "team000001"
KEY = "key0000001"


async def set_rule(database, rule, *, team_id=TEAM, now_ms=NOON_MS):
    """A team's rule as a row, with the id that a test gives it."""
    async with database.transaction() as connection:
        if (await connection.execute(select(teams).where(teams.c.id == team_id))).first() is None:
            await connection.execute(insert(teams).values(id=team_id, name=team_id, created_at_ms=1, changed=1))
        values = msgspec.structs.asdict(rule) | {"team_id": team_id, "key_id": None, "created_at_ms": now_ms}
        await connection.execute(insert(limits).values(values))


def rule_of(rule_id, window="day", **changes):
    return LimitRule(id=rule_id, kind="money", maximum=10**12, window=window, **changes)


def costing(nanousd, *windows, at_ms=NOON_MS, **changes):
    request_id = new_request_id(at_ms)
    entries = (entry_of(request_id, cost_nanousd=nanousd),)
    return record_of(request_id, at_ms=at_ms, budgets=tuple(windows), entries=entries, **changes)


async def counters(database):
    async with database.read() as connection:
        rows = (await connection.execute(select(budgets))).mappings().all()
    return {
        BudgetWindow(row["budget_id"], row["start_ms"]): (row["spent_nanousd"], row["seeded_nanousd"], row["version"])
        for row in rows
    }


async def assert_proved(database):
    async with database.read() as connection:
        proof = await prove(connection)
    assert proof.holds, msgspec.to_builtins(proof)
    return proof


async def history(database, window):
    async with database.read() as connection:
        return await spent_in_history(connection, window.budget_id, window.start_ms)


async def read(database, *windows, team_id=TEAM):
    async with database.transaction() as connection:
        return await read_budgets(connection, [(team_id, window) for window in windows])


async def test_money_counts_in_every_window_that_its_record_names(database):
    day, month = BudgetWindow("day", MIDNIGHT_MS), BudgetWindow("month", 0)
    first = await write_batch(database, [costing(5, day, month), costing(7, day), costing(11)])
    assert first.budgets == {day: (12, 1), month: (5, 1)}
    second = await write_batch(database, [costing(100, day)])
    assert second.budgets == {day: (112, 2)}
    assert await counters(database) == {day: (112, 0, 2), month: (5, 0, 1)}
    assert (await assert_proved(database)).budgets == 2


async def test_a_batch_that_names_no_budget_touches_none(database):
    assert (await write_batch(database, [costing(5)])).budgets == {}
    assert await counters(database) == {}


async def test_a_window_without_new_money_is_read_and_its_version_stays(database):
    day, other = BudgetWindow("day", MIDNIGHT_MS), BudgetWindow("other", 0)
    record = costing(5, day)
    await write_batch(database, [record])
    for quiet in (record, costing(0, day), costing(None, day)):
        assert (await write_batch(database, [quiet])).budgets == {day: (5, 1)}
    # One that is not there yet is made, so that it has a version.
    assert (await write_batch(database, [costing(0, day, other)])).budgets == {day: (5, 1), other: (0, 1)}
    assert (await write_batch(database, [costing(0, day, other)])).budgets == {day: (5, 1), other: (0, 1)}
    await assert_proved(database)


async def test_windows_of_one_budget_are_counted_apart(database):
    today, tomorrow = BudgetWindow("b", MIDNIGHT_MS), BudgetWindow("b", MIDNIGHT_MS + DAY_MS)
    await write_batch(database, [costing(5, today), costing(7, tomorrow, at_ms=NOON_MS + DAY_MS)])
    assert await read(database, today, tomorrow) == {today: (5, 1), tomorrow: (7, 1)}


async def test_a_budget_that_is_set_in_its_window_begins_with_what_was_spent(database):
    at_ms = MIDNIGHT_MS + 1
    await write_batch(database, [costing(1, at_ms=at_ms - 2), costing(20, at_ms=at_ms), costing(300, team_id="other")])
    await set_rule(database, rule_of("b"))
    day = BudgetWindow("b", MIDNIGHT_MS)
    written = await write_batch(database, [costing(4_000, day), costing(50_000, day), costing(600_000, at_ms=at_ms)])
    # What does not name it had not heard of it: the row does.
    assert written.budgets == {day: (654_020, 1)}
    assert await counters(database) == {day: (654_020, 20, 1)}
    await write_batch(database, [costing(7, day)])
    assert await counters(database) == {day: (654_027, 20, 2)}
    await assert_proved(database)
    assert await history(database, day) == 654_027


async def test_a_counter_that_is_read_first_begins_with_what_was_spent(database):
    await write_batch(database, [costing(20), costing(300, team_id="other")])
    await set_rule(database, rule_of("b", "month"))
    month = BudgetWindow("b", window_of("month", "UTC", NOON_MS)[0])
    assert await read(database, month) == {month: (20, 1)}
    assert await read(database, month, BudgetWindow("gone", 0)) == {month: (20, 1), BudgetWindow("gone", 0): (0, 1)}
    assert (await write_batch(database, [costing(5, month)])).budgets == {month: (25, 2)}
    assert await read(database) == {}
    await assert_proved(database)


@pytest.mark.parametrize(
    ("rule", "budget_id", "expected"),
    [
        (rule_of("b"), "b", 0b11111111),
        (rule_of("b", model="gpt-4*"), "b", 0b00001111),
        (rule_of("b", model="gpt-4?1"), "b", 0b00000011),
        (rule_of("b", model="o4"), "b", 0b01110000),
        (rule_of("b", tag_name="project", tag_value="search"), "b", 0b00010101),
        (rule_of("b", tag_name="project"), "b:search", 0b00010101),
        (rule_of("b", tag_name="project"), "b:a:b", 0b00100000),
        (rule_of("b", tag_name="project"), "b:nothing", 0),
        (rule_of("b", tag_name="project", model="gpt-4.1"), "b:search", 0b00000001),
        (rule_of("b", tag_name="project", tag_value="Search"), "b", 0),
        (rule_of("b", tag_name="my", tag_value="project"), "b", 0b00001000),
    ],
)
async def test_what_a_budget_for_models_or_tags_finds_in_history(database, rule, budget_id, expected):
    """Each request costs a bit of its own."""
    of_models = ["gpt-4.1", "gpt-4.1", "gpt-4.1-mini", "gpt-4o", "o4", "o4", "o4", "GPT-4.1"]
    of_tags = [
        {"project": "search"},
        {"myproject": "search"},
        {"env": "prod", "project": "search", "z": "1"},
        {"my": "project"},
        {"project": "search"},
        {"project": "a:b"},
        {"project": "searching", "x": "search"},
        {},
    ]
    pairs = zip(of_models, of_tags, strict=True)
    await write_batch(
        database,
        [costing(1 << bit, model_requested=model, tags=tags) for bit, (model, tags) in enumerate(pairs)],
    )
    await write_batch(database, [costing(10**6, at_ms=NOON_MS - DAY_MS, model_requested="gpt-4.1")])
    await set_rule(database, rule)
    day = BudgetWindow(budget_id, MIDNIGHT_MS)
    assert await history(database, day) == expected
    assert (await read(database, day))[day] == (expected, 1)
    await assert_proved(database)


async def test_a_rule_of_a_key_counts_that_key(database):
    await write_batch(database, [costing(5), costing(70, key_id="k2"), costing(900, key_id="k2", model_requested="o4")])
    async with database.transaction() as connection:
        await connection.execute(insert(teams).values(id=TEAM, name="t", created_at_ms=1, changed=1))
        await connection.exec_driver_sql(
            "INSERT INTO keys (id, team_id, name, created_at_ms, changed) VALUES ('k2', 'team000001', 'k', 1, 1)"
        )
        for rule in (rule_of("plain"), rule_of("models", model="o*")):
            values = msgspec.structs.asdict(rule) | {"team_id": TEAM, "key_id": "k2", "created_at_ms": NOON_MS}
            await connection.execute(insert(limits).values(values))
    plain, models = BudgetWindow("plain", MIDNIGHT_MS), BudgetWindow("models", MIDNIGHT_MS)
    assert await read(database, plain, models) == {plain: (970, 1), models: (900, 1)}
    assert (await history(database, plain), await history(database, models)) == (970, 900)


async def test_defaults_of_the_configuration_count_their_owner(database):
    await write_batch(database, [costing(5), costing(70, key_id="k2"), costing(900, team_id="t2", key_id="k3")])
    month_ms = window_of("month", "Europe/Berlin", NOON_MS)[0]
    of_key = BudgetWindow(f"default.key.budget_usd_per_month.Europe/Berlin:{KEY}", month_ms)
    of_team = BudgetWindow(f"default.team.budget_usd_per_month.Europe/Berlin:{TEAM}", month_ms)
    of_all_time = BudgetWindow("default.key.budget_usd_total.UTC:k3", 0)
    found = await read(database, of_key, of_team, of_all_time)
    assert found == {of_key: (5, 1), of_team: (75, 1), of_all_time: (900, 1)}
    assert await history(database, of_team) == 75
    written = await write_batch(database, [costing(10, of_key, of_team)])
    assert written.budgets == {of_key: (15, 2), of_team: (85, 2)}
    await assert_proved(database)


@pytest.mark.parametrize("budget_id", ["gone", "gone:value", "default.key.budget_usd_per_day.No/Where:k"])
async def test_of_a_rule_that_is_gone_nothing_is_found_and_its_requests_still_count(database, budget_id):
    await write_batch(database, [costing(20)])
    day = BudgetWindow(budget_id, MIDNIGHT_MS)
    assert await history(database, day) == 0
    assert (await write_batch(database, [costing(5, day)])).budgets == {day: (5, 1)}
    await assert_proved(database)


@pytest.mark.parametrize(
    ("window", "time_zone", "first", "end"),
    [
        ("day", "Asia/Kolkata", (2026, 11, 20), (2026, 11, 21)),
        ("day", "Pacific/Chatham", (2026, 11, 21), (2026, 11, 22)),
        ("day", "America/New_York", (2026, 11, 20), (2026, 11, 21)),
        ("week", "Asia/Kolkata", (2026, 11, 16), (2026, 11, 23)),
        ("month", "America/New_York", (2026, 11, 1), (2026, 12, 1)),
        ("month", "Australia/Lord_Howe", (2026, 11, 1), (2026, 12, 1)),
    ],
)
async def test_windows_begin_and_end_with_their_time_zone(database, window, time_zone, first, end):
    """In New York clocks change in November: that month is an hour longer."""
    zone = ZoneInfo(time_zone)
    start_ms = int(datetime(*first, tzinfo=zone).timestamp() * 1000)
    end_ms = int(datetime(*end, tzinfo=zone).timestamp() * 1000)
    assert window_of(window, time_zone, NOON_MS) == (start_ms, end_ms)
    inside = [costing(1, at_ms=start_ms), costing(2), costing(4, at_ms=end_ms - 1)]
    outside = [costing(8, at_ms=start_ms - 1), costing(16, at_ms=end_ms)]
    await write_batch(database, [*inside, *outside])
    await set_rule(database, rule_of("plain", window, time_zone=time_zone), now_ms=end_ms)
    await set_rule(database, rule_of("models", window, time_zone=time_zone, model="*"), now_ms=end_ms)
    plain, models = BudgetWindow("plain", start_ms), BudgetWindow("models", start_ms)
    assert await read(database, plain, models) == {plain: (7, 1), models: (7, 1)}
    assert (await history(database, plain), await history(database, models)) == (7, 7)


async def test_a_budget_without_end_counts_everything(database):
    await write_batch(database, [costing(1, at_ms=1_000_000), costing(2), costing(4, at_ms=NOON_MS * 2)])
    await set_rule(database, rule_of("plain", "total"))
    await set_rule(database, rule_of("models", "total", model="gpt*"), now_ms=NOON_MS * 3)
    plain, models = BudgetWindow("plain", 0), BudgetWindow("models", 0)
    assert await read(database, plain, models) == {plain: (7, 1), models: (7, 1)}
    assert FOREVER_MS > NOON_MS * 2


async def test_where_a_rule_is_older_than_the_window_history_is_not_searched(database, monkeypatch):
    """All that it counts names it: else the first request of each new tag would read the whole day."""
    await set_rule(database, rule_of("b", tag_name="user"), now_ms=MIDNIGHT_MS - DAY_MS)
    asked = []
    real = budgets_module._spent
    monkeypatch.setattr(
        budgets_module, "_spent", lambda spans, **more: asked.append(dict(spans)) or real(spans, **more)
    )
    written = await write_batch(database, [costing(5, BudgetWindow("b:ann", MIDNIGHT_MS), tags={"user": "ann"})])
    assert written.budgets == {BudgetWindow("b:ann", MIDNIGHT_MS): (5, 1)}
    assert asked == [{}]


async def test_a_tampered_counter_is_found(database):
    day, other = BudgetWindow("day", MIDNIGHT_MS), BudgetWindow("other", MIDNIGHT_MS)
    await write_batch(database, [costing(5, day), costing(7, day, other)])
    await assert_proved(database)
    async with database.transaction() as connection:
        await connection.execute(update(budgets).where(budgets.c.budget_id == "day").values(spent_nanousd=13))
        await connection.execute(delete(budgets).where(budgets.c.budget_id == "other"))
    async with database.read() as connection:
        proof = await prove(connection)
    assert (proof.holds, proof.budgets_different) == (False, 2)
    assert [(each.budget_id, each.excess_nanousd) for each in proof.budget_differences] == [("day", 1), ("other", -7)]


async def test_what_was_pruned_is_not_missed(database):
    day, total, next_day = BudgetWindow("d", MIDNIGHT_MS), BudgetWindow("t", 0), BudgetWindow("d", MIDNIGHT_MS + DAY_MS)
    await write_batch(database, [costing(5, day, total)])
    await write_batch(database, [costing(7, next_day, total, at_ms=NOON_MS + DAY_MS)])
    await prune(database, MIDNIGHT_MS + DAY_MS)
    proof = await assert_proved(database)
    assert (proof.records, proof.budgets, proof.pruned_before_ms) == (1, 3, MIDNIGHT_MS + DAY_MS)
    # What is still there is checked as before.
    async with database.transaction() as connection:
        await connection.execute(update(budgets).values(spent_nanousd=1))
    async with database.read() as connection:
        assert [each.start_ms for each in (await prove(connection)).budget_differences] == [next_day.start_ms]


@pytest.fixture
async def rivals(database_url):
    databases = [await Database.open(database_url, connections_max=4) for _ in range(3)]
    yield databases
    for each in databases:
        await each.close()


@pytest.mark.parametrize("model", [None, "gpt*"])
async def test_a_counter_that_many_make_at_once_counts_everything_once(database, rivals, model):
    """Writers whose records name a window, readers that seed it, and nobody has made its row yet."""
    chance = random.Random(str(model))
    for turn in range(25):
        rule_id = f"b{turn}"
        team_id = f"t{turn}"
        before = [costing(chance.randrange(1000), team_id=team_id) for _ in range(4)]
        await write_batch(database, before)
        await set_rule(database, rule_of(rule_id, model=model), team_id=team_id)
        day = BudgetWindow(rule_id, MIDNIGHT_MS)
        # Each of a key of its own, so that writers do not wait for each other at a rollup already.
        batches = [
            [costing(chance.randrange(1000), day, team_id=team_id, key_id=f"k{number}") for _ in range(3)]
            for number in range(5)
        ]

        async def write(number, records):
            await asyncio.sleep(chance.random() * 0.003)
            return (await write_batch(rivals[number % 3], records)).budgets

        async def seed(number, window=day, owner=team_id):
            await asyncio.sleep(chance.random() * 0.003)
            return await read(rivals[number % 3], window, team_id=owner)

        jobs = [write(number, records) for number, records in enumerate(batches)]
        async with asyncio.timeout(30):
            found = await asyncio.gather(*jobs, *[seed(number) for number in range(3)])
        seeded = sum(record.entries[0].cost_nanousd for record in before)
        named = sum(record.entries[0].cost_nanousd for records in batches for record in records)
        spent, seed_nanousd, version = (await counters(database))[day]
        assert (spent, seed_nanousd) == (seeded + named, seeded)
        # A version is one value, whoever was told of it.
        values = {}
        for value, number in [each[day] for each in found]:
            assert values.setdefault(number, value) == value
        assert [values[number] for number in sorted(values)] == sorted(values.values())
        assert values[max(values)] == spent and max(values) == version
        await assert_proved(database)


async def test_writers_of_many_windows_in_any_order_neither_lose_nor_deadlock(database, rivals, conflicts):
    """Windows that are there and windows that are not, with money and without."""
    chance = random.Random(7)
    windows = [BudgetWindow(f"b{number:02}", MIDNIGHT_MS) for number in range(30)]
    expected = dict.fromkeys(windows, 0)

    async def write(number):
        for _ in range(8):
            records = []
            for _ in range(10):
                named = tuple(chance.sample(windows, 6))
                nanousd = chance.choice([0, 0, None, 5, 1000])
                for window in named:
                    expected[window] += nanousd or 0
                # Of a key of its own: writers are to meet at the counters, not at the rollups before.
                records.append(costing(nanousd, *named, key_id=f"k{number}"))
            await write_batch(rivals[number % 3], records)
            await read(rivals[number % 3], *chance.sample(windows, 5))

    async with asyncio.timeout(60):
        await asyncio.gather(*[write(number) for number in range(12)])
    assert conflicts == []
    assert {window: spent for window, (spent, _, _) in (await counters(database)).items()} == expected
    await assert_proved(database)
