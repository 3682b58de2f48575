"""``headgate cache`` and ``--cache`` of keys: what can be said, what is shown, and what is refused with a reason."""

from __future__ import annotations

import asyncio
import csv
import json
import re
import time

import pytest
from typer.testing import CliRunner

from app.cli.commands import app
from app.store.batch import write_batch
from app.store.changes import rows_since
from app.store.database import Database
from tests.contract.store.samples import NOON_MS, record_of

HOUR_MS = 3_600_000


class Ledger:
    """Commands on a data dir of their own, in this process."""

    def __init__(self, data_dir) -> None:
        self.data_dir = data_dir

    def run(self, *arguments: str):
        return CliRunner().invoke(app, list(arguments), env={"HEADGATE_DATA_DIR": str(self.data_dir)})

    def done(self, *arguments: str):
        """What a command does that succeeds."""
        done = self.run(*arguments)
        assert done.exit_code == 0, done.output
        return done

    def json(self, *arguments: str):
        return json.loads(self.done(*arguments, "--json").stdout)

    def refused(self, *arguments: str, code: int = 2) -> str:
        """What a command says that fails: nothing on stdout, nothing but the sentence on stderr."""
        done = self.run(*arguments)
        assert (done.exit_code, done.stdout) == (code, ""), done.output
        assert isinstance(done.exception, SystemExit), done.exception
        # The box around it breaks sentences into lines.
        return " ".join(done.stderr.replace("│", " ").split())

    def clears(self) -> list[tuple[str, str]]:
        async def read(database):
            async with database.read() as connection:
                return (await rows_since(connection, -1)).cache_clears

        return [(clear.team_id, clear.model) for clear in self._on_database(read)]

    def write(self, *records) -> None:
        self._on_database(lambda database: write_batch(database, list(records)))

    def _on_database(self, work):
        async def run():
            database = await Database.open(f"sqlite:///{self.data_dir / 'headgate.db'}")
            try:
                return await work(database)
            finally:
                await database.close()

        return asyncio.run(run())


@pytest.fixture
def ledger(tmp_path) -> Ledger:
    """A data dir with a team."""
    ledger = Ledger(tmp_path / "data")
    ledger.done("teams", "create", "--name", "search")
    return ledger


@pytest.fixture
def team_id(ledger) -> str:
    return ledger.json("teams", "list")[0]["id"]


# -- keys -------------------------------------------------------------------------------------


def test_a_key_has_no_mode_unless_one_is_given(ledger):
    key = ledger.json("keys", "create", "--team", "search", "--name", "plain")
    other = ledger.json("keys", "create", "--team", "search", "--name", "own", "--cache", "all")
    assert (key["cache"], other["cache"]) == (None, "all")
    assert ledger.json("keys", "create", "--team", "search", "--name", "d", "--cache", "default")["cache"] is None
    assert [row["cache"] for row in ledger.json("keys", "list")] == [None, "all", None]
    assert ledger.json("keys", "show", "own")["cache"] == "all"
    head, *rows = ledger.done("keys", "list").stdout.splitlines()
    at = head.index("  cache") + 2
    assert [row[at:].split()[0] for row in rows] == ["–", "all", "–"]


def test_the_mode_of_a_key_is_changed_and_taken_away(ledger):
    ledger.done("keys", "create", "--team", "search", "--name", "k")
    for mode in ("off", "shadow", "deterministic", "all"):
        assert ledger.json("keys", "update", "k", "--cache", mode)["cache"] == mode
    assert ledger.json("keys", "update", "k", "--concurrency", "5")["cache"] == "all"
    assert ledger.json("keys", "update", "k", "--cache", "default")["cache"] is None
    assert ledger.json("keys", "rotate", "k")["cache"] is None


@pytest.mark.parametrize("mode", ["on", "OFF", "", "none"])
def test_a_wrong_mode_is_refused_with_those_that_there_are(ledger, mode):
    ledger.done("keys", "create", "--team", "search", "--name", "k", "--cache", "shadow")
    said = "is none of off, shadow, deterministic, all, default"
    assert said in ledger.refused("keys", "update", "k", "--cache", mode)
    assert said in ledger.refused("keys", "create", "--team", "search", "--name", "l", "--cache", mode)
    assert [row["cache"] for row in ledger.json("keys", "list")] == ["shadow"]


# -- clear ------------------------------------------------------------------------------------


def test_all_of_it_is_cleared_unless_a_part_is_named(ledger, team_id):
    done = ledger.done("cache", "clear", "--team", "search", "--model", "gpt-4*", "--json")
    told = json.loads(done.stdout)
    assert (told["team"], told["model"], set(told)) == ("search", "gpt-4*", {"team", "model", "at"})
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", told["at"])
    assert done.stderr == "headgate: running servers follow within a second\n"
    # A name or an id.
    assert ledger.json("cache", "clear", "--team", team_id)["team"] == "search"
    assert ledger.json("cache", "clear", "--model", "o3")["team"] is None
    assert ledger.clears() == [(team_id, ""), ("", "o3")]
    told = ledger.json("cache", "clear")
    assert (told["team"], told["model"]) == (None, None)
    assert ledger.clears() == [("", "")]
    text = ledger.done("cache", "clear", "--team", "search").stdout
    assert [line.split()[0] for line in text.splitlines()] == ["team", "model", "at"]


