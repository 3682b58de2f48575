"""What was used and what it cost: the one query behind every report."""

from app.store.periods import PERIODS
from app.store.usage.query import usage, used_between
from app.store.usage.shape import (
    MEMBERS,
    Highest,
    UsageFilter,
    UsageNotTold,
    UsageReport,
    UsageRow,
    UsageSums,
    is_dimension,
)

__all__ = [
    "MEMBERS",
    "PERIODS",
    "Highest",
    "UsageFilter",
    "UsageNotTold",
    "UsageReport",
    "UsageRow",
    "UsageSums",
    "is_dimension",
    "usage",
    "used_between",
]
