"""The control plane: who is signed in, who changed what, which prices people set."""

from __future__ import annotations

from sqlalchemy import Column, Index, LargeBinary, PrimaryKeyConstraint, Table

from app.store.tables.columns import int_column, metadata, text_column

# Who is signed in to the console. ``kind`` and ``holder_id`` say as whom: an admin token, a key's secret, or a
# person whom a provider vouches for, whose name and role stand here.
sessions = Table(
    "sessions",
    metadata,
    Column("digest", LargeBinary(), nullable=False),
    text_column("kind"),
    text_column("holder_id"),
    text_column("name"),
    text_column("role"),
    text_column("team_id", null=True),
    text_column("csrf"),
    int_column("created_at_ms"),
    int_column("seen_at_ms"),
    int_column("expires_at_ms"),
    PrimaryKeyConstraint("digest"),
    Index(None, "expires_at_ms"),
    sqlite_strict=True,
)

# Who changed what: written with the change, never updated or deleted.
audit = Table(
    "audit",
    metadata,
    text_column("id"),
    int_column("at_ms"),
    text_column("actor_kind"),
    text_column("actor_id"),
    text_column("actor_name"),
    text_column("action"),
    text_column("object_kind"),
    text_column("object_id"),
    text_column("object_name"),
    text_column("team_id", null=True),
    text_column("before", null=True),
    text_column("after", null=True),
    text_column("peer"),
    PrimaryKeyConstraint("id"),
    Index(None, "at_ms"),
    Index(None, "object_id"),
    sqlite_strict=True,
)

# When each secret was last used, as the bill tells it. A table of its own: secrets are in the change feed.
secret_uses = Table(
    "secret_uses",
    metadata,
    text_column("secret_id"),
    int_column("used_at_ms"),
    PrimaryKeyConstraint("secret_id"),
    sqlite_strict=True,
)

# Which colour a name has in every chart: bound at its first use, so that one that joins recolours nobody.
colors = Table(
    "colors",
    metadata,
    text_column("dimension"),
    text_column("member"),
    int_column("slot"),
    PrimaryKeyConstraint("dimension", "member"),
    sqlite_strict=True,
)

# Upstreams that an administrator has paused, or had: by their names in the configuration.
pauses = Table(
    "pauses",
    metadata,
    text_column("upstream"),
    int_column("is_paused"),
    int_column("at_ms"),
    text_column("actor_name"),
    int_column("changed"),
    PrimaryKeyConstraint("upstream"),
    sqlite_strict=True,
)

# Prices that people set, over the file's and the list's. One that is removed stays: it has priced something.
prices = Table(
    "prices",
    metadata,
    text_column("id"),
    text_column("model"),
    text_column("upstream", null=True),
    text_column("rates"),
    int_column("effective_from_ms"),
    int_column("created_at_ms"),
    int_column("removed_at_ms", null=True),
    int_column("changed"),
    PrimaryKeyConstraint("id"),
    Index(None, "changed"),
    sqlite_strict=True,
)
