"""Patterns for model names: ``*`` is any text, ``?`` one character, all else is itself."""

from __future__ import annotations

import re
from collections.abc import Iterable

PATTERN_CHARS_MAX = 256


def check_pattern(pattern: str) -> None:
    """Raises ValueError, with a sentence for whoever gave it, where ``pattern`` matches no name that there may be."""
    if not (0 < len(pattern) <= PATTERN_CHARS_MAX and pattern.isprintable()):
        raise ValueError(f"a pattern for models has 1 to {PATTERN_CHARS_MAX} printable characters")


def compile_pattern(pattern: str) -> re.Pattern[str]:
    """A compiled form that matches whole names."""
    parts = [".*" if char == "*" else "." if char == "?" else re.escape(char) for char in pattern]
    return re.compile("".join(parts), re.DOTALL)


def is_literal(pattern: str) -> bool:
    """Whether ``pattern`` matches one name only."""
    return "*" not in pattern and "?" not in pattern


def matches_any(patterns: Iterable[str], name: str) -> bool:
    """Whether any of ``patterns`` matches ``name``."""
    return any(compile_pattern(pattern).fullmatch(name) is not None for pattern in patterns)
