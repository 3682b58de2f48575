"""Limits and budgets by the command line: what can be said, what is shown, and what is refused with a reason."""

from __future__ import annotations

import time

import pytest
from typer.testing import CliRunner

from app.cli.commands import app
from app.core.calendar import window_of
from app.core.records import BudgetWindow
from app.store.batch import write_batch
from app.store.database import Database
from tests.contract.store.samples import entry_of, record_of
from tests.fakes.gateway import RunningGateway

NO_SIMPLE_LIMITS = {
    "requests_per_minute": None,
    "requests_per_hour": None,
    "requests_per_day": None,
    "tokens_per_minute": None,
    "tokens_per_hour": None,
    "tokens_per_day": None,
    "concurrency": None,
    "budget_usd": None,
    "budget_window": None,
    "further_limits": 0,
}


@pytest.fixture
def ledger(tmp_path) -> RunningGateway:
    """A data dir with a team; no gateway runs on it."""
    ledger = RunningGateway(tmp_path)
    ledger.command("teams", "create", "--name", "search")
    return ledger


@pytest.fixture(scope="module")
def untouched(tmp_path_factory) -> RunningGateway:
    """One for commands that fail: after each of them there is a team without limits in it."""
    ledger = RunningGateway(tmp_path_factory.mktemp("untouched"))
    ledger.command("teams", "create", "--name", "search")
    return ledger


def simple(row) -> dict:
    return {name: row[name] for name in NO_SIMPLE_LIMITS}


def refused(ledger: RunningGateway, *arguments: str, code: int = 2) -> str:
    """What a command says that fails: nothing on stdout, nothing but the sentence on stderr."""
    done = CliRunner().invoke(app, list(arguments), env={"HEADGATE_DATA_DIR": str(ledger.data_dir)})
    assert (done.exit_code, done.stdout) == (code, ""), done.output
    assert isinstance(done.exception, SystemExit), done.exception
    # The box around it breaks sentences into lines.
    return " ".join(done.stderr.replace("│", " ").split())


def test_simple_limits_are_set_and_shown_with_the_owner(ledger):
    team = ledger.json("teams", "create", "--name", "bare")
    assert simple(team) == NO_SIMPLE_LIMITS
    key = ledger.json(
        *("keys", "create", "--team", "search", "--name", "k"),
        *("--requests-per-minute", "1", "--requests-per-hour", "2", "--requests-per-day", "3"),
        *("--tokens-per-minute", "4", "--tokens-per-hour", "5", "--tokens-per-day", "6", "--concurrency", "7"),
        *("--budget-usd", "8.50", "--budget-window", "week", "--time-zone", "Europe/Berlin"),
    )
    told = {**dict(zip(NO_SIMPLE_LIMITS, range(1, 8), strict=False)), "budget_usd": "8.5", "budget_window": "week"}
    assert simple(key) == {**told, "further_limits": 0}
    assert simple(ledger.json("keys", "show", "k")) == simple(ledger.json("keys", "list")[0]) == simple(key)
    table = ledger.command("keys", "list").stdout.splitlines()
    assert "budget_usd  budget_window" in table[0]
    assert "8.5  week" in table[1]


def test_simple_limits_are_changed_and_taken_away_one_by_one(ledger):
    ledger.command("teams", "update", "search", "--tokens-per-day", "5", "--budget-usd", "1", "--budget-window", "day")
    first = {row["limit"]: row["id"] for row in ledger.json("limits", "list")}
    # The window of the only budget need not be said again; its id stays, on which the spend hangs.
    changed = ledger.json("teams", "update", "search", "--budget-usd", "2", "--tokens-per-day", "none")
    assert simple(changed) == {**NO_SIMPLE_LIMITS, "budget_usd": "2", "budget_window": "day"}
    assert [(row["limit"], row["id"]) for row in ledger.json("limits", "list")] == [
        ("budget_usd_per_day", first["budget_usd_per_day"])
    ]
    moved = ledger.json("teams", "update", "search", "--time-zone", "Asia/Tokyo")
    assert moved["budget_usd"] == "2"
    (row,) = ledger.json("limits", "list")
    assert (row["time_zone"], row["id"] == first["budget_usd_per_day"]) == ("Asia/Tokyo", False)
    ledger.command("teams", "update", "search", "--budget-usd", "9", "--budget-window", "month")
    assert "say which with --budget-window" in refused(ledger, "teams", "update", "search", "--budget-usd", "3")
    assert "--budget-window" in refused(ledger, "teams", "update", "search", "--budget-usd", "none")
    both = ledger.json("teams", "update", "search", "--budget-usd", "none", "--budget-window", "day")
    assert (both["budget_usd"], both["budget_window"], both["further_limits"]) == ("9", "month", 0)
    assert simple(ledger.json("teams", "update", "search", "--budget-usd", "none")) == NO_SIMPLE_LIMITS
    assert ledger.json("teams", "update", "search", "--concurrency", "none")["concurrency"] is None


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--requests-per-hour", "0"), "not a whole number above zero"),
        (("--tokens-per-day", "1.5"), "not a whole number above zero"),
        (("--budget-usd", "5"), "needs --budget-window day|week|month|total"),
        (("--budget-window", "day"), "needs --budget-usd"),
        (("--time-zone", "Europe/Berlin"), "needs --budget-usd"),
        (("--budget-usd", "5", "--budget-window", "year"), "'year' is none of day, week, month, total"),
        (("--budget-usd", "-1", "--budget-window", "day"), "between 0 and 9000000 dollars"),
        (("--budget-usd", "9000000.01", "--budget-window", "day"), "between 0 and 9000000 dollars"),
        (("--budget-usd", "much", "--budget-window", "day"), "'much' is not an amount in dollars"),
        (("--budget-usd", "nan", "--budget-window", "day"), "not an amount in dollars"),
        (("--budget-usd", "1e-10", "--budget-window", "day"), "not an amount in dollars"),
        (
            ("--budget-usd", "5", "--budget-window", "day", "--time-zone", "Mars/Phobos"),
            "there is no time zone 'Mars/Phobos'",
        ),
    ],
)
def test_a_wrong_simple_limit_is_refused_with_the_reason(untouched, options, reason):
    assert reason in refused(untouched, "teams", "update", "search", *options)


