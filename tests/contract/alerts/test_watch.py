"""Each change of state is told once: by one process of several, over restarts, whatever comes in between."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from sqlalchemy import update

from app.alerts import watch as watching
from app.core.identity import LimitRule, Principal
from app.core.records import BudgetWindow
from app.limits.policy import Policy
from app.settings import LimitDefaults, LimitValues
from app.store.alert_rules import (
    AlertBlock,
    AlertRuleChanges,
    block_alert_target,
    remove_alert_rule,
    update_alert_rule,
)
from app.store.alert_states import end_alerts_of_rule
from app.store.batch import write_batch
from app.store.database import Database
from app.store.keys import revoke_key
from app.store.limits import LimitChanges, add_limit, update_limit
from app.store.refusals import RefusalRow, keep_refusals
from app.store.tables import alert_states
from tests.contract.alerts.watching import CLOCK, DAY_MS, Ledger, Process, webhook
from tests.contract.store.samples import entry_of, record_of

USD = 10**9
ALL = watching.SLOW_EVERY
"""So many looks see everything."""


@pytest.fixture
async def ledger(database):
    return Ledger(database)


@pytest.fixture
async def process(database):
    process = Process(database, webhook("ops"), webhook("mail"))
    yield process
    await process.close()


async def spend(database: Database, key: Any, nanousd: int | None, *, at_ms: int | None = None, **changes: Any) -> None:
    at_ms = CLOCK.now_ms() if at_ms is None else at_ms
    record = record_of(at_ms=at_ms, team_id=key.team_id, key_id=key.id, **changes)
    entry = entry_of(record.request_id, cost_nanousd=nanousd)
    await write_batch(database, [record_of(**{**_fields(record), "entries": (entry,)})])


def _fields(record: Any) -> dict[str, Any]:
    return {name: getattr(record, name) for name in record.__struct_fields__ if name != "admitted_at_ms"} | {
        "at_ms": record.admitted_at_ms
    }


# -- once -------------------------------------------------------------------------------------


async def test_an_alert_is_told_once_to_every_target_and_again_when_it_is_over(ledger, process):
    await ledger.only("key.expiring")
    key = await ledger.key("ci", days=6.5)
    await process.look(2 * ALL)
    assert await ledger.told() == [("firing", 1, "ci")] * 2
    assert {each.target for each in await ledger.deliveries()} == {"ops", "mail"}
    assert process.watch.firing[-1] == ("key.expiring", 1.0)
    # A day before it is told again, as the same alert.
    await ledger.extend(key.id, 0.9)
    await process.look(2 * ALL)
    assert (await ledger.told())[2:] == [("firing", 2, "ci")] * 2
    (alert,) = await ledger.firing()
    assert (alert.severity, {each.alert_id for each in await ledger.deliveries()}) == ("bad", {alert.id})
    # More time, but not enough: nothing new.
    await ledger.extend(key.id, 5)
    await process.look(2 * ALL)
    assert len(await ledger.told()) == 4
    await ledger.extend(key.id, 90)
    await process.look(2 * ALL)
    assert (await ledger.told())[4:] == [("resolved", 1, "ci")] * 2
    (over,) = await ledger.resolved()
    assert (over.id, over.reason) == (alert.id, "extended_or_revoked")
    assert process.watch.firing[-1] == ("key.expiring", 0.0)


async def test_nothing_is_sent_where_nobody_is_to_be_told_and_it_is_open_all_the_same(ledger, database):
    process = Process(database)
    await ledger.only("key.expiring")
    await ledger.key("ci", days=1)
    await process.look(ALL)
    assert len(await ledger.firing()) == 1
    assert await ledger.deliveries() == []
    await process.close()


async def test_only_those_are_told_that_the_rule_names_and_that_want_it(ledger, process):
    rule = await ledger.only("key.expiring", targets=("mail", "unknown", "ops"))
    async with ledger.database.transaction() as connection:
        await block_alert_target(connection, AlertBlock(rule.id, "ops", "HTTP 410", 1))
    await ledger.key("ci", days=1)
    await process.look(ALL)
    assert [each.target for each in await ledger.deliveries()] == ["mail"]


async def test_a_rule_of_one_team_is_about_that_team(ledger, process):
    mine = await ledger.key("mine", days=1)
    await ledger.key("other", days=1)
    await ledger.only("key.expiring", team_id=mine.team_id, targets=("ops",))
    await process.look(ALL)
    assert await ledger.told() == [("firing", 2, "mine")]


async def test_state_is_in_the_ledger_and_survives_every_process(ledger, database):
    await ledger.only("key.expiring", targets=("ops",))
    key = await ledger.key("ci", days=1)
    for _ in range(3):
        process = Process(database, webhook("ops"))
        await process.look(ALL)
        await process.close()
    assert await ledger.told() == [("firing", 2, "ci")]
    async with database.transaction() as connection:
        await revoke_key(connection, key.id, now_ms=1)
    process = Process(database, webhook("ops"))
    await process.look(ALL)
    await process.close()
    assert (await ledger.told())[1:] == [("resolved", 2, "ci")]


async def test_of_several_processes_that_look_at_once_one_tells(ledger, database_url):
    await ledger.only("key.expiring", targets=("ops",))
    await ledger.key("ci", days=1)
    databases = [await Database.open(database_url) for _ in range(4)]
    processes = [Process(each, webhook("ops")) for each in databases]
    for _ in range(ALL):
        await asyncio.gather(*[process.look() for process in processes])
    assert sum(process.watch.is_on_duty() for process in processes) == 1
    assert await ledger.told() == [("firing", 2, "ci")]
    (on_duty,) = [process for process in processes if process.watch.is_on_duty()]
    others = [process for process in processes if process is not on_duty]
    # It is killed: nothing is let go of, and after a while another one goes on.
    await others[0].look()
    assert not others[0].watch.is_on_duty()
    await ledger.end_lease()
    await asyncio.gather(*[process.look() for process in others])
    assert sum(process.watch.is_on_duty() for process in others) == 1
    assert await ledger.told() == [("firing", 2, "ci")]
    for process in processes:
        await process.close()
    for each in databases:
        await each.close()


async def test_one_that_was_paused_while_another_took_over_writes_nothing(ledger, database, monkeypatch):
    """It has looked before its pause, and would tell now what has been told and is over."""
    await ledger.only("key.expiring", targets=("ops",))
    key = await ledger.key("ci", days=1)
    slow, quick = Process(database, webhook("ops")), Process(database, webhook("ops"))
    real = watching.look
    looked, go_on = asyncio.Event(), asyncio.Event()

    async def pausing(*arguments: Any) -> Any:
        found = await real(*arguments)
        if not looked.is_set():
            looked.set()
            await go_on.wait()
        return found

    monkeypatch.setattr(watching, "look", pausing)
    paused = asyncio.create_task(slow.look())
    await looked.wait()
    await ledger.end_lease()
    await quick.look()
    await ledger.extend(key.id, 90)
    await quick.look(ALL)
    assert await ledger.told() == [("firing", 2, "ci"), ("resolved", 2, "ci")]
    go_on.set()
    await paused
    assert not slow.watch.is_on_duty()
    assert await ledger.told() == [("firing", 2, "ci"), ("resolved", 2, "ci")]
    assert await ledger.firing() == []
    await slow.close()
    await quick.close()


async def test_who_ends_in_order_lets_the_next_one_begin_at_once(ledger, database):
    first, second = Process(database), Process(database)
    await first.look()
    await second.look()
    assert not second.watch.is_on_duty()
    await first.close()
    await second.look()
    assert second.watch.is_on_duty()
    await second.close()


async def test_a_rule_that_was_switched_off_meanwhile_tells_nothing(ledger, database, monkeypatch):
    rule = await ledger.only("key.expiring", targets=("ops",))
    await ledger.key("ci", days=1)
    process = Process(database, webhook("ops"))
    real = watching.look

    async def switching_off(*arguments: Any) -> Any:
        found = await real(*arguments)
        async with database.transaction() as connection:
            await update_alert_rule(connection, rule.id, AlertRuleChanges(enabled=False))
        return found

    monkeypatch.setattr(watching, "look", switching_off)
    await process.look()
    assert (await ledger.firing(), await ledger.deliveries()) == ([], [])
    await process.close()


async def test_rules_that_are_switched_off_or_removed_end_without_a_word(ledger, process):
    rule = await ledger.only("key.expiring", targets=("ops",))
    await ledger.key("ci", days=1)
    await process.look(ALL)
    async with ledger.database.transaction() as connection:
        await update_alert_rule(connection, rule.id, AlertRuleChanges(enabled=False))
        await end_alerts_of_rule(connection, rule.id, "rule_changed", CLOCK.now_ms())
    await process.look(ALL)
    assert len(await ledger.told()) == 1
    # Switched on again it is told again.
    async with ledger.database.transaction() as connection:
        await update_alert_rule(connection, rule.id, AlertRuleChanges(enabled=True))
    await process.look(ALL)
    assert len(await ledger.told()) == 2
    async with ledger.database.transaction() as connection:
        await remove_alert_rule(connection, rule.id)
    await process.look(ALL)
    assert (await ledger.firing(), len(await ledger.told())) == ([], 2)


async def test_so_many_subjects_of_a_rule_fire_and_no_more(ledger, process, monkeypatch):
    monkeypatch.setattr(watching, "FIRING_OF_RULE_MAX", 3)
    await ledger.only("key.expiring", targets=("ops",))
    first = await ledger.key("k0", days=1)
    for number in range(1, 5):
        await ledger.key(f"k{number}", days=1, team_id=first.team_id)
    await process.look(2 * ALL)
    assert len(await ledger.firing()) == 3
    (ended, *_) = await ledger.firing()
    async with ledger.database.transaction() as connection:
        await revoke_key(connection, ended.key_id, now_ms=1)
    await process.look(2 * ALL)
    assert [state for state, _, _ in await ledger.told()].count("firing") == 4


# -- each kind --------------------------------------------------------------------------------


async def test_a_budget_is_told_of_at_each_threshold_and_when_it_is_raised(ledger, process):
    await ledger.only("budget.threshold", targets=("ops",))
    key = await ledger.key()
    async with ledger.database.transaction() as connection:
        limit = await add_limit(
            connection, LimitRule("", "money", 10 * USD, "total"), team_id=key.team_id, key_id=None, now_ms=1
        )
    window = (BudgetWindow(limit.rule.id, 0),)
    await spend(ledger.database, key, 7 * USD, budgets=window)
    await process.look()
    assert await ledger.told() == []
    await spend(ledger.database, key, 2 * USD, budgets=window)
    await process.look(2)
    await spend(ledger.database, key, 2 * USD, budgets=window)
    await process.look(2)
    assert [(state, level) for state, level, _ in await ledger.told()] == [("firing", 80), ("firing", 100)]
    (alert,) = await ledger.firing()
    assert (alert.severity, alert.figures["spent_usd"], alert.figures["spent_percent"]) == ("bad", "11", 110.0)
    assert alert.team_name == "team of k"
    async with ledger.database.transaction() as connection:
        await update_limit(connection, limit.rule.id, LimitChanges(maximum=100 * USD))
    await process.look(2)
    assert [state for state, _, _ in await ledger.told()] == ["firing", "firing", "resolved"]


@pytest.mark.parametrize("of", ["team", "key", "key_model", "team_tag", "value"])
async def test_a_budget_that_refuses_requests_is_told_of_as_the_data_plane_names_it(ledger, process, of):
    """The names are those that ``Policy`` gives, which is asked here."""
    await ledger.only("budget.threshold", targets=("ops",))
    key = await ledger.key()
    given: dict[str, Any] = {
        "team_tag": {"tag_name": "project", "tag_value": "apollo"},
        "value": {"tag_name": "project"},
        "key_model": {"model": "gpt-*"},
    }.get(of, {})
    rule = LimitRule("", "money", 10 * USD, "total", **given)
    key_id = key.id if of.startswith("key") else None
    async with ledger.database.transaction() as connection:
        limit = await add_limit(connection, rule, team_id=key.team_id, key_id=key_id, now_ms=1)
    budget_id = f"{limit.rule.id}:apollo" if of == "value" else limit.rule.id
    await spend(ledger.database, key, 7 * USD, budgets=(BudgetWindow(budget_id, 0),))
    limits = (
        {"key_limits": (limit.rule,), "team_limits": ()} if key_id else {"key_limits": (), "team_limits": (limit.rule,)}
    )
    principal = Principal(key.team_id, "team", key.id, "k", "s", **limits)
    (bound,) = Policy().bind(principal, "gpt-5", {"project": "apollo"})
    decision = {"limit": bound.name, "scope": bound.scope, "scope_id": bound.scope_id, "maximum": bound.maximum}
    now_ms = CLOCK.now_ms()
    refused = [
        RefusalRow(f"r{number}", key.team_id, key.id, now_ms, 429, "insufficient_quota", decision)
        for number in range(3)
    ]
    await keep_refusals(ledger.database, refused[:2], now_ms)
    await process.look()
    assert await ledger.told() == []
    await keep_refusals(ledger.database, refused, now_ms)
    await process.look(2)
    (alert,) = await ledger.firing()
    assert (alert.level, alert.figures["spent_usd"], alert.figures["refused_15_minutes"]) == (100, "7", 3)
    assert len(await ledger.told()) == 1


async def test_budgets_of_the_file_and_of_each_value_of_a_tag_are_told_of_too(ledger, process):
    await ledger.only("budget.threshold", targets=("ops",))
    values = LimitValues(budget_usd=10, budget_window="total")
    process.limits = LimitDefaults(team=values, key=values)
    key = await ledger.key()
    (of_team,), (of_key,) = process.limits.team_rules, process.limits.key_rules
    async with ledger.database.transaction() as connection:
        # The team has one of its own, so that the file's is not its.
        own = await add_limit(
            connection, LimitRule("", "money", 1000 * USD, "total"), team_id=key.team_id, key_id=None, now_ms=1
        )
        tagged = LimitRule("", "money", 9 * USD, "total", tag_name="project")
        each = await add_limit(connection, tagged, team_id=key.team_id, key_id=None, now_ms=1)
    windows = [
        f"{of_team.id}:{key.team_id}",
        f"{of_key.id}:{key.id}",
        own.rule.id,
        f"{each.rule.id}:apollo",
    ]
    await spend(ledger.database, key, 9 * USD, budgets=tuple(BudgetWindow(name, 0) for name in windows))
    await process.look()
    found = {alert.subject: alert for alert in await ledger.firing()}
    assert set(found) == {f"{of_key.id}:{key.id}@0", f"{each.rule.id}:apollo@0"}
    assert found[f"{of_key.id}:{key.id}@0"].key_name == "k"
    assert found[f"{each.rule.id}:apollo@0"].figures["tag_value"] == "apollo"
    assert {alert.level for alert in found.values()} == {80, 100}


async def test_sudden_spending_is_told_once_and_again_when_it_doubles(ledger, process):
    await ledger.only("spend.velocity", targets=("ops",), parameters={"times": 2.0, "minimum_usd": "1"})
    key, usual = await ledger.key("ci"), await ledger.key("usual")
    now_ms = CLOCK.now_ms()
    # Ten of those fifteen minutes cost two dollars; twice that is four.
    await spend(ledger.database, key, 3 * USD, at_ms=now_ms - DAY_MS)
    await spend(ledger.database, usual, 30 * USD, at_ms=now_ms - DAY_MS)
    await spend(ledger.database, usual, 20 * USD)
    await spend(ledger.database, key, 3 * USD)
    await process.look()
    assert await ledger.told() == []
    await spend(ledger.database, key, 1 * USD)
    await process.look(3)
    assert await ledger.told() == [("firing", 1, "ci")]
    await spend(ledger.database, key, 4 * USD)
    await process.look(3)
    assert (await ledger.told())[1:] == [("firing", 2, "ci")]
    (alert,) = await ledger.firing()
    assert alert.figures == {
        "spent_10_minutes_usd": "8",
        "busiest_10_minutes_usd": "2",
        "times": 2.0,
        "bar_usd": "4",
    }


async def test_a_model_without_a_price_is_told_of_until_it_has_one(ledger, process):
    await ledger.only("model.unpriced", targets=("ops",))
    key = await ledger.key()
    await spend(ledger.database, key, None, at_ms=CLOCK.now_ms() - 2 * DAY_MS)
    await process.look(ALL)
    assert await ledger.told() == []
    await spend(ledger.database, key, None)
    await process.look(ALL)
    (alert,) = await ledger.firing()
    assert (alert.subject, alert.figures["requests"]) == ("openai/gpt-4.1-mini", 1)


async def connects() -> bool:
    return True


async def connects_not() -> bool:
    return False


async def test_an_upstream_that_any_process_cannot_reach_is_down_until_it_has_stayed_up(ledger, database, monkeypatch):
    monkeypatch.setattr(watching, "UPSTREAM_CLEAR_S_MAX", 0.2)
    await ledger.only("upstream.down", targets=("ops",))
    on_duty, other = Process(database, webhook("ops")), Process(database, webhook("ops"))
    await on_duty.look()
    # What can be connected to by now is not down, whatever the last request met.
    other.unreachable = {"gpu": connects}
    await other.look()
    await on_duty.look()
    assert await ledger.told() == []
    other.unreachable = {"gpu": connects_not}
    await other.look()
    await on_duty.look()
    assert await ledger.told() == [], "not for so long yet"
    await _make_older(database, 61_000)
    await on_duty.look(2)
    assert [state for state, _, _ in await ledger.told()] == ["firing"]
    other.unreachable = {}
    await other.look()
    await on_duty.look()
    other.unreachable = {"gpu": connects_not}
    await other.look()
    await on_duty.look()
    await asyncio.sleep(0.3)
    await on_duty.look()
    assert [state for state, _, _ in await ledger.told()] == ["firing"], "it came and went"
    other.unreachable = {}
    await other.look()
    await on_duty.look()
    await asyncio.sleep(0.3)
    await on_duty.look()
    assert [state for state, _, _ in await ledger.told()] == ["firing", "resolved"]
    await on_duty.close()
    await other.close()


async def _make_older(database: Database, by_ms: int) -> None:
    from app.store.tables import upstream_sights

    async with database.transaction() as connection:
        await connection.execute(update(upstream_sights).values(down_since_ms=upstream_sights.c.down_since_ms - by_ms))


async def test_an_upstream_that_fails_is_down(ledger, process):
    await ledger.only("upstream.down", targets=("ops",))
    key = await ledger.key()
    for status in [400] * 20:
        await spend(ledger.database, key, 0, status=status, outcome="failed")
    await process.look()
    assert await ledger.told() == [], "they were wrong themselves"
    for status in [500] * 180:
        await spend(ledger.database, key, 0, status=status, outcome="failed")
    await process.look()
    (alert,) = await ledger.firing()
    assert (alert.subject, alert.figures["cause"], alert.figures["failed_10_minutes"]) == ("openai", "failing", 180)


# -- upkeep -----------------------------------------------------------------------------------


async def test_figures_of_what_goes_on_are_brought_up_to_date_now_and_then(ledger, process):
    await ledger.only("key.expiring", targets=("ops",))
    key = await ledger.key("ci", days=6.9)
    await process.look(ALL)
    await ledger.extend(key.id, 3.5)
    await process.look(ALL)
    assert (await ledger.firing())[0].figures["days_left"] == 6
    async with ledger.database.transaction() as connection:
        await connection.execute(update(alert_states).values(changed_at_ms=CLOCK.now_ms() - 61_000))
    await process.look(ALL)
    assert (await ledger.firing())[0].figures["days_left"] == 3
    assert len(await ledger.told()) == 1


async def test_a_look_at_nothing_writes_nothing_but_the_lease(ledger, process, monkeypatch):
    await process.look()
    begun: list[float] = []
    real = process.watch._write

    async def counted(*arguments: Any) -> Any:
        begun.append(time.monotonic())
        return await real(*arguments)

    monkeypatch.setattr(process.watch, "_write", counted)
    await process.look(ALL)
    assert begun == []
