"""Options that several commands share, and how their texts are read."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Annotated, get_args

import typer
from msgspec import UNSET, UnsetType
from sqlalchemy.ext.asyncio import AsyncConnection

from app.core.families import EVERYTHING, families_of
from app.core.identity import CacheMode
from app.edge.endpoints import FAMILIES
from app.settings import ConfigurationError, Environment
from app.store.database import Database
from app.store.migrate import upgrade

DataDir = Annotated[Path | None, typer.Option("--data-dir", help="Where the ledger is. [default: ./data]")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Models = Annotated[
    str | None, typer.Option("--models", metavar="PATTERN,…", help="What the key may ask for; all for everything.")
]
Endpoints = Annotated[
    str | None,
    typer.Option(
        "--endpoints",
        metavar="FAMILY,…",
        help=f"{', '.join(FAMILIES)}; * for every path, also those that the gateway does not know; default (or all) "
        "for a key to have its team's, and for a team to have those that are on by default.",
    ),
]
Expires = Annotated[
    str | None, typer.Option("--expires", metavar="DATE|30d", help="A date (UTC), a time, or days from now; or never.")
]
CACHE_MODES: tuple[CacheMode, ...] = get_args(CacheMode)
Cache = Annotated[
    str | None,
    typer.Option(
        "--cache",
        metavar="|".join((*CACHE_MODES, "default")),
        help="How far it uses the response cache; default: as the model or the configuration file says.",
    ),
]

LIMIT_MAX = 10**15
LAST_MOMENT_MS = int(datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC).timestamp() * 1000)
"""The last that can be written as a date."""
OVERLAP_MS_MAX = int(timedelta(days=3653).total_seconds() * 1000)
NAME_CHARS_MAX = 128
_DURATION = re.compile(r"([1-9][0-9]{0,5})([mhdw])\Z")
_UNITS = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}


@asynccontextmanager
async def ledger(data_dir: Path | None) -> AsyncIterator[Database]:
    """The ledger's database, with the schema of this version."""
    environment = Environment.read(data_dir=data_dir)
    if environment.database_url is None:
        environment.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    database = await Database.open(environment.database)
    try:
        await upgrade(database)
        yield database
    finally:
        await database.close()


@asynccontextmanager
async def existing_ledger(data_dir: Path | None) -> AsyncIterator[Database]:
    """The ledger's database, which must be there."""
    _require_ledger(Environment.read(data_dir=data_dir).database)
    async with ledger(data_dir) as database:
        yield database


@asynccontextmanager
async def writing(data_dir: Path | None) -> AsyncIterator[AsyncConnection]:
    """One transaction on the ledger."""
    async with ledger(data_dir) as database, database.transaction() as connection:
        yield connection


@asynccontextmanager
async def reading(data_dir: Path | None) -> AsyncIterator[AsyncConnection]:
    """One snapshot of the ledger, which must be there."""
    async with existing_ledger(data_dir) as database, database.read() as connection:
        yield connection


def _require_ledger(url: str) -> None:
    path = url.removeprefix("sqlite:///")
    if path != url and not Path(path).exists():
        raise ConfigurationError(f"there is no ledger at {path}")


def name_of(text: str) -> str:
    """A name that people will read. Raises BadParameter."""
    text = text.strip()
    if not text or len(text) > NAME_CHARS_MAX or not text.isprintable():
        raise typer.BadParameter(f"a name has 1 to {NAME_CHARS_MAX} printable characters")
    return text


def limit_of(text: str | None) -> int | UnsetType | None:
    """A limit: UNSET where the option was not given, None for ``none``. Raises BadParameter."""
    if text is None:
        return UNSET
    if text.lower() == "none":
        return None
    if not text.isdecimal() or not 0 < int(text) <= LIMIT_MAX:
        raise typer.BadParameter(f"{text!r} is not a whole number above zero, nor none")
    return int(text)


def patterns_of(text: str | None) -> tuple[str, ...] | UnsetType | None:
    """A list of patterns: UNSET where it was not given, None for ``all``. Raises BadParameter."""
    if text is None:
        return UNSET
    return None if text.strip().lower() == "all" else _parts_of(text)


def endpoints_of(text: str | None) -> tuple[str, ...] | UnsetType | None:
    """Families of endpoints: UNSET where they were not given, None for ``default``. Raises BadParameter."""
    if text is None:
        return UNSET
    # Scripts say "all" since before there were families that are off.
    if text.strip().lower() in {"default", "all"}:
        return None
    try:
        return families_of(_parts_of(text), FAMILIES)
    except ValueError as error:
        raise typer.BadParameter(f"{error}, {EVERYTHING}, default") from error


def _parts_of(text: str) -> tuple[str, ...]:
    parts = tuple(part.strip() for part in text.split(",") if part.strip())
    if not parts:
        raise typer.BadParameter("the list is empty")
    return parts


def cache_mode_of(text: str | None) -> CacheMode | UnsetType | None:
    """How far a key uses the cache: UNSET where it was not given, None for ``default``. Raises BadParameter."""
    if text is None:
        return UNSET
    if text == "default":
        return None
    for mode in CACHE_MODES:
        if text == mode:
            return mode
    raise typer.BadParameter(f"{text!r} is none of {', '.join(CACHE_MODES)}, default")


def expiry_of(text: str | None, now_ms: int) -> int | UnsetType | None:
    """When a key ends, in milliseconds: UNSET where it was not given, None for ``never``. Raises BadParameter."""
    if text is None:
        return UNSET
    if text.lower() == "never":
        return None
    duration_ms = _duration_ms(text)
    at_ms = moment_of(text, end_of_day=False) if duration_ms is None else now_ms + duration_ms
    if at_ms <= now_ms:
        raise typer.BadParameter(f"{text!r} is in the past")
    if at_ms > LAST_MOMENT_MS:
        raise typer.BadParameter(f"{text!r} is after the year 9999; never is an expiry, too")
    return at_ms


def overlap_of(text: str) -> int:
    """How long two secrets of a key work side by side, in milliseconds. Raises BadParameter."""
    overlap_ms = 0 if text == "0" else _duration_ms(text)
    if overlap_ms is None:
        raise typer.BadParameter(f"{text!r} is not a duration (30m, 24h, 7d) or 0")
    if overlap_ms > OVERLAP_MS_MAX:
        raise typer.BadParameter(f"{text!r} is longer than ten years")
    return overlap_ms


def _duration_ms(text: str) -> int | None:
    found = _DURATION.match(text)
    return None if found is None else int(int(found.group(1)) * _UNITS[found.group(2)].total_seconds() * 1000)


def moment_of(text: str, *, end_of_day: bool) -> int:
    """A date or a time as milliseconds; without a zone it is UTC. ``end_of_day``: a date means its last moment."""
    try:
        if len(text) == len("2026-01-31"):
            day = date.fromisoformat(text) + timedelta(days=1 if end_of_day else 0)
            at = datetime(day.year, day.month, day.day, tzinfo=UTC)
        else:
            at = datetime.fromisoformat(text)
            at = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
    except (ValueError, OverflowError) as error:
        raise typer.BadParameter(f"{text!r} is not a date (2026-01-31) or a time (2026-01-31T12:00Z)") from error
    return int(at.timestamp() * 1000)


def moment_text(at_ms: int | None) -> str | None:
    """Milliseconds as people write a time."""
    if at_ms is None:
        return None
    at = datetime.fromtimestamp(min(at_ms, LAST_MOMENT_MS) / 1000, UTC)
    return at.isoformat(timespec="seconds").replace("+00:00", "Z")
