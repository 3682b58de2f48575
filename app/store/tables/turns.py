"""What the gateway keeps of responses for upstreams that keep nothing."""

from __future__ import annotations

from sqlalchemy import Column, Index, LargeBinary, PrimaryKeyConstraint, Table

from app.store.tables.columns import int_column, metadata, text_column

# ``turn_id`` is the gateway's own, since the ids of such upstreams come again: the newest turn of a team is the one
# that ``response_id`` names, and a chain goes on through the one that it was begun with. ``payload`` is encrypted,
# and null once the turn was deleted. ``last_at_ms`` stands in the first turn of a chain alone: when the last was added.
turns = Table(
    "turns",
    metadata,
    text_column("turn_id"),
    text_column("team_id"),
    text_column("response_id"),
    text_column("upstream"),
    text_column("previous_id", null=True),
    text_column("chain_id"),
    int_column("replay_bytes"),
    Column("payload", LargeBinary(), nullable=True),
    int_column("created_at_ms"),
    int_column("last_at_ms", null=True),
    PrimaryKeyConstraint("turn_id"),
    # A look-up by team and id touches no row of another team's.
    Index(None, "team_id", "response_id", "created_at_ms"),
    Index(None, "chain_id"),
    Index(None, "last_at_ms"),
    sqlite_strict=True,
)
