"""Looking after a ledger by the command line: backup, restore, prune, reprice, explain, lost processes."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import shutil
import sqlite3
import stat
import threading
import time

import asyncpg
import httpx
import pytest
from click.testing import Result
from typer.testing import CliRunner

from app.cli.commands import app
from app.store.batch import write_batch
from app.store.database import Database
from tests.contract.store.samples import record_of
from tests.fakes.gateway import SIMULATED, RunningGateway
from tests.fakes.postgres import shared_server
from tests.fakes.upstream import PlayedUpstream, config_for, whole
from tests.fakes.valkey import ValkeyServer

DAY_MS = 24 * 60 * 60 * 1000
BODY = {"model": "sim-large", "input": "hi", "max_output_tokens": 20}
GROUPS = "team,key,model,upstream,hour"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    with RunningGateway(tmp_path_factory.mktemp("upkeep")) as gateway:
        yield gateway


def command(gateway: RunningGateway, *arguments: str) -> Result:
    """A command in this process, which starts faster than one of its own."""
    names = {name: value for name, value in gateway.environment.items() if name.startswith("HEADGATE_")}
    done = CliRunner().invoke(app, list(arguments), env={**names, "HEADGATE_DATA_DIR": str(gateway.data_dir)})
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done


def told_by(gateway: RunningGateway, *arguments: str):
    """The JSON that a command prints."""
    done = command(gateway, *arguments, "--json")
    assert done.exit_code == 0, done.stderr
    return json.loads(done.stdout)


def checked(gateway: RunningGateway):
    return told_by(gateway, "check", "--ledger")


def refused(gateway: RunningGateway, *arguments: str, code: int = 1) -> str:
    """What a command says that fails: nothing on stdout, one sentence on stderr."""
    done = command(gateway, *arguments)
    assert (done.exit_code, done.stdout) == (code, ""), done.output
    return " ".join(done.stderr.replace("│", " ").split())


def ask(gateway: RunningGateway, key: str | None = None, **more) -> httpx.Response:
    headers = {"authorization": f"Bearer {key or gateway.key}"}
    return httpx.post(f"{gateway.base_url}/responses", json={**BODY, **more}, headers=headers, timeout=30)


def wait_for(check, timeout_s=30.0):
    """The first true answer of ``check``."""
    deadline = time.monotonic() + timeout_s
    while not (found := check()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found


class Load:
    """Requests, one after the other on each of four threads, until it is left; all of them are answered."""

    def __init__(self, gateway: RunningGateway, key: str) -> None:
        self.answered = 0
        self.failed: list[int] = []
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._run, args=(gateway, key)) for _ in range(4)]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join(30)

    def _run(self, gateway, key):
        headers = {"authorization": f"Bearer {key}"}
        with httpx.Client(base_url=gateway.base_url, headers=headers, timeout=30) as client:
            while not self._stop.is_set():
                status = client.post("/responses", json=BODY).status_code
                with self._lock:
                    self.answered += status == 200
                    if status != 200:
                        self.failed.append(status)


def restored(tmp_path, name, file, **environment) -> RunningGateway:
    """A gateway, not yet started, on what is restored from ``file``."""
    target = RunningGateway(tmp_path / name, SIMULATED, **environment)
    told = told_by(target, "restore", str(file))
    assert told["rows"]["records"] == checked(target)["records"]
    assert checked(target)["ok"]
    return target


# -- backup and restore -----------------------------------------------------------------------


def test_a_backup_under_load_is_whole_and_moves_to_the_other_database(tmp_path):
    source = RunningGateway(tmp_path / "source")
    under_load, at_rest = tmp_path / "load.gz", tmp_path / "rest.gz"
    with source:
        options = ("--budget-usd", "5", "--budget-window", "month")
        key = told_by(source, "keys", "create", "--team", "default", "--name", "worker", *options)["key"]
        assert ask(source, key).status_code == 200
        with Load(source, key) as load:
            wait_for(lambda: load.answered > 50)
            # Answers come before their records: a batch is written every quarter of a second.
            wait_for(lambda: checked(source)["records"] > 0)
            told = told_by(source, "backup", str(under_load))
            more = load.answered
            wait_for(lambda: load.answered > more + 50)
        assert load.failed == []
        answered = load.answered + 1
        source.records(wait_for=answered)
        told_by(source, "backup", str(at_rest))
        usage, limits = told_by(source, "usage", "--by", GROUPS), told_by(source, "limits", "list")
        assert sum(row["requests"] for row in usage) == answered
    assert 0 < told["rows"]["records"] < answered
    assert stat.S_IMODE(under_load.stat().st_mode) == 0o600
    assert key.rpartition("-")[2].encode() not in gzip.decompress(under_load.read_bytes())

    url = asyncio.run(shared_server().create_database())
    for name, environment in (("sqlite", {}), ("postgresql", {"HEADGATE_DATABASE_URL": url})):
        target = restored(tmp_path, f"{name}-load", under_load, **environment)
        assert "--replace" in refused(target, "restore", str(at_rest))
        told = told_by(target, "restore", str(at_rest), "--replace")
        assert told["rows"]["records"] == answered
        assert told_by(target, "usage", "--by", GROUPS) == usage
        assert told_by(target, "limits", "list") == limits
        with target:
            # The same key, the same budget; the first run is not made again.
            assert ask(target, key).status_code == 200
            assert not (target.data_dir / "first-run.json").exists()
            wait_for(lambda target=target: checked(target)["records"] == answered + 1)
            assert checked(target)["ok"]
            (before,) = [row for row in limits if row.get("spent_usd")]
            (after,) = [row for row in told_by(target, "limits", "list") if row.get("spent_usd")]
            assert float(after["spent_usd"]) == pytest.approx(float(before["spent_usd"]) * (1 + 1 / answered))


def test_what_the_backup_did_not_have_yet_comes_back_from_the_journal(tmp_path):
    """Killed while the ledger could not be written; the ledger is then replaced by an older one."""
    file = tmp_path / "backup.gz"
    gateway = RunningGateway(tmp_path / "gateway")
    with gateway:
        ask(gateway)
        gateway.records(wait_for=1)
        told_by(gateway, "backup", str(file))
        locked = sqlite3.connect(gateway.data_dir / "headgate.db", isolation_level=None)
        locked.execute("BEGIN IMMEDIATE")
        for _ in range(5):
            assert ask(gateway).status_code == 200
        gateway.kill()
        locked.close()
    told_by(gateway, "restore", str(file), "--replace")
    assert checked(gateway)["records"] == 1
    with gateway:
        wait_for(lambda: checked(gateway)["records"] == 6)
        assert checked(gateway)["ok"]


def until_refused(gateway, key):
    """The code of the first refusal."""
    for _ in range(100):
        answer = ask(gateway, key)
        if answer.status_code != 200:
            return answer.json()["error"]["code"]
    return None


def test_after_a_restore_redis_counts_from_the_restored_ledger(tmp_path):
    """What Redis remembers was spent after the backup must not stand for what the ledger says."""
    url = asyncio.run(shared_server().create_database())
    file = tmp_path / "backup.gz"
    with ValkeyServer() as redis:
        gateway = RunningGateway(
            tmp_path / "gateway", SIMULATED, HEADGATE_DATABASE_URL=url, HEADGATE_REDIS_URL=redis.url
        )
        with gateway:
            options = ("--budget-usd", "0.002", "--budget-window", "total")
            key = told_by(gateway, "keys", "create", "--team", "default", "--name", "k", *options)["key"]
            assert wait_for(lambda: ask(gateway, key).status_code == 200)
            wait_for(lambda: checked(gateway)["records"] == 1)
            told_by(gateway, "backup", str(file))
            assert until_refused(gateway, key) == "insufficient_quota"
        spent = checked(gateway)["records"]
        wait_for(lambda: command(gateway, "restore", str(file), "--replace").exit_code == 0, 45)
        with gateway:
            wait_for(lambda: ask(gateway, key).status_code == 200, 20)
            assert until_refused(gateway, key) == "insufficient_quota"
        # As much room as there was after the backup, and no more.
        assert checked(gateway)["records"] == spent
        assert checked(gateway)["ok"]


def test_a_restore_is_refused_where_it_would_do_harm(gateway, tmp_path):
    file = tmp_path / "backup.gz"
    told_by(gateway, "backup", str(file))
    assert "another gateway runs" in refused(gateway, "restore", str(file), "--replace")
    other = RunningGateway(tmp_path / "other")
    command(other, "teams", "create", "--name", "mine")
    for wrong, sentence in (
        ((str(file),), "--replace"),
        ((str(tmp_path / "none.gz"), "--replace"), "No such file"),
        ((str(other.config), "--replace"), "not a backup"),
    ):
        assert sentence in refused(other, "restore", *wrong)
    file.write_bytes(file.read_bytes()[:-20])
    assert "damaged" in refused(other, "restore", str(file), "--replace")
    assert [row["name"] for row in told_by(other, "teams", "list")] == ["mine"]


def test_a_restore_is_refused_beside_a_gateway_of_another_host(tmp_path):
    """They share a database and nothing else."""
    shared = {"HEADGATE_DATABASE_URL": asyncio.run(shared_server().create_database())}
    with RunningGateway(tmp_path / "a", SIMULATED, **shared) as first:
        told_by(first, "backup", str(tmp_path / "b.gz"))
        second = RunningGateway(tmp_path / "b", SIMULATED, **shared)
        assert "stop every gateway" in refused(second, "restore", str(tmp_path / "b.gz"), "--replace")


def test_a_backup_that_cannot_be_written_says_so(gateway, tmp_path):
    for wrong in (tmp_path / "none" / "file", tmp_path):
        assert str(wrong.parent) in refused(gateway, "backup", str(wrong))
    nowhere = RunningGateway(tmp_path / "nowhere")
    assert "there is no ledger" in refused(nowhere, "backup", str(tmp_path / "file"))
    assert not list(tmp_path.rglob("*.partial"))


def test_a_backup_replaces_nothing_but_a_backup(gateway, tmp_path):
    """The ledger itself, its journal, a device: whatever a slip of the hand names stays as it is."""
    ask(gateway)
    made = tmp_path / "made.gz"
    told_by(gateway, "backup", str(made))
    told_by(gateway, "backup", str(made))
    (tmp_path / "empty").touch()
    told_by(gateway, "backup", str(tmp_path / "empty"))
    (tmp_path / "notes.txt").write_text("mine")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(gateway.data_dir / "headgate.db")
    for wrong in (
        gateway.data_dir / "headgate.db",
        gateway.data_dir / "ballast",
        *map(tmp_path.__truediv__, ("notes.txt", "pipe", "link")),
    ):
        assert "it is left as it is" in refused(gateway, "backup", str(wrong))
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert "its name is missing" in refused(gateway, "backup", "")
    assert ask(gateway).status_code == 200
    assert checked(gateway)["ok"]


# -- prune ------------------------------------------------------------------------------------


def test_records_are_pruned_when_asked_and_sums_stay(tmp_path):
    ledger = RunningGateway(tmp_path)
    command(ledger, "teams", "create", "--name", "t")
    today_ms = time.time_ns() // 1_000_000 // DAY_MS * DAY_MS
    records = [record_of(at_ms=today_ms - days * DAY_MS + 5) for days in (9, 8, 5, 1, 0)]

    async def fill():
        database = await Database.open(f"sqlite:///{ledger.data_dir / 'headgate.db'}")
        await write_batch(database, records)
        await database.close()

    asyncio.run(fill())
    by_day = ("usage", "--by", "day", "--from", "2020-01-01")
    before = told_by(ledger, *by_day)

    def day(days):
        return time.strftime("%Y-%m-%d", time.gmtime(today_ms / 1000 - days * 86400))

    for wrong in (day(1), day(0), day(-9), f"{day(5)}T12:00", "soon"):
        refused(ledger, "prune", "--records-before", wrong, code=2)
    refused(ledger, "prune", code=2)
    told = told_by(ledger, "prune", "--records-before", day(5), "--dry-run")
    assert (told["removed"], told["records"], told["entries"]) == (False, 2, 2)
    assert checked(ledger)["records"] == 5
    told = told_by(ledger, "prune", "--records-before", day(5))
    assert (told["removed"], told["records"], told["entries"]) == (True, 2, 2)
    proof = checked(ledger)
    assert (proof["ok"], proof["records"]) == (True, 3)
    assert told_by(ledger, *by_day) == before


# -- reprice ----------------------------------------------------------------------------------


def test_what_was_unpriced_is_priced_once_there_is_a_price(tmp_path):
    answer = {
        "id": "resp_1",
        "object": "response",
        "model": "our-llm-2026",
        "status": "completed",
        "output": [],
        "usage": {"input_tokens": 1000, "output_tokens": 500, "total_tokens": 1500},
    }
    with PlayedUpstream(lambda _seen: whole(json.dumps(answer).encode())) as upstream:
        config = config_for(upstream.base_url)
        with RunningGateway(tmp_path, config) as gateway:
            for _ in range(3):
                assert ask(gateway, model="our-llm").status_code == 200
            gateway.records(wait_for=3)
            today = time.strftime("%Y-%m-%d", time.gmtime())
            repricing = ("reprice", "--from", today, "--config", str(gateway.config))
            told = told_by(gateway, *repricing)
            assert told == {"priced": 0, "cost_usd": "0", "unpriced": 3, "unpriced_models": {"our-llm-2026": 3}}
            price = "{model: our-llm-*, input_per_mtok_usd: 2, output_per_mtok_usd: 10}"
            gateway.config.write_text(f"{config}prices:\n  - {price}\n")
            assert told_by(gateway, *repricing, "--model", "other")["priced"] == 0
            told = told_by(gateway, *repricing, "--model", "our-llm-2026")
            assert told == {"priced": 3, "cost_usd": "0.021", "unpriced": 0, "unpriced_models": {}}
            assert told_by(gateway, *repricing)["priced"] == 0
            (row,) = told_by(gateway, "usage", "--by", "model")
            assert (row["requests"], row["unpriced"], row["cost_usd"]) == (3, 0, "0.021")
            assert checked(gateway)["ok"]
            request_id = gateway.records()[0]["request_id"]
            (attempt,) = told_by(gateway, "explain", request_id)["attempts"]
            assert [each["reason"] for each in attempt["entries"]] == ["", "reprice"]
            assert attempt["cost_usd"] == "0.007"
            text = command(gateway, "explain", request_id).stdout
            assert "unpriced" in text
            assert "reprice" in text
            assert "$0.007" in text


# -- explain ----------------------------------------------------------------------------------


def test_a_record_is_explained(gateway):
    made = told_by(gateway, "keys", "create", "--team", "default", "--name", "told", "--requests-per-minute", "100")
    tags = {"authorization": f"Bearer {made['key']}", "x-headgate-tags": "project=search"}
    answer = httpx.post(f"{gateway.base_url}/responses", json={**BODY, "user": "u-\x1b[31m"}, headers=tags)
    assert answer.status_code == 200
    request_id = answer.headers["x-headgate-request-id"]
    told = wait_for(lambda: explained(gateway, request_id))
    assert (told["kind"], told["team"], told["key"], told["tags"]) == (
        "record",
        "default",
        "told",
        {"project": "search"},
    )
    assert ["key", "requests_per_minute", 100, 99] in told["decision"]["limits"]
    (attempt,) = told["attempts"]
    assert attempt["cost_usd"] == told["cost_usd"] == answer.headers["x-headgate-cost-usd"]
    assert (attempt["kind"], attempt["why_estimate"]) == ("charge", None)
    text = command(gateway, "explain", request_id).stdout
    for part in (request_id, "key told", "requests_per_minute", f"${told['cost_usd']}", "project=search", " UTC"):
        assert part in text
    assert "\x1b" not in text


def explained(gateway, request_id):
    done = command(gateway, "explain", request_id, "--json")
    return json.loads(done.stdout) if done.exit_code == 0 else None


def test_a_refusal_is_explained(gateway):
    made = told_by(gateway, "keys", "create", "--team", "default", "--name", "few", "--requests-per-minute", "1")
    assert ask(gateway, made["key"]).status_code == 200
    answer = ask(gateway, made["key"])
    assert answer.status_code == 429
    request_id = answer.headers["x-headgate-request-id"]
    told = wait_for(lambda: explained(gateway, request_id))
    assert (told["kind"], told["key"], told["status"], told["code"]) == ("refusal", "few", 429, "rate_limit_exceeded")
    text = command(gateway, "explain", request_id).stdout
    for part in ("requests_per_minute", "at most  1", "again", "Nothing was sent"):
        assert part in text
    rows = told_by(gateway, "explain", "--team", "default", "--refusals")
    assert request_id in {row["request_id"] for row in rows}
    table = command(gateway, "explain", "--team", "default", "--refusals").stdout
    assert "requests_per_minute" in table
    assert command(gateway, "explain", "--team", "default", "--refusals", "--format", "csv").stdout.startswith("at,")


def test_what_is_not_known_is_said_to_be_unknown(gateway):
    assert "there is nothing about" in refused(gateway, "explain", "01a1f8d3-ea00-7000-8000-000000000000")
    for wrong in ((), ("--team", "default"), ("--refusals",), ("id", "--team", "default", "--refusals")):
        refused(gateway, "explain", *wrong, code=2)
    assert "no team" in refused(gateway, "explain", "--team", "nobody", "--refusals")


# -- processes --------------------------------------------------------------------------------


def test_a_lost_process_is_written_off(tmp_path):
    url = asyncio.run(shared_server().create_database())

    def sql(text, *arguments):
        async def work():
            connection = await asyncpg.connect(url)
            try:
                return await connection.fetch(text, *arguments)
            finally:
                await connection.close()

        return asyncio.run(work())

    with ValkeyServer() as redis:
        shared = {"HEADGATE_DATABASE_URL": url, "HEADGATE_REDIS_URL": redis.url}
        gateway = RunningGateway(tmp_path, SIMULATED, **shared)
        with gateway:
            assert ask(gateway).status_code == 200
            (row,) = told_by(gateway, "processes", "list")
            assert row["state"] == "open"
            assert "stop it first" in refused(gateway, "processes", "write-off", row["id"])
            gateway.kill()
        shutil.rmtree(gateway.data_dir)
        sql("UPDATE processes SET seen_at_ms = seen_at_ms - 60000")
        sql("INSERT INTO marks VALUES ($1, 'b', 0, 't', 2500000000)", row["id"])
        (row,) = told_by(gateway, "processes", "list")
        assert row["held_usd_max"] == "2.5"
        told = told_by(gateway, "processes", "write-off", row["id"])
        assert told == {"id": row["id"], "written_off": True}
        assert told_by(gateway, "processes", "list") == []
        assert sql("SELECT * FROM marks") == []
        assert "no process" in refused(gateway, "processes", "write-off", "nobody")
