"""The simulator's own tokenizer: about four bytes of English to a token.

One rule for everything, so that a stream's deltas, its usage and the log cannot disagree. A text that
ends where a piece ends has the same pieces as its part of the longer text: cutting an answer after N
pieces leaves an answer of N tokens.
"""

from __future__ import annotations

import re
from functools import lru_cache

WORD_CHARS_MAX = 6
_PIECE = re.compile(r" ?[A-Za-z0-9]{1,6}| ?[^\sA-Za-z0-9]{1,2}|\s{1,8}")
REMEMBERED_CHARS_MAX = 4096


def pieces_of(text: str) -> list[str]:
    """The tokens of ``text``; joined, they are ``text``."""
    return _PIECE.findall(text)


def count_tokens(text: str) -> int:
    """How many tokens ``text`` has."""
    if len(text) <= REMEMBERED_CHARS_MAX:
        return _count_short(text)
    return len(_PIECE.findall(text))


def tokens_of_word(chars: int) -> int:
    """The tokens of a space and one word, ``chars`` long together, without making them."""
    return max(-(-(chars - 1) // WORD_CHARS_MAX), min(chars, 1))


@lru_cache(maxsize=2048)
def _count_short(text: str) -> int:
    # The same system prompts, tools and questions come again and again; 2,048 x 4 KiB bounds the memory.
    return len(_PIECE.findall(text))
