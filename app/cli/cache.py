"""``headgate cache``: what the response cache was good for, and how it is emptied."""

from __future__ import annotations

import sys
from datetime import timedelta
from typing import Annotated, Any

import typer
from sqlalchemy.ext.asyncio import AsyncConnection

from app.cli.options import AsJson, DataDir, existing_ledger, moment_of, moment_text, reading
from app.cli.output import Format, run, show_object, show_rows
from app.core.clock import SystemClock
from app.core.money import usd_text
from app.core.patterns import check_pattern
from app.store.cache import CacheStatsRow, cache_stats, clear_cache
from app.store.rows import TeamRow
from app.store.teams import find_team

DAY_MS = int(timedelta(days=1).total_seconds() * 1000)

cache = typer.Typer(help="The response cache.", no_args_is_help=True)

COLUMNS = ("team", "model", "requests", "hits", "joined", "misses", "bypassed", "hit_ratio", "saved_usd")

Team = Annotated[str | None, typer.Option("--team", help="The team's name or id. [default: all]", show_default=False)]
Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="PATTERN",
        help="Only models, as asked for, that it matches. [default: all]",
        show_default=False,
    ),
]


def now_ms() -> int:
    return SystemClock().now_ms()


@cache.command("stats")
def show_stats(
    team: Team = None,
    model: Model = None,
    since: Annotated[
        str | None, typer.Option("--from", metavar="D", help="A date or time, UTC. [default: a day before the end]")
    ] = None,
    until: Annotated[
        str | None, typer.Option("--to", metavar="D", help="A date (its end) or time, UTC. [default: now]")
    ] = None,
    data_dir: DataDir = None,
    style: Annotated[Format, typer.Option("--format", help="How rows come out.")] = Format.table,
    as_json: AsJson = False,
) -> None:
    """Show hits, misses and savings by team and model, of the last 24 hours or another span."""
    _check_model(model)
    end_ms = now_ms() + 1 if until is None else moment_of(until, end_of_day=True)
    start_ms = end_ms - DAY_MS if since is None else moment_of(since, end_of_day=False)
    if start_ms >= end_ms:
        raise typer.BadParameter("--from is not before --to")

    async def work() -> list[dict[str, Any]]:
        async with reading(data_dir) as connection:
            found = await _team(connection, team)
            team_id = None if found is None else found.id
            return [_row(row) for row in await cache_stats(connection, start_ms, end_ms, team_id=team_id, model=model)]

    show_rows(run(work()), COLUMNS, Format.json if as_json else style)


def _row(row: CacheStatsRow) -> dict[str, Any]:
    spared = row.hits + row.joined
    asked = spared + row.misses
    return {
        "team": row.team,
        "model": row.model,
        "requests": row.requests,
        "hits": row.hits,
        "joined": row.joined,
        "misses": row.misses,
        "bypassed": row.bypassed,
        "hit_ratio": f"{spared / asked:.3f}" if asked else None,
        "saved_usd": usd_text(row.saved_nanousd),
    }


@cache.command("clear")
def clear(team: Team = None, model: Model = None, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Take all answers that were kept out of the cache, or those of a team, or to some models."""
    _check_model(model)

    async def work() -> dict[str, Any]:
        async with existing_ledger(data_dir) as database, database.transaction() as connection:
            found = await _team(connection, team)
            team_id = None if found is None else found.id
            made = await clear_cache(connection, team_id=team_id, model=model, now_ms=now_ms())
        return {
            "team": None if found is None else found.name,
            "model": model,
            "at": moment_text(made.cleared_at_ms),
        }

    show_object(run(work()), as_json=as_json)
    print("headgate: running servers follow within a second", file=sys.stderr)


def _check_model(model: str | None) -> None:
    """Raises BadParameter."""
    if model is None:
        return
    try:
        check_pattern(model)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


async def _team(connection: AsyncConnection, team: str | None) -> TeamRow | None:
    """Raises NoSuchTeam."""
    return None if team is None else await find_team(connection, team)
