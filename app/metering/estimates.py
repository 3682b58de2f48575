"""What a request may use, before and instead of knowing it.

Bytes ÷ 4 times a ratio learnt per key and model; before anything was learnt, bytes ÷ 2. No tokenizer:
the ratio settles within a few requests, and a vocabulary would have to be downloaded.
"""

from __future__ import annotations

from collections import OrderedDict

import msgspec

from app.core.records import Bound
from app.core.usage import Usage
from app.metering.pricing import Price

PAIRS_MAX = 10_000
BYTES_PER_TOKEN = 4
COLD_BYTES_PER_TOKEN = 2
COLD_OUTPUT_TOKENS = 1024
LEARNING_RATE = 0.2
LOWER_BYTES_PER_TOKEN = 16
"""Tokens are rarely longer: the lower end of what a text can have cost."""
LOWER_BODY_BYTES_PER_TOKEN = 64
"""The same for a body, most of which may be names and punctuation that are no tokens."""


class _Learnt(msgspec.Struct):
    input_ratio: float
    output_tokens: float


class Ask(msgspec.Struct, frozen=True):
    """What is known of a request's size.

    ``output_tokens_max`` is for one answer, of which there are ``many``; ``follows_stored``: turns that
    the upstream keeps precede it.
    """

    body_bytes: int
    output_tokens_max: int | None
    follows_stored: bool
    many: int = 1


class Estimates:
    """Learns how many tokens a key's requests to a model have. Bounded; the least recently used goes."""

    def __init__(self) -> None:
        self._learnt: OrderedDict[tuple[str, str], _Learnt] = OrderedDict()

    def __repr__(self) -> str:
        return f"Estimates(pairs={len(self._learnt)})"

    def learn(self, key_id: str, model: str, body_bytes: int, usage: Usage) -> None:
        """Take in what a request really used."""
        ratio = usage.input_tokens * BYTES_PER_TOKEN / max(body_bytes, 1)
        learnt = self._learnt.get((key_id, model))
        if learnt is None:
            self._learnt[key_id, model] = _Learnt(ratio, float(usage.output_tokens))
            if len(self._learnt) > PAIRS_MAX:
                self._learnt.popitem(last=False)
            return
        learnt.input_ratio += LEARNING_RATE * (ratio - learnt.input_ratio)
        learnt.output_tokens += LEARNING_RATE * (usage.output_tokens - learnt.output_tokens)
        self._learnt.move_to_end((key_id, model))

    def input_tokens(self, key_id: str, model: str, body_bytes: int) -> int:
        """The likely input of a body of so many bytes."""
        learnt = self._learnt.get((key_id, model))
        if learnt is None:
            return -(-body_bytes // COLD_BYTES_PER_TOKEN)
        return int(body_bytes / BYTES_PER_TOKEN * learnt.input_ratio) + 1

    def reserved_tokens(self, key_id: str, model: str, ask: Ask) -> int:
        """Input and output that token limits reserve; corrected when the request ends."""
        output = ask.output_tokens_max
        if output is None:
            learnt = self._learnt.get((key_id, model))
            # What was learnt holds all answers of a request.
            output = COLD_OUTPUT_TOKENS * ask.many if learnt is None else int(learnt.output_tokens) + 1
        else:
            output *= ask.many
        return self.input_tokens(key_id, model, ask.body_bytes) + output


def bound_of(ask: Ask, price: Price | None, model_output_max: int, context_max: int) -> Bound:
    """The least and the most that one attempt can use and cost.

    A token is at least one byte of text, so the body's bytes bound its own input; stored turns are
    bounded by the model's context window only.
    """
    input_lower = ask.body_bytes // LOWER_BODY_BYTES_PER_TOKEN
    input_upper = ask.body_bytes + (context_max if ask.follows_stored else 0)
    output_upper = (ask.output_tokens_max if ask.output_tokens_max is not None else model_output_max) * ask.many
    if price is None:
        return Bound(input_lower, input_upper, output_upper)
    return Bound(
        input_tokens_lower=input_lower,
        input_tokens_upper=input_upper,
        output_tokens_upper=output_upper,
        cost_lower_nanousd=price.cost_nanousd(Usage(input_tokens=input_lower)),
        cost_upper_nanousd=_dearest(price, input_upper, output_upper),
        price_source=price.source,
        price_version=price.version,
    )


def _dearest(price: Price, input_tokens: int, output_tokens: int) -> int | None:
    """The cost if all input were of the dearer kind: writing a cache can cost more than plain input."""
    rates = price.rates_for(input_tokens)
    written = input_tokens if (rates.cache_write or 0) > (rates.input or 0) else 0
    return price.cost_nanousd(Usage(input_tokens=input_tokens, cache_write_tokens=written, output_tokens=output_tokens))
