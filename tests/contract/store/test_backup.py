"""Backup and restore: one snapshot, one portable file, all of it or nothing."""

from __future__ import annotations

import asyncio
import gzip
import json
import stat
import time
import tracemalloc
import zlib

import msgspec
import pytest
from sqlalchemy import MetaData, insert, select, text, update

from app.auth.keys import mint
from app.core.money import NANOUSD_MAX
from app.store import backup, migrate
from app.store import restore as restoring
from app.store.backup import back_up
from app.store.backup_file import FORMAT, VERSION, BackupWriter, Header, Section
from app.store.batch import write_batch
from app.store.cache import CACHE_SECRET_FACT, clear_cache
from app.store.database import Database
from app.store.errors import BackupRefused, SchemaUnknown
from app.store.keys import create_key
from app.store.limits import PlainLimit
from app.store.meta import fact_or, find_fact
from app.store.processes import close_process, register_process
from app.store.proof import prove
from app.store.restore import OF_RUNNING, check_backup, restore
from app.store.tables import change_counter, epoch, metadata, processes
from app.store.teams import create_team
from app.store.turns import TurnRow, empty_turn, keep_turns
from tests.contract.store.databases import KINDS, empty_url, forget
from tests.contract.store.samples import NOON_MS, entry_of, owned_of, record_of


@pytest.fixture(params=KINDS)
async def empty(request, tmp_path):
    """A database without a schema, of either kind."""
    folder = tmp_path / "restored"
    folder.mkdir()
    url = await empty_url(request.param, folder)
    opened = await Database.open(url)
    yield opened
    await opened.close()
    await forget(request.param, url)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "backup.gz"


async def fill(database, count=30):
    """A ledger with something of everything; returns the text of its key."""
    key = mint()
    async with database.transaction() as connection:
        budget = PlainLimit("money", "month", 5_000_000_000)
        team = await create_team(connection, name="søk\n", now_ms=1, limits=[budget], endpoints=("files", "*"))
        await create_key(connection, team_id=team.id, name="k", secret_id=key.id, digest=key.digest, now_ms=1)
        await connection.execute(
            insert(processes).values(id="p", node="n", slot=0, started_at_ms=1, seen_at_ms=1, acked_epoch=1, closed=0)
        )
        turn = TurnRow("1", team.id, "resp_1", "u", None, "1", 3, b"\x00sealed\xff", NOON_MS)
        await keep_turns(connection, [turn, msgspec.structs.replace(turn, turn_id="2", previous_id="1")])
        # One that was deleted holds nothing.
        await empty_turn(connection, team.id, "2")
    big = record_of(entries=(entry_of("x", cost_nanousd=NANOUSD_MAX),), end_user="日本", tags={"a": '\\ " é'})
    unpriced = record_of(entries=(entry_of("y", cost_nanousd=None),))
    rows = [record_of(team_id=team.id, key_id=key.id, at_ms=NOON_MS + number * 60_000) for number in range(count)]
    await write_batch(database, [big, unpriced, *rows], [owned_of(row.request_id) for row in rows])
    return key.text


async def rows_of(database, tables=None):
    """Every row of every table, in an order that both databases have."""
    found = {}
    async with database.read() as connection:
        for table in tables or metadata.sorted_tables:
            rows = (await connection.execute(select(table))).all()
            found[table.name] = sorted((tuple(row) for row in rows), key=repr)
    return found


def lines_of(path):
    return gzip.decompress(path.read_bytes()).splitlines(keepends=True)


async def test_a_restored_ledger_is_the_one_that_was_backed_up(database, empty, path):
    secret = await fill(database)
    written = await back_up(database, path, NOON_MS)
    restored = await restore(empty, path)
    before, after = await rows_of(database), await rows_of(empty)
    for name in set(before) - OF_RUNNING - {"change_counter", "epoch"}:
        assert after[name] == before[name], name
    assert written.rows == {name: len(rows) for name, rows in before.items()}
    assert restored.rows == {name: count for name, count in written.rows.items() if name not in OF_RUNNING}
    assert before["processes"]
    assert not any(after[name] for name in OF_RUNNING)
    async with empty.read() as connection:
        assert (await prove(connection)).holds
    assert secret.encode() not in b"".join(lines_of(path))
    assert (stat.S_IMODE(path.stat().st_mode), path.stat().st_size) == (0o600, written.size_bytes)
    assert [each.name for each in path.parent.glob(".backup*")] == []


