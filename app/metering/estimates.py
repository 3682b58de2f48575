"""What a request may use, before and instead of knowing it.

Bytes ÷ 4 times a ratio learnt per key and model; before anything was learnt, bytes ÷ 2. No tokenizer:
the ratio settles within a few requests, and a vocabulary would have to be downloaded.
"""

from __future__ import annotations

from collections import OrderedDict

import msgspec

from app.core.peek import PLAIN, Extent
from app.core.usage import Usage

PAIRS_MAX = 10_000
BYTES_PER_TOKEN = 4
COLD_BYTES_PER_TOKEN = 2
COLD_OUTPUT_TOKENS = 1024
LEARNING_RATE = 0.2
FORGETTING_RATE = 0.05
"""How fast the highest ratio of a key is forgotten: a request is as likely to be like it as one in twenty."""
LOWER_BYTES_PER_TOKEN = 16
"""Tokens are rarely longer: the lower end of what a text can have cost."""


class _Learnt(msgspec.Struct):
    input_ratio: float
    output_tokens: float
    input_ratio_high: float = BYTES_PER_TOKEN / COLD_BYTES_PER_TOKEN


class Ask(msgspec.Struct, frozen=True):
    """What is known of a request's size.

    ``output_tokens_max`` is for one answer, of which there are ``many``; ``follows_stored``: turns that
    the upstream keeps precede it; ``one_window``: all of its input goes through the model at once;
    ``service_tier`` is the one that is asked for, None the standard one.
    """

    body_bytes: int
    output_tokens_max: int | None
    follows_stored: bool
    many: int = 1
    extent: Extent = PLAIN
    service_tier: str | None = None
    one_window: bool = True


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
            learnt = self._learnt[key_id, model] = _Learnt(ratio, float(usage.output_tokens))
            learnt.input_ratio_high = max(ratio, learnt.input_ratio_high)
            if len(self._learnt) > PAIRS_MAX:
                self._learnt.popitem(last=False)
            return
        learnt.input_ratio += LEARNING_RATE * (ratio - learnt.input_ratio)
        high = learnt.input_ratio_high
        learnt.input_ratio_high = max(ratio, high + FORGETTING_RATE * (ratio - high))
        learnt.output_tokens += LEARNING_RATE * (usage.output_tokens - learnt.output_tokens)
        self._learnt.move_to_end((key_id, model))

    def input_tokens(self, key_id: str, model: str, body_bytes: int) -> int:
        """The likely input of a body of so many bytes."""
        learnt = self._learnt.get((key_id, model))
        if learnt is None:
            return -(-body_bytes // COLD_BYTES_PER_TOKEN)
        return int(body_bytes / BYTES_PER_TOKEN * learnt.input_ratio) + 1

    def input_tokens_high(self, key_id: str, model: str, body_bytes: int) -> int:
        """The input of a body of so many bytes, if it is as dense as the densest of the key's last ones."""
        learnt = self._learnt.get((key_id, model))
        if learnt is None:
            return -(-body_bytes // COLD_BYTES_PER_TOKEN)
        return int(body_bytes / BYTES_PER_TOKEN * learnt.input_ratio_high) + 1

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

    def likely_tokens(self, key_id: str, model: str, ask: Ask) -> tuple[int, int]:
        """Input and output that a request is likely to use, by those before it; output within its own limit."""
        learnt = self._learnt.get((key_id, model))
        output = COLD_OUTPUT_TOKENS * ask.many if learnt is None else int(learnt.output_tokens) + 1
        if ask.output_tokens_max is not None:
            output = min(output, ask.output_tokens_max * ask.many)
        return self.input_tokens(key_id, model, ask.body_bytes), output
