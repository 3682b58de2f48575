"""``headgate usage``: what it prints of a generated year is what its requests come to."""

from __future__ import annotations

import csv
import io
import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from app.core.money import usd_text
from app.store.database import Database
from tests.contract.store.databases import fresh_url
from tests.fakes.forking import run_headgate
from tests.fakes.traffic import SUMS, write_year

ROOT = Path(__file__).parents[2]
YEAR = ("--from", "2026-01-01", "--to", "2026-12-31")


@pytest.fixture
async def traffic(tmp_path):
    database = await Database.open(await fresh_url("sqlite", tmp_path))
    made = await write_year(database, requests=300)
    await database.close()
    return made


@pytest.fixture
async def ledger(tmp_path):
    """One with nothing in it."""
    database = await Database.open(await fresh_url("sqlite", tmp_path))
    await database.close()


@pytest.fixture
def run(tmp_path):
    def command(*options, code=0):
        environ = {name: value for name, value in os.environ.items() if not name.startswith("HEADGATE_")}
        done = run_headgate(["usage", "--data-dir", str(tmp_path), *options], environment=environ, cwd=ROOT)
        assert done.returncode == code, done.stderr
        return done.stdout if code == 0 else " ".join(done.stderr.replace("│", " ").split())

    return command


def added(facts):
    return {name: sum(fact.sums[name] for fact in facts) for name in SUMS}


def test_rows_have_the_documented_columns_and_add_up_to_the_year(traffic, run):
    rows = json.loads(run("--by", "model", "--json", *YEAR))
    assert list(rows[0]) == [
        "model",
        "requests",
        "input_tokens",
        "cached_tokens",
        "output_tokens",
        "reasoning_tokens",
        "cost_usd",
        "saved_usd",
        "unpriced",
        "estimated",
        "failed",
        "cache_write_tokens",
        "estimated_usd",
    ]
    for row in rows:
        wanted = added([fact for fact in traffic.facts if fact.model == row["model"]])
        assert row["cost_usd"] == usd_text(wanted["cost_nanousd"])
        assert row["estimated_usd"] == usd_text(wanted["estimated_nanousd"])
        assert (row["requests"], row["unpriced"]) == (wanted["requests"], wanted["unpriced"])
    assert sum(row["requests"] for row in rows) == 300
    table = run("--by", "model", *YEAR).splitlines()
    assert table[-1].split()[:2] == ["total", "300"]


def test_zones_ranges_and_filters_are_those_of_every_view(traffic, run):
    first = traffic.people[0]
    mine = [fact for fact in traffic.facts if fact.team == "search" and fact.value_of("env") in {"prod", ""}]
    options = ("--by", "week,tag.env", "--team", "search", "--tag", "env=prod", "--tag", "env=", "--tz", "Asia/Kolkata")
    rows = list(
        csv.DictReader(
            io.StringIO(run(*options, "--format", "csv", "--from", "2026-01-01T05:30", "--to", "2027-01-01T05:30"))
        )
    )
    assert sum(int(row["requests"]) for row in rows) == added(mine)["requests"]
    assert {row["tag.env"] for row in rows} == {"prod", ""}
    assert "2025-12-29" in {row["week"] for row in rows} or "2026-01-05" in {row["week"] for row in rows}
    of_key = json.loads(
        run(
            "--by",
            "key",
            "--team",
            first.team_id,
            "--key",
            "web",
            "--model",
            "gpt-5",
            "--upstream",
            "openai",
            "--json",
            *YEAR,
        )
    )
    wanted = [
        fact for fact in traffic.facts if (fact.key_id, fact.model, fact.upstream) == (first.key_id, "gpt-5", "openai")
    ]
    assert [(row["key"], row["requests"]) for row in of_key] == [("web", len(wanted))]
    before = datetime.now(UTC).date()
    told = [row["requests"] for row in json.loads(run("--by", "day", "--range", "yesterday", "--json"))]
    # A day may have begun meanwhile.
    yesterdays = [(day - timedelta(days=1)).isoformat() for day in (before, datetime.now(UTC).date())]
    of_days = [[fact for fact in traffic.facts if fact.member_of("day", "UTC") == day] for day in yesterdays]
    assert told in [[added(facts)["requests"]] if facts else [] for facts in of_days]


@pytest.mark.parametrize(
    ("options", "reason", "code"),
    [
        (("--by", "day,week"), "at most one of", 2),
        (("--by", "moon"), "none of them", 2),
        (("--by", "tag.a,tag.b"), "at most one tag", 2),
        (("--tz", "Mars/Olympus"), "time zone", 2),
        (("--range", "ever"), "range is one of", 2),
        (("--range", "today", "--from", "2026-01-01"), "either range, or from and to", 2),
        (("--tag", "env"), "not NAME=VALUE", 2),
        (("--team", "nobody"), "no team 'nobody'", 1),
        (("--key", "nothing"), "nothing", 1),
    ],
)
def test_what_cannot_be_asked_is_told_in_a_sentence(ledger, run, options, reason, code):
    assert reason in run(*options, code=code)
