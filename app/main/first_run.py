"""The first start: a team, a key and an admin token, so that a first request works at once."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from app.auth.keys import ADMIN_PREFIX, mint
from app.store.admin_tokens import create_admin_token
from app.store.database import Database
from app.store.keys import create_key
from app.store.teams import create_team, list_teams

FIRST_RUN = "first-run.json"


class FirstRun(msgspec.Struct, frozen=True):
    """What the first start made: shown once, and kept in a file that only its owner can read."""

    team: str
    key: str
    admin_token: str
    base_url: str

    def __repr__(self) -> str:
        return f"FirstRun(team={self.team!r}, base_url={self.base_url!r})"


async def make_first_run(database: Database, data_dir: Path, base_url: str, now_ms: int) -> FirstRun | None:
    """On an empty ledger: a team, a key and an admin token, so that a first request works at once."""
    key, token = mint(), mint(ADMIN_PREFIX)
    async with database.transaction() as connection:
        if await list_teams(connection):
            return None
        team = await create_team(connection, name="default", now_ms=now_ms)
        await create_key(
            connection, team_id=team.id, name="default", secret_id=key.id, digest=key.digest, now_ms=now_ms
        )
        await create_admin_token(connection, name="first-run", role="admin", digest=token.digest, now_ms=now_ms)
        made = FirstRun(team=team.name, key=key.text, admin_token=token.text, base_url=base_url)
        # Written before the commit: a key that nobody was shown would be of no use to anybody.
        path = data_dir / FIRST_RUN
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(made), indent=2) + b"\n")
    return made
