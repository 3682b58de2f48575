"""What the control plane keeps: tokens, sessions, the audit log, listings of keys, last uses, set prices."""

from __future__ import annotations

import hashlib

import pytest

from app.store.admin_tokens import (
    create_admin_token,
    find_admin_token,
    find_admin_token_by_id,
    list_admin_tokens,
    revoke_admin_token,
    use_admin_token,
)
from app.store.audit import Actor, AuditFilter, list_changes, note_change
from app.store.batch import write_batch
from app.store.changes import current_change, rows_since
from app.store.colors import bind_colors
from app.store.errors import NameTaken, NoSuchKey, NoSuchPrice, NoSuchTeam, NoSuchToken
from app.store.keys import add_secret, create_key, expire_secret, revoke_key, revoke_secret, secrets_of_keys
from app.store.limits import LimitChanges, PlainLimit, list_limits, update_limit
from app.store.people import KeySearch, active_keys_by_team, count_keys, search_keys
from app.store.prices import list_prices, remove_price, set_price
from app.store.secret_uses import HOUR_MS, last_day, last_uses
from app.store.sessions import SessionRow, close_session, close_sessions_of, find_session, open_session, see_session
from app.store.teams import create_team
from tests.contract.store.samples import record_of

DAY_MS = 24 * HOUR_MS
NOW_MS = 400 * DAY_MS
ANN = Actor("token", "t1", "ann", "10.0.0.7")


def digest_of(text):
    return hashlib.sha256(text.encode()).digest()


async def key_of(connection, team, name, secret_id, now_ms=1, **changes):
    digest = digest_of(secret_id)
    return await create_key(
        connection, team_id=team.id, name=name, secret_id=secret_id, digest=digest, now_ms=now_ms, **changes
    )


async def test_tokens_have_roles_and_end(database):
    async with database.transaction() as connection:
        team = await create_team(connection, name="search", now_ms=1)
        made = await create_admin_token(
            connection, name="lead", role="lead", digest=digest_of("a"), now_ms=5, team_id=team.id, expires_at_ms=50
        )
        assert await find_admin_token(connection, digest_of("a")) == made
        assert (made.is_live(49), made.is_live(50)) == (True, False)
        with pytest.raises(NameTaken):
            await create_admin_token(connection, name="lead", role="admin", digest=digest_of("b"), now_ms=6)
        with pytest.raises(NoSuchTeam):
            await create_admin_token(
                connection, name="x", role="lead", digest=digest_of("c"), now_ms=6, team_id="nowhere"
            )
        await use_admin_token(connection, made.id, now_ms=7)
        revoked = await revoke_admin_token(connection, made.id, now_ms=8)
        again = await revoke_admin_token(connection, made.id, now_ms=9)
        assert (revoked.revoked_at_ms, again.revoked_at_ms, again.used_at_ms) == (8, 8, 7)
        assert not revoked.is_live(9)
        # The name of one that has ended is free.
        other = await create_admin_token(connection, name="lead", role="admin", digest=digest_of("d"), now_ms=10)
        assert [token.id for token in await list_admin_tokens(connection)] == [made.id, other.id]
        with pytest.raises(NoSuchToken):
            await find_admin_token_by_id(connection, "nobody")


async def test_sessions_are_found_by_their_digest_and_closed_by_their_holder(database):
    def session(text, holder_id, expires_at_ms=100):
        return SessionRow(digest_of(text), "token", holder_id, "ann", "admin", None, "csrf", 10, 10, expires_at_ms)

    async with database.transaction() as connection:
        for text, holder in (("a", "t1"), ("b", "t1"), ("c", "t2")):
            await open_session(connection, session(text, holder))
        await see_session(connection, digest_of("a"), now_ms=20)
        found = await find_session(connection, digest_of("a"))
        assert found is not None
        assert (found.holder_id, found.seen_at_ms, found.digest) == ("t1", 20, digest_of("a"))
        await close_session(connection, digest_of("c"))
        await close_session(connection, digest_of("c"))
        assert await find_session(connection, digest_of("c")) is None
        await close_sessions_of(connection, "token", "t1")
        assert await find_session(connection, digest_of("b")) is None
        await open_session(connection, session("d", "t3", expires_at_ms=5))
        await open_session(connection, session("e", "t3"))
        assert await find_session(connection, digest_of("d")) is None, "those that are over go"


