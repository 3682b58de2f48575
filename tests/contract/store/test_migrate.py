from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text
from sqlalchemy.dialects import sqlite
from sqlalchemy.schema import CreateTable

from app.store import migrate
from app.store.database import Database
from app.store.errors import SchemaUnknown
from app.store.tables import metadata
from tests.contract.store.databases import empty_url, forget


@pytest.fixture
async def empty(kind, tmp_path):
    url = await empty_url(kind, tmp_path)
    database = await Database.open(url)
    yield database
    await database.close()
    await forget(kind, url)


async def test_the_migrated_schema_is_the_one_in_the_code(empty):
    assert await migrate.upgrade(empty) == migrate.head_revision()

    def compare(connection):
        options = {"compare_type": True, "compare_server_default": True}
        return compare_metadata(MigrationContext.configure(connection, opts=options), metadata)

    async with empty.read() as connection:
        assert await connection.run_sync(compare) == []


def parts_of(statement):
    """The words of a CREATE TABLE: constraints may come in any order."""
    return sorted(statement.replace(",", " ").replace("(", " ( ").replace(")", " ) ").split())


async def test_tables_on_sqlite_are_made_as_the_code_says(tmp_path):
    """STRICT and the order of columns are not compared by alembic."""
    url = await empty_url("sqlite", tmp_path)
    database = await Database.open(url)
    await migrate.upgrade(database)
    await database.close()
    with sqlite3.connect(tmp_path / "headgate.db") as connection:
        found = dict(connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table'").fetchall())
    connection.close()
    for table in metadata.sorted_tables:
        wanted = str(CreateTable(table).compile(dialect=sqlite.dialect()))
        assert parts_of(found[table.name]) == parts_of(wanted)


async def test_a_second_upgrade_does_nothing(empty):
    assert await migrate.current_revision(empty) is None
    await migrate.upgrade(empty)
    assert await migrate.upgrade(empty) == await migrate.current_revision(empty) == migrate.head_revision()


async def test_many_that_start_at_once_migrate_once(kind, tmp_path):
    url = await empty_url(kind, tmp_path)
    databases = [await Database.open(url) for _ in range(4)]
    reached = await asyncio.gather(*[migrate.upgrade(database) for database in databases])
    assert set(reached) == {migrate.head_revision()}
    async with databases[0].read() as connection:
        assert (await connection.execute(text("SELECT count(*) FROM change_counter"))).scalar() == 1
    for database in databases:
        await database.close()
    await forget(kind, url)


async def test_a_newer_schema_is_refused_with_the_reason(empty):
    await migrate.upgrade(empty)
    async with empty.transaction() as connection:
        await connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(SchemaUnknown, match=r"at schema 9999.*newer version"):
        await migrate.upgrade(empty)


async def test_a_database_of_something_else_is_refused_and_left_alone(empty):
    async with empty.transaction() as connection:
        await connection.execute(text("CREATE TABLE records (id INTEGER)"))
    with pytest.raises(SchemaUnknown, match="did not make"):
        await migrate.upgrade(empty)
    assert await migrate.current_revision(empty) is None


async def test_a_step_that_fails_leaves_nothing_behind(empty, monkeypatch):
    """The schema changes whole or not at all, on SQLite too."""
    async with empty.transaction() as connection:
        await connection.execute(text("CREATE TABLE poison (id INTEGER)"))
    with pytest.raises(Exception, match="poison"):
        await migrate.upgrade(empty)
    assert await migrate.current_revision(empty) is None
    with pytest.raises(Exception, match="teams"):
        async with empty.read() as connection:
            await connection.execute(text("SELECT * FROM teams"))


def test_migrations_lie_inside_the_package():
    """What is inside of it is in the wheel."""
    package = Path(migrate.__file__).parent.parent
    assert package.name == "app"
    assert {path.name for path in (package / "store/migrations").iterdir()} >= {"env.py", "script.py.mako", "versions"}
