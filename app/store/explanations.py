"""Why a request was decided, charged or refused as it was: all that the ledger knows of one, as plain data.

``decision`` is what the gateway wrote down then; amounts are nano-dollars, times milliseconds since 1970 UTC.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec
from sqlalchemy import select

from app.core.money import usd_text
from app.core.records import attempt_id_of
from app.core.usage import NOTHING_USED, Usage
from app.store.posting import EXACT, is_unpriced
from app.store.records import EntryView, RecordView, cost_of, find_record
from app.store.refusals import RefusalRow, find_refusal, recent_refusals
from app.store.tables import keys, teams

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection

_UNITS = Usage.__struct_fields__


class Names(msgspec.Struct, frozen=True):
    """What a team and a key are called now; None where they are gone."""

    team: str | None
    key: str | None


class AttemptExplained(msgspec.Struct, frozen=True):
    """One call upstream: its primary entry, then what corrected it, and what both add up to.

    ``cost_nanousd`` is None where it has no price, and no estimate had one. ``why_estimate`` is a sentence, where
    nothing exact is known or was not when its primary entry was written.
    """

    attempt_id: str
    upstream: str
    model: str
    kind: str
    estimated: bool
    why_estimate: str | None
    usage: dict[str, int]
    cost_nanousd: int | None
    cost_lower_nanousd: int | None
    cost_upper_nanousd: int | None
    entries: tuple[EntryView, ...]


class RecordExplained(msgspec.Struct, frozen=True):
    """An admitted request. ``about_cache`` is a sentence, where the cache had a part in it or says why not."""

    record: RecordView
    names: Names
    attempts: tuple[AttemptExplained, ...]
    about_cache: str | None


class RefusalExplained(msgspec.Struct, frozen=True):
    """A request that was refused."""

    refusal: RefusalRow
    names: Names


async def explain(connection: AsyncConnection, request_id: str) -> RecordExplained | RefusalExplained | None:
    """What is known of a request; None where there is neither a record nor, any more, a refusal."""
    record = await find_record(connection, request_id)
    if record is not None:
        names = await _names(connection, record.team_id, record.key_id)
        return RecordExplained(record, names, _attempts(record), _about_cache(record))
    refusal = await find_refusal(connection, request_id)
    if refusal is None:
        return None
    return RefusalExplained(refusal, await _names(connection, refusal.team_id, refusal.key_id))


async def explain_refusals(connection: AsyncConnection, team_id: str, *, limit: int = 50) -> list[RefusalExplained]:
    """A team's last refusals, newest first."""
    found = await recent_refusals(connection, team_id, limit=limit)
    names = {row.key_id: await _names(connection, team_id, row.key_id) for row in found}
    return [RefusalExplained(row, names[row.key_id]) for row in found]


async def _names(connection: AsyncConnection, team_id: str, key_id: str) -> Names:
    team = (await connection.execute(select(teams.c.name).where(teams.c.id == team_id))).scalar_one_or_none()
    key = (await connection.execute(select(keys.c.name).where(keys.c.id == key_id))).scalar_one_or_none()
    return Names(team, key)


def _attempts(record: RecordView) -> tuple[AttemptExplained, ...]:
    grouped: dict[str, list[EntryView]] = {}
    # What nothing was sent upstream for has an entry all the same, and that is no attempt.
    unsent = attempt_id_of(record.request_id, 0)
    for entry in (each for each in record.entries if each.attempt_id != unsent):
        grouped.setdefault(entry.attempt_id, []).append(entry)
    # Their numbers stand behind the request's id; a tenth comes after the ninth.
    ordered = sorted(grouped.items(), key=lambda each: (len(each[0]), each[0]))
    return tuple(_attempt(record, attempt_id, entries) for attempt_id, entries in ordered)


def _attempt(record: RecordView, attempt_id: str, found: Sequence[EntryView]) -> AttemptExplained:
    # The primary first, then corrections as they were written.
    entries = tuple(sorted(found, key=lambda entry: (entry.kind == "adjust", entry.created_at_ms, entry.number)))
    primary = entries[0]
    unpriced = is_unpriced([msgspec.structs.asdict(entry) for entry in entries])
    return AttemptExplained(
        attempt_id=attempt_id,
        upstream=primary.upstream,
        model=primary.model,
        kind=primary.kind,
        estimated=primary.kind == "estimate" and all(entry.reason != EXACT for entry in entries),
        why_estimate=_why_estimate(record) if primary.kind == "estimate" else None,
        usage=used(entries),
        cost_nanousd=cost_of(_sum(entries, "cost_nanousd"), unpriced=unpriced),
        cost_lower_nanousd=None if unpriced else _sum(entries, "cost_lower_nanousd"),
        cost_upper_nanousd=None if unpriced else _sum(entries, "cost_upper_nanousd"),
        entries=entries,
    )


def _about_cache(record: RecordView) -> str | None:
    told = record.decision.get("cache")
    reason = f": {told}" if isinstance(told, str) and told != record.cache else ""
    if record.cache == "hit":
        return f"It was answered from the cache{reason}; nothing was sent upstream."
    if record.cache == "joined":
        return f"It joined a call that was in flight{reason}; nothing more was sent upstream."
    if record.cache == "miss":
        return f"The cache held no answer to it{reason}."
    return f"The cache was passed by{reason}." if reason else None