def test_a_clearing_of_what_there_is_not_is_refused_with_the_reason(ledger):
    assert "There is no team 'nobody'." in ledger.refused("cache", "clear", "--team", "nobody", code=1)
    for pattern in ("", "x" * 257, "a\nb"):
        assert "1 to 256 printable characters" in ledger.refused("cache", "clear", "--model", pattern)
    assert ledger.clears() == []


def test_there_is_nothing_to_clear_without_a_ledger(tmp_path):
    ledger = Ledger(tmp_path / "none")
    assert "there is no ledger" in ledger.refused("cache", "clear", code=1)
    assert "there is no ledger" in ledger.refused("cache", "stats", code=1)
    assert not ledger.data_dir.exists()


# -- stats ------------------------------------------------------------------------------------


def of_a_day(team_id: str, at_ms: int) -> list:
    given = [("gpt-4o", "hit", 1_500_000)] * 2 + [("gpt-4o", "joined", 500_000), ("gpt-4o", "miss", 0)]
    given += [("o3", "miss", 0), ("o3", "bypass", 0), ("=cmd", "bypass", 0)]
    return [
        record_of(at_ms=at_ms, team_id=team_id, model_requested=model, cache=cache, saved_nanousd=saved)
        for model, cache, saved in given
    ]


def test_what_the_cache_was_good_for_in_the_last_day(ledger, team_id):
    now_ms = time.time_ns() // 1_000_000
    ledger.write(*of_a_day(team_id, now_ms - 23 * HOUR_MS), *of_a_day(team_id, now_ms - 25 * HOUR_MS))
    spared = {"team": "search", "model": "gpt-4o", "requests": 4, "hits": 2, "joined": 1, "misses": 1, "bypassed": 0}
    assert ledger.json("cache", "stats", "--model", "gpt*") == [{**spared, "hit_ratio": "0.750", "saved_usd": "0.0035"}]
    rows = ledger.json("cache", "stats", "--team", "search")
    assert [(row["model"], row["hit_ratio"], row["saved_usd"]) for row in rows] == [
        ("=cmd", None, "0"),
        ("gpt-4o", "0.750", "0.0035"),
        ("o3", "0.000", "0"),
    ]
    assert ledger.json("cache", "stats", "--team", team_id) == ledger.json("cache", "stats") == rows
    assert ledger.json("cache", "stats", "--format", "json") == rows
    assert [row["requests"] for row in ledger.json("cache", "stats", "--from", "2020-01-01")] == [2, 8, 4]


def test_rows_come_out_as_a_table_or_as_csv(ledger, team_id):
    ledger.write(*of_a_day(team_id, time.time_ns() // 1_000_000))
    head, *lines = [line.split() for line in ledger.done("cache", "stats").stdout.splitlines()]
    assert head == "team model requests hits joined misses bypassed hit_ratio saved_usd".split()
    assert lines == [
        "search =cmd 1 0 0 0 1 – 0".split(),
        "search gpt-4o 4 2 1 1 0 0.750 0.0035".split(),
        "search o3 2 0 0 1 1 0.000 0".split(),
    ]
    first, second, *_ = csv.DictReader(ledger.done("cache", "stats", "--format", "csv").stdout.splitlines())
    assert (first["model"], first["hit_ratio"]) == ("'=cmd", "")
    assert (second["model"], second["hit_ratio"], second["saved_usd"]) == ("gpt-4o", "0.750", "0.0035")


def test_a_span_is_as_it_was_asked_for(ledger, team_id):
    ledger.write(*of_a_day(team_id, NOON_MS))

    def requests(*span: str) -> int:
        return sum(row["requests"] for row in ledger.json("cache", "stats", *span))

    assert requests("--from", "2026-11-20", "--to", "2026-11-20") == 7
    assert requests("--from", "2026-11-20T12:00Z", "--to", "2026-11-20T12:01Z") == 7
    assert requests("--from", "2026-11-20T11:00Z", "--to", "2026-11-20T12:00Z") == 0
    # Without a beginning it is the day before the end.
    assert requests("--to", "2026-11-20") == requests("--to", "2026-11-21T12:00Z") == 7
    assert requests("--to", "2026-11-19") == requests("--to", "2026-11-21") == 0


def test_statistics_of_what_there_is_not_are_refused_with_the_reason(ledger):
    assert "There is no team 'nobody'." in ledger.refused("cache", "stats", "--team", "nobody", code=1)
    assert "1 to 256 printable characters" in ledger.refused("cache", "stats", "--model", "")
    assert "'soon' is not a date" in ledger.refused("cache", "stats", "--from", "soon")
    assert "--from is not before --to" in ledger.refused("cache", "stats", "--from", "2026-02-01", "--to", "2026-01-31")
    assert ledger.refused("cache", "stats", "--format", "xml")
    done = ledger.done("cache", "stats")
    assert (done.stdout, done.stderr) == ("", "nothing yet\n")
    assert ledger.json("cache", "stats") == []
