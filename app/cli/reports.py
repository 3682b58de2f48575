"""``headgate check``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from app.catalog import Catalog
from app.cli.options import AsJson, DataDir, moment_text, reading
from app.cli.output import fail, run, show_object
from app.core.money import usd_text
from app.settings import ConfigurationError, Environment, load_configuration
from app.store.processes import Unsettled, list_unsettled
from app.store.proof import Proof, prove


def check(
    config: Annotated[Path | None, typer.Option("--config", help="The configuration file.")] = None,
    ledger: Annotated[
        bool, typer.Option("--ledger", help="Prove that records, entries, rollups, budgets and sums agree.")
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