def test_every_kind_of_limit_is_added_listed_changed_and_removed(ledger):
    ledger.command("keys", "create", "--team", "search", "--name", "k")
    requests = ledger.json("limits", "add", "--team", "search", "--requests", "10", "--window", "hour")
    tokens = ledger.json(
        *("limits", "add", "--team", "search", "--key", "k", "--tokens", "500", "--window", "day"),
        *("--model", "gpt-4*", "--observe", "--protective"),
    )
    running = ledger.json("limits", "add", "--key", "k", "--concurrency", "3", "--tag", "env=prod")
    budget = ledger.json(
        *("limits", "add", "--team", "search", "--budget-usd", "2.5", "--window", "day", "--tag", "project"),
        *("--time-zone", "Asia/Kolkata", "--bound", "estimate"),
    )
    assert requests == {
        "id": requests["id"],
        "team": "search",
        "key": None,
        "limit": "requests_per_hour",
        "maximum": 10,
        "model": None,
        "tag": None,
        "time_zone": None,
        "policy": "strict",
        "mode": "enforce",
        "bound": None,
        "spent_usd": None,
        "remaining_usd": None,
        "window_ends_at": None,
    }
    assert [tokens[name] for name in ("key", "limit", "maximum", "model", "policy", "mode")] == [
        *("k", "tokens_per_day", 500, "gpt-4*", "protective", "observe")
    ]
    assert [running[name] for name in ("key", "limit", "maximum", "tag")] == ["k", "concurrency", 3, "env=prod"]
    assert [budget[name] for name in ("limit", "maximum", "tag", "time_zone", "bound")] == [
        *("budget_usd_per_day", "2.5", "project", "Asia/Kolkata", "estimate")
    ]
    assert ledger.json("limits", "list") == [requests, budget, tokens, running]
    assert ledger.json("limits", "list", "--key", "k", "--team", "search") == [tokens, running]
    assert ledger.json("keys", "show", "k")["further_limits"] == 2
    table = ledger.command("limits", "list").stdout.splitlines()
    assert [line.split()[0] for line in table] == ["id", requests["id"], budget["id"], tokens["id"], running["id"]]

    changed = ledger.json("limits", "update", tokens["id"], "--tokens", "900", "--enforce", "--strict")
    assert changed == {**tokens, "maximum": 900, "mode": "enforce", "policy": "strict"}
    changed = ledger.json("limits", "update", budget["id"], "--budget-usd", "0", "--bound", "maximum")
    assert (changed["maximum"], changed["bound"], changed["id"]) == ("0", "maximum", budget["id"])
    assert ledger.json("limits", "remove", requests["id"]) == requests
    assert [row["id"] for row in ledger.json("limits", "list")] == [budget["id"], tokens["id"], running["id"]]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ((), "expected one of --requests"),
        (("--requests", "1", "--tokens", "1", "--window", "day"), "expected one of --requests"),
        (("--requests", "1"), "requests needs --window minute|hour|day"),
        (("--requests", "1", "--window", "month"), "requests needs --window minute|hour|day"),
        (("--budget-usd", "1", "--window", "minute"), "money needs --window day|week|month|total"),
        (("--concurrency", "1", "--window", "minute"), "concurrency has no --window"),
        (("--requests", "none", "--window", "day"), "headgate limits remove"),
        (("--requests", "0", "--window", "day"), "not a whole number above zero"),
        (("--budget-usd", "9000001", "--window", "day"), "between 0 and 9000000 dollars"),
        (("--budget-usd", "1", "--window", "day", "--time-zone", "Nowhere"), "no time zone 'Nowhere'"),
        (("--requests", "1", "--window", "day", "--time-zone", "UTC"), "belong to --budget-usd"),
        (("--requests", "1", "--window", "day", "--bound", "estimate"), "belong to --budget-usd"),
        (("--requests", "1", "--window", "day", "--tag", "a b=c"), "NAME or NAME=VALUE"),
        (("--requests", "1", "--window", "day", "--tag", "=c"), "NAME or NAME=VALUE"),
        (("--requests", "1", "--window", "day", "--tag", "a="), "NAME or NAME=VALUE"),
        (("--requests", "1", "--window", "day", "--model", ""), "1 to 256 printable characters"),
    ],
)
def test_a_wrong_limit_is_refused_with_the_reason(untouched, options, reason):
    assert reason in refused(untouched, "limits", "add", "--team", "search", *options)


