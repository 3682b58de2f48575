"""What one attempt used, in the buckets that are priced."""

from __future__ import annotations

from typing import Self

import msgspec


class Usage(msgspec.Struct, frozen=True, omit_defaults=True):
    """Units of one attempt, as the API reports them: totals with parts inside them, and calls.

    ``input_tokens`` includes ``cached_tokens``, ``cache_write_tokens``, ``input_audio_tokens`` and
    ``input_image_tokens``; ``output_tokens`` includes ``reasoning_tokens``, ``output_audio_tokens``,
    ``output_image_tokens`` and the tokens of a prediction, accepted or rejected. Further in:
    ``cached_audio_tokens`` and ``cached_image_tokens`` are cached and audio or image;
    ``cache_write_12h_tokens`` are those writes that are kept for twelve hours; ``preview_searches`` are
    those web searches that a preview version of the tool made.

    ``code_sessions`` are the containers that code ran in. ``unknown_units`` counts what the answer says
    is billed apart and no bucket is for: it has no price, whatever the model.
    """

    input_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    input_audio_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    output_audio_tokens: int = 0
    web_searches: int = 0
    file_searches: int = 0
    cached_audio_tokens: int = 0
    input_image_tokens: int = 0
    cached_image_tokens: int = 0
    output_image_tokens: int = 0
    cache_write_12h_tokens: int = 0
    preview_searches: int = 0
    code_sessions: int = 0
    image_calls: int = 0
    unknown_units: int = 0

    @property
    def tokens(self) -> int:
        """Input and output together: what token limits count."""
        return self.input_tokens + self.output_tokens

    def plus(self, other: Self) -> Self:
        """Both together, bucket by bucket; a correction's may be negative."""
        mine, others = msgspec.structs.astuple(self), msgspec.structs.astuple(other)
        return type(self)(*(one + two for one, two in zip(mine, others, strict=True)))

    def minus(self, other: Self) -> Self:
        """What this one has more than ``other``, bucket by bucket."""
        mine, others = msgspec.structs.astuple(self), msgspec.structs.astuple(other)
        return type(self)(*(one - two for one, two in zip(mine, others, strict=True)))

    def at_least(self, other: Self) -> Self:
        """The greater of the two, bucket by bucket."""
        mine, others = msgspec.structs.astuple(self), msgspec.structs.astuple(other)
        return type(self)(*(max(one, two) for one, two in zip(mine, others, strict=True)))


NOTHING_USED = Usage()
