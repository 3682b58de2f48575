"""Turns that the gateway keeps for upstreams that keep nothing."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"

TEXT = sa.Text()
INT = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "turns",
        sa.Column("turn_id", TEXT, nullable=False),
        sa.Column("team_id", TEXT, nullable=False),
        sa.Column("response_id", TEXT, nullable=False),
        sa.Column("upstream", TEXT, nullable=False),
        sa.Column("previous_id", TEXT, nullable=True),
        sa.Column("chain_id", TEXT, nullable=False),
        sa.Column("replay_bytes", INT, nullable=False),
        sa.Column("payload", sa.LargeBinary(), nullable=True),
        sa.Column("created_at_ms", INT, nullable=False),
        sa.Column("last_at_ms", INT, nullable=True),
        sa.PrimaryKeyConstraint("turn_id", name="pk_turns"),
        sqlite_strict=True,
    )
    op.create_index("ix_turns_team_id_response_id_created_at_ms", "turns", ["team_id", "response_id", "created_at_ms"])
    op.create_index("ix_turns_chain_id", "turns", ["chain_id"])
    op.create_index("ix_turns_last_at_ms", "turns", ["last_at_ms"])
