"""The bill: records, entries, their sums, and what belongs to a request."""

from __future__ import annotations

from sqlalchemy import Column, Index, PrimaryKeyConstraint, Table, Text, text

from app.store.tables.columns import int_column, metadata, text_column, units_column

records = Table(
    "records",
    metadata,
    text_column("request_id"),
    int_column("admitted_at_ms"),
    int_column("quarter_ms"),
    int_column("first_byte_at_ms", null=True),
    int_column("ended_at_ms"),
    text_column("team_id"),
    text_column("key_id"),
    text_column("secret_id"),
    text_column("endpoint"),
    int_column("stream"),
    text_column("model_requested"),
    text_column("model"),
    text_column("model_served", null=True),
    text_column("upstream"),
    text_column("outcome"),
    int_column("status", null=True),
    text_column("error_code", null=True),
    int_column("attempts"),
    text_column("response_id", null=True),
    text_column("end_user", null=True),
    text_column("tags"),
    text_column("service_tier", null=True),
    text_column("cache"),
    text_column("tool_usage", null=True),
    text_column("usage_raw", null=True),
    int_column("saved_nanousd"),
    int_column("suspect"),
    text_column("decision"),
    # JSON: [[budget id, first millisecond of the window], …], fixed at admission.
    Column("budgets", Text(), nullable=False, server_default=text("'[]'")),
    int_column("own_us", null=True),
    PrimaryKeyConstraint("request_id"),
    Index(None, "admitted_at_ms"),
    Index(None, "team_id", "admitted_at_ms"),
    Index(None, "key_id", "admitted_at_ms"),
    Index(None, "response_id"),
    sqlite_strict=True,
)

entries = Table(
    "entries",
    metadata,
    text_column("attempt_id"),
    text_column("reason"),
    int_column("number"),
    text_column("kind"),
    text_column("request_id"),
    text_column("team_id"),
    text_column("key_id"),
    text_column("upstream"),
    text_column("model"),
    int_column("quarter_ms"),
    int_column("created_at_ms"),
    int_column("input_tokens"),
    int_column("cached_tokens"),
    int_column("cache_write_tokens"),
    int_column("input_audio_tokens"),
    int_column("output_tokens"),
    int_column("reasoning_tokens"),
    int_column("output_audio_tokens"),
    int_column("web_searches"),
    int_column("file_searches"),
    int_column("cost_nanousd", null=True),
    int_column("cost_lower_nanousd", null=True),
    int_column("cost_upper_nanousd", null=True),
    text_column("price_source", null=True),
    text_column("price_version", null=True),
    text_column("service_tier", null=True),
    units_column("cached_audio_tokens"),
    units_column("input_image_tokens"),
    units_column("cached_image_tokens"),
    units_column("output_image_tokens"),
    units_column("cache_write_12h_tokens"),
    units_column("preview_searches"),
    units_column("code_sessions"),
    units_column("image_calls"),
    units_column("unknown_units"),
    PrimaryKeyConstraint("attempt_id", "reason", "number"),
    Index(None, "request_id"),
    Index(None, "quarter_ms"),
    sqlite_strict=True,
)

rollups = Table(
    "rollups",
    metadata,
    int_column("quarter_ms"),
    text_column("team_id"),
    text_column("key_id"),
    text_column("model"),
    text_column("upstream"),
    int_column("requests"),
    int_column("failed"),
    int_column("input_tokens"),
    int_column("cached_tokens"),
    int_column("cache_write_tokens"),
    int_column("output_tokens"),
    int_column("reasoning_tokens"),
    int_column("cost_nanousd"),
    int_column("saved_nanousd"),
    int_column("unpriced"),
    int_column("estimated"),
    units_column("estimated_nanousd"),
    PrimaryKeyConstraint("quarter_ms", "team_id", "key_id", "model", "upstream"),
    # A budget that is new looks for what its owner has spent, all of it for one that has no end.
    Index(None, "team_id", "quarter_ms"),
    Index(None, "key_id", "quarter_ms"),
    sqlite_strict=True,
)

ROLLUP_KEY = ("quarter_ms", "team_id", "key_id", "model", "upstream")
ROLLUP_SUMS = tuple(column.name for column in rollups.columns if column.name not in ROLLUP_KEY)

objects = Table(
    "objects",
    metadata,
    text_column("object_id"),
    text_column("upstream"),
    text_column("team_id"),
    text_column("kind"),
    text_column("request_id"),
    int_column("created_at_ms"),
    PrimaryKeyConstraint("object_id", "upstream"),
    # A look-up by team and id touches no row of another team's.
    Index(None, "team_id", "object_id"),
    Index(None, "team_id", "kind", "created_at_ms"),
    sqlite_strict=True,
)

# Whose exact usage is still to be asked for: the bill has what it can have cost at most.
awaited = Table(
    "awaited",
    metadata,
    text_column("request_id"),
    text_column("team_id"),
    text_column("upstream"),
    text_column("object_id"),
    text_column("kind"),
    int_column("ask_at_ms"),
    int_column("asked"),
    int_column("until_ms"),
    PrimaryKeyConstraint("request_id"),
    Index(None, "ask_at_ms"),
    Index(None, "object_id"),
    sqlite_strict=True,
)

# What the database refused, kept as it was: item is "" for a record, else the object's id.
poison = Table(
    "poison",
    metadata,
    text_column("request_id"),
    text_column("item"),
    text_column("payload"),
    text_column("error"),
    int_column("at_ms"),
    PrimaryKeyConstraint("request_id", "item"),
    sqlite_strict=True,
)

# Requests of known keys that were refused: not a part of the bill, kept to explain them.
refusals = Table(
    "refusals",
    metadata,
    text_column("request_id"),
    text_column("team_id"),
    text_column("key_id"),
    int_column("at_ms"),
    int_column("status"),
    text_column("code"),
    text_column("decision"),
    PrimaryKeyConstraint("request_id"),
    Index(None, "team_id", "at_ms"),
    Index(None, "at_ms"),
    sqlite_strict=True,
)
