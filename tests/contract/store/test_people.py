from __future__ import annotations

import hashlib

import pytest

from app.core.identity import LimitRule
from app.store.admin_tokens import create_admin_token, find_admin_token
from app.store.changes import find_secret
from app.store.errors import NameTaken, NoSuchKey, NoSuchTeam, SecretTaken
from app.store.keys import (
    KeyChanges,
    add_secret,
    create_key,
    expire_other_secrets,
    find_key,
    list_keys,
    list_secrets,
    revoke_key,
    revoke_secret,
    update_key,
)
from app.store.limits import PlainLimit
from app.store.people import names_of
from app.store.teams import TeamChanges, create_team, find_team, list_teams, update_team


def digest_of(text):
    return hashlib.sha256(text.encode()).digest()


def told(limits: tuple[LimitRule, ...]):
    return [(rule.kind, rule.window, rule.maximum) for rule in limits]


@pytest.fixture
async def connection(database):
    async with database.transaction() as opened:
        yield opened


@pytest.fixture
async def team(connection):
    return await create_team(connection, name="search", now_ms=1, limits=[PlainLimit("requests", "minute", 60)])


async def key_of(connection, team, name="web", secret_id="secret0001", **changes):
    return await create_key(
        connection,
        team_id=team.id,
        name=name,
        secret_id=secret_id,
        digest=digest_of(secret_id),
        now_ms=2,
        **changes,
    )


async def test_a_team_is_found_by_name_and_by_id(connection, team):
    assert len(team.id) == 10
    assert told(team.limits) == [("requests", "minute", 60)]
    assert await find_team(connection, "search") == team
    assert await find_team(connection, team.id) == team
    assert await list_teams(connection) == [team]
    with pytest.raises(NoSuchTeam, match="nobody"):
        await find_team(connection, "nobody")


async def test_an_id_is_preferred_to_a_name(connection, team):
    await create_team(connection, name=team.id, now_ms=2)
    assert await find_team(connection, team.id) == team


async def test_team_names_are_unique(connection, team):
    with pytest.raises(NameTaken, match="search"):
        await create_team(connection, name="search", now_ms=2)
    other = await create_team(connection, name="other", now_ms=2)
    with pytest.raises(NameTaken):
        await update_team(connection, other.id, TeamChanges(name="search"), now_ms=2)


async def test_only_what_is_given_of_a_team_is_changed(connection, team):
    limits = (PlainLimit("tokens", "minute", 9), PlainLimit("requests", "minute", None))
    changed = await update_team(connection, team.id, TeamChanges(limits=limits), now_ms=2)
    assert told(changed.limits) == [("tokens", "minute", 9)]
    assert (changed.name, changed.changed > team.changed) == ("search", True)
    renamed = await update_team(connection, team.id, TeamChanges(name="search"), now_ms=2)
    assert renamed.limits == changed.limits
    assert await find_team(connection, team.id) == renamed
    with pytest.raises(NoSuchTeam):
        await update_team(connection, "nobody", TeamChanges(), now_ms=2)


async def test_a_team_has_families_until_they_are_taken_away(connection, team):
    assert team.endpoints is None
    given = await create_team(connection, name="given", now_ms=2, endpoints=("files", "batches"))
    assert given.endpoints == ("files", "batches")
    renamed = await update_team(connection, given.id, TeamChanges(name="other"), now_ms=3)
    assert renamed.endpoints == given.endpoints
    for families in (("*",), (), None):
        changed = await update_team(connection, given.id, TeamChanges(endpoints=families), now_ms=3)
        assert (changed.endpoints, changed.changed > renamed.changed) == (families, True)
        assert await find_team(connection, given.id) == changed


async def test_a_key_has_the_id_of_its_first_secret(connection, team):
    key = await key_of(
        connection,
        team,
        limits=[PlainLimit("concurrency", "", 3)],
        models=("gpt-*",),
        endpoints=(),
        expires_at_ms=99,
    )
    assert told(key.limits) == [("concurrency", "", 3)]
    assert key.id == "secret0001"
    assert (key.models, key.endpoints, key.expires_at_ms, key.revoked_at_ms) == (("gpt-*",), (), 99, None)
    assert await find_key(connection, "web") == await find_key(connection, key.id, team.id) == key
    (secret,) = await list_secrets(connection, key.id)
    assert (secret.id, secret.key_id, secret.digest) == (key.id, key.id, digest_of("secret0001"))
    found = await find_secret(connection, key.id)
    assert found is not None
    assert found[1:] == (key, team)
    assert await find_secret(connection, "nobody") is None


async def test_a_key_has_a_mode_of_the_cache_until_it_is_taken_away(connection, team):
    key = await key_of(connection, team, cache_mode="all")
    assert key.cache_mode == (await find_key(connection, key.id)).cache_mode == "all"
    renamed = await update_key(connection, key.id, KeyChanges(name="other"), now_ms=3)
    assert renamed.cache_mode == "all"
    for mode in ("off", "shadow", "deterministic", None):
        changed = await update_key(connection, key.id, KeyChanges(cache_mode=mode), now_ms=3)
        assert (changed.cache_mode, changed.changed > key.changed) == (mode, True)
    assert (await key_of(connection, team, "bare", "secret0002")).cache_mode is None


