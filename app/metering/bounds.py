"""What an attempt can use and cost, before it is sent.

The policy ``maximum`` gives the most it can cost, if these hold:

- A token is at least one byte of the body: also of its names and brackets, which pay for what the provider
  adds to each message. ``BASE_TOKENS`` are for what it adds to a whole request.
- An image is at most ``IMAGE_TOKENS_MAX``; the bytes of one in the body count as well.
- A file, a stored turn or item, and whatever a tool of the provider's returns is bounded by the model's
  context window only, and with such a tool the model reads that window again after each call. So it takes
  ``max_tool_calls``: without it nothing bounds the request, and ``unbounded`` says so.
- The window is known to within ``WINDOW_SLACK``, and what is longer is refused by the provider.
- The answer is at most ``max_output_tokens``, else the model's longest, and a predicted output that is wrong
  is billed on top.
- All input is billed as the dearest kind that the request may have (written to the cache, audio, images),
  all output likewise, and every call as one of the dearest tool.
- The service tier is the one that is asked for or the standard one, whichever costs more.

The policy ``estimate`` takes what the key's requests to the model have used before, and a single call.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from app.core.exchange import Dialect
from app.core.identity import BoundPolicy
from app.core.peek import Peek
from app.core.records import Bound
from app.core.usage import NOTHING_USED, Usage
from app.metering.estimates import Ask
from app.metering.pricing import CONTEXT_TOKENS_UNKNOWN
from app.metering.rates import Price, Rates
from app.settings.model import STANDARD_TIERS

BASE_TOKENS = 64
IMAGE_TOKENS_MAX = 50_000
"""gpt-4o-mini counts an image of eight tiles as 48,169 tokens, the most of any model (and the cheapest each)."""
WINDOW_SLACK = 10
"""A window may be a tenth larger than the list says: gpt-4.1's is 1,047,576 and not 1,000,000 tokens."""
CALLS_ASSUMED = 4
"""For a figure where nothing bounds the calls."""
LOWER_BODY_BYTES_PER_TOKEN = 64
"""Most of a body may be names and punctuation that are no tokens."""
SEARCH_TOOLS = ("web_search", "web_search_2025_08_26")
PREVIEW_TOOLS = "web_search_preview"
CODE_TOOLS = ("code_interpreter", "shell")
TOKEN_TOOLS = ("mcp", "tool_search", "programmatic_tool_calling")
"""Tools of the provider's that are billed by their tokens alone."""


def ask_of(dialect: Dialect, ask: Peek, body_bytes: int) -> Ask:
    """What is known of the size of a request of so many bytes."""
    return Ask(
        body_bytes=body_bytes,
        output_tokens_max=ask.output_tokens_max,
        follows_stored=ask.previous_response_id is not None,
        many=ask.answers,
        extent=ask.extent,
        service_tier=None if ask.service_tier in STANDARD_TIERS else ask.service_tier,
        # Each of many texts to embed has a window of its own.
        one_window=dialect != "embeddings",
    )


