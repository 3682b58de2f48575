"""Several secrets of one key: how they follow one another, and what a revocation says of them."""

from __future__ import annotations

import hashlib

import pytest

from app.store.changes import rows_since
from app.store.errors import NoSuchKey, SecretTaken
from app.store.keys import create_key, find_key, list_secrets, revoke_key, revoke_secret, rotate_key
from app.store.teams import create_team


def digest_of(text):
    return hashlib.sha256(text.encode()).digest()


@pytest.fixture
async def connection(database):
    async with database.transaction() as opened:
        yield opened


@pytest.fixture
async def key(connection):
    team = await create_team(connection, name="search", now_ms=1)
    return await create_key(
        connection, team_id=team.id, name="web", secret_id="secret0001", digest=digest_of("secret0001"), now_ms=2
    )


async def rotated(connection, key, secret_id, now_ms, overlap_ms):
    return await rotate_key(
        connection,
        key_id=key.id,
        secret_id=secret_id,
        digest=digest_of(secret_id),
        now_ms=now_ms,
        overlap_ms=overlap_ms,
    )


async def test_a_rotation_adds_a_secret_to_the_same_key_and_lets_the_others_run_out(connection, key):
    after = await rotated(connection, key, "secret0002", 100, 50)
    assert (after.id, after.name, after.changed > key.changed) == (key.id, key.name, True)
    await rotated(connection, key, "secret0003", 110, 1000)
    await rotated(connection, key, "secret0004", 120, 0)
    assert [(secret.id, secret.expires_at_ms) for secret in await list_secrets(connection, key.id)] == [
        ("secret0001", 120),
        ("secret0002", 120),
        ("secret0003", 120),
        ("secret0004", None),
    ], "a later overlap does not give an earlier secret more time"


async def test_running_gateways_are_told_of_every_secret(connection, key):
    await rotated(connection, key, "secret0002", 100, 50)
    told = await rows_since(connection, key.changed)
    assert [each.id for each in told.keys] == [key.id]
    assert {(secret.id, secret.expires_at_ms) for secret in told.secrets} == {("secret0001", 150), ("secret0002", None)}


async def test_a_revoked_key_gets_no_further_secret(connection, key):
    with pytest.raises(SecretTaken):
        await rotated(connection, key, "secret0001", 100, 50)
    await revoke_key(connection, key.id, now_ms=90)
    with pytest.raises(NoSuchKey, match="is revoked"):
        await rotated(connection, key, "secret0002", 100, 50)
    assert [secret.id for secret in await list_secrets(connection, key.id)] == ["secret0001"]


async def test_only_a_revocation_at_once_reaches_the_secrets(connection, key):
    await rotated(connection, key, "secret0002", 100, 50)
    await revoke_secret(connection, "secret0001", now_ms=110)
    await revoke_key(connection, key.id, now_ms=120)
    assert [secret.revoked_at_ms for secret in await list_secrets(connection, key.id)] == [110, None]
    assert (await revoke_key(connection, key.id, now_ms=130, at_once=True)).revoked_at_ms == 120
    assert [secret.revoked_at_ms for secret in await list_secrets(connection, key.id)] == [110, 130]


async def test_a_key_is_found_by_the_public_id_of_any_secret(connection, key):
    await rotated(connection, key, "secret0002", 100, 50)
    other = await create_team(connection, name="other", now_ms=1)
    named = await create_key(
        connection, team_id=other.id, name="secret0002", secret_id="secret0009", digest=digest_of("x"), now_ms=3
    )
    assert (await find_key(connection, "secret0002", key.team_id)).id == key.id
    assert (await find_key(connection, "secret0002")).id == named.id, "a name comes before a public id"
    with pytest.raises(NoSuchKey):
        await find_key(connection, "secret0001", other.id)