async def test_a_backup_beside_writers_is_one_moment(database, empty, path, monkeypatch):
    """Tables are read one after the other while batches go on being written: none may be half in it."""
    await fill(database)
    monkeypatch.setattr(backup, "PART_ROWS", 5)
    written = 0
    done = asyncio.Event()

    async def load():
        nonlocal written
        while not done.is_set():
            await write_batch(database, [record_of() for _ in range(3)])
            written += 3

    task = asyncio.create_task(load())
    while not written:
        await asyncio.sleep(0.001)
    made = await back_up(database, path, NOON_MS)
    done.set()
    await task
    assert made.rows["records"] < 32 + written
    assert made.rows["records"] == made.rows["entries"]
    await restore(empty, path)
    async with empty.read() as connection:
        assert (await prove(connection)).holds


async def test_what_was_known_of_the_ledger_before_is_out_of_date(database, empty, path):
    """Gateways, and what is left in Redis, must not take an old number for a new one."""
    await fill(database)
    await back_up(database, path, NOON_MS)
    await migrate.upgrade(empty)
    async with empty.transaction() as connection:
        await connection.execute(update(change_counter).values(value=1000))
        await connection.execute(update(epoch).values(number=2**33, leader="p", leader_until_ms=2**40))
    await restore(empty, path)
    async with empty.read() as connection:
        assert (await connection.execute(select(change_counter.c.value))).scalar_one() == 1001
        row = (await connection.execute(select(epoch))).one()
    assert (row.number, row.state, row.leader, row.leader_until_ms) == (2**33 + 1, "warming", None, 0)
    await restore(database, path, replace=True)
    async with database.read() as connection:
        # Redis may have lived through epochs that no backup has seen.
        assert (await connection.execute(select(epoch.c.number))).scalar_one() >= int(time.time()) - 60


async def test_no_answer_of_the_cache_from_before_a_restore_is_found_after_it(database, empty, path):
    """What was cleared after the backup is not known any more, so whatever was kept is out of reach."""
    async with database.transaction() as connection:
        await fact_or(connection, CACHE_SECRET_FACT, "secret")
        await clear_cache(connection, team_id=None, model="m", now_ms=1)
    await back_up(database, path, NOON_MS)
    await migrate.upgrade(empty)
    async with empty.transaction() as connection:
        # Neither of them makes a ledger of a database that nobody has used.
        await fact_or(connection, CACHE_SECRET_FACT, "another")
        await clear_cache(connection, team_id="t", model=None, now_ms=1)
    await restore(empty, path)
    async with empty.read() as connection:
        assert await find_fact(connection, CACHE_SECRET_FACT) is None
    assert (await rows_of(empty))["cache_clears"] == [("", "m", 1, 1)]


async def test_a_ledger_is_replaced_only_when_asked(database, empty, path):
    await fill(database)
    await back_up(database, path, NOON_MS)
    await restore(empty, path)
    await write_batch(empty, [record_of()])
    before = await rows_of(empty)
    with pytest.raises(BackupRefused, match="--replace"):
        await restore(empty, path)
    assert await rows_of(empty) == before
    await restore(empty, path, replace=True)
    assert (await rows_of(empty))["records"] == (await rows_of(database))["records"]


@pytest.fixture
async def on_postgres(tmp_path):
    url = await empty_url("postgresql", tmp_path)
    target = await Database.open(url)
    await migrate.upgrade(target)
    yield target, url
    await target.close()
    await forget("postgresql", url)


