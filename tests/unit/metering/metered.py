"""A request's tally, fed as the relay feeds it."""

import json

from app.core.codec import parse_object
from app.core.peek import peek
from app.core.records import Attempt, Opening
from app.metering.bounds import ask_of, bound_of
from app.metering.estimates import Estimates
from app.metering.meter import Meter
from app.metering.pricing import PriceBook

NOW_MS = 1_795_000_000_000
URLS = {"openai": "https://api.openai.com/v1", "gpu": "http://gpu-1:8000/v1"}


def metered(family="responses", model="gpt-4.1", *, rows=(), upstream="openai", estimates=None, budgets=(), **body):
    """The meter of a request with this body, opened as the pipeline opens it."""
    prices, estimates = PriceBook(rows, URLS), estimates or Estimates()
    raw = json.dumps({"model": model, **({"input": "hi"} if family == "responses" else {"messages": []}), **body})
    ask = peek(family, parse_object(raw.encode()))
    size = ask_of(family, ask, len(raw))
    price, *others = prices.possible_prices(upstream, model, ask.service_tier, NOW_MS)
    context = prices.context_tokens(upstream, model)
    bound = bound_of(size, price, prices.output_tokens_max(model), context, others=others)
    opening = Opening(
        request_id="r1",
        admitted_at_ms=NOW_MS,
        quarter_ms=NOW_MS,
        team_id="t",
        key_id="k",
        secret_id="s",
        endpoint=family,
        stream=ask.stream,
        model_requested=model,
        attempt=Attempt(1, upstream, model, bound),
        budgets=budgets,
    )
    return Meter(opening, size, prices=prices, estimates=estimates, reasons=ask.reasons)


def answered(meter, body, outcome="completed"):
    """The primary entry after a whole JSON answer."""
    meter.body_seen = meter.reading.finished = True
    meter.reading.see_json(json.dumps(body).encode())
    return meter.close(NOW_MS + 1, outcome).entries[-1]


def streamed(meter, *events, outcome="completed"):
    """The primary entry after these events, and the end of the stream."""
    for event in events:
        meter.body_seen = True
        meter.reading.see_event(event if isinstance(event, bytes) else json.dumps(event).encode())
    return meter.close(NOW_MS + 1, outcome).entries[-1]


def usage(input_tokens=100, output_tokens=10, **details):
    """A Responses usage; ``details`` go where the API puts them."""
    out = {name: details.pop(name) for name in ("reasoning_tokens",) if name in details}
    return {
        "input_tokens": input_tokens,
        "input_tokens_details": details,
        "output_tokens": output_tokens,
        "output_tokens_details": out,
    }
