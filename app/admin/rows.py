"""Rows of the ledger as JSON tells them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from app.admin.exports import Column
from app.core.money import usd_text
from app.store.explanations import iso_time, used
from app.store.people import OwnerNames
from app.store.records import EntryView, RecordView
from app.store.usage import UsageRow, UsageSums

SUMS = tuple(name.replace("_nanousd", "_usd") for name in UsageSums.__struct_fields__)
"""The names of sums towards clients."""

_TEXTS = frozenset(
    "request_id started_at ended_at team_id team key_id key secret_id endpoint stream model_requested model"
    " model_served upstream outcome error_code cache estimated unpriced tags end_user response_id".split()
)
RECORD_COLUMNS = tuple(
    Column(name, is_number=name not in _TEXTS)
    for name in (
        "request_id started_at ended_at team_id team key_id key secret_id endpoint stream model_requested model"
        " model_served upstream status outcome error_code cache attempts input_tokens cached_tokens output_tokens"
        " reasoning_tokens first_byte_ms took_ms cost_usd saved_usd estimated unpriced tags end_user"
        " response_id".split()
    )
)
"""Of a CSV file: team and key in two columns each."""


def sums_data(sums: UsageSums) -> dict[str, Any]:
    """Counts as they are, money as decimal text."""
    return {
        name.replace("_nanousd", "_usd"): usd_text(value) if name.endswith("_nanousd") else value
        for name in UsageSums.__struct_fields__
        for value in (getattr(sums, name),)
    }


def usage_data(row: UsageRow) -> dict[str, Any]:
    """The group under its names, with ids, and the sums."""
    ids = {"team_id": row.team_id, "key_id": row.key_id}
    return {**row.group, **{name: value for name, value in ids.items() if value is not None}, **sums_data(row)}


def usage_columns(by: Iterable[str]) -> tuple[Column, ...]:
    """The columns of a CSV file of usage."""
    groups: list[str] = []
    for name in by:
        groups += (name, f"{name}_id") if name in {"team", "key"} else (name,)
    return (*(Column(name) for name in groups), *(Column(name, is_number=True) for name in SUMS))


def record_data(record: RecordView, names: OwnerNames) -> dict[str, Any]:
    """One row of a list."""
    first_byte_ms = None if record.first_byte_at_ms is None else record.first_byte_at_ms - record.started_at_ms
    return {
        "request_id": record.request_id,
        "started_at": iso_time(record.started_at_ms),
        "ended_at": iso_time(record.ended_at_ms),
        "team": {"id": record.team_id, "name": names.teams.get(record.team_id, record.team_id)},
        "key": {"id": record.key_id, "name": names.keys.get(record.key_id, record.key_id)},
        "secret_id": record.secret_id,
        "endpoint": record.endpoint,
        "stream": record.stream,
        "model_requested": record.model_requested,
        "model": record.model,
        "model_served": record.model_served,
        "upstream": record.upstream,
        "status": record.status,
        "outcome": record.outcome,
        "error_code": record.error_code,
        "cache": record.cache,
        "attempts": record.attempts,
        "input_tokens": record.input_tokens,
        "cached_tokens": record.cached_tokens,
        "output_tokens": record.output_tokens,
        "reasoning_tokens": record.reasoning_tokens,
        "first_byte_ms": first_byte_ms,
        "took_ms": record.ended_at_ms - record.started_at_ms,
        "cost_usd": _usd(record.cost_nanousd),
        "saved_usd": usd_text(record.saved_nanousd),
        "estimated": record.estimated,
        "unpriced": record.unpriced,
        "tags": record.tags,
        "end_user": record.end_user,
        "response_id": record.response_id,
    }


def record_line(record: RecordView, names: OwnerNames) -> dict[str, Any]:
    """A row of a CSV file: flat."""
    data = record_data(record, names)
    for owner in ("team", "key"):
        named = data.pop(owner)
        data |= {f"{owner}_id": named["id"], owner: named["name"]}
    return data


def record_whole(record: RecordView, names: OwnerNames) -> dict[str, Any]:
    """A record with all that is known of it."""
    return {
        **record_data(record, names),
        "first_byte_at": iso_time(record.first_byte_at_ms),
        "cache_write_tokens": record.cache_write_tokens,
        "service_tier": record.service_tier,
        "suspect": record.suspect,
        "tool_usage": record.tool_usage,
        "usage_raw": record.usage_raw,
        "cost_lower_usd": _usd(record.cost_lower_nanousd),
        "cost_upper_usd": _usd(record.cost_upper_nanousd),
        "price_source": record.price_source,
        "price_version": record.price_version,
        "budgets": [{"budget_id": each.budget_id, "window_from": iso_time(each.start_ms)} for each in record.budgets],
        "decision": record.decision,
        "entries": [_entry_data(entry) for entry in record.entries],
    }


def _entry_data(entry: EntryView) -> dict[str, Any]:
    return {
        "attempt_id": entry.attempt_id,
        "kind": entry.kind,
        "reason": entry.reason,
        "number": entry.number,
        "upstream": entry.upstream,
        "model": entry.model,
        "written_at": iso_time(entry.created_at_ms),
        "usage": used([entry]),
        "cost_usd": _usd(entry.cost_nanousd),
        "cost_lower_usd": _usd(entry.cost_lower_nanousd),
        "cost_upper_usd": _usd(entry.cost_upper_nanousd),
        "price_source": entry.price_source,
        "price_version": entry.price_version,
        "service_tier": entry.service_tier,
    }


def _usd(nanousd: int | None) -> str | None:
    return None if nanousd is None else usd_text(nanousd)
