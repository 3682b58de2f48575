"""The figures that alerts are decided by, on both databases."""

from __future__ import annotations

from typing import Any

from sqlalchemy import update

from app.core.clock import quarter_of
from app.core.identity import LimitRule
from app.core.records import BudgetWindow
from app.store.alert_figures import (
    Owner,
    busiest_quarter,
    failing_upstreams,
    failures_of,
    keys_ending,
    money_limits,
    owners_of,
    recent_spenders,
    refusals_of_budgets,
    spent_of,
    spent_of_each,
    spent_since,
    unpriced_since,
)
from app.store.batch import write_batch
from app.store.keys import add_secret, create_key, revoke_key, revoke_secret
from app.store.limits import add_limit
from app.store.refusals import RefusalRow, keep_refusals
from app.store.tables import limits
from app.store.teams import create_team
from tests.contract.store.samples import NOON_MS, entry_of, record_of
from tests.unit.alerts.samples import DAY_MS, MINUTE_MS

QUARTER_MS = 15 * MINUTE_MS


async def made_key(connection: Any, team_id: str, name: str = "k", **more: Any) -> Any:
    return await create_key(
        connection, team_id=team_id, name=name, secret_id=f"sec-{name}", digest=name.encode() * 8, now_ms=1, **more
    )


def spent(request_id: str, at_ms: int, nanousd: int | None, *, took_ms: int = 900, **changes: Any) -> Any:
    entry = entry_of(request_id, cost_nanousd=nanousd, **({"model": changes["model"]} if "model" in changes else {}))
    return record_of(request_id, at_ms=at_ms, ended_at_ms=at_ms + took_ms, entries=(entry,), **changes)


async def test_budgets_are_found_with_whom_they_bind_and_what_is_spent(database):
    async with database.transaction() as connection:
        team = await create_team(connection, name="search", now_ms=1)
        key, gone = await made_key(connection, team.id), await made_key(connection, team.id, "old")
        await add_limit(connection, LimitRule("", "requests", 5, "minute"), team_id=team.id, key_id=None, now_ms=1)
        of_team = await add_limit(
            connection, LimitRule("", "money", 9, "month"), team_id=team.id, key_id=None, now_ms=1
        )
        each = LimitRule("", "money", 9, "day", tag_name="project")
        of_key = await add_limit(connection, each, team_id=team.id, key_id=key.id, now_ms=1)
        await add_limit(connection, LimitRule("", "money", 9, "day"), team_id=team.id, key_id=gone.id, now_ms=1)
        await revoke_key(connection, gone.id, now_ms=2)
        await connection.execute(update(limits).where(limits.c.id == of_team.rule.id).values(warn_percents="[50, 95]"))
        found = {limit.rule.id: limit for limit in await money_limits(connection)}
        assert set(found) == {of_team.rule.id, of_key.rule.id}
        first, second = found[of_team.rule.id], found[of_key.rule.id]
        assert (first.team_name, first.key_id, first.key_name, first.warn_percents) == ("search", None, None, (50, 95))
        assert (second.team_id, second.key_id, second.key_name) == (team.id, key.id, "k")
        assert await owners_of(connection, "team", [team.id, "nobody"]) == {team.id: Owner(team.id, "search")}
        assert await owners_of(connection, "key", [key.id, gone.id]) == {key.id: Owner(team.id, "search", key.id, "k")}
    windows = BudgetWindow(of_team.rule.id, 0), BudgetWindow(f"{of_key.rule.id}:apollo", 0)
    record = record_of(team_id=team.id, key_id=key.id, budgets=windows, tags={"project": "apollo"})
    await write_batch(database, [record])
    async with database.read() as connection:
        asked = [(of_team.rule.id, 0), (of_team.rule.id, 1), ("nothing", 0)]
        assert await spent_of(connection, asked) == {(of_team.rule.id, 0): 61_000}
        assert await spent_of_each(connection, of_key.rule.id, 0) == {"apollo": 61_000}
        assert await spent_of_each(connection, of_key.rule.id, 1) == {}
        # The names of rules are no patterns.
        assert await spent_of_each(connection, "%", 0) == {}


