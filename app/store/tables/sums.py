"""Sums of the bill beside ``rollups``: by days, months and hours, by tag, and how long things took.

``sums`` is kept by folds (``folds.py``): what a fold has of a quarter is in its sums up to ``until_ms``, and not
after. ``start`` is the number of an hour, a day or a month in the fold's time zone (``periods.py``). A level
keeps some of the columns that say whose a sum is, the others are "". Sums by tag have its name in ``tag``.
"""

from __future__ import annotations

from sqlalchemy import Index, PrimaryKeyConstraint, Table, UniqueConstraint

from app.store.tables.bill import ROLLUP_SUMS
from app.store.tables.columns import int_column, metadata, text_column

folds = Table(
    "folds",
    metadata,
    int_column("id"),
    # day or hour.
    text_column("period"),
    # Of days a time zone; of hours the minutes after a whole hour of UTC at which they begin.
    text_column("zone"),
    int_column("until_ms"),
    # Sums by tag are whole from here on: of before it there were no records any more.
    int_column("tags_from_ms"),
    int_column("used_at_ms"),
    PrimaryKeyConstraint("id"),
    UniqueConstraint("period", "zone"),
    sqlite_strict=True,
)

SUMS_KEY = ("fold", "level", "tag", "start", "value", "team_id", "key_id", "model", "upstream")

sums = Table(
    "sums",
    metadata,
    int_column("fold"),
    int_column("level"),
    text_column("tag"),
    int_column("start"),
    text_column("value"),
    text_column("team_id"),
    text_column("key_id"),
    text_column("model"),
    text_column("upstream"),
    *[int_column(name) for name in ROLLUP_SUMS],
    PrimaryKeyConstraint(*SUMS_KEY),
    Index(None, "fold", "level", "tag", "key_id", "start"),
    sqlite_strict=True,
    sqlite_with_rowid=False,
)

# Which values of which tags have sums of their own in a month of UTC; the value "" says that the name has.
tag_values = Table(
    "tag_values",
    metadata,
    int_column("month"),
    text_column("name"),
    text_column("value"),
    PrimaryKeyConstraint("month", "name", "value"),
    sqlite_strict=True,
    sqlite_with_rowid=False,
)

TIMINGS_KEY = ("quarter_ms", "team_id", "upstream", "measure", "bucket")

# How many requests took about so long: buckets are powers of a root of two (``timings.py``).
timings = Table(
    "timings",
    metadata,
    int_column("quarter_ms"),
    text_column("team_id"),
    text_column("upstream"),
    text_column("measure"),
    int_column("bucket"),
    int_column("requests"),
    PrimaryKeyConstraint(*TIMINGS_KEY),
    sqlite_strict=True,
    sqlite_with_rowid=False,
)
