"""Commands that look after the ledger: backup and restore, prune, reprice, explain, and lost processes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from app.cli.explanation import because, explanation_text, moment
from app.cli.noting import note
from app.cli.options import AsJson, DataDir, existing_ledger, moment_of, moment_text, reading
from app.cli.output import Format, fail, run, show_object, show_rows
from app.core.clock import SystemClock
from app.core.money import usd_text
from app.core.patterns import compile_pattern
from app.main import DataDirTaken, hold_data_dir
from app.metering.pricing import PriceBook
from app.metering.repricing import overrides_of, price_of
from app.settings import Environment, load_configuration
from app.store.backup import Backup, back_up
from app.store.database import Database
from app.store.errors import LedgerTaken
from app.store.explanations import RecordExplained, RefusalExplained, data_of, explain, explain_refusals, iso_time
from app.store.prices import SetPrice, list_prices
from app.store.processes import ProcessRow, list_processes
from app.store.prune import Pruned, prunable, prune
from app.store.reprice import Repriced, reprice
from app.store.restore import Restored, restore
from app.store.running import most_held, write_off
from app.store.sole import hold_file
from app.store.teams import find_team

DAY_MS = int(timedelta(days=1).total_seconds() * 1000)
KEPT_DAYS_MIN = 2
"""Requests that began so long ago may still run, or may still be corrected."""

SHOWN_TABLES = ("teams", "keys", "records", "entries", "rollups")

processes = typer.Typer(help="Processes of gateways that share a Redis.", no_args_is_help=True)
PROCESS_COLUMNS = ("id", "node", "slot", "state", "started_at", "seen_at", "acked_epoch", "held_usd_max")
REFUSAL_COLUMNS = ("at", "request_id", "key", "status", "code", "because")


def now_ms() -> int:
    return SystemClock().now_ms()


# -- backup and restore -----------------------------------------------------------------------


def back_up_ledger(
    file: Annotated[Path, typer.Argument(help="Where to write it; what is there is replaced once it is whole.")],
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Write all of the ledger to a file, while gateways run."""

    async def work() -> Backup:
        async with existing_ledger(data_dir) as database:
            return await back_up(database, file, now_ms())

    made = run(work())
    told: dict[str, Any] = {"file": str(made.path), "size_bytes": made.size_bytes, "schema": made.schema}
    show_object({**told, **_rows(made.rows, as_json=as_json)}, as_json=as_json)


