"""Imitates the provider's prompt cache: a long prefix that was seen before is reported as cached.

As at OpenAI, prompts of 1,024 tokens and more count, in steps of 128. It saves nothing here; it is
there so that ``cached_tokens`` and what they cost can be seen working.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict

TOKENS_MIN = 1024
TOKENS_STEP = 128
BLOCK_BYTES = 512
PREFIXES_MAX = 100_000


class PrefixCache:
    """Digests of prefixes, in blocks of 512 bytes; the least recently seen go first."""

    def __init__(self, *, prefixes_max: int = PREFIXES_MAX) -> None:
        self._seen: OrderedDict[bytes, None] = OrderedDict()
        self.prefixes_max = prefixes_max

    def cached_tokens(self, salt: str, text: str, tokens: int) -> int:
        """How many of ``text``'s ``tokens`` were seen before; from now on all of them have been."""
        data = text.encode()
        running = hashlib.sha256(salt.encode())
        blocks_seen = 0
        unbroken = True
        for start in range(0, len(data) - BLOCK_BYTES + 1, BLOCK_BYTES):
            running.update(data[start : start + BLOCK_BYTES])
            prefix = running.digest()[:12]
            if prefix in self._seen:
                self._seen.move_to_end(prefix)
                blocks_seen += unbroken
            else:
                unbroken = False
                self._seen[prefix] = None
        while len(self._seen) > self.prefixes_max:
            self._seen.popitem(last=False)
        share = blocks_seen * BLOCK_BYTES / max(len(data), 1)
        cached = int(tokens * share) // TOKENS_STEP * TOKENS_STEP
        return cached if cached >= TOKENS_MIN else 0

    def __repr__(self) -> str:
        return f"PrefixCache(prefixes={len(self._seen)}/{self.prefixes_max})"
