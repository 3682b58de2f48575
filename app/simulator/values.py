"""A value that is valid against a JSON schema: structured output and tool arguments.

Covers what strict mode allows and a little more; a ``pattern`` is not solved.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from app.simulator.dice import Dice

DEPTH_MAX = 24
OPTIONAL_DEPTH_MAX = 4
"""Below this depth only what is required is made, so that recursive schemas end."""
VALUES_MAX = 5000
"""Beyond it every value is null: a schema may branch wider than anyone wants to wait for."""
ITEMS_MAX = 1000
CHARS_MAX = 10_000

_PROPER_NAME = re.compile(r"(?<![.!?] )(?<!^)\b[A-Z][\w'-]+(?: [A-Z][\w'-]+)*")
_NUMBER = re.compile(r"(?<![\w.])-?\d{1,9}(?:\.\d{1,6})?(?![\w.])")

_FORMATS = {
    "date-time": "2026-01-15T09:30:00Z",
    "date": "2026-01-15",
    "time": "09:30:00Z",
    "duration": "PT15M",
    "email": "ada@example.com",
    "hostname": "example.com",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "uri": "https://example.com/",
    "uuid": "018f3c5e-7b2a-7c41-9d7e-3f5a1c2b4d6e",
}
_BY_NAME = {
    "name": "Ada Lovelace",
    "title": "A short title",
    "city": "Paris",
    "country": "France",
    "location": "Paris",
    "email": "ada@example.com",
    "date": "2026-01-15",
    "url": "https://example.com/",
    "summary": "A short summary.",
    "language": "English",
    "currency": "EUR",
    "unit": "celsius",
}
_WORDS = ("river", "gate", "measure", "record", "field", "bridge", "signal", "harbour")


class ValueMaker:
    """Makes values for one schema; names and numbers in ``hint`` (the question) are used where they fit."""

    def __init__(self, root: dict[str, Any], dice: Dice, hint: str) -> None:
        self._root = root
        self._dice = dice
        self._names = _PROPER_NAME.findall(hint)
        self._numbers = [float(number) for number in _NUMBER.findall(hint)]
        self._values_left = VALUES_MAX

    def make(self) -> Any:
        """One valid value."""
        return self._value(self._root, "", 0)

    def _value(self, schema: Any, name: str, depth: int) -> Any:
        self._values_left -= 1
        if not isinstance(schema, dict) or depth > DEPTH_MAX or self._values_left < 0:
            # ``true`` allows anything; a required recursion without an end has no valid value at all.
            return None
        schema = self._resolved(schema, depth)
        if "const" in schema:
            return schema["const"]
        if isinstance(schema.get("enum"), list) and schema["enum"]:
            return self._dice.choose(schema["enum"])
        for word in ("anyOf", "oneOf"):
            options = schema.get(word)
            if isinstance(options, list) and options:
                return self._value(self._option(options, depth), name, depth + 1)
        return self._of_type(schema, name, depth)

    def _resolved(self, schema: dict[str, Any], depth: int) -> dict[str, Any]:
        """``schema`` with its reference followed and its ``allOf`` merged."""
        for _ in range(DEPTH_MAX):
            reference = schema.get("$ref")
            if not isinstance(reference, str):
                break
            schema = {key: value for key, value in schema.items() if key != "$ref"} | self._target(reference)
        every = schema.get("allOf")
        if not isinstance(every, list):
            return schema
        merged = {key: value for key, value in schema.items() if key != "allOf"}
        for part in every:
            self._values_left -= 1
            if isinstance(part, dict) and depth < DEPTH_MAX and self._values_left > 0:
                merged = _merged(merged, self._resolved(part, depth + 1))
        return merged

    def _target(self, reference: str) -> dict[str, Any]:
        target: Any = self._root
        for step in reference.removeprefix("#").split("/")[1:]:
            key = step.replace("~1", "/").replace("~0", "~")
            target = target.get(key) if isinstance(target, dict) else None
        return target if isinstance(target, dict) else {}

    def _option(self, options: list[Any], depth: int) -> Any:
        if depth < OPTIONAL_DEPTH_MAX:
            # The first is the one people mean: ``anyOf: [X, null]`` gives an X.
            return options[0]
        return min(options, key=_weight)

    def _of_type(self, schema: dict[str, Any], name: str, depth: int) -> Any:
        kind = schema.get("type")
        if isinstance(kind, list):
            kind = kind[0] if kind and (depth < OPTIONAL_DEPTH_MAX or "null" not in kind) else "null"
        if kind is None:
            kind = "object" if "properties" in schema else "array" if "items" in schema else "string"
        if kind == "object":
            return self._object(schema, depth)
        if kind == "array":
            return self._array(schema, name, depth)
        if kind == "string":
            return self._string(schema, name)
        if kind in ("integer", "number"):
            return self._number(schema, whole=kind == "integer")
        if kind == "boolean":
            return self._dice.below(2) == 1
        return None

    def _object(self, schema: dict[str, Any], depth: int) -> dict[str, Any]:
        properties = schema.get("properties")
        properties = properties if isinstance(properties, dict) else {}
        required = schema.get("required")
        required = [key for key in required if isinstance(key, str)] if isinstance(required, list) else []
        names = [key for key in properties if depth < OPTIONAL_DEPTH_MAX or key in required]
        names.extend(key for key in required if key not in properties)
        return {key: self._value(properties.get(key, {"type": "string"}), key, depth + 1) for key in names}

    def _array(self, schema: dict[str, Any], name: str, depth: int) -> list[Any]:
        lowest = _whole(schema.get("minItems"), 0)
        highest = _whole(schema.get("maxItems"), ITEMS_MAX)
        wanted = 0 if depth >= OPTIONAL_DEPTH_MAX else 1 + self._dice.below(2)
        prefix = schema.get("prefixItems")
        prefix = prefix if isinstance(prefix, list) else []
        size = min(max(lowest, min(max(wanted, len(prefix)), highest)), ITEMS_MAX)
        item = schema.get("items", {"type": "string"})
        return [self._value(prefix[at] if at < len(prefix) else item, name, depth + 1) for at in range(size)]

    def _string(self, schema: dict[str, Any], name: str) -> str:
        known = _FORMATS.get(str(schema.get("format")))
        if known is not None:
            return known
        text = self._text_for(name.lower())
        lowest = min(_whole(schema.get("minLength"), 0), CHARS_MAX)
        highest = _whole(schema.get("maxLength"), CHARS_MAX)
        while len(text) < lowest:
            text += f" {self._dice.choose(_WORDS)}"
        return text[:highest]

    def _text_for(self, name: str) -> str:
        if self._names and name not in ("email", "date", "url"):
            return str(self._names[self._dice.below(len(self._names))])
        for known, text in _BY_NAME.items():
            if known in name:
                return text
        return f"{self._dice.choose(_WORDS)} {self._dice.choose(_WORDS)}"

    def _number(self, schema: dict[str, Any], *, whole: bool) -> float:
        lowest, highest = _range(schema, 1 if whole else 1e-6)
        step = _real(schema.get("multipleOf"))
        step = step if step and step > 0 else (1.0 if whole else None)
        hinted = self._numbers[0] if self._numbers else float(self._dice.below(100))
        value = min(max(hinted, lowest), highest)
        if step is not None:
            steps = value / step
            if not math.isfinite(steps):
                return 0
            value = (math.ceil(steps) if value <= lowest else math.floor(steps)) * step
        return round(value) if whole else value


def _range(schema: dict[str, Any], gap: float) -> tuple[float, float]:
    """The lowest and the highest number allowed."""
    lowest, highest = -math.inf, math.inf
    for word, shift in (("minimum", 0.0), ("exclusiveMinimum", gap)):
        bound = _real(schema.get(word))
        if bound is not None:
            lowest = max(lowest, bound + shift)
    for word, shift in (("maximum", 0.0), ("exclusiveMaximum", gap)):
        bound = _real(schema.get(word))
        if bound is not None:
            highest = min(highest, bound - shift)
    return lowest, highest


def _real(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:
        return None


def _whole(value: object, otherwise: int) -> int:
    return value if isinstance(value, int) and value >= 0 else otherwise


def _weight(option: Any) -> int:
    """How deep an option of a union is likely to go; the lightest ends a recursion."""
    if not isinstance(option, dict):
        return 3
    if option.get("type") == "null":
        return 0
    if "const" in option or "enum" in option or option.get("type") in ("string", "number", "integer", "boolean"):
        return 1
    return 3 if "$ref" in option else 2


def _merged(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    merged = one | other
    if isinstance(one.get("properties"), dict) and isinstance(other.get("properties"), dict):
        merged["properties"] = one["properties"] | other["properties"]
    if isinstance(one.get("required"), list) and isinstance(other.get("required"), list):
        merged["required"] = [*one["required"], *other["required"]]
    return merged