def bound_of(
    ask: Ask,
    price: Price | None,
    model_output_max: int,
    context_max: int,
    *,
    policy: BoundPolicy = "maximum",
    others: Sequence[Price | None] = (),
    likely: tuple[int, int] | None = None,
) -> Bound:
    """The least and the most that one attempt can use and cost, by the assumptions above.

    ``price`` is for the tier that is asked for, ``others`` for those that the answer may come with instead;
    ``context_max`` is the model's context window, 0 where it is unknown. ``likely`` is the input and output
    that the policy ``estimate`` needs (``Estimates.likely_tokens``). A budget holds the upper cost; the
    attempt itself carries the bound of the policy ``maximum``, which a crash is billed at.
    """
    if policy == "estimate" and likely is not None:
        calls, unbounded = min(1, _calls_of(ask)[0]), None
        input_upper, output_upper = likely
    else:
        calls, unbounded = _calls_of(ask)
        input_upper, output_upper = _tokens_of(ask, calls, model_output_max, context_max)
    # More than the window is refused by the provider, and costs nothing.
    input_lower = min(ask.body_bytes // LOWER_BODY_BYTES_PER_TOKEN, input_upper)
    found = _dearest((price, *others), ask, (input_lower, input_upper), output_upper, calls)
    if found is None:
        return Bound(input_lower, input_upper, output_upper, unbounded=unbounded)
    chosen, parts, cost_lower, cost_upper = found
    return Bound(
        input_tokens_lower=input_lower,
        input_tokens_upper=input_upper,
        output_tokens_upper=output_upper,
        cost_lower_nanousd=cost_lower,
        cost_upper_nanousd=cost_upper,
        price_source=chosen.source,
        price_version=chosen.version,
        parts_upper=parts,
        service_tier=ask.service_tier if chosen is price else None,
        unbounded=unbounded,
    )


def _calls_of(ask: Ask) -> tuple[int, str | None]:
    """The calls that the provider's tools may make, and why nothing bounds them."""
    extent = ask.extent
    if extent.open_ended is not None:
        return CALLS_ASSUMED, extent.open_ended
    if not extent.tools:
        return 0, None
    if extent.max_tool_calls is None:
        return CALLS_ASSUMED, f"{extent.tools[0]} without max_tool_calls"
    return extent.max_tool_calls, None


def turns_of(ask: Ask) -> int:
    """How often the model may read its input: once, and again after each call of a tool of the provider's."""
    return _calls_of(ask)[0] + 1


def _tokens_of(ask: Ask, calls: int, model_output_max: int, context_max: int) -> tuple[int, int]:
    """The most input and output tokens."""
    extent = ask.extent
    reads = calls + 1
    window = context_max + context_max // WINDOW_SLACK if ask.one_window else 0
    own = ask.body_bytes + BASE_TOKENS + extent.images * IMAGE_TOKENS_MAX
    if calls or extent.unseen or ask.follows_stored:
        input_upper = (window or own + CONTEXT_TOKENS_UNKNOWN) * reads
    else:
        input_upper = min(own, window) if window else own
    # A limit that the client sets holds for the response; the model's own for each turn of it.
    output = model_output_max * reads if ask.output_tokens_max is None else ask.output_tokens_max
    return input_upper, output * ask.many + extent.prediction_bytes


def _dearest(
    prices: Sequence[Price | None], ask: Ask, inputs: tuple[int, int], output_tokens: int, calls: int
) -> tuple[Price, Usage, int, int] | None:
    """The price by which the most that may be used costs most, the parts that it then has, least and most cost;
    ``inputs`` are the least and the most input.

    None where any of the prices is missing, or lacks what may be used.
    """
    lower, input_tokens = inputs
    least: int | None = None
    most: tuple[Price, Usage, int] | None = None
    for price in prices:
        if price is None:
            return None
        parts = dearest_parts(price, ask, input_tokens, output_tokens, calls)
        if parts is None:
            return None
        if parts is NOTHING_USED:
            usage = Usage(input_tokens=input_tokens, output_tokens=output_tokens)
        else:
            usage = msgspec.structs.replace(parts, input_tokens=input_tokens, output_tokens=output_tokens)
        cost = price.cost_nanousd(usage)
        cost_lower = price.cost_nanousd(cheapest(price, lower))
        if cost is None or cost_lower is None:
            return None
        least = cost_lower if least is None else min(least, cost_lower)
        if most is None or cost > most[2]:
            most = price, parts, cost
    if most is None or least is None:
        return None
    return most[0], most[1], least, most[2]


def dearest_parts(price: Price, ask: Ask, input_tokens: int, output_tokens: int, calls: int) -> Usage | None:
    """The parts that make so many tokens and calls of ``ask`` cost most, without the totals.

    None where it may use what has no price.
    """
    rates = price.rates_for(input_tokens)
    plain, extent = rates.input or 0, ask.extent
    if (rates.input is None and input_tokens) or (rates.output is None and output_tokens):
        return None
    if not (
        extent.tools
        or extent.kept_12h
        or extent.images
        or extent.audio_input
        or extent.audio_output
        or (rates.cache_write or 0) > plain
        or (rates.cached or 0) > plain
    ):
        return NOTHING_USED
    if (extent.audio_input and rates.input_audio is None) or (extent.audio_output and rates.output_audio is None):
        return None
    if extent.kept_12h and rates.cache_write is not None and rates.cache_write_12h is None:
        return None
    called = _dearest_call(rates, extent.tools, calls) if calls else NOTHING_USED
    if called is None:
        return None
    n = input_tokens
    kinds: list[tuple[int, dict[str, int]]] = [
        (plain, {}),
        (rates.cached or 0, {"cached_tokens": n}),
        (rates.cache_write or 0, {"cache_write_tokens": n}),
    ]
    if extent.kept_12h:
        kinds.append((rates.cache_write_12h or 0, {"cache_write_tokens": n, "cache_write_12h_tokens": n}))
    if extent.audio_input:
        cached = {"input_audio_tokens": n, "cached_tokens": n, "cached_audio_tokens": n}
        kinds += [(rates.input_audio or 0, {"input_audio_tokens": n}), (rates.cached_audio or 0, cached)]
    if extent.images and rates.input_image is not None:
        cached = {"input_image_tokens": n, "cached_tokens": n, "cached_image_tokens": n}
        kinds += [(rates.input_image, {"input_image_tokens": n}), (rates.cached_image or 0, cached)]
    told = max(kinds, key=lambda kind: kind[0])[1]
    if extent.audio_output and (rates.output_audio or 0) > (rates.output or 0):
        told["output_audio_tokens"] = output_tokens
    return msgspec.structs.replace(called, **told)


def cheapest(price: Price, input_tokens: int) -> Usage:
    """So much input as it costs least: read from the cache, where that has a rate."""
    rates = price.rates_for(input_tokens)
    cached = input_tokens if rates.cached is not None and rates.cached < (rates.input or 0) else 0
    return Usage(input_tokens=input_tokens, cached_tokens=cached)


def _dearest_call(rates: Rates, tools: tuple[str, ...], calls: int) -> Usage | None:
    """All calls as calls of the dearest of the tools; None where one that is billed has no rate."""
    dearest, bucket = 0, ""
    for tool in tools:
        billed = _billed_as(tool, rates)
        if billed is None:
            continue
        name, rate = billed
        if rate is None:
            return None
        if rate >= dearest:
            dearest, bucket = rate, name
    if not bucket:
        return NOTHING_USED
    if bucket == "preview_searches":
        return Usage(web_searches=calls, preview_searches=calls)
    return Usage(**{bucket: calls})


def _billed_as(tool: str, rates: Rates) -> tuple[str, int | None] | None:
    """The bucket that calls of ``tool`` are billed in, and its rate; None: they cost their tokens only."""
    if tool in SEARCH_TOOLS:
        return "web_searches", rates.web_search
    if tool.startswith(PREVIEW_TOOLS):
        return "preview_searches", rates.preview_search
    if tool == "file_search":
        return "file_searches", rates.file_search
    if tool in CODE_TOOLS:
        return "code_sessions", rates.code_session
    if tool == "image_generation":
        return "image_calls", rates.image_call
    if tool in TOKEN_TOOLS:
        return None
    # Nobody here knows what it costs.
    return "unknown_units", None
