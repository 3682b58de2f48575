"""Teams, their keys with secrets and limits, and the tokens of those who look after them."""

from __future__ import annotations

from sqlalchemy import (
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    LargeBinary,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from app.store.tables.columns import INT, int_column, metadata, text_column

# One row, updated in every changing transaction: whoever changes people waits here for the one before,
# so that a reader who sees N has seen all up to N. A sequence would give out numbers that commit late.
change_counter = Table(
    "change_counter",
    metadata,
    Column("id", INT, nullable=False, autoincrement=False),
    int_column("value"),
    PrimaryKeyConstraint("id"),
    CheckConstraint("id = 1", name="one_row"),
    sqlite_strict=True,
)

teams = Table(
    "teams",
    metadata,
    text_column("id"),
    text_column("name"),
    int_column("created_at_ms"),
    int_column("changed"),
    text_column("endpoints", null=True),
    PrimaryKeyConstraint("id"),
    UniqueConstraint("name"),
    Index(None, "changed"),
    sqlite_strict=True,
)

keys = Table(
    "keys",
    metadata,
    text_column("id"),
    Column("team_id", Text(), ForeignKey("teams.id"), nullable=False),
    text_column("name"),
    text_column("models", null=True),
    text_column("endpoints", null=True),
    int_column("expires_at_ms", null=True),
    int_column("revoked_at_ms", null=True),
    int_column("created_at_ms"),
    int_column("changed"),
    text_column("cache_mode", null=True),
    text_column("owner", null=True),
    # JSON: labels of its requests, beside which each may bring its own.
    Column("tags", Text(), nullable=False, server_default=text("'{}'")),
    PrimaryKeyConstraint("id"),
    UniqueConstraint("team_id", "name"),
    Index(None, "changed"),
    sqlite_strict=True,
)

# Nothing here says that two rules may not limit the same thing: NULL is not equal to NULL in a constraint.
# ``limits.py`` sees to it, where every change waits for the one before.
limits = Table(
    "limits",
    metadata,
    text_column("id"),
    Column("team_id", Text(), ForeignKey("teams.id"), nullable=False),
    Column("key_id", Text(), ForeignKey("keys.id"), nullable=True),
    text_column("kind"),
    text_column("window"),
    int_column("maximum"),
    text_column("model", null=True),
    text_column("tag_name", null=True),
    text_column("tag_value", null=True),
    text_column("time_zone"),
    text_column("policy"),
    text_column("mode"),
    text_column("bound"),
    int_column("created_at_ms"),
    # JSON: of a budget, at how much of it people are told; whole percent, rising.
    Column("warn_percents", Text(), nullable=False, server_default=text("'[]'")),
    PrimaryKeyConstraint("id"),
    Index(None, "team_id"),
    Index(None, "key_id"),
    sqlite_strict=True,
)

secrets = Table(
    "secrets",
    metadata,
    text_column("id"),
    Column("key_id", Text(), ForeignKey("keys.id"), nullable=False),
    Column("digest", LargeBinary(), nullable=False),
    int_column("created_at_ms"),
    int_column("expires_at_ms", null=True),
    int_column("revoked_at_ms", null=True),
    PrimaryKeyConstraint("id"),
    UniqueConstraint("digest"),
    Index(None, "key_id"),
    sqlite_strict=True,
)

admin_tokens = Table(
    "admin_tokens",
    metadata,
    text_column("id"),
    text_column("name"),
    text_column("role"),
    Column("digest", LargeBinary(), nullable=False),
    int_column("created_at_ms"),
    text_column("team_id", null=True),
    int_column("expires_at_ms", null=True),
    int_column("revoked_at_ms", null=True),
    int_column("used_at_ms", null=True),
    PrimaryKeyConstraint("id"),
    UniqueConstraint("digest"),
    sqlite_strict=True,
)
