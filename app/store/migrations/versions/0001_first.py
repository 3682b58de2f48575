"""The first schema: people, the bill and its sums, owners of objects."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

TEXT = sa.Text()
INT = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    _create_people()
    _create_records()
    _create_entries()
    _create_sums()
    op.bulk_insert(sa.table("change_counter", sa.column("id", INT), sa.column("value", INT)), [{"id": 1, "value": 0}])


def _create_people() -> None:
    op.create_table(
        "teams",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("requests_per_minute", INT, nullable=True),
        sa.Column("tokens_per_minute", INT, nullable=True),
        sa.Column("concurrency", INT, nullable=True),
        sa.Column("created_at_ms", INT, nullable=False),
        sa.Column("changed", INT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_teams"),
        sa.UniqueConstraint("name", name="uq_teams_name"),
        sqlite_strict=True,
    )
    op.create_index("ix_teams_changed", "teams", ["changed"])
    op.create_table(
        "keys",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("team_id", TEXT, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("requests_per_minute", INT, nullable=True),
        sa.Column("tokens_per_minute", INT, nullable=True),
        sa.Column("concurrency", INT, nullable=True),
        sa.Column("models", TEXT, nullable=True),
        sa.Column("endpoints", TEXT, nullable=True),
        sa.Column("expires_at_ms", INT, nullable=True),
        sa.Column("revoked_at_ms", INT, nullable=True),
        sa.Column("created_at_ms", INT, nullable=False),
        sa.Column("changed", INT, nullable=False),
        sa.ForeignKeyConstraint(["team_id"], ["teams.id"], name="fk_keys_team_id"),
        sa.PrimaryKeyConstraint("id", name="pk_keys"),
        sa.UniqueConstraint("team_id", "name", name="uq_keys_team_id_name"),
        sqlite_strict=True,
    )
    op.create_index("ix_keys_changed", "keys", ["changed"])
    op.create_table(
        "secrets",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("key_id", TEXT, nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("created_at_ms", INT, nullable=False),
        sa.Column("expires_at_ms", INT, nullable=True),
        sa.Column("revoked_at_ms", INT, nullable=True),
        sa.ForeignKeyConstraint(["key_id"], ["keys.id"], name="fk_secrets_key_id"),
        sa.PrimaryKeyConstraint("id", name="pk_secrets"),
        sa.UniqueConstraint("digest", name="uq_secrets_digest"),
        sqlite_strict=True,
    )
    op.create_index("ix_secrets_key_id", "secrets", ["key_id"])
    op.create_table(
        "admin_tokens",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("role", TEXT, nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("created_at_ms", INT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_admin_tokens"),
        sa.UniqueConstraint("digest", name="uq_admin_tokens_digest"),
        sqlite_strict=True,
    )
    op.create_table(
        "change_counter",
        sa.Column("id", INT, autoincrement=False, nullable=False),
        sa.Column("value", INT, nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_change_counter_one_row")),
        sa.PrimaryKeyConstraint("id", name="pk_change_counter"),
        sqlite_strict=True,
    )
    op.create_table(
        "meta",
        sa.Column("key", TEXT, nullable=False),
        sa.Column("value", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_meta"),
        sqlite_strict=True,
    )


def _create_records() -> None:
    op.create_table(
        "records",
        sa.Column("request_id", TEXT, nullable=False),
        sa.Column("admitted_at_ms", INT, nullable=False),
        sa.Column("quarter_ms", INT, nullable=False),
        sa.Column("first_byte_at_ms", INT, nullable=True),
        sa.Column("ended_at_ms", INT, nullable=False),
        sa.Column("team_id", TEXT, nullable=False),
        sa.Column("key_id", TEXT, nullable=False),
        sa.Column("secret_id", TEXT, nullable=False),
        sa.Column("endpoint", TEXT, nullable=False),
        sa.Column("stream", INT, nullable=False),
        sa.Column("model_requested", TEXT, nullable=False),
        sa.Column("model", TEXT, nullable=False),
        sa.Column("model_served", TEXT, nullable=True),
        sa.Column("upstream", TEXT, nullable=False),
        sa.Column("outcome", TEXT, nullable=False),
        sa.Column("status", INT, nullable=True),
        sa.Column("error_code", TEXT, nullable=True),
        sa.Column("attempts", INT, nullable=False),
        sa.Column("response_id", TEXT, nullable=True),
        sa.Column("end_user", TEXT, nullable=True),
        sa.Column("tags", TEXT, nullable=False),
        sa.Column("service_tier", TEXT, nullable=True),
        sa.Column("cache", TEXT, nullable=False),
        sa.Column("tool_usage", TEXT, nullable=True),
        sa.Column("usage_raw", TEXT, nullable=True),
        sa.Column("saved_nanousd", INT, nullable=False),
        sa.Column("suspect", INT, nullable=False),
        sa.Column("decision", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("request_id", name="pk_records"),
        sqlite_strict=True,
    )
    op.create_index("ix_records_admitted_at_ms", "records", ["admitted_at_ms"])
    op.create_index("ix_records_key_id_admitted_at_ms", "records", ["key_id", "admitted_at_ms"])
    op.create_index("ix_records_response_id", "records", ["response_id"])
    op.create_index("ix_records_team_id_admitted_at_ms", "records", ["team_id", "admitted_at_ms"])


def _create_entries() -> None:
    op.create_table(
        "entries",
        sa.Column("attempt_id", TEXT, nullable=False),
        sa.Column("reason", TEXT, nullable=False),
        sa.Column("number", INT, nullable=False),
        sa.Column("kind", TEXT, nullable=False),
        sa.Column("request_id", TEXT, nullable=False),
        sa.Column("team_id", TEXT, nullable=False),
        sa.Column("key_id", TEXT, nullable=False),
        sa.Column("upstream", TEXT, nullable=False),
        sa.Column("model", TEXT, nullable=False),
        sa.Column("quarter_ms", INT, nullable=False),
        sa.Column("created_at_ms", INT, nullable=False),
        sa.Column("input_tokens", INT, nullable=False),
        sa.Column("cached_tokens", INT, nullable=False),
        sa.Column("cache_write_tokens", INT, nullable=False),
        sa.Column("input_audio_tokens", INT, nullable=False),
        sa.Column("output_tokens", INT, nullable=False),
        sa.Column("reasoning_tokens", INT, nullable=False),
        sa.Column("output_audio_tokens", INT, nullable=False),
        sa.Column("web_searches", INT, nullable=False),
        sa.Column("file_searches", INT, nullable=False),
        sa.Column("cost_nanousd", INT, nullable=True),
        sa.Column("cost_lower_nanousd", INT, nullable=True),
        sa.Column("cost_upper_nanousd", INT, nullable=True),
        sa.Column("price_source", TEXT, nullable=True),
        sa.Column("price_version", TEXT, nullable=True),
        sa.Column("service_tier", TEXT, nullable=True),
        sa.PrimaryKeyConstraint("attempt_id", "reason", "number", name="pk_entries"),
        sqlite_strict=True,
    )
    op.create_index("ix_entries_quarter_ms", "entries", ["quarter_ms"])
    op.create_index("ix_entries_request_id", "entries", ["request_id"])


def _create_sums() -> None:
    op.create_table(
        "rollups",
        sa.Column("quarter_ms", INT, nullable=False),
        sa.Column("team_id", TEXT, nullable=False),
        sa.Column("key_id", TEXT, nullable=False),
        sa.Column("model", TEXT, nullable=False),
        sa.Column("upstream", TEXT, nullable=False),
        sa.Column("requests", INT, nullable=False),
        sa.Column("failed", INT, nullable=False),
        sa.Column("input_tokens", INT, nullable=False),
        sa.Column("cached_tokens", INT, nullable=False),
        sa.Column("cache_write_tokens", INT, nullable=False),
        sa.Column("output_tokens", INT, nullable=False),
        sa.Column("reasoning_tokens", INT, nullable=False),
        sa.Column("cost_nanousd", INT, nullable=False),
        sa.Column("saved_nanousd", INT, nullable=False),
        sa.Column("unpriced", INT, nullable=False),
        sa.Column("estimated", INT, nullable=False),
        sa.PrimaryKeyConstraint("quarter_ms", "team_id", "key_id", "model", "upstream", name="pk_rollups"),
        sqlite_strict=True,
    )
    op.create_table(
        "objects",
        sa.Column("object_id", TEXT, nullable=False),
        sa.Column("upstream", TEXT, nullable=False),
        sa.Column("team_id", TEXT, nullable=False),
        sa.Column("kind", TEXT, nullable=False),
        sa.Column("request_id", TEXT, nullable=False),
        sa.Column("created_at_ms", INT, nullable=False),
        sa.PrimaryKeyConstraint("object_id", "upstream", name="pk_objects"),
        sqlite_strict=True,
    )
    op.create_table(
        "poison",
        sa.Column("request_id", TEXT, nullable=False),
        sa.Column("item", TEXT, nullable=False),
        sa.Column("payload", TEXT, nullable=False),
        sa.Column("error", TEXT, nullable=False),
        sa.Column("at_ms", INT, nullable=False),
        sa.PrimaryKeyConstraint("request_id", "item", name="pk_poison"),
        sqlite_strict=True,
    )
