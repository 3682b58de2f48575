"""The control plane: roles, sessions, the audit log, when secrets were used, owners and tags of keys, set prices."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

TEXT = sa.Text()
INT = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _text(name: str, *, null: bool = False) -> sa.Column[str]:
    return sa.Column(name, TEXT, nullable=null)


def _int(name: str, *, null: bool = False) -> sa.Column[int]:
    return sa.Column(name, INT, nullable=null)


def _json(name: str, empty: sa.TextClause) -> sa.Column[str]:
    return sa.Column(name, TEXT, nullable=False, server_default=empty)


def upgrade() -> None:
    op.add_column("keys", _text("owner", null=True))
    op.add_column("keys", _json("tags", sa.text("'{}'")))
    op.add_column("limits", _json("warn_percents", sa.text("'[]'")))
    op.add_column("admin_tokens", _text("team_id", null=True))
    for name in ("expires_at_ms", "revoked_at_ms", "used_at_ms"):
        op.add_column("admin_tokens", _int(name, null=True))
    _sessions()
    _audit()
    op.create_table(
        "secret_uses",
        _text("secret_id"),
        _int("used_at_ms"),
        sa.PrimaryKeyConstraint("secret_id", name="pk_secret_uses"),
        sqlite_strict=True,
    )
    op.create_table(
        "colors",
        _text("dimension"),
        _text("member"),
        _int("slot"),
        sa.PrimaryKeyConstraint("dimension", "member", name="pk_colors"),
        sqlite_strict=True,
    )
    op.create_table(
        "prices",
        _text("id"),
        _text("model"),
        _text("upstream", null=True),
        _text("rates"),
        _int("effective_from_ms"),
        _int("created_at_ms"),
        _int("removed_at_ms", null=True),
        _int("changed"),
        sa.PrimaryKeyConstraint("id", name="pk_prices"),
        sqlite_strict=True,
    )
    op.create_index("ix_prices_changed", "prices", ["changed"])


def _sessions() -> None:
    op.create_table(
        "sessions",
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        _text("kind"),
        _text("holder_id"),
        _text("name"),
        _text("role"),
        _text("team_id", null=True),
        _text("csrf"),
        _int("created_at_ms"),
        _int("seen_at_ms"),
        _int("expires_at_ms"),
        sa.PrimaryKeyConstraint("digest", name="pk_sessions"),
        sqlite_strict=True,
    )
    op.create_index("ix_sessions_expires_at_ms", "sessions", ["expires_at_ms"])


def _audit() -> None:
    op.create_table(
        "audit",
        _text("id"),
        _int("at_ms"),
        _text("actor_kind"),
        _text("actor_id"),
        _text("actor_name"),
        _text("action"),
        _text("object_kind"),
        _text("object_id"),
        _text("object_name"),
        _text("team_id", null=True),
        _text("before", null=True),
        _text("after", null=True),
        _text("peer"),
        sa.PrimaryKeyConstraint("id", name="pk_audit"),
        sqlite_strict=True,
    )
    op.create_index("ix_audit_at_ms", "audit", ["at_ms"])
    op.create_index("ix_audit_object_id", "audit", ["object_id"])
