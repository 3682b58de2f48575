"""The rows of the bill: what a request leaves behind.

An admitted request leaves one ``Record``; every attempt leaves one primary ``Entry``. Corrections are
further entries of kind ``adjust``. Neither is updated once written.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from app.core.usage import NOTHING_USED, Usage

EntryKind = Literal["charge", "estimate", "void", "adjust"]
Outcome = Literal["completed", "failed", "incomplete", "cancelled", "disconnected", "interrupted"]
CacheResult = Literal["hit", "miss", "joined", "bypass"]


class Bound(msgspec.Struct, frozen=True, omit_defaults=True):
    """What an attempt may use and cost, computed before it is sent. ``None`` where it has no price.

    ``cost_upper_nanousd`` is what ``usage_upper`` costs by the price named here, at ``service_tier`` (None:
    the standard one). ``unbounded`` says why nothing bounds the request, where nothing does: then the upper
    figures are only a guess, and no hard budget may let it through.
    """

    input_tokens_lower: int = 0
    input_tokens_upper: int = 0
    output_tokens_upper: int = 0
    cost_lower_nanousd: int | None = None
    cost_upper_nanousd: int | None = None
    price_source: str | None = None
    price_version: str | None = None
    parts_upper: Usage = NOTHING_USED
    """The dearest parts that those tokens may have, and the calls of tools; its totals are zero."""
    service_tier: str | None = None
    unbounded: str | None = None

    @property
    def usage_upper(self) -> Usage:
        """All that may be used, in the buckets in which it costs most."""
        return msgspec.structs.replace(
            self.parts_upper, input_tokens=self.input_tokens_upper, output_tokens=self.output_tokens_upper
        )


class Attempt(msgspec.Struct, frozen=True, omit_defaults=True):
    """One call upstream. Its id is ``<request id>.<number>``, carried upstream as ``x-client-request-id``."""

    number: int
    upstream: str
    model: str
    bound: Bound


class BudgetWindow(msgspec.Struct, frozen=True, array_like=True, order=True):
    """One window of one budget: where the cost of a request counts. Fixed at admission.

    ``budget_id`` is the id of the rule, with the tag's value behind a colon where each value counts on
    its own; ``start_ms`` is the window's first millisecond since 1970 UTC, 0 for one that never ends.
    """

    budget_id: str
    start_ms: int


class Opening(msgspec.Struct, frozen=True, omit_defaults=True):
    """All that another process needs to write a request's rows if this one dies.

    Times are milliseconds since 1970 UTC. ``quarter_ms`` is fixed here, at admission, and never
    computed again.
    """

    request_id: str
    admitted_at_ms: int
    quarter_ms: int
    team_id: str
    key_id: str
    secret_id: str
    endpoint: str
    stream: bool
    model_requested: str
    attempt: Attempt
    end_user: str | None = None
    tags: dict[str, str] = msgspec.field(default_factory=dict)
    cache: CacheResult = "bypass"
    budgets: tuple[BudgetWindow, ...] = ()
    background: bool = False
    decision: dict[str, object] = msgspec.field(default_factory=dict)


class Entry(msgspec.Struct, frozen=True, omit_defaults=True):
    """Units and money of one attempt, or a correction of them.

    Key: (``attempt_id``, ``reason``, ``number``); a primary entry (every kind but ``adjust``) has the
    reason ``""`` and number 0, so that a second writer of the same attempt does nothing.
    ``cost_nanousd`` is None where the model had no price.
    """

    attempt_id: str
    kind: EntryKind
    upstream: str
    model: str
    usage: Usage = NOTHING_USED
    cost_nanousd: int | None = 0
    cost_lower_nanousd: int | None = None
    cost_upper_nanousd: int | None = None
    price_source: str | None = None
    price_version: str | None = None
    service_tier: str | None = None
    reason: str = ""
    number: int = 0


class Record(msgspec.Struct, frozen=True, omit_defaults=True):
    """One admitted request, written once when it closes; ``entries`` are its attempts' primary entries.

    ``usage_raw`` (JSON text, at most 4 KiB) keeps the numbers as the upstream gave them;
    ``decision`` (at most 2 KiB as JSON) says what was checked and chosen. ``own_us`` is what the gateway itself
    took for it, in microseconds, where that is known.
    """

    request_id: str
    admitted_at_ms: int
    quarter_ms: int
    ended_at_ms: int
    team_id: str
    key_id: str
    secret_id: str
    endpoint: str
    stream: bool
    model_requested: str
    upstream: str
    model: str
    outcome: Outcome
    entries: tuple[Entry, ...]
    attempts: int = 1
    first_byte_at_ms: int | None = None
    response_id: str | None = None
    end_user: str | None = None
    tags: dict[str, str] = msgspec.field(default_factory=dict)
    model_served: str | None = None
    service_tier: str | None = None
    status: int | None = None
    error_code: str | None = None
    cache: CacheResult = "bypass"
    tool_usage: str | None = None
    usage_raw: str | None = None
    saved_nanousd: int = 0
    suspect: bool = False
    budgets: tuple[BudgetWindow, ...] = ()
    decision: dict[str, object] = msgspec.field(default_factory=dict)
    own_us: int | None = None
    awaited: bool = False
    """What it used can still be asked for, by the response's id."""


class OwnedObject(msgspec.Struct, frozen=True):
    """An object that a team's request created upstream: only that team may name it again."""

    object_id: str
    upstream: str
    team_id: str
    kind: str
    request_id: str
    created_at_ms: int


def attempt_id_of(request_id: str, number: int) -> str:
    """The id of the ``number``-th call upstream for a request."""
    return f"{request_id}.{number}"
