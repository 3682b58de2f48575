"""Rules, firings, messages and the lease, on both databases."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from sqlalchemy import update

from app.alerts.kinds import first_rules
from app.store.alert_deliveries import (
    WAITING_MAX,
    Delivery,
    DeliveryPlace,
    Try,
    claim_delivery,
    due_deliveries,
    end_deliveries,
    forget_deliveries,
    list_deliveries,
    new_delivery_id,
    note_try,
    queue_deliveries,
    target_standings,
)
from app.store.alert_rules import (
    AlertBlock,
    AlertRuleChanges,
    add_alert_rule,
    block_alert_target,
    find_alert_rule,
    list_alert_blocks,
    list_alert_rules,
    make_rules_once,
    remove_alert_rule,
    update_alert_rule,
)
from app.store.alert_states import (
    count_firing,
    end_alerts_of_rule,
    firing_alerts,
    forget_alerts,
    keep_alerts,
    last_fired,
    list_alerts,
    new_alert_id,
    place_of,
)
from app.store.database import Database
from app.store.errors import NoSuchAlertRule, TooManyAlertRules
from app.store.keys import create_key
from app.store.leases import release_lease, take_lease
from app.store.tables import alert_deliveries, leases, upstream_sights
from app.store.teams import create_team
from app.store.upstream_sights import find_sights, forget_sights, note_sights
from tests.unit.alerts.samples import NOW_MS, alert_of


def rule(kind: str = "upstream.down", **changes: Any) -> Any:
    (found,) = [each for each in first_rules(NOW_MS) if each.kind == kind]
    return msgspec.structs.replace(found, **changes)


def delivery(number: int = 1, **changes: Any) -> Delivery:
    given: dict[str, Any] = {
        "id": new_delivery_id(),
        "type": "upstream.down",
        "rule_id": "r1",
        "alert_id": "a1",
        "target": "ops",
        "body": "{}",
        "created_at_ms": number,
        "next_at_ms": number,
    }
    return Delivery(**{**given, **changes})


async def made_key(connection, team_id, name="k", **more):
    return await create_key(
        connection, team_id=team_id, name=name, secret_id=f"sec-{name}", digest=name.encode() * 8, now_ms=1, **more
    )


# -- the lease --------------------------------------------------------------------------------


async def test_one_has_the_lease_until_it_ends_or_is_let_go(database):
    async def take(holder: str, lease_ms: int = 60_000) -> bool:
        async with database.transaction() as connection:
            return await take_lease(connection, "alerts", holder, lease_ms)

    assert await take("a")
    assert not await take("b")
    assert await take("a"), "it is renewed"
    async with database.transaction() as connection:
        await connection.execute(update(leases).values(until_ms=1))
    assert await take("b"), "it has ended"
    assert not await take("a")
    async with database.transaction() as connection:
        await release_lease(connection, "alerts", "a")
    assert not await take("a"), "only its holder lets go of it"
    async with database.transaction() as connection:
        await release_lease(connection, "alerts", "b")
    assert await take("a")
    async with database.transaction() as connection:
        assert await take_lease(connection, "another", "b", 60_000), "each is for one work"


async def test_of_many_that_ask_at_once_one_gets_it(database_url):
    databases = [await Database.open(database_url) for _ in range(4)]

    async def take(place: int) -> bool:
        async with databases[place].transaction() as connection:
            return await take_lease(connection, "alerts", f"p{place}", 60_000)

    taken = await asyncio.gather(*[take(place) for place in range(4)])
    for each in databases:
        await each.close()
    assert sum(taken) == 1


# -- rules ------------------------------------------------------------------------------------


async def test_a_rule_is_kept_changed_and_removed(database):
    async with database.transaction() as connection:
        made = await add_alert_rule(connection, rule("spend.velocity", team_id="t1", targets=("a", "b")))
        assert made == await find_alert_rule(connection, made.id)
        assert (made.targets, made.enabled, made.parameters) == (("a", "b"), True, {"times": 3.0, "minimum_usd": "5"})
        changes = AlertRuleChanges(name="x", team_id=None, targets=None, enabled=False, parameters={"times": 2.0})
        changed = await update_alert_rule(connection, made.id, changes)
        assert (changed.name, changed.team_id, changed.targets, changed.enabled) == ("x", None, None, False)
        assert changed.parameters == {"times": 2.0}
        assert await update_alert_rule(connection, made.id, AlertRuleChanges()) == changed
        assert (await update_alert_rule(connection, made.id, AlertRuleChanges(targets=()))).targets == ()
        await remove_alert_rule(connection, made.id)
        assert await list_alert_rules(connection) == []
        for change in (remove_alert_rule(connection, made.id), find_alert_rule(connection, "x")):
            with pytest.raises(NoSuchAlertRule):
                await change


async def test_the_first_rules_are_made_once_and_never_come_back(database):
    async with database.transaction() as connection:
        assert await make_rules_once(connection, first_rules(NOW_MS))
    async with database.transaction() as connection:
        rules = await list_alert_rules(connection)
        assert [each.kind for each in rules] == [each.kind for each in first_rules(0)]
        for each in rules:
            await remove_alert_rule(connection, each.id)
        assert not await make_rules_once(connection, first_rules(NOW_MS))
        assert await list_alert_rules(connection) == []


async def test_there_is_a_bound_to_rules(database, monkeypatch):
    monkeypatch.setattr("app.store.alert_rules.RULES_MAX", 1)
    async with database.transaction() as connection:
        await add_alert_rule(connection, rule())
        with pytest.raises(TooManyAlertRules):
            await add_alert_rule(connection, rule())


async def test_a_target_that_is_blocked_is_free_again_when_targets_are_set(database):
    async with database.transaction() as connection:
        made = await add_alert_rule(connection, rule())
        for reason in ("HTTP 410", "another"):
            await block_alert_target(connection, AlertBlock(made.id, "ops", reason, 5))
        assert await list_alert_blocks(connection) == [AlertBlock(made.id, "ops", "HTTP 410", 5)]
        await update_alert_rule(connection, made.id, AlertRuleChanges(name="other"))
        assert len(await list_alert_blocks(connection)) == 1
        await update_alert_rule(connection, made.id, AlertRuleChanges(targets=None))
        assert await list_alert_blocks(connection) == []


# -- firings ----------------------------------------------------------------------------------


async def test_what_fires_is_kept_with_the_names_of_now(database):
    async with database.transaction() as connection:
        team = await create_team(connection, name="search", now_ms=1)
        key = await made_key(connection, team.id, "ci")
        made = await add_alert_rule(connection, rule("spend.velocity"))
        alert = alert_of(
            id=new_alert_id(), rule_id=made.id, team_id=team.id, key_id=key.id, figures={"x": "1.5", "y": [1, None]}
        )
        await keep_alerts(connection, [alert], [])
        (found,) = await firing_alerts(connection)
        assert found == msgspec.structs.replace(alert, rule_name=made.name, team_name="search", key_name="ci")
        assert await count_firing(connection) == {made.id: 1}
        assert await last_fired(connection) == {made.id: NOW_MS}
        over = msgspec.structs.replace(found, state="resolved", resolved_at_ms=NOW_MS + 1, changed_at_ms=NOW_MS + 1)
        await keep_alerts(connection, [], [over])
        assert await firing_alerts(connection) == []
        assert await list_alerts(connection, "resolved") == [over]
        assert await forget_alerts(connection, NOW_MS + 1) == 0
        assert await forget_alerts(connection, NOW_MS + 2) == 1


async def test_pages_go_from_the_worst_to_the_least_and_leave_nothing_out(database):
    async with database.transaction() as connection:
        made = await add_alert_rule(connection, rule())
        alerts = [
            alert_of(
                id=f"a{number}",
                rule_id=made.id,
                kind="upstream.down" if number % 2 else "spend.velocity",
                team_id="t1" if number < 3 else None,
                severity="bad" if number in {1, 4} else "warn",
                fired_at_ms=NOW_MS + number // 2,
                changed_at_ms=NOW_MS + number // 2,
            )
            for number in range(6)
        ]
        await keep_alerts(connection, alerts, [])
        seen, place = [], None
        while page := await list_alerts(connection, "firing", after=place, limit=2):
            seen += [alert.id for alert in page]
            place = place_of(page[-1])
        assert seen == ["a4", "a1", "a5", "a3", "a2", "a0"]
        assert {alert.id for alert in await list_alerts(connection, "firing", team_id="t1")} == {"a0", "a1", "a2"}
        assert len(await list_alerts(connection, "firing", kind="upstream.down")) == 3
        assert await end_alerts_of_rule(connection, made.id, "rule_changed", NOW_MS + 9) == 6
        seen, place = [], None
        while page := await list_alerts(connection, "resolved", after=place, limit=4):
            seen += [alert.id for alert in page]
            assert {(alert.reason, alert.resolved_at_ms) for alert in page} == {("rule_changed", NOW_MS + 9)}
            place = place_of(page[-1])
        assert seen == ["a5", "a4", "a3", "a2", "a1", "a0"]


# -- messages ---------------------------------------------------------------------------------


async def test_a_message_is_claimed_by_one_and_comes_again_if_nothing_is_heard(database):
    first = delivery()
    async with database.transaction() as connection:
        assert await queue_deliveries(connection, [first]) == 1
        (due,) = await due_deliveries(connection, except_targets=(), limit=9)
        assert due == first
        assert await due_deliveries(connection, except_targets=("ops",), limit=9) == []
        assert await claim_delivery(connection, due, 60_000)
        assert not await claim_delivery(connection, due, 60_000)
        assert await due_deliveries(connection, except_targets=(), limit=9) == []
        await connection.execute(update(alert_deliveries).values(next_at_ms=1))
        (again,) = await due_deliveries(connection, except_targets=(), limit=9)
        assert (again.id, again.tries, again.body) == (first.id, 1, first.body)
        assert await claim_delivery(connection, again, 60_000)
        # Whoever claimed it first has been slow, and says nothing about the second try.
        await note_try(connection, due, Try(1, 7, 3, 500, "late"), "failed", None)
        (now,) = await list_deliveries(connection)
        assert (now.state, now.attempts) == ("waiting", ())
        await note_try(connection, again, Try(2, 8, 3, 500, "HTTP 500"), "waiting", 60_000)
        (now,) = await list_deliveries(connection)
        assert now.attempts == (Try(2, 8, 3, 500, "HTTP 500"),)
        assert now.next_at_ms is not None
        assert await due_deliveries(connection, except_targets=(), limit=9) == []
        assert await claim_delivery(connection, now, 60_000)
        await note_try(connection, now, Try(3, 9, 3, 200), "delivered", None)
        (now,) = await list_deliveries(connection)
        assert (now.state, now.next_at_ms, [each.number for each in now.attempts]) == ("delivered", None, [2, 3])
        assert not await claim_delivery(connection, now, 60_000), "what is delivered stays so"


async def test_the_queue_has_a_bound(database):
    async with database.transaction() as connection:
        assert await queue_deliveries(connection, []) == 0
        assert await queue_deliveries(connection, [delivery(number) for number in range(WAITING_MAX - 1)]) == 999
        assert await queue_deliveries(connection, [delivery(), delivery()]) == 1
        assert await queue_deliveries(connection, [delivery()]) == 0
        assert len(await due_deliveries(connection, except_targets=(), limit=10)) == 10


async def test_the_log_is_read_by_pages_filtered_and_forgotten_but_for_what_waits(database):
    async with database.transaction() as connection:
        made = [
            delivery(number // 2, id=f"msg_{number}", target="ops" if number % 2 else "mail", rule_id=f"r{number % 3}")
            for number in range(6)
        ]
        await queue_deliveries(connection, made)
        seen, place = [], None
        while page := await list_deliveries(connection, after=place, limit=2):
            seen += [each.id for each in page]
            place = DeliveryPlace(page[-1].created_at_ms, page[-1].id)
        assert seen == [f"msg_{number}" for number in (5, 4, 3, 2, 1, 0)]
        assert [each.id for each in await list_deliveries(connection, target="ops", rule_id="r0")] == ["msg_3"]
        assert await end_deliveries(connection, "r0", "ops", "gone") == 1
        assert [each.id for each in await list_deliveries(connection, state="gone")] == ["msg_3"]
        standing = await target_standings(connection, ["ops", "mail", "new"])
        assert {name: (each.last, each.waiting) for name, each in standing.items()} == {
            "ops": (None, 2),
            "mail": (None, 3),
            "new": (None, 0),
        }
        assert await forget_deliveries(connection, 1) == 0
        assert await forget_deliveries(connection, 2) == 1
        assert len(await list_deliveries(connection)) == 5


async def test_the_last_message_that_was_tried_is_told_of_a_target(database):
    async with database.transaction() as connection:
        first, second = delivery(1), delivery(2)
        await queue_deliveries(connection, [first, second])
        assert await claim_delivery(connection, first, 60_000)
        await note_try(connection, first, Try(1, 7, 3, 204), "delivered", None)
        standing = (await target_standings(connection, ["ops"]))["ops"]
        assert (standing.last.id, standing.last.state, standing.waiting) == (first.id, "delivered", 1)


# -- what processes see of upstreams ----------------------------------------------------------


async def test_what_any_process_cannot_reach_is_known_while_it_says_so(database):
    async with database.transaction() as connection:
        await note_sights(connection, "p1", {"openai": 500, "gpu": 600})
        await note_sights(connection, "p2", {"openai": 400})
        assert await find_sights(connection, 60_000) == [("gpu", 600, 1), ("openai", 400, 2)]
        await note_sights(connection, "p1", {"openai": 500})
        assert await find_sights(connection, 60_000) == [("openai", 400, 2)]
        await note_sights(connection, "p1", {})
        assert await find_sights(connection, 60_000) == [("openai", 400, 1)]
        # One that is gone tells nothing more.
        await connection.execute(update(upstream_sights).values(seen_at_ms=1))
        assert await find_sights(connection, 60_000) == []
        await forget_sights(connection, 60_000)
        assert (await connection.execute(upstream_sights.select())).all() == []
