"""What is true: what the upstream served and billed, what SQL has, and what Valkey holds."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import asyncpg
import msgspec

from tests.faults.chaos.constants import PRICES, Prices
from tests.faults.chaos.servers import HotServer

EXACT_KINDS = {"charge", "void"}


class Served(msgspec.Struct):
    """One attempt by the upstream's log. ``is_over`` is False where the upstream was killed in its middle: then
    it used at least what ``tokens`` says (input, cached, output). ``person`` asked for it by way of ``life``: a
    gateway's name and the number of its process.
    """

    attempt_id: str
    person: str
    life: str
    started_ms: int
    ended_ms: int
    billed: bool
    outcome: str
    status: int
    tokens: tuple[int, int, int]
    nanousd: int
    is_over: bool
    response_id: str | None = None
    times: int = 1
    """How often the upstream was sent this attempt."""


def read_served(logs: Sequence[Path], prices: Prices = PRICES) -> dict[str, Served]:
    """By attempt. The last line of a number is how it stood when its process ended."""
    found: dict[str, Served] = {}
    for path in logs:
        lines: dict[int, dict[str, Any]] = {}
        last_ms = 0
        for line in path.read_bytes().splitlines() if path.exists() else []:
            entry = json.loads(line)
            lines[entry["number"]] = entry
            last_ms = max(last_ms, entry["started_ms"], entry["ended_ms"] or 0)
        for entry in lines.values():
            served = _served(entry, last_ms, prices)
            known = found.get(served.attempt_id)
            if known is not None:
                served.times += known.times
            found[served.attempt_id] = served
    return found


def _served(entry: dict[str, Any], last_ms: int, prices: Prices) -> Served:
    usage, is_over = entry["usage"], entry["ended_ms"] is not None
    tokens = usage["input_tokens"], usage["cached_tokens"], usage["output_tokens"]
    person, _, life = entry["model"].partition("@tag=")[2].partition(".")
    return Served(
        attempt_id=entry["attempt_id"],
        person=person,
        life=life,
        started_ms=entry["started_ms"],
        ended_ms=entry["ended_ms"] or max(last_ms, entry["started_ms"]),
        billed=entry["billed"],
        outcome=entry["outcome"],
        status=entry["status"],
        tokens=tokens,
        nanousd=prices.of(tokens) if entry["billed"] else 0,
        is_over=is_over,
        response_id=entry["response_id"],
    )


class Attempt(msgspec.Struct):
    """All entries of one attempt in the ledger."""

    primaries: list[dict[str, Any]]
    adjusts: list[dict[str, Any]]

    @property
    def kind(self) -> str:
        return self.primaries[0]["kind"] if self.primaries else ""

    @property
    def nanousd(self) -> int:
        return sum(row["cost_nanousd"] or 0 for row in (*self.primaries, *self.adjusts))

    @property
    def tokens(self) -> tuple[int, int, int]:
        rows = (*self.primaries, *self.adjusts)
        names = ("input_tokens", "cached_tokens", "output_tokens")
        return tuple(sum(row[name] for row in rows) for name in names)  # type: ignore[return-value] # three of them

    @property
    def is_exact(self) -> bool:
        return self.kind in EXACT_KINDS or any(row["reason"] == "exact" for row in self.adjusts)


class Books(msgspec.Struct):
    """The ledger as it stands."""

    records: dict[str, dict[str, Any]]
    attempts: dict[str, Attempt]
    rollups: list[dict[str, Any]]
    budgets: dict[tuple[str, int], dict[str, Any]]
    epoch: int
    epochs_open: bool
    unclosed: list[str]
    poison: int

    def requests(self) -> dict[str, list[Attempt]]:
        """The attempts of each request, in order."""
        found: defaultdict[str, list[Attempt]] = defaultdict(list)
        for attempt_id in sorted(
            self.attempts, key=lambda each: (each.rpartition(".")[0], int(each.rpartition(".")[2]))
        ):
            found[attempt_id.rpartition(".")[0]].append(self.attempts[attempt_id])
        return found


TABLES = ("records", "entries", "rollups", "budgets", "epoch", "processes", "poison")


async def read_books(url: str) -> Books:
    """Of a database on PostgreSQL."""
    connection = await asyncpg.connect(url, timeout=10)
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            rows = {name: [dict(row) for row in await connection.fetch(f"SELECT * FROM {name}")] for name in TABLES}
    finally:
        await connection.close()
    return _books(rows)


def read_file(path: Path) -> Books:
    """Of a SQLite file."""
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        connection.row_factory = sqlite3.Row
        rows = {name: [dict(row) for row in connection.execute(f"SELECT * FROM {name}")] for name in TABLES}
    return _books(rows)


def _books(rows: dict[str, list[dict[str, Any]]]) -> Books:
    attempts: dict[str, Attempt] = {}
    for row in rows["entries"]:
        attempt = attempts.setdefault(row["attempt_id"], Attempt([], []))
        (attempt.adjusts if row["kind"] == "adjust" else attempt.primaries).append(row)
    for row in rows["records"]:
        row["windows"] = [tuple(each) for each in json.loads(row["budgets"])]
    return Books(
        records={row["request_id"]: row for row in rows["records"]},
        attempts=attempts,
        rollups=rows["rollups"],
        budgets={(row["budget_id"], row["start_ms"]): row for row in rows["budgets"]},
        epoch=rows["epoch"][0]["number"],
        epochs_open=rows["epoch"][0]["state"] == "open",
        unclosed=[row["id"] for row in rows["processes"] if not row["closed"]],
        poison=len(rows["poison"]),
    )


class Held(msgspec.Struct):
    """What Valkey has: by budget its fields, what is due by tag, leases by key, states of reservations by key."""

    budgets: dict[tuple[str, str, int], dict[str, str]]
    due: dict[str, list[str]]
    leases: dict[str, list[str]]
    open_or_done: list[str]


def read_held(hot: HotServer) -> Held:
    """Everything under ``hg:``, but for what its own clock says is over."""
    seconds, microseconds = hot.execute("TIME")  # type: ignore[misc] # two of them
    now_ms = int(seconds) * 1000 + int(microseconds) // 1000
    held = Held({}, {}, {}, [])
    for key in _keys(hot):
        tag, _, name = key.removeprefix("hg:{").partition("}:")
        kind = name.partition(":")[0]
        if kind == "b":
            budget_id, _, start = name.removeprefix("b:").rpartition(":")
            held.budgets[tag, budget_id, int(start)] = _hash(hot, key)
        elif kind == "due" and (late := _members(hot, key)):
            held.due[tag] = [member for member, _ in late]
        elif kind == "l" and hot.execute("TYPE", key) == b"zset":
            living = [member for member, until_ms in _members(hot, key) if until_ms > now_ms]
            if living:
                held.leases[key] = living
        elif kind == "r" and tag[:3] != "up:":
            head = _hash(hot, key).get("h", "")
            if head.partition(" ")[0] in {"open", "done"}:
                held.open_or_done.append(f"{key} {head}")
    return held


def _keys(hot: HotServer) -> Iterator[str]:
    cursor = "0"
    while True:
        cursor_bytes, keys = hot.execute("SCAN", cursor, "MATCH", "hg:*", "COUNT", 1000)  # type: ignore[misc]
        yield from {key.decode() for key in keys}
        cursor = cursor_bytes.decode()
        if cursor == "0":
            return


def _hash(hot: HotServer, key: str) -> dict[str, str]:
    flat: list[bytes] = hot.execute("HGETALL", key)  # type: ignore[assignment] # RESP2: a list of both
    return {flat[at].decode(): flat[at + 1].decode("latin-1") for at in range(0, len(flat), 2)}


def _members(hot: HotServer, key: str) -> list[tuple[str, float]]:
    flat: list[bytes] = hot.execute("ZRANGE", key, 0, -1, "WITHSCORES")  # type: ignore[assignment] # as above
    return [(flat[at].decode(), float(flat[at + 1])) for at in range(0, len(flat), 2)]
