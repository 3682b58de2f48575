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


CERTAIN_BYTES_PER_TOKEN = 8
"""Text is rarely sparser: what a body holds at least, for a refusal that says that waiting does not help."""

OUTPUT_TOKENS_LEAST = 16
"""The smallest ``max_output_tokens`` that OpenAI takes."""

COLD_RATIO = BYTES_PER_TOKEN / COLD_BYTES_PER_TOKEN


class _Learnt(msgspec.Struct):
    """``input_ratio`` is of bodies that hold all of their input, as text; ``unseen_tokens`` is what others have on
    top of that: stored turns, files, images.
    """

    output_tokens: float
    input_ratio: float | None = None
    input_ratio_high: float = COLD_RATIO
    unseen_tokens: float = 0.0


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

    def learn(self, key_id: str, model: str, ask: Ask, usage: Usage) -> None:
        """Take in what a request really used."""
        # What is to have no output tells nothing of that of others.
        has_output = ask.output_tokens_max != 0
        output = float(usage.output_tokens if has_output else COLD_OUTPUT_TOKENS)
        learnt = self._learnt.get((key_id, model))
        if learnt is None:
            learnt = self._learnt[key_id, model] = _Learnt(output)
            if len(self._learnt) > PAIRS_MAX:
                self._learnt.popitem(last=False)
        else:
            if has_output:
                learnt.output_tokens += LEARNING_RATE * (output - learnt.output_tokens)
            self._learnt.move_to_end((key_id, model))
        if not _is_all_text(ask):
            # Its bytes say nothing of its tokens, nor do these of other bodies.
            unseen = max(0, usage.input_tokens - _tokens(ask.body_bytes, learnt.input_ratio))
            learnt.unseen_tokens += (unseen - learnt.unseen_tokens) * (LEARNING_RATE if learnt.unseen_tokens else 1)
            return
        ratio = usage.input_tokens * BYTES_PER_TOKEN / max(ask.body_bytes, 1)
        if learnt.input_ratio is None:
            learnt.input_ratio = ratio
            learnt.input_ratio_high = max(ratio, learnt.input_ratio_high)
            return
        learnt.input_ratio += LEARNING_RATE * (ratio - learnt.input_ratio)
        high = learnt.input_ratio_high
        learnt.input_ratio_high = max(ratio, high + FORGETTING_RATE * (ratio - high))

    def input_tokens(self, key_id: str, model: str, ask: Ask) -> int:
        """The likely input of a request."""
        learnt = self._learnt.get((key_id, model))
        if learnt is None:
            return _tokens(ask.body_bytes, None)
        unseen = 0 if _is_all_text(ask) else int(learnt.unseen_tokens)
        return _tokens(ask.body_bytes, learnt.input_ratio) + unseen

    def input_tokens_high(self, key_id: str, model: str, body_bytes: int) -> int:
        """The input of a body of so many bytes, if it is as dense as the densest of the key's last ones."""
        learnt = self._learnt.get((key_id, model))
        if learnt is None or learnt.input_ratio is None:
            return _tokens(body_bytes, None)
        return _tokens(body_bytes, learnt.input_ratio_high)

    def reserved_tokens(self, key_id: str, model: str, ask: Ask) -> int:
        """Input and output that token limits reserve; corrected when the request ends."""
        output = ask.output_tokens_max
        if output is None:
            learnt = self._learnt.get((key_id, model))
            # What was learnt holds all answers of a request.
            output = COLD_OUTPUT_TOKENS * ask.many if learnt is None else int(learnt.output_tokens) + 1
        else:
            output *= ask.many
        return self.input_tokens(key_id, model, ask) + output

    def likely_tokens(self, key_id: str, model: str, ask: Ask) -> tuple[int, int]:
        """Input and output that a request is likely to use, by those before it; output within its own limit."""
        learnt = self._learnt.get((key_id, model))
        output = COLD_OUTPUT_TOKENS * ask.many if learnt is None else int(learnt.output_tokens) + 1
        if ask.output_tokens_max is not None:
            output = min(output, ask.output_tokens_max * ask.many)
        return self.input_tokens(key_id, model, ask), output


def certain_tokens(ask: Ask) -> int:
    """What a request asks for beyond any guess: the output that it names, else the shortest that can be asked for, and
    its text.
    """
    output = (OUTPUT_TOKENS_LEAST if ask.output_tokens_max is None else ask.output_tokens_max) * ask.many
    return output + (ask.body_bytes // CERTAIN_BYTES_PER_TOKEN if _is_all_text(ask) else 0)


def _is_all_text(ask: Ask) -> bool:
    """Whether all of its input is text in its body."""
    extent = ask.extent
    if ask.follows_stored or extent is PLAIN:
        return not ask.follows_stored
    return not (extent.images or extent.unseen or extent.audio_input or extent.tools or extent.open_ended)


def _tokens(body_bytes: int, ratio: float | None) -> int:
    if ratio is None:
        return -(-body_bytes // COLD_BYTES_PER_TOKEN)
    return int(body_bytes / BYTES_PER_TOKEN * ratio) + 1
