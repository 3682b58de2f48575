"""Upstreams that an administrator has paused."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"

TEXT = sa.Text()
INT = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "pauses",
        sa.Column("upstream", TEXT, nullable=False),
        sa.Column("is_paused", INT, nullable=False),
        sa.Column("at_ms", INT, nullable=False),
        sa.Column("actor_name", TEXT, nullable=False),
        sa.Column("changed", INT, nullable=False),
        sa.PrimaryKeyConstraint("upstream", name="pk_pauses"),
        sqlite_strict=True,
    )
