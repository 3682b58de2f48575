"""Alerts: rules, what fires, the messages that are to be told, and whose turn it is to look."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

TEXT = sa.Text()
INT = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _text(name: str, *, null: bool = False) -> sa.Column[str]:
    return sa.Column(name, TEXT, nullable=null)


def _int(name: str, *, null: bool = False) -> sa.Column[int]:
    return sa.Column(name, INT, nullable=null)


def upgrade() -> None:
    op.create_table(
        "alert_rules",
        _text("id"),
        _text("kind"),
        _text("name"),
        _text("team_id", null=True),
        _text("targets", null=True),
        _int("enabled"),
        _text("parameters"),
        _int("created_at_ms"),
        sa.PrimaryKeyConstraint("id", name="pk_alert_rules"),
        sqlite_strict=True,
    )
    _states()
    _deliveries()
    op.create_table(
        "alert_blocks",
        _text("rule_id"),
        _text("target"),
        _text("reason"),
        _int("at_ms"),
        sa.PrimaryKeyConstraint("rule_id", "target", name="pk_alert_blocks"),
        sqlite_strict=True,
    )
    op.create_table(
        "upstream_sights",
        _text("process_id"),
        _text("upstream"),
        _int("down_since_ms"),
        _int("seen_at_ms"),
        sa.PrimaryKeyConstraint("process_id", "upstream", name="pk_upstream_sights"),
        sqlite_strict=True,
    )
    op.create_table(
        "leases",
        _text("name"),
        _text("holder"),
        _int("until_ms"),
        sa.PrimaryKeyConstraint("name", name="pk_leases"),
        sqlite_strict=True,
    )
    # What budgets have refused of late is asked for every quarter of a minute.
    op.create_index("ix_refusals_at_ms", "refusals", ["at_ms"])


def _states() -> None:
    op.create_table(
        "alert_states",
        _text("id"),
        _text("rule_id"),
        _text("kind"),
        _text("subject"),
        _text("team_id", null=True),
        _text("key_id", null=True),
        _text("state"),
        _int("level"),
        _text("severity"),
        _text("figures"),
        _int("fired_at_ms"),
        _int("changed_at_ms"),
        _int("clear_since_ms", null=True),
        _int("resolved_at_ms", null=True),
        _text("reason", null=True),
        sa.PrimaryKeyConstraint("id", name="pk_alert_states"),
        sqlite_strict=True,
    )
    op.create_index("ix_alert_states_rule_id_subject", "alert_states", ["rule_id", "subject"])
    op.create_index("ix_alert_states_state_changed_at_ms", "alert_states", ["state", "changed_at_ms"])


def _deliveries() -> None:
    op.create_table(
        "alert_deliveries",
        _text("id"),
        _text("type"),
        _text("rule_id", null=True),
        _text("alert_id", null=True),
        _text("target"),
        _text("body"),
        _text("state"),
        _int("created_at_ms"),
        _int("next_at_ms", null=True),
        _int("tries"),
        _text("attempts"),
        sa.PrimaryKeyConstraint("id", name="pk_alert_deliveries"),
        sqlite_strict=True,
    )
    op.create_index("ix_alert_deliveries_state_next_at_ms", "alert_deliveries", ["state", "next_at_ms"])
    op.create_index("ix_alert_deliveries_created_at_ms", "alert_deliveries", ["created_at_ms"])
    op.create_index("ix_alert_deliveries_target_created_at_ms", "alert_deliveries", ["target", "created_at_ms"])