async def test_a_gateway_that_was_seen_keeps_a_restore_away(database, on_postgres, path):
    """On SQLite the data dir's lock says so."""
    target, _ = on_postgres
    await fill(database)
    await back_up(database, path, NOON_MS)
    async with target.transaction() as connection:
        await register_process(connection, "p", "box-7", 0, NOON_MS)
    with pytest.raises(BackupRefused, match="box-7"):
        await restore(target, path)
    async with target.transaction() as connection:
        await close_process(connection, "p")
    await restore(target, path)


async def test_a_gateway_that_is_connected_keeps_a_restore_away(database, on_postgres, path, monkeypatch):
    """Without Redis it does not tell that it runs."""
    monkeypatch.setattr(restoring, "SESSIONS_PAUSE_S", 0.01)
    target, url = on_postgres
    await fill(database)
    await back_up(database, path, NOON_MS)
    gateway = await Database.open(url)
    with pytest.raises(BackupRefused, match="connected"):
        await restore(target, path)
    await restore(target, path, force=True)
    await gateway.close()
    monkeypatch.setattr(restoring, "SESSIONS_PAUSE_S", 0.1)
    await restore(target, path, replace=True)


async def damaged(path, empty, data):
    path.write_bytes(data)
    with pytest.raises(BackupRefused):
        await restore(empty, path, replace=True)


