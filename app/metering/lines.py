"""A cost, part by part: for whoever asks what was paid for."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from app.core.money import round_up
from app.core.usage import Usage
from app.metering.rates import Price, Rates


class Line(msgspec.Struct, frozen=True):
    """``count`` of ``unit`` (a field of Usage, or ``request``) at a rate, in nano-dollars per million."""

    unit: str
    count: int
    rate: int
    cost_nanousd: int


def lines_of(price: Price, usage: Usage) -> tuple[Line, ...] | None:
    """The parts of ``price.cost_nanousd(usage)``, which add up to it to the nano-dollar: what the one rounding adds is
    in the line that it falls into. None where it cannot be told part by part: audio, images, no price.
    """
    cost = price.cost_nanousd(usage)
    if cost is None:
        return None
    lines: list[Line] = []
    exact = 0
    for unit, count, rate in _parts(price.rates_for(usage.input_tokens), usage):
        before = round_up(exact)
        exact += count * rate
        lines.append(Line(unit, count, rate, round_up(exact) - before))
    return tuple(lines) if round_up(exact) == cost else None


def _parts(rates: Rates, usage: Usage) -> Iterator[tuple[str, int, int]]:
    """What is billed, of units that have a rate of their own."""
    cached = usage.cached_tokens if rates.cached is not None else 0
    kept_long = usage.cache_write_12h_tokens if rates.cache_write_12h is not None else 0
    written = usage.cache_write_tokens - usage.cache_write_12h_tokens if rates.cache_write is not None else 0
    for unit, count, rate in (
        ("input_tokens", usage.input_tokens - cached - kept_long - written, rates.input),
        ("cached_tokens", cached, rates.cached),
        ("cache_write_tokens", written, rates.cache_write),
        ("cache_write_12h_tokens", kept_long, rates.cache_write_12h),
        ("output_tokens", usage.output_tokens, rates.output),
        ("web_searches", usage.web_searches - usage.preview_searches, rates.web_search),
        ("preview_searches", usage.preview_searches, rates.preview_search),
        ("file_searches", usage.file_searches, rates.file_search),
        ("code_sessions", usage.code_sessions, rates.code_session),
        ("image_calls", usage.image_calls, rates.image_call),
        ("request", 1, rates.request),
    ):
        if count > 0 and rate:
            yield unit, count, rate
