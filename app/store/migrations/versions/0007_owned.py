"""What a team owns, found by team; families of endpoints given to teams; usage that is still to be asked for."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

TEXT = sa.Text()
INT = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_index("ix_objects_team_id_object_id", "objects", ["team_id", "object_id"])
    op.create_index("ix_objects_team_id_kind_created_at_ms", "objects", ["team_id", "kind", "created_at_ms"])
    op.add_column("teams", sa.Column("endpoints", TEXT, nullable=True))
    op.create_table(
        "awaited",
        sa.Column("request_id", TEXT, nullable=False),
        sa.Column("team_id", TEXT, nullable=False),
        sa.Column("upstream", TEXT, nullable=False),
        sa.Column("object_id", TEXT, nullable=False),
        sa.Column("kind", TEXT, nullable=False),
        sa.Column("ask_at_ms", INT, nullable=False),
        sa.Column("asked", INT, nullable=False),
        sa.Column("until_ms", INT, nullable=False),
        sa.PrimaryKeyConstraint("request_id", name="pk_awaited"),
        sqlite_strict=True,
    )
    op.create_index("ix_awaited_ask_at_ms", "awaited", ["ask_at_ms"])
    op.create_index("ix_awaited_object_id", "awaited", ["object_id"])
