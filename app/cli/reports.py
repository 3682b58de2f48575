"""``headgate usage`` and ``headgate check``."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from app.catalog import Catalog
from app.cli.options import AsJson, DataDir, moment_of, moment_text, reading
from app.cli.output import Format, fail, run, show_object, show_rows
from app.core.clock import QUARTER_MS, quarter_of
from app.core.money import usd_text
from app.settings import ConfigurationError, Environment, load_configuration
from app.store.processes import Unsettled, list_unsettled
from app.store.proof import Proof, prove
from app.store.usage import MEMBERS, PERIODS, UsageRow, usage

GROUPS = (*MEMBERS, *PERIODS)

COLUMNS = (
    "requests",
    "input_tokens",
    "cached_tokens",
    "output_tokens",
    "reasoning_tokens",
    "cost_usd",
    "saved_usd",
    "unpriced",
    "estimated",
)


def show_usage(
    by: Annotated[str, typer.Option("--by", help=f"Any of {', '.join(GROUPS)}.")] = "team,key,model",
    since: Annotated[
        str | None, typer.Option("--from", metavar="D", help="A date or time, UTC. [default: this month]")
    ] = None,
    until: Annotated[str | None, typer.Option("--to", metavar="D", help="A date (its end) or time, UTC.")] = None,
    data_dir: DataDir = None,
    style: Annotated[Format, typer.Option("--format", help="How rows come out.")] = Format.table,
    as_json: AsJson = False,
) -> None:
    """Cost and tokens, by whatever you ask."""
    asked = [part.strip() for part in by.split(",") if part.strip()]
    for name in asked:
        if name not in GROUPS:
            raise typer.BadParameter(f"{name!r} is none of {', '.join(GROUPS)}")
    groups = tuple(dict.fromkeys(asked))
    if len(periods := [group for group in groups if group in PERIODS]) > 1:
        raise typer.BadParameter(f"{' and '.join(periods)} do not go together")
    now = datetime.now(UTC)
    month = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    start_ms = int(month.timestamp() * 1000) if since is None else moment_of(since, end_of_day=False)
    end_ms = int(now.timestamp() * 1000) + 1 if until is None else moment_of(until, end_of_day=True)
    # Sums are kept by the quarter of an hour: the span grows to whole ones.
    start_ms, end_ms = quarter_of(start_ms), quarter_of(end_ms + QUARTER_MS - 1)

    async def work() -> list[dict[str, Any]]:
        async with reading(data_dir) as connection:
            return [_row(row) for row in (await usage(connection, groups, start_ms, end_ms)).rows]

    rows = run(work())
    style = Format.json if as_json else style
    if style is Format.table:
        # Data keeps its shape; to a person, what has no price must not look as if it cost nothing.
        rows = [{**row, "cost_usd": "unpriced"} if row["requests"] == row["unpriced"] else row for row in rows]
    show_rows(rows, (*groups, *COLUMNS), style)


def _row(row: UsageRow) -> dict[str, Any]:
    return {
        **row.group,
        "requests": row.requests,
        "input_tokens": row.input_tokens,
        "cached_tokens": row.cached_tokens,
        "output_tokens": row.output_tokens,
        "reasoning_tokens": row.reasoning_tokens,
        "cost_usd": usd_text(row.cost_nanousd),
        "saved_usd": usd_text(row.saved_nanousd),
        "unpriced": row.unpriced,
        "estimated": row.estimated,
    }


def check(
    config: Annotated[Path | None, typer.Option("--config", help="The configuration file.")] = None,
    ledger: Annotated[
        bool, typer.Option("--ledger", help="Prove that records, entries, rollups and budgets agree.")
    ] = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Check the configuration; with --ledger, the ledger."""
    if ledger:
        _check_ledger(data_dir, as_json=as_json)
        return
    try:
        path = Environment.read(config=config).config_path
        configuration = load_configuration(path)
    except ConfigurationError as error:
        raise fail(str(error)) from error
    off = [name for name, upstream in configuration.upstreams.items() if upstream.is_off]
    Catalog(configuration, off=frozenset(off))
    show_object(
        {
            "config": str(path),
            "upstreams": len(configuration.upstreams),
            "off": off,
            "models": len(configuration.models),
            "prices": len(configuration.prices),
        },
        as_json=as_json,
    )


def _check_ledger(data_dir: Path | None, *, as_json: bool) -> None:
    async def work() -> tuple[Proof, list[Unsettled]]:
        async with reading(data_dir) as connection:
            return await prove(connection), await list_unsettled(connection)

    proof, unsettled = run(work())
    show_object(
        {
            "ok": proof.holds,
            "records": proof.records,
            "entries": proof.entries,
            "rollups": proof.rollups,
            "budgets": proof.budgets,
            "sums": proof.sums,
            "unpriced": proof.unpriced,
            "estimated": proof.estimated,
            "suspect": proof.suspect,
            "poison": proof.poison,
            "unsettled": [_unsettled_row(each) for each in unsettled],
            "records_from": moment_text(proof.pruned_before_ms or None),
            "differences": [msgspec.structs.asdict(difference) for difference in proof.differences],
            "budget_differences": [msgspec.structs.asdict(difference) for difference in proof.budget_differences],
            "sum_differences": [msgspec.structs.asdict(difference) for difference in proof.sum_differences],
            "requests": proof.request_ids,
        },
        as_json=as_json,
    )
    if not proof.holds:
        print("headgate: the ledger does not tie", file=sys.stderr)
        raise typer.Exit(1)


def _unsettled_row(each: Unsettled) -> dict[str, Any]:
    """A process that runs, or was lost: the most of budgets that it may hold."""
    return {
        "process": each.process.id,
        "node": each.process.node,
        "slot": each.process.slot,
        "seen_at": moment_text(each.process.seen_at_ms),
        "held_usd": usd_text(each.nanousd),
    }