async def test_many_budgets_are_asked_for_in_parts(database):
    async with database.read() as connection:
        assert await spent_of(connection, [(f"b{number}", number) for number in range(1201)]) == {}
        assert await owners_of(connection, "key", [f"k{number}" for number in range(1201)]) == {}


async def test_what_a_key_spent_of_late_and_in_its_week(database):
    async with database.transaction() as connection:
        team = await create_team(connection, name="search", now_ms=1)
        key, quiet = await made_key(connection, team.id), await made_key(connection, team.id, "quiet")
    of_key = {"team_id": team.id, "key_id": key.id}
    await write_batch(
        database,
        [
            # Ended in the last ten minutes; the second began long before.
            spent("r1", NOON_MS - 2 * MINUTE_MS, 1000, **of_key),
            spent("r2", NOON_MS - 25 * MINUTE_MS, 20_000, took_ms=20 * MINUTE_MS, **of_key),
            # Ended before.
            spent("r3", NOON_MS - 20 * MINUTE_MS, 300_000, **of_key),
            # Of the week, two models in one quarter of an hour.
            spent("r4", NOON_MS - DAY_MS, 4_000_000, **of_key),
            spent("r5", NOON_MS - DAY_MS + MINUTE_MS, 5_000_000, model="another", **of_key),
            spent("r6", NOON_MS - 2 * DAY_MS, 8_000_000, **of_key),
            # Older than that, and another's.
            spent("r7", NOON_MS - 8 * DAY_MS, 90_000_000, **of_key),
            spent("r8", NOON_MS - MINUTE_MS, 7000, team_id=team.id, key_id=quiet.id),
        ],
    )
    from_ms = quarter_of(NOON_MS - 30 * MINUTE_MS)
    async with database.read() as connection:
        assert await spent_since(connection, key.id, NOON_MS - 10 * MINUTE_MS, from_ms) == 21_000
        assert await spent_since(connection, "nobody", NOON_MS, from_ms) == 0
        assert await busiest_quarter(connection, key.id, NOON_MS - 7 * DAY_MS, from_ms) == 9_000_000
        assert await busiest_quarter(connection, quiet.id, NOON_MS - 7 * DAY_MS, from_ms) == 0
        busiest = await busiest_quarter(connection, key.id, NOON_MS - 7 * DAY_MS, from_ms)
        dear = await recent_spenders(connection, from_ms, 321_000, [])
        # PostgreSQL's sums are decimals, which are equal to numbers, and not numbers.
        assert {type(busiest), type(dear[0].nanousd)} == {int}
        assert dear == [(team.id, "search", key.id, "k", 321_000)]
        assert await recent_spenders(connection, from_ms, 321_001, []) == []
        also = await recent_spenders(connection, from_ms, 321_001, [quiet.id, "nobody"])
        assert [(each.key_name, each.nanousd) for each in also] == [("quiet", 7000)]


async def test_what_has_no_price_is_counted_by_team(database):
    await write_batch(
        database,
        [
            spent("r1", NOON_MS, None, team_id="t1", model="m"),
            spent("r2", NOON_MS, None, team_id="t2", model="m"),
            spent("r3", NOON_MS + 1, None, team_id="t2", model="m"),
            spent("r4", NOON_MS, 5, team_id="t2", model="n"),
            spent("r5", NOON_MS - DAY_MS, None, team_id="t2", model="old"),
        ],
    )
    async with database.read() as connection:
        found = await unpriced_since(connection, quarter_of(NOON_MS))
        assert {type(each.unpriced) for each in found} == {int}
        assert found == [
            ("t1", "m", "openai", 1),
            ("t2", "m", "openai", 2),
        ]
        assert await unpriced_since(connection, quarter_of(NOON_MS) + QUARTER_MS) == []