async def test_a_key_needs_a_team_and_a_name_of_its_own_there(connection, team):
    await key_of(connection, team)
    with pytest.raises(NameTaken, match="web"):
        await key_of(connection, team, secret_id="secret0002")
    other = await create_team(connection, name="other", now_ms=2)
    twin = await key_of(connection, other, secret_id="secret0003")
    assert [key.id for key in await list_keys(connection)] == ["secret0001", "secret0003"]
    assert await list_keys(connection, other.id) == [twin]
    assert (await find_key(connection, "web", other.id)).id == "secret0003"
    with pytest.raises(NoSuchKey, match="2 teams"):
        await find_key(connection, "web")
    with pytest.raises(NoSuchKey):
        await find_key(connection, "secret0001", other.id)
    with pytest.raises(NoSuchTeam):
        await create_key(connection, team_id="nobody", name="a", secret_id="b", digest=b"c", now_ms=1)


async def test_a_secret_is_nobody_elses(connection, team):
    await key_of(connection, team)
    with pytest.raises(SecretTaken):
        await key_of(connection, team, name="again")
    with pytest.raises(SecretTaken):
        await create_key(
            connection, team_id=team.id, name="new", secret_id="new", digest=digest_of("secret0001"), now_ms=1
        )


async def test_only_what_is_given_of_a_key_is_changed(connection, team):
    key = await key_of(connection, team, models=("gpt-*",), expires_at_ms=99)
    changed = await update_key(connection, key.id, KeyChanges(endpoints=("responses",), expires_at_ms=None), now_ms=3)
    assert (changed.models, changed.endpoints, changed.expires_at_ms) == (("gpt-*",), ("responses",), None)
    assert changed.changed > key.changed
    assert (await update_key(connection, key.id, KeyChanges(models=None), now_ms=3)).models is None
    assert (await update_key(connection, key.id, KeyChanges(name="web"), now_ms=3)).name == "web"
    await key_of(connection, team, name="other", secret_id="secret0002")
    with pytest.raises(NameTaken):
        await update_key(connection, key.id, KeyChanges(name="other"), now_ms=3)
    for change in (KeyChanges(), KeyChanges(name="x")):
        with pytest.raises(NoSuchKey):
            await update_key(connection, "nobody", change, now_ms=3)


async def test_a_revocation_keeps_its_first_time(connection, team):
    key = await key_of(connection, team)
    assert (await revoke_key(connection, key.id, now_ms=50)).revoked_at_ms == 50
    again = await revoke_key(connection, key.id, now_ms=60)
    assert (again.revoked_at_ms, again.changed > key.changed) == (50, True)
    with pytest.raises(NoSuchKey):
        await revoke_key(connection, "nobody", now_ms=1)


async def test_a_rotation_adds_a_secret_and_ends_the_others(connection, team):
    key = await key_of(connection, team)
    new = await add_secret(connection, key_id=key.id, secret_id="secret0002", digest=digest_of("secret0002"), now_ms=10)
    await expire_other_secrets(connection, key.id, new.id, expires_at_ms=500)
    await expire_other_secrets(connection, key.id, new.id, expires_at_ms=900)
    assert [(each.id, each.expires_at_ms) for each in await list_secrets(connection, key.id)] == [
        ("secret0001", 500),
        ("secret0002", None),
    ]
    assert (await find_key(connection, key.id)).changed > key.changed
    with pytest.raises(SecretTaken):
        await add_secret(connection, key_id=key.id, secret_id="secret0002", digest=b"", now_ms=10)
    with pytest.raises(NoSuchKey):
        await add_secret(connection, key_id="nobody", secret_id="secret0003", digest=b"", now_ms=10)


async def test_one_secret_is_revoked_without_the_key(connection, team):
    key = await key_of(connection, team)
    await revoke_secret(connection, "secret0001", now_ms=70)
    await revoke_secret(connection, "secret0001", now_ms=80)
    assert [each.revoked_at_ms for each in await list_secrets(connection, key.id)] == [70]
    after = await find_key(connection, key.id)
    assert (after.revoked_at_ms, after.changed > key.changed) == (None, True)
    with pytest.raises(NoSuchKey):
        await revoke_secret(connection, "nobody", now_ms=1)


async def test_an_admin_token_is_found_by_its_digest(connection):
    made = await create_admin_token(connection, name="first", role="admin", digest=digest_of("a"), now_ms=1)
    assert await find_admin_token(connection, digest_of("a")) == made
    assert await find_admin_token(connection, digest_of("b")) is None


async def test_text_is_only_ever_data(connection, team):
    """Names with all that SQL could trip over come back as they were."""
    for number, name in enumerate(["' OR '1'='1", 'a"; DROP TABLE teams; --', "%_\\", "naïve 日本 🚪"]):
        await create_team(connection, name=name, now_ms=1)
        await key_of(connection, team, name=name, secret_id=f"quoted{number}")
        assert (await find_team(connection, name)).name == name
        assert (await find_key(connection, name)).name == name


async def test_names_of_what_is_there(connection):
    team = await create_team(connection, name="search", now_ms=1)
    await create_key(connection, team_id=team.id, name="web", secret_id="key0000001", digest=b"1", now_ms=1)
    names = await names_of(connection, [team.id, "gone"], ["key0000001", "key0000001"])
    assert (names.teams, names.keys) == ({team.id: "search"}, {"key0000001": "web"})
