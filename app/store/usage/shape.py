"""What is asked of the usage query, and what it answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from app.core.errors import InvalidRequest
from app.store.periods import PERIODS
from app.store.tag_values import OTHER

if TYPE_CHECKING:
    from collections.abc import Sequence


class UsageNotTold(InvalidRequest, ValueError):
    """What cannot be asked so, or is not known any more: the message says why."""


MEMBERS = ("team", "key", "model", "upstream")
"""What a sum belongs to, in the order in which sums are kept."""

TAG = "tag."


class UsageFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Whose usage: any of what is named, and none of what is named with ``not``; empty is everything.

    ``tags`` are pairs of a name and values, any of them; "" is the value of a request without the tag.
    """

    team_ids: tuple[str, ...] = ()
    key_ids: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    upstreams: tuple[str, ...] = ()
    not_team_ids: tuple[str, ...] = ()
    not_key_ids: tuple[str, ...] = ()
    not_models: tuple[str, ...] = ()
    not_upstreams: tuple[str, ...] = ()
    tags: tuple[tuple[str, tuple[str, ...]], ...] = ()
    not_tags: tuple[tuple[str, tuple[str, ...]], ...] = ()


class UsageSums(msgspec.Struct, gc=False):
    """Sums of requests and of their attempts. ``cost_nanousd`` leaves out what has no price: ``unpriced`` says
    of how many attempts. ``estimated_nanousd`` is the part of it of ``estimated`` attempts.
    """

    requests: int = 0
    failed: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    cost_nanousd: int = 0
    saved_nanousd: int = 0
    unpriced: int = 0
    estimated: int = 0
    estimated_nanousd: int = 0


class UsageRow(UsageSums, kw_only=True, gc=False):
    """Sums of one group. ``group`` has the dimensions that were asked for, in their order, as people read
    them; the ids are set where their dimension was asked for.
    """

    group: dict[str, str]
    team_id: str | None = None
    key_id: str | None = None


class UsageReport(msgspec.Struct, frozen=True):
    """Rows in the order of their groups, and the sums of all, of those too that only the highest were asked of."""

    rows: list[UsageRow]
    total: UsageSums


class Highest(msgspec.Struct, frozen=True):
    """Only the ``count`` rows with the most of a sum (the least where not ``is_falling``), and those that are level
    with the last of them.
    """

    sum: str
    is_falling: bool
    count: int


class Grouping(msgspec.Struct, frozen=True):
    """What usage is grouped by: at most one period and one tag."""

    by: tuple[str, ...]
    period: str | None
    members: tuple[str, ...]
    tag: str | None


def is_dimension(name: str) -> bool:
    """Whether usage can be grouped by ``name``."""
    return name in MEMBERS or name in PERIODS or (name.startswith(TAG) and len(name) > len(TAG))


def grouping_of(by: Sequence[str]) -> Grouping:
    """Raises UsageNotTold where usage cannot be grouped so."""
    for name in by:
        if not is_dimension(name):
            raise UsageNotTold(f"Usage cannot be grouped by {name!r}.", param="by")
    if len(set(by)) < len(by):
        raise UsageNotTold("Usage cannot be grouped by one thing twice.", param="by")
    periods = [name for name in by if name in PERIODS]
    tags = [name for name in by if name.startswith(TAG)]
    for names in (periods, tags):
        if len(names) > 1:
            raise UsageNotTold(f"Usage cannot be grouped by {names[0]} and {names[1]} at once.", param="by")
    return Grouping(
        by=tuple(by),
        period=periods[0] if periods else None,
        members=tuple(name for name in by if name in MEMBERS),
        tag=tags[0].removeprefix(TAG) if tags else None,
    )


class TagFilter(msgspec.Struct, frozen=True):
    """Which values of a tag: of ``any_of`` (None: whichever) and not of ``none_of``; "" is no value."""

    name: str
    any_of: frozenset[str] | None
    none_of: frozenset[str]

    def lets(self, value: str) -> bool:
        return (self.any_of is None or value in self.any_of) and value not in self.none_of

    @property
    def named(self) -> frozenset[str]:
        """The values that it tells apart."""
        return ((self.any_of or frozenset()) | self.none_of) - {"", OTHER}


def tag_filters(only: UsageFilter) -> list[TagFilter]:
    """One for each name."""
    names = dict.fromkeys(name for name, _ in (*only.tags, *only.not_tags))
    filters = []
    for name in names:
        any_of: frozenset[str] | None = None
        for tag, values in only.tags:
            if tag == name:
                any_of = frozenset(values) if any_of is None else any_of & frozenset(values)
        none_of = frozenset(value for tag, values in only.not_tags if tag == name for value in values)
        filters.append(TagFilter(name, any_of, none_of))
    return filters
