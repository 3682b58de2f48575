"""Bodies in every lawful spelling, their neighbours, and what two of them have to have alike to mean the same."""

from __future__ import annotations

import json
import random
from typing import Any

from hypothesis import strategies as st


class Number(str):
    """A number as it is spelled."""

    __slots__ = ()


NUMBERS = [
    Number(text)
    for text in """0 -0 1 -1 1.0 1e0 1E0 0.5 0.50 5e-1 1e400000000000000000000 9007199254740992 9007199254740993
    9007199254740993.0 9007199254740992.0 18446744073709551615 18446744073709551616 18446744073709551617
    -9223372036854775809 0.1 0.10000000000000001 0.1000000000000000055511151231257827
    0.1000000000000000055511151231257828 123456789012345678901.5 123456789012345678901.25 1e-7 1e22 1e23""".split()
    if "e4" not in text
]
NAMES = ["a", "b", "é", "", "stream", "stream_options", "metadata", "user", "safety_identifier", "prompt_cache_key"]
SCALARS = st.sampled_from([None, True, False, "", "0", "1", "a", "é", "e\u0301", "null", '"', "\\", "\x01", *NUMBERS])
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=3),
    max_leaves=6,
)
BODIES = st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=5)
LEFT_OUT = {
    "responses": {"stream", "stream_options"},
    "chat": {"stream", "stream_options", "metadata", "user", "safety_identifier", "prompt_cache_key"},
    "embeddings": {"stream", "stream_options", "user"},
}


def spelled(value: Any, dice: random.Random, *, loosely: bool) -> str:
    """``value`` as JSON, its members in any order; loosely: with spaces and escapes too."""

    def space() -> str:
        return dice.choice(["", "", " ", "\n\t"]) if loosely else ""

    if isinstance(value, Number):
        return str(value)
    if isinstance(value, dict):
        names = list(value)
        dice.shuffle(names)
        members = [f"{spelled(n, dice, loosely=loosely)}:{spelled(value[n], dice, loosely=loosely)}" for n in names]
        return "{" + ",".join(space() + member + space() for member in members) + "}"
    if isinstance(value, list):
        return "[" + ",".join(space() + spelled(one, dice, loosely=loosely) for one in value) + space() + "]"
    if isinstance(value, str) and loosely:
        return '"' + "".join(dice.choice([json.dumps(c)[1:-1], f"\\u{ord(c):04x}"]) for c in value) + '"'
    return json.dumps(value, ensure_ascii=False)


def meaning(value: Any) -> Any:
    """Equal for values that differ at most in the order of members, and in spelling where it is no number."""
    if isinstance(value, Number):
        return ("integer", int(value)) if value.lstrip("-").isdigit() else ("float", str(value))
    if isinstance(value, dict):
        return "object", frozenset((name, meaning(inner)) for name, inner in value.items())
    if isinstance(value, list):
        return "list", tuple(meaning(inner) for inner in value)
    return type(value).__name__, value


def changed(value: Any, dice: random.Random) -> Any:
    """A neighbour of ``value``: something in it is another, added, taken away, wrapped, or after all the same."""
    if dice.random() < 0.4 or not isinstance(value, dict | list) or not value:
        other = dice.choice([None, True, "", "1", [], {}, [value], {"a": value}, *NUMBERS])
        return {**value, dice.choice(NAMES): other} if isinstance(value, dict) else other
    if isinstance(value, list):
        at = dice.randrange(len(value))
        if dice.random() < 0.3:
            return value[:at] + value[at + 1 :]
        return [*value[:at], changed(value[at], dice), *value[at + 1 :]]
    name = dice.choice(list(value))
    rest = {other: inner for other, inner in value.items() if other != name}
    return rest if dice.random() < 0.3 else {**rest, name: changed(value[name], dice)}
