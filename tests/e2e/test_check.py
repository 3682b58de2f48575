"""``headgate check --ledger``: what it says of a ledger that ties, and of one that does not."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from sqlalchemy import update

from app.core.ids import new_request_id
from app.core.records import BudgetWindow
from app.store.batch import PoisonRow, keep_poison, write_batch
from app.store.database import Database
from app.store.processes import raise_marks, register_process
from app.store.prune import prune
from app.store.tables import budgets
from tests.contract.store.databases import fresh_url
from tests.contract.store.samples import NOON_MS, entry_of, record_of
from tests.fakes.forking import run_headgate

ROOT = Path(__file__).parents[2]
DAY_MS = 86_400_000
WINDOW = BudgetWindow("b", NOON_MS)


def check(directory, *options):
    environ = {name: value for name, value in os.environ.items() if not name.startswith("HEADGATE_")}
    done = run_headgate(
        ["check", "--ledger", "--data-dir", str(directory), *options], environment=environ, cwd=ROOT, timeout_s=30
    )
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
async def ledger(tmp_path):
    """An estimate that was corrected, one that was not, an attempt without a price, poison, a process."""
    database = await Database.open(await fresh_url("sqlite", tmp_path))
    ids = [new_request_id(number) for number in range(3)]
    await write_batch(
        database,
        [
            record_of(ids[0], budgets=(WINDOW,), entries=(entry_of(ids[0], kind="estimate"),)),
            record_of(ids[1], budgets=(WINDOW,), entries=(entry_of(ids[1], kind="estimate"),)),
            record_of(ids[2], entries=(entry_of(ids[2], cost_nanousd=None),), suspect=True),
        ],
    )
    await write_batch(database, [record_of(ids[0], entries=(entry_of(ids[0], cost_nanousd=1),))])
    await keep_poison(database, [PoisonRow("lost", "", "{}", "why", 1)])
    async with database.transaction() as connection:
        await register_process(connection, "p1", "host", 2, NOON_MS)
        await raise_marks(connection, "p1", {("t", WINDOW): 1_500_000_000})
    yield database
    await database.close()


async def test_a_ledger_that_ties_says_what_is_open(ledger, tmp_path):
    code, output, errors = check(tmp_path, "--json")
    told = json.loads(output)
    assert (code, errors, told["ok"]) == (0, "", True)
    assert (told["records"], told["entries"], told["rollups"], told["budgets"]) == (3, 4, 1, 1)
    assert (told["unpriced"], told["estimated"], told["suspect"], told["poison"]) == (1, 1, 1, 1)
    (process,) = told["unsettled"]
    assert (process["process"], process["node"], process["slot"], process["held_usd"]) == ("p1", "host", 2, "1.5")
    assert (told["differences"], told["budget_differences"], told["records_from"]) == ([], [], None)


async def test_a_budget_that_does_not_tie_is_exit_1(ledger, tmp_path):
    async with ledger.transaction() as connection:
        await connection.execute(update(budgets).values(spent_nanousd=budgets.c.spent_nanousd + 5))
    code, output, errors = check(tmp_path, "--json")
    told = json.loads(output)
    assert (code, errors, told["ok"]) == (1, "headgate: the ledger does not tie\n", False)
    assert told["budget_differences"] == [{"budget_id": "b", "start_ms": NOON_MS, "excess_nanousd": 5}]
    code, output, _ = check(tmp_path)
    assert code == 1
    assert "False" in output


async def test_after_a_prune_the_rest_still_ties(ledger, tmp_path):
    later = record_of(at_ms=NOON_MS + DAY_MS)
    await write_batch(ledger, [later])
    await prune(ledger, NOON_MS - NOON_MS % DAY_MS + DAY_MS)
    code, output, _ = check(tmp_path, "--json")
    told = json.loads(output)
    assert (code, told["ok"], told["records"], told["rollups"]) == (0, True, 1, 2)
    assert told["records_from"] == "2026-11-21T00:00:00Z"
