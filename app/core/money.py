"""Money as integer nano-dollars; prices as integer nano-dollars per million units.

One rounding per attempt, up: ``cost = ceil(sum(units x price) / 1,000,000)``. Binary floats never
touch an amount; decimals only where people write or read one.
"""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from functools import lru_cache

NANO_PER_USD = 1_000_000_000
UNITS_PER_PRICE = 1_000_000
NANOUSD_MAX = 9 * 10**18
"""The largest amount that every store holds exactly (signed 64 bit)."""


def nanousd_from_usd(amount: str | int | Decimal) -> int:
    """Exact nano-dollars of a decimal amount in dollars.

    Raises ValueError for what is not a finite decimal, has more than nine decimal places, or is
    outside the range that every store holds exactly.
    """
    try:
        nanousd = Decimal(amount) * NANO_PER_USD
        exact = nanousd.to_integral_value()
    except InvalidOperation as error:
        raise ValueError(f"not an amount in dollars: {amount!r}") from error
    if not nanousd.is_finite() or exact != nanousd:
        raise ValueError(f"not an amount in whole nano-dollars: {amount!r}")
    if abs(exact) > NANOUSD_MAX:
        raise ValueError(f"amount out of range: {amount!r}")
    return int(exact)


@lru_cache(maxsize=1024)
def usd_text(nanousd: int) -> str:
    """``nanousd`` as a decimal string in dollars, without an exponent or trailing zeros: ``0.000123``."""
    sign = "-" if nanousd < 0 else ""
    whole, rest = divmod(abs(nanousd), NANO_PER_USD)
    if not rest:
        return f"{sign}{whole}"
    return f"{sign}{whole}.{rest:09d}".rstrip("0")


def round_up(micro_nanousd: int) -> int:
    """Nano-dollars of a sum of units x price, rounded up."""
    return -(-micro_nanousd // UNITS_PER_PRICE)
