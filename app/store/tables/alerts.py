"""Alerts: what people are told of, what is to be told now, and what became of each message.

Where messages go (addresses, secrets) stands in the configuration file, and in no table.
"""

from __future__ import annotations

from sqlalchemy import Index, PrimaryKeyConstraint, Table

from app.store.tables.columns import int_column, metadata, text_column

# What people want to be told of. ``targets`` (JSON) names those of the file, NULL all of them; ``parameters`` is
# JSON, by kind.
alert_rules = Table(
    "alert_rules",
    metadata,
    text_column("id"),
    text_column("kind"),
    text_column("name"),
    text_column("team_id", null=True),
    text_column("targets", null=True),
    int_column("enabled"),
    text_column("parameters"),
    int_column("created_at_ms"),
    PrimaryKeyConstraint("id"),
    sqlite_strict=True,
)

# One firing of a rule for one subject, from its beginning to its end. ``level`` is how far people were told;
# ``clear_since_ms`` since when nothing is wrong any more, while it is too early to say so.
alert_states = Table(
    "alert_states",
    metadata,
    text_column("id"),
    text_column("rule_id"),
    text_column("kind"),
    text_column("subject"),
    text_column("team_id", null=True),
    text_column("key_id", null=True),
    text_column("state"),
    int_column("level"),
    text_column("severity"),
    text_column("figures"),
    int_column("fired_at_ms"),
    int_column("changed_at_ms"),
    int_column("clear_since_ms", null=True),
    int_column("resolved_at_ms", null=True),
    text_column("reason", null=True),
    PrimaryKeyConstraint("id"),
    Index(None, "rule_id", "subject"),
    Index(None, "state", "changed_at_ms"),
    sqlite_strict=True,
)

# The messages, and what became of each try (JSON). ``rule_id`` and ``alert_id`` are NULL for a test.
alert_deliveries = Table(
    "alert_deliveries",
    metadata,
    text_column("id"),
    text_column("type"),
    text_column("rule_id", null=True),
    text_column("alert_id", null=True),
    text_column("target"),
    text_column("body"),
    text_column("state"),
    int_column("created_at_ms"),
    int_column("next_at_ms", null=True),
    int_column("tries"),
    text_column("attempts"),
    PrimaryKeyConstraint("id"),
    Index(None, "state", "next_at_ms"),
    Index(None, "created_at_ms"),
    Index(None, "target", "created_at_ms"),
    sqlite_strict=True,
)

# A target that said it wants nothing more of a rule.
alert_blocks = Table(
    "alert_blocks",
    metadata,
    text_column("rule_id"),
    text_column("target"),
    text_column("reason"),
    int_column("at_ms"),
    PrimaryKeyConstraint("rule_id", "target"),
    sqlite_strict=True,
)

# The upstreams that a process cannot connect to: a row only while that is so.
upstream_sights = Table(
    "upstream_sights",
    metadata,
    text_column("process_id"),
    text_column("upstream"),
    int_column("down_since_ms"),
    int_column("seen_at_ms"),
    PrimaryKeyConstraint("process_id", "upstream"),
    sqlite_strict=True,
)

# Work that one process does for all of them, until its lease ends.
leases = Table(
    "leases",
    metadata,
    text_column("name"),
    text_column("holder"),
    int_column("until_ms"),
    PrimaryKeyConstraint("name"),
    sqlite_strict=True,
)
