"""``headgate state``: the keys with which the gateway encrypts what it keeps for upstreams that keep nothing."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer
from sqlalchemy.ext.asyncio import AsyncConnection

from app.cli.noting import note
from app.cli.options import AsJson, DataDir, existing_ledger
from app.cli.output import fail, run, show_object
from app.core.clock import SystemClock
from app.main import open_seal
from app.settings import ConfigurationError, Environment
from app.state.sealing import Seal, SealBroken, new_key
from app.store.database import Database
from app.store.meta import STATE_CANARY_FACT, drop_fact, keep_fact
from app.store.turns import remove_all, reseal, sealed_after

state = typer.Typer(help="What the gateway keeps for upstreams that keep nothing.", no_args_is_help=True)

BATCH_TURNS = 20
"""In memory at a time: each may be many megabytes."""
PAUSE_S = 0.02


async def _note(connection: AsyncConnection, action: str, turns: int) -> None:
    await note(
        connection,
        action,
        now_ms=SystemClock().now_ms(),
        object_id="",
        object_name="kept turns",
        team_id=None,
        after={"turns": turns},
    )


@state.command("new-key")
def make_new_key() -> None:
    """Print a new key for HEADGATE_STATE_KEYS."""
    print(new_key())


@state.command("rotate")
def rotate(data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Encrypt everything that is kept with the first of the keys, while gateways run. They need that key already."""

    async def work() -> int:
        async with existing_ledger(data_dir) as database:
            seal = await open_seal(Environment.read(data_dir=data_dir), database)
            done = await _rotate(database, seal)
            async with database.transaction() as connection:
                await keep_fact(connection, STATE_CANARY_FACT, seal.canary())
                await _note(connection, "state.rotate", done)
            return done

    show_object({"rotated": run(work())}, as_json=as_json)


async def _rotate(database: Database, seal: Seal) -> int:
    done, at = 0, ""
    while True:
        async with database.read() as connection:
            found = await sealed_after(connection, at, BATCH_TURNS)
        if not found:
            return done
        try:
            turned = await asyncio.to_thread(lambda rows: [(one, seal.turned(token)) for one, token in rows], found)
        except SealBroken as error:
            raise ConfigurationError(
                "a turn was encrypted with a key that was not given; give it too, and run this again"
            ) from error
        async with database.transaction() as connection:
            for turn_id, token in turned:
                await reseal(connection, turn_id, token)
        done, at = done + len(found), found[-1][0]
        # SQLite has no queue for its writers: one that never pauses would keep the others out.
        await asyncio.sleep(PAUSE_S)


@state.command("reset")
def reset(
    lose: Annotated[bool, typer.Option("--lose-all", help="Say that you know that all of it will be gone.")] = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Remove everything that is kept, where its keys are lost. The next start takes the keys that it is given."""
    if not lose:
        raise fail("this removes every conversation that the gateway keeps: give --lose-all")

    async def work() -> int:
        done = 0
        async with existing_ledger(data_dir) as database:
            while True:
                async with database.transaction() as connection:
                    gone = await remove_all(connection, BATCH_TURNS)
                    if not gone:
                        await drop_fact(connection, STATE_CANARY_FACT)
                        await _note(connection, "state.reset", done)
                        return done
                done += gone
                await asyncio.sleep(PAUSE_S)

    show_object({"removed": run(work())}, as_json=as_json)