def test_what_was_refused_changed_nothing(untouched):
    refused(untouched, "teams", "update", "search", "--concurrency", "5", "--budget-usd", "5")
    assert simple(untouched.json("teams", "list")[0]) == NO_SIMPLE_LIMITS
    assert untouched.json("limits", "list") == []


def test_what_is_not_there_or_is_there_already_is_said_in_a_sentence(ledger):
    requests = ("--requests", "1", "--window", "day")
    assert "needs --team or --key" in refused(ledger, "limits", "add", *requests)
    assert "no team 'nobody'" in refused(ledger, "limits", "add", "--team", "nobody", *requests, code=1)
    assert "no key 'nobody'" in refused(ledger, "limits", "add", "--key", "nobody", *requests, code=1)
    added = ledger.json("limits", "add", "--team", "search", *requests)
    said = refused(ledger, "limits", "add", "--team", "search", *requests, code=1)
    assert added["id"] in said
    for arguments in (("update", "nothing", "--requests", "5"), ("remove", "nothing")):
        assert "no limit 'nothing'" in refused(ledger, "limits", *arguments, code=1)
    assert "is on requests, not on tokens" in refused(ledger, "limits", "update", added["id"], "--tokens", "5")
    assert "belongs to a budget" in refused(ledger, "limits", "update", added["id"], "--bound", "estimate")
    assert ledger.json("limits", "list") == [added]


async def test_a_budget_shows_what_is_spent_in_its_window_and_what_remains(ledger):
    key = ledger.json("keys", "create", "--team", "search", "--name", "k")
    before_ms = time.time_ns() // 1_000_000
    team_id = ledger.json("teams", "list")[0]["id"]
    url = f"sqlite:///{ledger.data_dir / 'headgate.db'}"

    async def bill(nanousd: int, *budgets: BudgetWindow, **tags: str) -> None:
        made = record_of(at_ms=before_ms, team_id=team_id, key_id=key["id"], budgets=budgets, tags=tags)
        entry = entry_of(made.request_id, cost_nanousd=nanousd)
        database = await Database.open(url)
        await write_batch(database, [record_of(made.request_id, **_given(made), entries=(entry,))])
        await database.close()

    def _given(made):
        names = ("team_id", "key_id", "budgets", "tags")
        return {"at_ms": before_ms, **{name: getattr(made, name) for name in names}}

    await bill(1_000_000_000)
    month = ledger.json("limits", "add", "--team", "search", "--budget-usd", "5", "--window", "month")
    # What the ledger knows of the window counts for a budget that is set in the middle of it.
    assert (month["spent_usd"], month["remaining_usd"]) == ("1", "4")
    each = ledger.json("limits", "add", "--key", "k", "--budget-usd", "1", "--window", "day", "--tag", "project")
    assert (each["spent_usd"], each["tag"]) == (None, "project")

    of_month = BudgetWindow(month["id"], window_of("month", "UTC", before_ms)[0])
    of_day = [
        BudgetWindow(f"{each['id']}:{value}", window_of("day", "UTC", before_ms)[0]) for value in ("search", "ads")
    ]
    await bill(250_000_000, of_month, of_day[0], project="search")
    await bill(2_500_000_000, of_month, of_day[1], project="ads")
    rows = [(row["tag"], row["spent_usd"], row["remaining_usd"]) for row in ledger.json("limits", "list")]
    assert rows == [(None, "3.75", "1.25"), ("project=ads", "2.5", "0"), ("project=search", "0.25", "0.75")]
    ends_ms = window_of("month", "UTC", before_ms)[1]
    assert ledger.json("limits", "list")[0]["window_ends_at"] == time.strftime(
        "%Y-%m-%dT%H:%M:%SZ", time.gmtime(ends_ms / 1000)
    )
    total = ledger.json("limits", "add", "--team", "search", "--budget-usd", "3", "--window", "total")
    assert (total["spent_usd"], total["remaining_usd"], total["window_ends_at"]) == ("3.75", "0", None)
    # A raised budget goes on from what was spent.
    raised = ledger.json("limits", "update", month["id"], "--budget-usd", "10")
    assert (raised["spent_usd"], raised["remaining_usd"]) == ("3.75", "6.25")
