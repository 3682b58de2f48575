"""Limits become rows of their own; budgets, epochs and refusals; buckets of usage that are priced apart."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

TEXT = sa.Text()
INT = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

MOVED = (
    ("requests_per_minute", "requests", "minute"),
    ("tokens_per_minute", "tokens", "minute"),
    ("concurrency", "concurrency", ""),
)
NEW_UNITS = (
    "cached_audio_tokens",
    "input_image_tokens",
    "cached_image_tokens",
    "output_image_tokens",
    "cache_write_12h_tokens",
    "preview_searches",
    "code_sessions",
    "image_calls",
    "unknown_units",
)


def upgrade() -> None:
    _create_limits()
    _move_limits()
    _widen_the_bill()
    _create_budgets()
    _create_processes()
    _create_refusals()


def _create_limits() -> None:
    op.create_table(
        "limits",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("team_id", TEXT, nullable=False),
        sa.Column("key_id", TEXT, nullable=True),
        sa.Column("kind", TEXT, nullable=False),
        sa.Column("window", TEXT, nullable=False),
        sa.Column("maximum", INT, nullable=False),
        sa.Column("model", TEXT, nullable=True),
        sa.Column("tag_name", TEXT, nullable=True),
        sa.Column("tag_value", TEXT, nullable=True),
        sa.Column("time_zone", TEXT, nullable=False),
        sa.Column("policy", TEXT, nullable=False),
        sa.Column("mode", TEXT, nullable=False),
        sa.Column("bound", TEXT, nullable=False),
        sa.Column("created_at_ms", INT, nullable=False),
        sa.ForeignKeyConstraint(["team_id"], ["teams.id"], name="fk_limits_team_id"),
        sa.ForeignKeyConstraint(["key_id"], ["keys.id"], name="fk_limits_key_id"),
        sa.PrimaryKeyConstraint("id", name="pk_limits"),
        sqlite_strict=True,
    )
    op.create_index("ix_limits_team_id", "limits", ["team_id"])
    op.create_index("ix_limits_key_id", "limits", ["key_id"])


def _move_limits() -> None:
    """What was set on teams and keys, as rules that mean the same."""
    limits = sa.table("limits", *(sa.column(name) for name in _COLUMNS))
    for owner, team_id, key_id in (("teams", "id", None), ("keys", "team_id", "id")):
        for column, kind, window in MOVED:
            rows = sa.table(owner, *(sa.column(name) for name in ("id", "team_id", "created_at_ms", column)))
            moved = sa.select(
                (sa.cast(rows.c.id, TEXT) + sa.literal_column(f"'.{column}'", TEXT)).label("id"),
                rows.c[team_id],
                rows.c[key_id] if key_id is not None else sa.null(),
                *(sa.literal_column(f"'{text}'") for text in (kind, window)),
                rows.c[column],
                *(sa.literal_column(f"'{text}'") for text in ("UTC", "strict", "enforce", "maximum")),
                rows.c.created_at_ms,
            ).where(rows.c[column].is_not(None))
            op.execute(limits.insert().from_select(_COLUMNS, moved))
            op.drop_column(owner, column)


_COLUMNS = (
    "id",
    "team_id",
    "key_id",
    "kind",
    "window",
    "maximum",
    "time_zone",
    "policy",
    "mode",
    "bound",
    "created_at_ms",
)


def _widen_the_bill() -> None:
    for name in NEW_UNITS:
        op.add_column("entries", sa.Column(name, INT, nullable=False, server_default=sa.text("0")))
    op.add_column("records", sa.Column("budgets", TEXT, nullable=False, server_default=sa.text("'[]'")))


def _create_budgets() -> None:
    op.create_index("ix_rollups_team_id_quarter_ms", "rollups", ["team_id", "quarter_ms"])
    op.create_index("ix_rollups_key_id_quarter_ms", "rollups", ["key_id", "quarter_ms"])
    op.create_table(
        "budgets",
        sa.Column("budget_id", TEXT, nullable=False),
        sa.Column("start_ms", INT, nullable=False),
        sa.Column("team_id", TEXT, nullable=False),
        sa.Column("spent_nanousd", INT, nullable=False),
        sa.Column("seeded_nanousd", INT, nullable=False),
        sa.Column("version", INT, nullable=False),
        sa.PrimaryKeyConstraint("budget_id", "start_ms", name="pk_budgets"),
        sqlite_strict=True,
    )
    op.create_table(
        "marks",
        sa.Column("process_id", TEXT, nullable=False),
        sa.Column("budget_id", TEXT, nullable=False),
        sa.Column("start_ms", INT, nullable=False),
        sa.Column("team_id", TEXT, nullable=False),
        sa.Column("mark_nanousd", INT, nullable=False),
        sa.PrimaryKeyConstraint("process_id", "budget_id", "start_ms", name="pk_marks"),
        sqlite_strict=True,
    )
    op.create_index("ix_marks_budget_id_start_ms", "marks", ["budget_id", "start_ms"])


def _create_processes() -> None:
    op.create_table(
        "processes",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("node", TEXT, nullable=False),
        sa.Column("slot", INT, nullable=False),
        sa.Column("started_at_ms", INT, nullable=False),
        sa.Column("seen_at_ms", INT, nullable=False),
        sa.Column("acked_epoch", INT, nullable=False),
        sa.Column("closed", INT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_processes"),
        sqlite_strict=True,
    )
    op.create_table(
        "epoch",
        sa.Column("id", INT, autoincrement=False, nullable=False),
        sa.Column("number", INT, nullable=False),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("leader", TEXT, nullable=True),
        sa.Column("leader_until_ms", INT, nullable=False),
        sa.Column("opened_at_ms", INT, nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_epoch_one_row")),
        sa.PrimaryKeyConstraint("id", name="pk_epoch"),
        sqlite_strict=True,
    )
    op.execute("INSERT INTO epoch (id, number, state, leader_until_ms, opened_at_ms) VALUES (1, 1, 'open', 0, 0)")
    op.create_table(
        "tag_epochs",
        sa.Column("tag", TEXT, nullable=False),
        sa.Column("epoch", INT, nullable=False),
        sa.Column("at_ms", INT, nullable=False),
        sa.PrimaryKeyConstraint("tag", name="pk_tag_epochs"),
        sqlite_strict=True,
    )


def _create_refusals() -> None:
    op.create_table(
        "refusals",
        sa.Column("request_id", TEXT, nullable=False),
        sa.Column("team_id", TEXT, nullable=False),
        sa.Column("key_id", TEXT, nullable=False),
        sa.Column("at_ms", INT, nullable=False),
        sa.Column("status", INT, nullable=False),
        sa.Column("code", TEXT, nullable=False),
        sa.Column("decision", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("request_id", name="pk_refusals"),
        sqlite_strict=True,
    )
    op.create_index("ix_refusals_team_id_at_ms", "refusals", ["team_id", "at_ms"])
