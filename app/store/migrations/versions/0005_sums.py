"""Sums by day and month of a time zone, by hour and by tag; how long requests took; the money of estimates."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

TEXT = sa.Text()
INT = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

PLACE = ("quarter_ms", "team_id", "key_id", "model", "upstream")
SUMS = (
    "requests",
    "failed",
    "input_tokens",
    "cached_tokens",
    "cache_write_tokens",
    "output_tokens",
    "reasoning_tokens",
    "cost_nanousd",
    "saved_nanousd",
    "unpriced",
    "estimated",
    "estimated_nanousd",
)


def _text(*names: str) -> list[sa.Column[str]]:
    return [sa.Column(name, TEXT, nullable=False) for name in names]


def _int(*names: str) -> list[sa.Column[int]]:
    return [sa.Column(name, INT, nullable=False) for name in names]


def upgrade() -> None:
    op.add_column("records", sa.Column("own_us", INT, nullable=True))
    op.add_column("rollups", sa.Column("estimated_nanousd", INT, nullable=False, server_default=sa.text("0")))
    _sum_estimates()
    _create_folds()
    op.create_table(
        "sums",
        *_int("fold", "level"),
        *_text("tag"),
        *_int("start"),
        *_text("value", "team_id", "key_id", "model", "upstream"),
        *_int(*SUMS),
        sa.PrimaryKeyConstraint(
            "fold", "level", "tag", "start", "value", "team_id", "key_id", "model", "upstream", name="pk_sums"
        ),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_index("ix_sums_fold_level_tag_key_id_start", "sums", ["fold", "level", "tag", "key_id", "start"])
    op.create_table(
        "tag_values",
        *_int("month"),
        *_text("name", "value"),
        sa.PrimaryKeyConstraint("month", "name", "value", name="pk_tag_values"),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_table(
        "timings",
        *_int("quarter_ms"),
        *_text("team_id", "upstream", "measure"),
        *_int("bucket", "requests"),
        sa.PrimaryKeyConstraint("quarter_ms", "team_id", "upstream", "measure", "bucket", name="pk_timings"),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )


def _sum_estimates() -> None:
    """The money of attempts of which nothing exact is known, as far as their entries are there still."""
    entries = sa.table(
        "entries", *(sa.column(name) for name in ("attempt_id", "kind", "reason", "cost_nanousd", *PLACE))
    )
    primaries, exact = entries.alias("primaries"), entries.alias("exact")
    is_known = sa.exists(
        sa.select(sa.literal_column("1"))
        .select_from(exact)
        .where(exact.c.attempt_id == primaries.c.attempt_id, exact.c.reason == "exact")
    )
    spent = (
        sa.select(
            *(primaries.c[name] for name in PLACE),
            sa.cast(sa.func.sum(sa.func.coalesce(entries.c.cost_nanousd, 0)), INT).label("spent"),
        )
        .select_from(primaries.join(entries, entries.c.attempt_id == primaries.c.attempt_id))
        .where(primaries.c.kind == "estimate", ~is_known)
        .group_by(*(primaries.c[name] for name in PLACE))
    )
    rollups = sa.table("rollups", *(sa.column(name) for name in (*PLACE, "estimated_nanousd")))
    here = [rollups.c[name] == sa.bindparam(f"of_{name}") for name in PLACE]
    update = rollups.update().where(*here).values(estimated_nanousd=sa.bindparam("spent"))
    connection = op.get_bind()
    found = [
        {**{f"of_{name}": row[name] for name in PLACE}, "spent": row["spent"]}
        for row in connection.execute(spent).mappings()
        if row["spent"]
    ]
    if found:
        connection.execute(update, found)


def _create_folds() -> None:
    op.create_table(
        "folds",
        *_int("id"),
        *_text("period", "zone"),
        *_int("until_ms", "tags_from_ms", "used_at_ms"),
        sa.PrimaryKeyConstraint("id", name="pk_folds"),
        sa.UniqueConstraint("period", "zone", name="uq_folds_period_zone"),
        sqlite_strict=True,
    )