async def test_the_audit_log_keeps_what_differs_newest_first(database):
    async with database.transaction() as connection:
        for number in range(5):
            await note_change(
                connection,
                ANN,
                action="key.update" if number else "key.create",
                object_kind="key",
                object_id=f"k{number % 2}",
                object_name="bot",
                team_id="team",
                before={"a": 1, "b": 2, "number": number - 1} if number else None,
                after={"a": 1, "b": 2, "number": number},
                now_ms=100 + number // 2,
            )
    async with database.read() as connection:
        first = await list_changes(connection, AuditFilter(), limit=2)
        rest = await list_changes(connection, AuditFilter(), limit=9, before=(first[-1].at_ms, first[-1].id))
        rows = [*first, *rest]
        assert [row.at_ms for row in rows] == [102, 101, 101, 100, 100]
        assert len({row.id for row in rows}) == 5
        update = next(row for row in rows if row.after == {"number": 4})
        assert (update.before, update.actor) == ({"number": 3}, ANN)
        created = next(row for row in rows if row.action == "key.create")
        assert (created.before, created.after) == (None, {"a": 1, "b": 2, "number": 0})
        of_one = await list_changes(connection, AuditFilter(object_id="k1", start_ms=101), limit=9)
        assert [row.after for row in of_one] == [{"number": 3}]
        assert await list_changes(connection, AuditFilter(actor_id="t2"), limit=9) == []


async def test_what_changes_nothing_is_not_in_the_audit_log(database):
    async with database.transaction() as connection:
        for before, after in (({"a": 1}, {"a": 1}), ({}, {}), ({"a": 1}, {"a": 2})):
            await note_change(
                connection,
                ANN,
                action="key.update",
                object_kind="key",
                object_id="k",
                object_name="n",
                now_ms=1,
                before=before,
                after=after,
            )
    async with database.read() as connection:
        assert [row.after for row in await list_changes(connection, AuditFilter(), limit=9)] == [{"a": 2}]


async def test_what_is_too_long_for_the_audit_log_is_cut(database):
    async with database.transaction() as connection:
        await note_change(
            connection,
            ANN,
            action="key.create",
            object_kind="key",
            object_id="k",
            object_name="n",
            now_ms=1,
            after={"text": "é" * 20_000},
        )
        kept = (await list_changes(connection, AuditFilter(), limit=1))[0]
    assert kept.after == {"cut": True, "members": ["text"]}


async def test_keys_are_listed_by_what_they_are_and_found_by_what_is_on_them(database):
    async with database.transaction() as connection:
        team = await create_team(connection, name="search", now_ms=1)
        other = await create_team(connection, name="Other", now_ms=1)
        await key_of(connection, team, "plain", "a", owner="Ann@acme", tags={"env": "prod"})
        await key_of(connection, team, "young", "b", now_ms=NOW_MS - DAY_MS)
        await key_of(connection, team, "ending", "c", now_ms=NOW_MS, expires_at_ms=NOW_MS + DAY_MS)
        await key_of(connection, team, "ended", "d", expires_at_ms=NOW_MS)
        await key_of(connection, other, "gone", "e")
        await revoke_key(connection, "e", now_ms=2)
        await key_of(connection, other, "turning", "f", now_ms=NOW_MS)
        await add_secret(connection, key_id="f", secret_id="g", digest=digest_of("g"), now_ms=NOW_MS)
        await key_of(connection, other, "turned", "h", now_ms=NOW_MS)
        await add_secret(connection, key_id="h", secret_id="i", digest=digest_of("i"), now_ms=NOW_MS)
        await revoke_secret(connection, "h", now_ms=NOW_MS)

        async def found(**search):
            rows = await search_keys(connection, KeySearch(**search), now_ms=NOW_MS, limit=50)
            return {key.name for _, key in rows}

        assert await found() == {"plain", "young", "ending", "turning", "turned"}
        assert await found(listing="rotating") == {"turning"}
        assert await found(listing="expiring") == {"ending"}
        assert await found(listing="expired") == {"ended"}
        assert await found(listing="revoked") == {"gone"}
        assert await found(listing="unused") == {"plain"}
        assert len(await found(listing="all")) == 7
        assert await found(listing="all", team_id=other.id) == {"gone", "turning", "turned"}
        for text, names in {
            "ANN@": {"plain"},
            "env": {"plain"},
            "PROD": {"plain"},
            "g": {"ending", "young", "turning"},
            "other": {"turning", "turned"},
            "%": set(),
            "_": set(),
        }.items():
            assert await found(text=text) == names, text
        counts = await count_keys(connection, None, now_ms=NOW_MS)
        assert counts == {
            "active": 5,
            "rotating": 1,
            "expiring": 1,
            "unused": 1,
            "revoked": 1,
            "expired": 1,
            "all": 7,
        }
        assert await active_keys_by_team(connection, now_ms=NOW_MS) == {team.id: 3, other.id: 2}
        pages, after = [], None
        while True:
            page = await search_keys(connection, KeySearch(listing="all"), now_ms=NOW_MS, limit=2, after=after)
            if not page:
                break
            pages += [key.name for _, key in page]
            after = page[-1][0]
        assert sorted(pages) == ["ended", "ending", "gone", "plain", "turned", "turning", "young"]


