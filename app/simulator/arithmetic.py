"""Sums in a question: "What is 2+2?" deserves a four."""

from __future__ import annotations

import re
from fractions import Fraction

OPERANDS_MAX = 20

# The times and division signs, which people paste; written out since they look like letters.
_TIMES, _DIVIDED = "\u00d7", "\u00f7"
_NUMBER = r"\d{1,15}(?:\.\d{1,9})?"
_SUM = re.compile(rf"(?<![\w.-]){_NUMBER}(?:\s*[-+*/x{_TIMES}{_DIVIDED}]\s*{_NUMBER}){{1,{OPERANDS_MAX}}}(?![\w-])")
_PART = re.compile(rf"{_NUMBER}|[-+*/x{_TIMES}{_DIVIDED}]")
_DATE = re.compile(r"\d{4}-\d{1,2}-\d{1,2}|\d{1,2}/\d{1,2}/\d{2,4}")


def arithmetic_in(question: str) -> str | None:
    """``2 + 2 equals 4.`` for the first sum in ``question``, else None."""
    found = _SUM.search(question)
    if found is None or _DATE.fullmatch(found[0]):
        return None
    parts = _PART.findall(found[0])
    try:
        value = _value_of(parts)
    except ZeroDivisionError:
        return f"{' '.join(parts)} has no value: division by zero."
    return f"{' '.join(parts)} equals {_written(value)}."


def _value_of(parts: list[str]) -> Fraction:
    """The sum of the products, left to right."""
    total = Fraction(0)
    product = Fraction(parts[0])
    sign = 1
    for operator, operand in zip(parts[1::2], parts[2::2], strict=True):
        number = Fraction(operand)
        if operator in ("*", "x", _TIMES):
            product *= number
        elif operator in ("/", _DIVIDED):
            product /= number
        else:
            total += sign * product
            product, sign = number, -1 if operator == "-" else 1
    return total + sign * product


def _written(value: Fraction) -> str:
    if value.denominator == 1:
        return str(value.numerator)
    return f"{float(value):.6g}"
