"""When secrets were used: what tells who still goes by an old one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec
from sqlalchemy import select

from app.store.tables import records, secret_uses

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

HOUR_MS = 3_600_000
HOURS = 24
RECORDS_READ_MAX = 200_000
"""Of a key's last day; beyond it counts are of its newest."""


class TagUse(msgspec.Struct, frozen=True):
    """A label of requests that came with a secret."""

    name: str
    value: str
    used_at_ms: int
    requests_last_hour: int


class SecretDay(msgspec.Struct, frozen=True):
    """A secret's last day: requests by hour, oldest first, and the labels that they came with, newest first."""

    requests_last_hour: int
    hours: tuple[int, ...]
    tags: tuple[TagUse, ...]


async def last_uses(connection: AsyncConnection, secret_ids: Sequence[str]) -> dict[str, int]:
    """When each of these secrets was last used; one that never was is not in it."""
    asked = select(secret_uses).where(secret_uses.c.secret_id.in_(secret_ids))
    return {row.secret_id: row.used_at_ms for row in await connection.execute(asked)}


async def last_day(connection: AsyncConnection, key_id: str, *, now_ms: int) -> dict[str, SecretDay]:
    """The last 24 hours of each secret that a key was used with; hours end now."""
    since_ms = now_ms - HOURS * HOUR_MS
    asked = (
        select(records.c.secret_id, records.c.admitted_at_ms, records.c.tags)
        .where(records.c.key_id == key_id, records.c.admitted_at_ms > since_ms)
        .order_by(records.c.admitted_at_ms.desc())
        .limit(RECORDS_READ_MAX)
    )
    hours: dict[str, list[int]] = {}
    tags: dict[str, dict[str, int]] = {}
    recent: dict[str, Counter[str]] = {}
    for secret_id, at_ms, text in await connection.execute(asked):
        hour = min(max(int(at_ms - since_ms - 1) // HOUR_MS, 0), HOURS - 1)
        hours.setdefault(secret_id, [0] * HOURS)[hour] += 1
        # The newest comes first.
        tags.setdefault(secret_id, {}).setdefault(text, at_ms)
        if at_ms > now_ms - HOUR_MS:
            recent.setdefault(secret_id, Counter())[text] += 1
    return {
        secret_id: SecretDay(counts[-1], tuple(counts), _by_label(tags[secret_id], recent.get(secret_id, Counter())))
        for secret_id, counts in hours.items()
    }


def _by_label(texts: dict[str, int], recent: Counter[str]) -> tuple[TagUse, ...]:
    """Requests carry all of their labels in one text."""
    used: dict[tuple[str, str], int] = {}
    counts: Counter[tuple[str, str]] = Counter()
    for text, at_ms in texts.items():
        for label in msgspec.json.decode(text, type=dict[str, str]).items():
            used[label] = max(used.get(label, 0), at_ms)
            counts[label] += recent[text]
    newest_first = sorted(used.items(), key=lambda each: (-each[1], each[0]))
    return tuple(TagUse(*label, at_ms, counts[label]) for label, at_ms in newest_first)
