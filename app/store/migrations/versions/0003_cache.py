"""The response cache: how far each key uses it, and what was cleared."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

TEXT = sa.Text()
INT = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.add_column("keys", sa.Column("cache_mode", TEXT, nullable=True))
    op.create_table(
        "cache_clears",
        sa.Column("team_id", TEXT, nullable=False),
        sa.Column("model", TEXT, nullable=False),
        sa.Column("change", INT, nullable=False),
        sa.Column("cleared_at_ms", INT, nullable=False),
        sa.PrimaryKeyConstraint("team_id", "model", name="pk_cache_clears"),
        sqlite_strict=True,
    )
    op.create_index("ix_cache_clears_change", "cache_clears", ["change"])
