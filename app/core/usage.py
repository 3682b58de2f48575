"""What one attempt used, in the buckets that are priced."""

from __future__ import annotations

import msgspec


class Usage(msgspec.Struct, frozen=True, omit_defaults=True):
    """Units of one attempt.

    ``input_tokens`` includes ``cached_tokens``, ``cache_write_tokens`` and ``input_audio_tokens``;
    ``output_tokens`` includes ``reasoning_tokens`` and ``output_audio_tokens`` (as the API reports them).
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

    @property
    def tokens(self) -> int:
        """Input and output together: what token limits count."""
        return self.input_tokens + self.output_tokens


NOTHING_USED = Usage()