async def test_a_request_that_was_wrong_itself_is_no_failure_of_its_upstream(database):
    async def failed(number: int, status: int | None, outcome: str = "failed") -> None:
        await write_batch(database, [record_of(f"r{number}", at_ms=NOON_MS + number, status=status, outcome=outcome)])

    statuses = [(400, "failed"), (429, "failed"), (500, "failed"), (502, "failed"), (None, "interrupted")]
    statuses += [(200, "completed"), (200, "incomplete"), (499, "cancelled"), (None, "disconnected")]
    for number, (status, outcome) in enumerate(statuses):
        await failed(number, status, outcome)
    async with database.read() as connection:
        assert await failing_upstreams(connection, quarter_of(NOON_MS), 9) == [("openai", 9, 5)]
        assert await failing_upstreams(connection, quarter_of(NOON_MS), 10) == []
        assert await failures_of(connection, "openai", NOON_MS) == ("openai", 9, 3)
        assert await failures_of(connection, "openai", NOON_MS + 4) == ("openai", 5, 1)
        assert await failures_of(connection, "another", NOON_MS) == ("another", 0, 0)


async def test_keys_end_on_their_day_or_with_the_last_of_their_secrets(database):
    until_ms = NOON_MS + DAY_MS

    async with database.transaction() as connection:
        team = await create_team(connection, name="search", now_ms=1)

        async def key(name: str, expires_at_ms: int | None = None) -> Any:
            return await made_key(connection, team.id, name, expires_at_ms=expires_at_ms)

        async def secret(key_id: str, name: str, expires_at_ms: int | None) -> None:
            await add_secret(
                connection,
                key_id=key_id,
                secret_id=name,
                digest=name.encode() * 8,
                now_ms=1,
                expires_at_ms=expires_at_ms,
            )

        await key("forever")
        soon = await key("soon", until_ms)
        await key("later", until_ms + 1)
        await key("over", NOON_MS)
        revoked = await key("revoked", until_ms)
        await revoke_key(connection, revoked.id, now_ms=2)
        rotating = await key("rotating")
        await secret(rotating.id, "rotating-2", until_ms)
        last = await key("last")
        await secret(last.id, "last-2", until_ms - 5)
        await revoke_secret(connection, "sec-last", now_ms=2)
        both = await key("both", until_ms + DAY_MS)
        await secret(both.id, "both-2", until_ms)
        await secret(both.id, "both-3", until_ms - 1)
        await secret(both.id, "both-4", NOON_MS)
        await revoke_secret(connection, "sec-both", now_ms=2)
        found = {end.key_name: end for end in await keys_ending(connection, NOON_MS, until_ms)}
    assert set(found) == {"soon", "last", "both"}
    assert (found["soon"].key_id, found["soon"].key_ends_at_ms, found["soon"].secrets_end_at_ms) == (
        soon.id,
        until_ms,
        None,
    )
    assert (found["last"].key_ends_at_ms, found["last"].secrets_end_at_ms) == (None, until_ms - 5)
    assert (found["both"].key_ends_at_ms, found["both"].secrets_end_at_ms) == (until_ms + DAY_MS, until_ms)
    assert {end.team_name for end in found.values()} == {"search"}


async def test_budgets_that_refuse_are_known_by_what_refusals_say(database):
    def refusal(number: int, code: str = "insufficient_quota", **decision: Any) -> RefusalRow:
        told = {"limit": "budget_usd_per_day", "scope": "key", "scope_id": "k1", "maximum": 5, "limits": [], **decision}
        return RefusalRow(f"r{number}", "t1", "k1", NOON_MS + number, 429, code, told)

    rows = [
        refusal(0),
        refusal(1),
        refusal(2),
        refusal(3, maximum=6),
        refusal(4, scope="tag", scope_id="project=apollo"),
        refusal(5, code="rate_limit_exceeded", limit="budget_held"),
        refusal(6, limit="tokens_per_minute"),
        RefusalRow("r7", "t1", "k1", NOON_MS, 429, "insufficient_quota", {}),
    ]
    await keep_refusals(database, rows, NOON_MS)
    async with database.read() as connection:
        assert await refusals_of_budgets(connection, NOON_MS + 1) == {
            ("t1", "key", "k1", "budget_usd_per_day", 5): 2,
            ("t1", "key", "k1", "budget_usd_per_day", 6): 1,
            ("t1", "tag", "project=apollo", "budget_usd_per_day", 5): 1,
        }
