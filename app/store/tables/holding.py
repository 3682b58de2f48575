"""What gateways tell one another: counters of budgets, processes, epochs, what was cleared."""

from __future__ import annotations

from sqlalchemy import CheckConstraint, Column, Index, PrimaryKeyConstraint, Table

from app.store.tables.columns import INT, int_column, metadata, text_column

meta = Table(
    "meta",
    metadata,
    text_column("key"),
    text_column("value"),
    PrimaryKeyConstraint("key"),
    sqlite_strict=True,
)

# What is settled in each window of each budget. ``version`` goes up by one with every batch that touches
# it, so that whoever was told a value knows which of two is newer. ``seeded_nanousd`` is the part that was
# spent before the row was made: the rest is the sum of the entries whose records name the window.
budgets = Table(
    "budgets",
    metadata,
    text_column("budget_id"),
    int_column("start_ms"),
    text_column("team_id"),
    int_column("spent_nanousd"),
    int_column("seeded_nanousd"),
    int_column("version"),
    PrimaryKeyConstraint("budget_id", "start_ms"),
    sqlite_strict=True,
)

# The most that a process holds, or has not confirmed, of a window: told before it goes beyond it.
marks = Table(
    "marks",
    metadata,
    text_column("process_id"),
    text_column("budget_id"),
    int_column("start_ms"),
    text_column("team_id"),
    int_column("mark_nanousd"),
    PrimaryKeyConstraint("process_id", "budget_id", "start_ms"),
    Index(None, "budget_id", "start_ms"),
    sqlite_strict=True,
)

processes = Table(
    "processes",
    metadata,
    text_column("id"),
    text_column("node"),
    int_column("slot"),
    int_column("started_at_ms"),
    int_column("seen_at_ms"),
    int_column("acked_epoch"),
    int_column("closed"),
    PrimaryKeyConstraint("id"),
    sqlite_strict=True,
)

# One row. An epoch is the life of what Redis holds: ``warming`` until all that counts is back in it.
epoch = Table(
    "epoch",
    metadata,
    Column("id", INT, nullable=False, autoincrement=False),
    int_column("number"),
    text_column("state"),
    text_column("leader", null=True),
    int_column("leader_until_ms"),
    int_column("opened_at_ms"),
    PrimaryKeyConstraint("id"),
    CheckConstraint("id = 1", name="one_row"),
    sqlite_strict=True,
)

# In which epoch each hash tag of Redis (a team's id, or up:NAME) was first used.
tag_epochs = Table(
    "tag_epochs",
    metadata,
    text_column("tag"),
    int_column("epoch"),
    int_column("at_ms"),
    PrimaryKeyConstraint("tag"),
    sqlite_strict=True,
)

# What was taken out of the response cache, once for each extent: team_id and model are "" for all of them, model
# else a pattern. Answers to calls that began before ``change`` was known are not used any more.
cache_clears = Table(
    "cache_clears",
    metadata,
    text_column("team_id"),
    text_column("model"),
    int_column("change"),
    int_column("cleared_at_ms"),
    PrimaryKeyConstraint("team_id", "model"),
    Index(None, "change"),
    sqlite_strict=True,
)