def restore_ledger(
    file: Annotated[Path, typer.Argument(help="A file that `headgate backup` wrote.")],
    replace: Annotated[bool, typer.Option("--replace", help="Lose the ledger that is there.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Even if a gateway seems to run on the database.")] = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Put a backup in place; only where no gateway runs."""

    async def work() -> Restored:
        environment = Environment.read(data_dir=data_dir)
        with hold_data_dir(environment.data_dir.absolute()):
            database = await Database.open(environment.database)
            try:
                with hold_file(database.file) if database.file is not None else nullcontext():
                    return await restore(database, file, replace=replace, force=force)
            except LedgerTaken as error:
                raise DataDirTaken("a gateway runs on this ledger") from error
            finally:
                await database.close()

    try:
        done = run(work())
    except DataDirTaken as error:
        raise fail(f"{error}: stop it, and restore then") from error
    told = {"schema": done.schema, "backed_up_at": moment_text(done.created_at_ms)}
    show_object({**told, **_rows(done.rows, as_json=as_json)}, as_json=as_json)


def _rows(rows: dict[str, int], *, as_json: bool) -> dict[str, Any]:
    return {"rows": rows} if as_json else {name: rows[name] for name in SHOWN_TABLES}


# -- prune ------------------------------------------------------------------------------------


def prune_ledger(
    before: Annotated[str, typer.Option("--records-before", metavar="D", help="A day, UTC: 2026-01-31.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what would be removed.")] = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Remove records of requests before a day; sums, budgets and owners stay."""
    before_ms = moment_of(before, end_of_day=False)
    if before_ms % DAY_MS:
        raise typer.BadParameter(f"{before!r} is not a day (2026-01-31)")
    if before_ms > now_ms() - KEPT_DAYS_MIN * DAY_MS:
        raise typer.BadParameter(f"records of the last {KEPT_DAYS_MIN} days are kept: they may still be corrected")

    async def work() -> Pruned:
        async with existing_ledger(data_dir) as database:
            if not dry_run:
                return await prune(database, before_ms)
            async with database.read() as connection:
                return await prunable(connection, before_ms)

    told = {"removed": not dry_run, "records_before": moment_text(before_ms)}
    show_object({**told, **msgspec.structs.asdict(run(work()))}, as_json=as_json)


# -- reprice ----------------------------------------------------------------------------------


def reprice_ledger(
    since: Annotated[str, typer.Option("--from", metavar="D", help="A date or time, UTC.")],
    until: Annotated[
        str | None, typer.Option("--to", metavar="D", help="A date (its end) or time. [default: now]")
    ] = None,
    model: Annotated[str | None, typer.Option("--model", metavar="PATTERN", help="Only these models.")] = None,
    config: Annotated[Path | None, typer.Option("--config", help="The configuration file, with its prices.")] = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Price what was unpriced, by entries that correct it."""
    start_ms = moment_of(since, end_of_day=False)
    end_ms = now_ms() + 1 if until is None else moment_of(until, end_of_day=True)
    pattern = None if model is None else compile_pattern(model)
    asked = {"from": iso_time(start_ms), "to": iso_time(end_ms)}

    async def work() -> Repriced:
        async with existing_ledger(data_dir) as database:
            async with database.read() as connection:
                prices = _price_book(config, await list_prices(connection))
            await _note_repricing(database, model, {**asked, "state": "started"})
            done = await reprice(
                database,
                price_of(prices),
                start_ms,
                end_ms,
                now_ms(),
                matches=lambda name: pattern is None or pattern.fullmatch(name) is not None,
            )
            told = {"attempts": done.attempts, "cost_usd": usd_text(done.cost_nanousd), "unpriced": done.unpriced}
            await _note_repricing(database, model, {**asked, "state": "ended", **told})
            return done

    done = run(work())
    told = {"priced": done.attempts, "cost_usd": usd_text(done.cost_nanousd), "unpriced": done.unpriced}
    show_object({**told, "unpriced_models": done.unpriced_models}, as_json=as_json)


async def _note_repricing(database: Database, model: str | None, after: dict[str, Any]) -> None:
    """Many transactions make one run: that it has begun is written before them, what came of it after them."""
    async with database.transaction() as connection:
        await note(
            connection,
            "price.reprice",
            now_ms=now_ms(),
            object_id="",
            object_name=model or "*",
            team_id=None,
            after=after,
        )


def _price_book(config: Path | None, rows: Sequence[SetPrice]) -> PriceBook:
    """The prices that a gateway with this configuration has, on a ledger where ``rows`` are set."""
    configuration = load_configuration(Environment.read(config=config).config_path)
    base_urls = {name: upstream.base_url or "" for name, upstream in configuration.upstreams.items()}
    return PriceBook(overrides_of(rows, configuration.prices), base_urls)


# -- explain ----------------------------------------------------------------------------------


def explain_request(
    request_id: Annotated[str | None, typer.Argument(help="The x-headgate-request-id of an answer.")] = None,
    refusals: Annotated[bool, typer.Option("--refusals", help="The last refusals of a team instead.")] = False,
    team: Annotated[str | None, typer.Option("--team", help="The team's name or id.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="How many refusals.")] = 50,
    data_dir: DataDir = None,
    style: Annotated[Format, typer.Option("--format", help="How refusals come out.")] = Format.table,
    as_json: AsJson = False,
) -> None:
    """Say why a request was admitted, charged or refused as it was."""
    if refusals:
        if team is None or request_id is not None:
            raise typer.BadParameter("--refusals goes with --team, and without a request id")
        _show_refusals(team, limit, data_dir, Format.json if as_json else style)
        return
    if request_id is None or team is not None:
        raise typer.BadParameter("give a request id, or --team T --refusals")

    async def work() -> RecordExplained | RefusalExplained | None:
        async with reading(data_dir) as connection:
            return await explain(connection, request_id)

    found = run(work())
    if found is None:
        raise fail(
            f"there is nothing about {request_id!r}: a request leaves a record when it has ended,"
            " and a refusal of a known key is kept for a day (but for 503: those are counted only)"
        )
    print(json.dumps(data_of(found), ensure_ascii=False) if as_json else explanation_text(found))


def _show_refusals(team: str, limit: int, data_dir: Path | None, style: Format) -> None:
    async def work() -> list[RefusalExplained]:
        async with reading(data_dir) as connection:
            found = await find_team(connection, team)
            return await explain_refusals(connection, found.id, limit=limit)

    found = run(work())
    if style is Format.json:
        print(json.dumps([data_of(each) for each in found], ensure_ascii=False))
        return
    rows = [
        {
            "at": moment(each.refusal.at_ms),
            "request_id": each.refusal.request_id,
            "key": each.names.key or each.refusal.key_id,
            "status": each.refusal.status,
            "code": each.refusal.code,
            "because": because(each.refusal),
        }
        for each in found
    ]
    show_rows(rows, REFUSAL_COLUMNS, style)


# -- processes --------------------------------------------------------------------------------


@processes.command("list")
def show_processes(
    data_dir: DataDir = None,
    style: Annotated[Format, typer.Option("--format", help="How rows come out.")] = Format.table,
    as_json: AsJson = False,
) -> None:
    """List processes; what one that was lost may hold of budgets is held until it is written off."""

    async def work() -> list[dict[str, Any]]:
        async with reading(data_dir) as connection:
            held = await most_held(connection)
            return [_process(row, held.get(row.id, 0)) for row in await list_processes(connection)]

    show_rows(run(work()), PROCESS_COLUMNS, Format.json if as_json else style)


def _process(row: ProcessRow, held_nanousd: int) -> dict[str, Any]:
    return {
        "id": row.id,
        "node": row.node,
        "slot": row.slot,
        "state": "closed" if row.closed else "open",
        "started_at": moment_text(row.started_at_ms),
        "seen_at": moment_text(row.seen_at_ms),
        "acked_epoch": row.acked_epoch,
        "held_usd_max": usd_text(held_nanousd),
    }


@processes.command("write-off")
def write_off_process(
    process_id: Annotated[str, typer.Argument(help="Its id in `headgate processes list`.")],
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Declare that a process and its disk are lost for good, so that what it held is free again."""

    async def work() -> None:
        async with existing_ledger(data_dir) as database, database.transaction() as connection:
            await write_off(connection, process_id)

    run(work())
    show_object({"id": process_id, "written_off": True}, as_json=as_json)