async def test_a_secrets_end_moves_while_it_lives(database):
    async with database.transaction() as connection:
        team = await create_team(connection, name="search", now_ms=1)
        await key_of(connection, team, "k", "a")
        await add_secret(connection, key_id="a", secret_id="b", digest=digest_of("b"), now_ms=2, expires_at_ms=9)
        before = await current_change(connection)
        await expire_secret(connection, "a", "b", expires_at_ms=99, now_ms=8)
        assert await current_change(connection) == before + 1
        assert [secret.expires_at_ms for secret in (await secrets_of_keys(connection, ["a"]))["a"]] == [None, 99]
        await add_secret(connection, key_id="a", secret_id="ended", digest=digest_of("e"), now_ms=2, expires_at_ms=9)
        with pytest.raises(NoSuchKey):
            await expire_secret(connection, "a", "ended", expires_at_ms=None, now_ms=9)
        await revoke_secret(connection, "b", now_ms=10)
        for key_id, secret_id in (("a", "b"), ("a", "c"), ("other", "a")):
            with pytest.raises(NoSuchKey):
                await expire_secret(connection, key_id, secret_id, expires_at_ms=None, now_ms=11)


async def test_last_uses_are_what_the_bill_tells(database):
    now_ms = record_of().admitted_at_ms
    moments = [now_ms - 30 * HOUR_MS, now_ms - 5 * HOUR_MS, now_ms - 1000, now_ms - 2000]
    records = [record_of(at_ms=at_ms, secret_id="old", tags={"service": "digest"}) for at_ms in moments]
    records.append(record_of(at_ms=now_ms - 500, secret_id="new"))
    await write_batch(database, records)
    # An older one that is written later changes nothing.
    await write_batch(database, [record_of(at_ms=now_ms - 9 * HOUR_MS, secret_id="new")])
    async with database.read() as connection:
        assert await last_uses(connection, ["old", "new", "never"]) == {"old": now_ms - 1000, "new": now_ms - 500}
        days = await last_day(connection, "key0000001", now_ms=now_ms)
    assert (days["old"].requests_last_hour, sum(days["old"].hours), sum(days["new"].hours)) == (2, 3, 2)
    assert [(tag.name, tag.value, tag.used_at_ms, tag.requests_last_hour) for tag in days["old"].tags] == [
        ("service", "digest", now_ms - 1000, 2)
    ]
    assert days["new"].tags == ()


async def test_prices_are_set_and_removed_and_told_to_gateways(database):
    async with database.transaction() as connection:
        before = await current_change(connection)
        first = await set_price(connection, model="a", upstream=None, rates="{}", effective_from_ms=0, now_ms=1)
        second = await set_price(connection, model="a", upstream="up", rates="{}", effective_from_ms=5, now_ms=2)
        assert await list_prices(connection) == [second, first]
        assert (await rows_since(connection, before)).prices == [second, first]
        assert (await rows_since(connection, before + 2)).prices is None
        assert await remove_price(connection, first.id, now_ms=3) == first
        assert (await rows_since(connection, before + 2)).prices == [second]
        with pytest.raises(NoSuchPrice):
            await remove_price(connection, first.id, now_ms=4)


async def test_warnings_of_a_budget(database):
    async with database.transaction() as connection:
        await create_team(
            connection,
            name="t",
            now_ms=1,
            limits=[PlainLimit("money", "month", 5), PlainLimit("requests", "minute", 5)],
        )
        budget = next(row for row in await list_limits(connection) if row.rule.kind == "money")
        requests = next(row for row in await list_limits(connection) if row.rule.kind == "requests")
        assert (budget.warn_percents, requests.warn_percents) == ((80, 95), ())
        changed = await update_limit(connection, budget.rule.id, LimitChanges(warn_percents=(90, 50, 90)))
        assert changed.warn_percents == (50, 90)
        kept = await update_limit(connection, budget.rule.id, LimitChanges(maximum=6))
        assert (kept.warn_percents, kept.rule.maximum) == ((50, 90), 6)


async def test_colours_are_bound_once(database):
    first = await bind_colors(database, "team", ["a", "b", "c"])
    assert len(set(first.values())) == 3
    assert set(first.values()) <= set(range(1, 9))
    again = await bind_colors(database, "team", ["z", "c", "a"])
    assert {name: again[name] for name in ("a", "c")} == {name: first[name] for name in ("a", "c")}
    assert again["z"] not in first.values()
