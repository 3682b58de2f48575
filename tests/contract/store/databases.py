"""Fixtures: the same tests on SQLite and on PostgreSQL, each test on a fresh database with the schema."""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg
import pytest

from app.store import batch, migrate
from app.store.database import Database
from app.store.tables import metadata
from tests.fakes.postgres import GivenServer, shared_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

KINDS = ("sqlite", "postgresql")

# What was made once is copied for every test: a file, and the name of a template.
_templates: dict[str, str] = {}


async def empty_url(kind: str, directory: Path) -> str:
    """The URL of a database without a schema."""
    if kind == "sqlite":
        return f"sqlite:///{directory / 'headgate.db'}"
    return await shared_server().create_database()


async def fresh_url(kind: str, directory: Path) -> str:
    """The URL of a database with the schema and nothing in it."""
    if kind not in _templates:
        url = await empty_url(kind, _template_directory())
        database = await Database.open(url)
        await migrate.upgrade(database)
        await database.close()
        _templates[kind] = url
    if kind == "postgresql":
        await clear(_templates[kind])
        return _templates[kind]
    path = directory / "headgate.db"
    shutil.copy(_templates[kind].removeprefix("sqlite:///"), path)
    return f"sqlite:///{path}"


@functools.cache
def _template_directory() -> Path:
    directory = Path(tempfile.mkdtemp(prefix="hg-template-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    return directory


async def clear(url: str) -> None:
    """Empties a PostgreSQL database, which is ten times as fast as making one."""
    connection = await asyncpg.connect(url)
    try:
        for table in reversed(metadata.sorted_tables):
            await connection.execute(f'DELETE FROM "{table.name}"')
        await connection.execute("INSERT INTO change_counter VALUES (1, 0)")
        await connection.execute("INSERT INTO epoch VALUES (1, 1, 'open', NULL, 0, 0)")
    finally:
        await connection.close()


async def forget(kind: str, url: str) -> None:
    """Databases on a server that is not ours to throw away are dropped."""
    server = shared_server() if kind == "postgresql" else None
    if isinstance(server, GivenServer):
        await server.drop_database(url)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
async def database_url(kind: str, tmp_path: Path) -> str:
    return await fresh_url(kind, tmp_path)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    opened = await Database.open(database_url)
    yield opened
    await opened.close()


@pytest.fixture
def conflicts(monkeypatch: pytest.MonkeyPatch) -> list[Exception]:
    """The deadlocks of batches, which are tried again and would not be seen."""
    found: list[Exception] = []
    real = batch._is_conflict

    def seen(error: Exception) -> bool:
        if real(error):
            found.append(error)
        return real(error)

    monkeypatch.setattr(batch, "_is_conflict", seen)
    return found