async def test_a_damaged_or_cut_file_changes_nothing(database, empty, path):
    await fill(database, 3)
    await back_up(database, path, NOON_MS)
    await restore(empty, path)
    await write_batch(empty, [record_of()])
    before = await rows_of(empty)
    whole = path.read_bytes()
    for cut in (0, 1, 10, len(whole) // 2, len(whole) - 8, len(whole) - 1):
        await damaged(path, empty, whole[:cut])
    for place in range(0, len(whole), max(1, len(whole) // 100)):
        turned = whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :]
        if lines_or_none(turned) != lines_or_none(whole):
            await damaged(path, empty, turned)
    for data in (whole + b"x", whole + gzip.compress(b"more\n"), b"PK\3\4" + whole, gzip.compress(b"{}\n")):
        await damaged(path, empty, data)
    path.write_bytes(whole)
    await restore(empty, path, replace=True)
    assert await rows_of(empty) != before


def lines_or_none(data):
    """What a file holds: a bit of it may be turned that says nothing, such as those that fill up a byte."""
    try:
        return gzip.decompress(data)
    except (OSError, EOFError, zlib.error):
        return None


@pytest.mark.parametrize("edit", ["lost row", "row twice", "other amount", "lost table", "no trailer", "trailer twice"])
async def test_lines_that_are_not_those_that_were_written_are_refused(database, path, edit):
    """The archive is in order, its content is not."""
    await fill(database, 3)
    await back_up(database, path, NOON_MS)
    lines = lines_of(path)
    row = next(index for index, line in enumerate(lines) if b"61000" in line)
    table = next(index for index, line in enumerate(lines) if b'"objects"' in line)
    edited = {
        "lost row": lines[:row] + lines[row + 1 :],
        "row twice": lines[:row] + lines[row:][:1] + lines[row:],
        "other amount": [*lines[:row], lines[row].replace(b"61000", b"61001"), *lines[row + 1 :]],
        "lost table": lines[:table] + lines[table + 4 :],
        "no trailer": lines[:-1],
        "trailer twice": [*lines, lines[-1]],
    }[edit]
    assert edited != lines
    path.write_bytes(gzip.compress(b"".join(edited)))
    with pytest.raises(BackupRefused, match="damaged"):
        check_backup(path)


def write_file(path, sections, *, schema, version=VERSION):
    """A whole file with any content."""
    with path.open("wb") as file:
        writer = BackupWriter(file, Header(FORMAT, version, schema, 1))
        for name, columns, rows in sections:
            writer.begin_table(Section(name, tuple(columns)))
            writer.write_rows(rows)
        writer.close()


@pytest.mark.parametrize(("schema", "version"), [("9999", VERSION), ("0001", VERSION + 1)])
async def test_a_file_of_a_newer_version_is_refused_with_its_schema(empty, path, schema, version):
    write_file(path, [], schema=schema, version=version)
    with pytest.raises(BackupRefused, match=f"newer.*{schema}"):
        await restore(empty, path)


def sections_of(path):
    """The content of a backup: (table, columns, rows)."""
    sections = []
    for line in map(json.loads, lines_of(path)[1:-1]):
        if isinstance(line, dict):
            sections.append((line["table"], line["columns"], []))
        else:
            sections[-1][2].append(line)
    return sections


@pytest.mark.parametrize(
    "fault", ["key twice", "short row", "other column", "no table", "text for a number", "a fraction", "too much"]
)
async def test_rows_that_the_database_refuses_leave_it_as_it_was(database, empty, path, fault):
    """A file that is whole, and holds what cannot be."""
    await fill(database, 3)
    await back_up(database, path, NOON_MS)
    await restore(empty, path)
    before = await rows_of(empty)
    sections = sections_of(path)
    name, columns, rows = next(each for each in sections if each[0] == "objects")
    if fault == "key twice":
        rows.append(rows[0])
    elif fault == "short row":
        rows[0].pop()
    elif fault == "other column":
        columns[0] = f"{columns[0]}s"
    elif fault == "no table":
        sections = [each for each in sections if each[0] != name]
    else:
        wrong = {"text for a number": "soon", "a fraction": 1.5, "too much": 2**70}
        rows[0][columns.index("created_at_ms")] = wrong[fault]
    write_file(path, sections, schema=migrate.head_revision())
    with pytest.raises(BackupRefused):
        await restore(empty, path, replace=True)
    assert await rows_of(empty) == before


async def test_a_file_of_an_older_schema_is_migrated(empty, path, tmp_path):
    """From the first schema, where limits were columns, to this one's, where they are rows."""
    old = await Database.open(f"sqlite:///{tmp_path / 'old.db'}")
    await migrate.upgrade(old, "0001")
    async with old.transaction() as connection:
        await connection.execute(
            text(
                "INSERT INTO teams (id, name, requests_per_minute, created_at_ms, changed)"
                " VALUES ('t', 'team', 600, 1, 1)"
            )
        )
        await connection.execute(text("UPDATE change_counter SET value = 1"))
        found = MetaData()
        await connection.run_sync(found.reflect)
    tables = [table for table in found.sorted_tables if table.name != "alembic_version"]
    content = await rows_of(old, tables)
    await old.close()
    sections = [(str(table.name), [str(column.name) for column in table.columns]) for table in tables]
    write_file(path, [(name, columns, content[name]) for name, columns in sections], schema="0001")
    restored = await restore(empty, path)
    assert restored.schema == "0001"
    after = await rows_of(empty)
    assert [row[0] for row in after["teams"]] == ["t"]
    (limit,) = after["limits"]
    assert {"t.requests_per_minute", "t", "requests", "minute", 600} <= set(limit)
    assert after["change_counter"] == [(1, 2)]


async def test_a_database_of_another_schema_is_not_backed_up(database, path, monkeypatch):
    await back_up(database, path, NOON_MS)
    before = path.read_bytes()
    monkeypatch.setattr(backup, "head_revision", lambda: "0000")
    with pytest.raises(SchemaUnknown):
        await back_up(database, path, NOON_MS)
    assert path.read_bytes() == before
    assert [each.name for each in path.parent.iterdir() if each.name.endswith(".partial")] == []


async def test_size_does_not_matter(database, empty, path, monkeypatch):
    """Five times the rows do not take more memory, to write or to read."""
    monkeypatch.setattr(backup, "PART_ROWS", 100)
    monkeypatch.setattr(restoring, "PART_ROWS", 100)
    peaks = []
    for count in (500, 2500):
        await write_batch(database, [record_of(decision={"why": "x" * 1000}) for _ in range(count)])
        tracemalloc.start()
        await back_up(database, path, NOON_MS)
        await restore(empty, path, replace=True)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] * 1.5