def used(entries: Sequence[EntryView]) -> dict[str, int]:
    """The units that ``entries`` add up to, without those of which there are none."""
    total = NOTHING_USED
    for entry in entries:
        total = total.plus(Usage(*(getattr(entry, name) for name in _UNITS)))
    return {name: units for name, units in msgspec.structs.asdict(total).items() if units}


def _sum(entries: Sequence[EntryView], name: str) -> int:
    """An exact cost is its own lower and upper bound."""
    amounts = (getattr(entry, name) for entry in entries)
    return sum(
        (entry.cost_nanousd or 0) if amount is None else amount for entry, amount in zip(entries, amounts, strict=True)
    )


ESTIMATED_BECAUSE = {
    "gateway_crashed": "The gateway died while the call ran, so nobody knows how far it got: charged at its bound.",
    "gateway_lost": "The gateway, or its host, was lost while the call ran: charged at its bound.",
    "gateway_shutdown": "The gateway was stopped while the call ran, before the upstream had told its usage.",
    "key_revoked": "The key was revoked while the call ran, before the upstream had told its usage.",
    "internal_error": "The gateway failed while the call ran; what the upstream did is not known.",
    "upstream_timeout": "The upstream gave no answer in time; it may have done the work.",
    "upstream_outcome_unknown": "The connection was lost after the call was sent; the upstream may have done the work.",
    "upstream_disconnected": "The upstream broke off before it had told its usage.",
    "upstream_stalled": "The upstream sent nothing more in time, before it had told its usage.",
    "upstream_invalid_response": "The upstream's answer could not be read, and so its usage could not.",
    "drain_over": "The client had left, and the rest of the answer was not waited for any longer.",
}


def _why_estimate(record: RecordView) -> str:
    """Why nothing exact was known when the request ended."""
    because = ESTIMATED_BECAUSE.get(record.error_code or "")
    if because is not None:
        return because
    if record.suspect:
        return "The usage that the upstream told cannot be true; it is kept as it was told, and not charged by."
    if record.outcome in {"disconnected", "cancelled"}:
        return (
            "Its client left, and no usage came: the call was cancelled, for which upstreams tell none, or its rest"
            " was read and told none."
        )
    if record.outcome in {"failed", "interrupted"}:
        return "The call failed, and the upstream did not tell whether, or how much, it is billed."
    return "The answer came to its end without telling its usage."


def data_of(explained: RecordExplained | RefusalExplained) -> dict[str, Any]:
    """What JSON shows; ``kind`` says of which of the two. Times are ISO 8601 in UTC, ``…_usd`` decimal strings."""
    if isinstance(explained, RefusalExplained):
        row = explained.refusal
        return {
            "kind": "refusal",
            "request_id": row.request_id,
            "at": iso_time(row.at_ms),
            **_who(explained.names, row.team_id, row.key_id),
            "status": row.status,
            "code": row.code,
            "decision": row.decision,
        }
    record = explained.record
    plain = msgspec.structs.asdict(record)
    for name in ("started_at_ms", "first_byte_at_ms", "ended_at_ms", "quarter_ms", "entries", "budgets", "decision"):
        del plain[name]
    return {
        "kind": "record",
        **plain,
        **_who(explained.names, record.team_id, record.key_id),
        "started_at": iso_time(record.started_at_ms),
        "first_byte_at": iso_time(record.first_byte_at_ms),
        "ended_at": iso_time(record.ended_at_ms),
        **_usd(record),
        "saved_usd": usd_text(record.saved_nanousd),
        "budgets": [{"budget_id": each.budget_id, "window_from": iso_time(each.start_ms)} for each in record.budgets],
        "decision": record.decision,
        "about_cache": explained.about_cache,
        "attempts": [_attempt_data(attempt) for attempt in explained.attempts],
    }


def iso_time(at_ms: int | None) -> str | None:
    if at_ms is None:
        return None
    at = datetime.fromtimestamp(at_ms / 1000, UTC)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _who(names: Names, team_id: str, key_id: str) -> dict[str, str | None]:
    return {"team_id": team_id, "team": names.team, "key_id": key_id, "key": names.key}


def _usd(costs: RecordView | AttemptExplained) -> dict[str, str | None]:
    amounts = {
        "cost_usd": costs.cost_nanousd,
        "cost_lower_usd": costs.cost_lower_nanousd,
        "cost_upper_usd": costs.cost_upper_nanousd,
    }
    return {name: None if amount is None else usd_text(amount) for name, amount in amounts.items()}


def _attempt_data(attempt: AttemptExplained) -> dict[str, Any]:
    entries = [
        {
            "kind": entry.kind,
            "reason": entry.reason,
            "number": entry.number,
            "written_at": iso_time(entry.created_at_ms),
            "usage": used([entry]),
            "cost_nanousd": entry.cost_nanousd,
            "cost_usd": None if entry.cost_nanousd is None else usd_text(entry.cost_nanousd),
            "price_source": entry.price_source,
            "price_version": entry.price_version,
            "service_tier": entry.service_tier,
        }
        for entry in attempt.entries
    ]
    return {**msgspec.structs.asdict(attempt), **_usd(attempt), "entries": entries}
