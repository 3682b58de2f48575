"""Requests that ran while a budget was made: they are of it, whichever is written first, their record or its counter."""

from __future__ import annotations

import pytest
from sqlalchemy import insert, select

from app.core.records import BudgetWindow
from app.store.batch import write_batch
from app.store.budgets import SETTLING_MS
from app.store.tables import keys, limits, records, teams
from tests.contract.store.samples import NOON_MS, entry_of, record_of
from tests.contract.store.test_budgets import (
    KEY,
    MIDNIGHT_MS,
    TEAM,
    assert_proved,
    costing,
    counters,
    history,
    read,
    rule_of,
    set_rule,
)

DAY = BudgetWindow("b", MIDNIGHT_MS)
TAGGED = {"tags": {"project": "search", "env": "prod"}, "model_requested": "gpt-4.1"}


def spent_of(found):
    return {window: spent for window, (spent, _, _) in found.items()}


@pytest.mark.parametrize(
    ("rule", "budget_id"),
    [
        (rule_of("b"), "b"),
        (rule_of("b", model="gpt-4*"), "b"),
        (rule_of("b", tag_name="env", tag_value="prod"), "b"),
        (rule_of("b", tag_name="project"), "b:search"),
        (rule_of("b", tag_name="project", model="gpt-4.1"), "b:search"),
    ],
)
async def test_a_record_that_comes_after_the_counter_counts_once(database, rule, budget_id):
    window = BudgetWindow(budget_id, MIDNIGHT_MS)
    await write_batch(database, [costing(1, **TAGGED)])
    await set_rule(database, rule)
    assert await read(database, window) == {window: (1, 1)}
    ran = [costing(20, at_ms=NOON_MS - 60_000, **TAGGED), costing(300, at_ms=NOON_MS + 900, **TAGGED)]
    heard = costing(4_000, window, at_ms=NOON_MS + 2000, **TAGGED)
    assert (await write_batch(database, [ran[0], heard])).budgets == {window: (4_021, 2)}
    await write_batch(database, [ran[1]])
    for _ in range(2):
        # As a journal that is replayed.
        await write_batch(database, [*ran, heard])
    assert spent_of(await counters(database)) == {window: 4_321}
    assert await history(database, window) == 4_321
    await assert_proved(database)


async def test_what_the_budget_does_not_count_does_not_name_it(database):
    others = [
        costing(1, team_id="other", **TAGGED),
        costing(2, **{**TAGGED, "model_requested": "o4"}),
        costing(3, **{**TAGGED, "tags": {"project": "search"}}),
        costing(4, **{**TAGGED, "tags": {"env": "dev"}}),
        costing(5, at_ms=NOON_MS + SETTLING_MS, **TAGGED),
        costing(0, **TAGGED),
    ]
    await set_rule(database, rule_of("b", model="gpt-4*", tag_name="env", tag_value="prod"))
    await write_batch(database, others)
    assert await counters(database) == {}
    async with database.read() as connection:
        assert set((await connection.execute(select(records.c.budgets))).scalars()) == {"[]"}


async def test_a_keys_budget_is_of_that_key(database):
    await set_rule(database, rule_of("team"))
    async with database.transaction() as connection:
        await connection.execute(insert(keys).values(id=KEY, team_id=TEAM, name="k", created_at_ms=1, changed=1))
        rule = {"id": "key", "kind": "money", "maximum": 1, "window": "day", "time_zone": "UTC", "policy": "strict"}
        given = {"mode": "enforce", "bound": "maximum", "team_id": TEAM, "key_id": KEY, "created_at_ms": NOON_MS}
        await connection.execute(insert(limits).values(rule | given))
    team, key = BudgetWindow("team", MIDNIGHT_MS), BudgetWindow("key", MIDNIGHT_MS)
    await read(database, team, key)
    await write_batch(database, [costing(5, key_id=KEY), costing(70, key_id="another001")])
    assert spent_of(await counters(database)) == {team: 75, key: 5}
    await assert_proved(database)


async def test_a_correction_goes_where_the_estimate_went(database):
    await set_rule(database, rule_of("b"))
    await read(database, DAY)
    guess = record_of(at_ms=NOON_MS)
    estimate = entry_of(guess.request_id, kind="estimate", cost_nanousd=500)
    exact = entry_of(guess.request_id, cost_nanousd=120)
    for entry, spent in ((estimate, 500), (exact, 120)):
        await write_batch(database, [record_of(guess.request_id, at_ms=NOON_MS, entries=(entry,))])
        assert spent_of(await counters(database)) == {DAY: spent}
    await assert_proved(database)


async def test_budgets_of_teams_in_one_batch_stay_apart(database):
    for number in range(5):
        await set_rule(database, rule_of(f"b{number}"), team_id=f"t{number}")
    await write_batch(database, [costing(10**number, team_id=f"t{number}") for number in range(5)])
    found = spent_of(await counters(database))
    assert found == {BudgetWindow(f"b{number}", MIDNIGHT_MS): 10**number for number in range(5)}
    async with database.read() as connection:
        assert len((await connection.execute(select(teams.c.id))).all()) == 5
