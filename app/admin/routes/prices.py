"""Prices: what a token is worth by whom, set ones, and pricing again what had none."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Path
from sqlalchemy.ext.asyncio import AsyncConnection

from app.admin.access import Caller
from app.admin.answers import TAKEN
from app.admin.schemas.fields import ms_of
from app.admin.schemas.prices import Price, PriceMade, Prices, Repriced, Repricing
from app.admin.wire import Administrator, Cursor, Limit, Reader, Tools, ToolsOf, next_offset, offset_of
from app.core.clock import quarter_of
from app.core.errors import Conflict, InvalidRequest
from app.core.money import usd_text
from app.core.patterns import compile_pattern
from app.metering.rates import Price as PriceFound
from app.metering.repricing import price_of
from app.settings import PriceOverride
from app.store.audit import note_change
from app.store.explanations import iso_time
from app.store.prices import SetPrice, list_prices, prices_of, remove_price, set_price
from app.store.reprice import reprice
from app.store.rows import json_text
from app.store.usage import UsageFilter, usage

router = APIRouter(tags=["prices"])
DAYS_SHOWN_MS = 30 * 24 * 60 * 60 * 1000
QUARTER_MS = 15 * 60 * 1000
PriceId = Annotated[str, Path(max_length=64)]


@router.get("/prices", summary="Prices", response_model=Prices)
async def read_prices(caller: Reader, tools: ToolsOf, limit: Limit = 50, cursor: Cursor = None) -> dict[str, Any]:
    """What was used in the last 30 days, the unpriced first, then the dearest; then every price that is set or stands
    in the file.
    """
    offset = offset_of(cursor)
    now_ms = tools.clock.now_ms()
    only = UsageFilter() if caller.team_id is None else UsageFilter(team_ids=(caller.team_id,))
    start_ms, end_ms = quarter_of(now_ms - DAYS_SHOWN_MS), quarter_of(now_ms) + QUARTER_MS
    async with tools.database.read() as connection:
        report = await usage(connection, ["model", "upstream"], start_ms, end_ms, UTC, only=only)
        rows = await list_prices(connection)
    in_force = tools.in_force()
    used = sorted(report.rows, key=lambda row: (-row.unpriced, -row.cost_nanousd, row.group["model"]))
    data = []
    for row in used:
        model, upstream = row.group["model"], row.group["upstream"]
        price = in_force.prices.price(upstream, model, None, now_ms)
        data.append(_found(model, upstream, price, requests=row.requests, unpriced=row.unpriced))
    data += [_set(_override(row), row.id) for row in rows]
    data += [_set(override, None) for override in in_force.configuration.prices]
    return {"data": data[offset : offset + limit], "next": next_offset(len(data), offset, limit)}


@router.post("/prices", summary="Set a price", status_code=201, response_model=Price, responses=TAKEN)
async def make_price(body: PriceMade, caller: Administrator, tools: ToolsOf) -> dict[str, Any]:
    """For requests admitted from now on, on every gateway within a second; what is unpriced since `effective_from`
    is priced by `reprice`. The same price once more is the one that is there. Another one of the same model, upstream,
    tier and day is 409, unless it is said to `replace` that one.
    """
    if body.upstream is not None and body.upstream not in tools.in_force().configuration.upstreams:
        raise InvalidRequest("There is no such upstream.", param="upstream")
    override = body.override()
    now_ms = tools.clock.now_ms()
    async with tools.database.transaction() as connection:
        found = [(row, _override(row)) for row in await prices_of(connection, override.model)]
        taken = [(row, known) for row, known in found if known.place == override.place]
        if taken and taken[0][1].model_dump() == override.model_dump():
            return _set(override, taken[0][0].id)
        if taken and not body.replace:
            raise Conflict(
                f"There is another price of {override.model!r} from that day on: {taken[0][0].id}. Say `replace`, or"
                " remove it."
            )
        for row, _ in taken:
            await _remove(connection, caller, row.id, now_ms)
        row = await set_price(
            connection,
            model=body.model,
            upstream=body.upstream,
            rates=json_text(override.model_dump(mode="json", exclude_none=True, exclude_defaults=True)),
            effective_from_ms=_midnight_ms(body.effective_from),
            now_ms=now_ms,
        )
        shown = _set(override, row.id)
        await note_change(
            connection,
            caller.actor,
            action="price.create",
            object_kind="price",
            object_id=row.id,
            object_name=row.model,
            after=shown,
            now_ms=now_ms,
        )
    return shown


@router.delete("/prices/{price_id}", summary="Remove a set price", status_code=204)
async def delete_price(price_id: PriceId, caller: Administrator, tools: ToolsOf) -> None:
    """What it has priced keeps its price."""
    async with tools.database.transaction() as connection:
        await _remove(connection, caller, price_id, tools.clock.now_ms())


async def _remove(connection: AsyncConnection, caller: Caller, price_id: str, now_ms: int) -> None:
    row = await remove_price(connection, price_id, now_ms=now_ms)
    await note_change(
        connection,
        caller.actor,
        action="price.delete",
        object_kind="price",
        object_id=row.id,
        object_name=row.model,
        before=_set(_override(row), row.id),
        now_ms=now_ms,
    )


@router.post("/prices/reprice", summary="Price what was unpriced", response_model=Repriced)
async def reprice_unpriced(body: Repricing, caller: Administrator, tools: ToolsOf) -> dict[str, Any]:
    """By correcting entries: history is never rewritten, and what has a price keeps it. With `dry_run` (which is on
    unless you say so) the sum is told and nothing is written. Many transactions make one run: that it has begun stands
    in the audit log before the first of them, what came of it after the last.
    """
    now_ms = tools.clock.now_ms()
    end_ms = now_ms + 1 if body.end is None else ms_of(body.end)
    pattern = None if body.model is None else compile_pattern(body.model)
    asked = {"from": iso_time(ms_of(body.start)), "to": iso_time(end_ms)}
    if not body.dry_run:
        await _note_repricing(tools, caller, body, {**asked, "state": "started"})
    done = await reprice(
        tools.database,
        price_of(tools.in_force().prices),
        ms_of(body.start),
        end_ms,
        now_ms,
        matches=lambda name: pattern is None or pattern.fullmatch(name) is not None,
        dry_run=body.dry_run,
    )
    told = {
        "attempts": done.attempts,
        "cost_usd": usd_text(done.cost_nanousd),
        "unpriced": done.unpriced,
        "unpriced_models": done.unpriced_models,
    }
    if not body.dry_run:
        await _note_repricing(tools, caller, body, {**asked, "state": "ended", **told})
    return {**told, "dry_run": body.dry_run}


async def _note_repricing(tools: Tools, caller: Caller, body: Repricing, after: dict[str, Any]) -> None:
    async with tools.database.transaction() as connection:
        await note_change(
            connection,
            caller.actor,
            action="price.reprice",
            object_kind="price",
            object_id="",
            object_name=body.model or "*",
            after=after,
            now_ms=tools.clock.now_ms(),
        )


def _override(row: SetPrice) -> PriceOverride:
    return PriceOverride.model_validate_json(row.rates)


def _midnight_ms(day: date) -> int:
    return round(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp() * 1000)


def _found(model: str, upstream: str, price: PriceFound | None, *, requests: int, unpriced: int) -> dict[str, Any]:
    """What holds now for a model that is used."""
    rates = None if price is None else price.rates
    source = "unpriced" if price is None else "override" if price.source == "override" else "list"
    return {
        "id": None,
        "model": model,
        "upstream": upstream,
        "source": source,
        "input_per_mtok_usd": None if rates is None else _usd(rates.input),
        "cached_input_per_mtok_usd": None if rates is None else _usd(rates.cached),
        "output_per_mtok_usd": None if rates is None else _usd(rates.output),
        "effective_from": None,
        "version": None if price is None else price.version,
        "requests_30_days": requests,
        "unpriced": unpriced,
    }


def _set(override: PriceOverride, price_id: str | None) -> dict[str, Any]:
    return {
        "id": price_id,
        "model": override.model,
        "upstream": override.upstream,
        "source": "file" if price_id is None else "override",
        "input_per_mtok_usd": _text(override.input_per_mtok_usd),
        "cached_input_per_mtok_usd": _text(override.cached_per_mtok_usd),
        "output_per_mtok_usd": _text(override.output_per_mtok_usd),
        "effective_from": override.effective_from.isoformat(),
        "version": None,
        "requests_30_days": None,
        "unpriced": 0,
    }


def _text(amount: object) -> str | None:
    return None if amount is None else str(amount)


def _usd(nanousd: int | None) -> str | None:
    return None if nanousd is None else usd_text(nanousd)
