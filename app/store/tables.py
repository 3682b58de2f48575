"""The schema, once, for SQLite and PostgreSQL.

Whole numbers are 64 bits everywhere (money is nano-dollars), JSON is text, truth values are 0 or 1:
what one database returns is what the other returns. On SQLite tables are STRICT, since it would
otherwise turn a sum that overflows into a float. Usage rows carry no foreign keys: a bill must be
writable whatever became of the team. A change here needs a migration (``migrations/versions``).
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    text,
)

INT = BigInteger().with_variant(Integer(), "sqlite")

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _text(name: str, *, null: bool = False) -> Column[str]:
    return Column(name, Text(), nullable=null)


def _int(name: str, *, null: bool = False) -> Column[int]:
    return Column(name, INT, nullable=null)


def _units(name: str) -> Column[int]:
    """A bucket of usage that came later: rows from before have none of it."""
    return Column(name, INT, nullable=False, server_default=text("0"))


meta = Table(
    "meta",
    metadata,
    _text("key"),
    _text("value"),
    PrimaryKeyConstraint("key"),
    sqlite_strict=True,
)

# One row, updated in every changing transaction: whoever changes people waits here for the one before,
# so that a reader who sees N has seen all up to N. A sequence would give out numbers that commit late.
change_counter = Table(
    "change_counter",
    metadata,
    Column("id", INT, nullable=False, autoincrement=False),
    _int("value"),
    PrimaryKeyConstraint("id"),
    CheckConstraint("id = 1", name="one_row"),
    sqlite_strict=True,
)

teams = Table(
    "teams",
    metadata,
    _text("id"),
    _text("name"),
    _int("created_at_ms"),
    _int("changed"),
    PrimaryKeyConstraint("id"),
    UniqueConstraint("name"),
    Index(None, "changed"),
    sqlite_strict=True,
)

keys = Table(
    "keys",
    metadata,
    _text("id"),
    Column("team_id", Text(), ForeignKey("teams.id"), nullable=False),
    _text("name"),
    _text("models", null=True),
    _text("endpoints", null=True),
    _int("expires_at_ms", null=True),
    _int("revoked_at_ms", null=True),
    _int("created_at_ms"),
    _int("changed"),
    _text("cache_mode", null=True),
    PrimaryKeyConstraint("id"),
    UniqueConstraint("team_id", "name"),
    Index(None, "changed"),
    sqlite_strict=True,
)

# Nothing here says that two rules may not limit the same thing: NULL is not equal to NULL in a constraint.
# ``limits.py`` sees to it, where every change waits for the one before.
limits = Table(
    "limits",
    metadata,
    _text("id"),
    Column("team_id", Text(), ForeignKey("teams.id"), nullable=False),
    Column("key_id", Text(), ForeignKey("keys.id"), nullable=True),
    _text("kind"),
    _text("window"),
    _int("maximum"),
    _text("model", null=True),
    _text("tag_name", null=True),
    _text("tag_value", null=True),
    _text("time_zone"),
    _text("policy"),
    _text("mode"),
    _text("bound"),
    _int("created_at_ms"),
    PrimaryKeyConstraint("id"),
    Index(None, "team_id"),
    Index(None, "key_id"),
    sqlite_strict=True,
)

secrets = Table(
    "secrets",
    metadata,
    _text("id"),
    Column("key_id", Text(), ForeignKey("keys.id"), nullable=False),
    Column("digest", LargeBinary(), nullable=False),
    _int("created_at_ms"),
    _int("expires_at_ms", null=True),
    _int("revoked_at_ms", null=True),
    PrimaryKeyConstraint("id"),
    UniqueConstraint("digest"),
    Index(None, "key_id"),
    sqlite_strict=True,
)

admin_tokens = Table(
    "admin_tokens",
    metadata,
    _text("id"),
    _text("name"),
    _text("role"),
    Column("digest", LargeBinary(), nullable=False),
    _int("created_at_ms"),
    PrimaryKeyConstraint("id"),
    UniqueConstraint("digest"),
    sqlite_strict=True,
)

records = Table(
    "records",
    metadata,
    _text("request_id"),
    _int("admitted_at_ms"),
    _int("quarter_ms"),
    _int("first_byte_at_ms", null=True),
    _int("ended_at_ms"),
    _text("team_id"),
    _text("key_id"),
    _text("secret_id"),
    _text("endpoint"),
    _int("stream"),
    _text("model_requested"),
    _text("model"),
    _text("model_served", null=True),
    _text("upstream"),
    _text("outcome"),
    _int("status", null=True),
    _text("error_code", null=True),
    _int("attempts"),
    _text("response_id", null=True),
    _text("end_user", null=True),
    _text("tags"),
    _text("service_tier", null=True),
    _text("cache"),
    _text("tool_usage", null=True),
    _text("usage_raw", null=True),
    _int("saved_nanousd"),
    _int("suspect"),
    _text("decision"),
    # JSON: [[budget id, first millisecond of the window], …], fixed at admission.
    Column("budgets", Text(), nullable=False, server_default=text("'[]'")),
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
    _text("attempt_id"),
    _text("reason"),
    _int("number"),
    _text("kind"),
    _text("request_id"),
    _text("team_id"),
    _text("key_id"),
    _text("upstream"),
    _text("model"),
    _int("quarter_ms"),
    _int("created_at_ms"),
    _int("input_tokens"),
    _int("cached_tokens"),
    _int("cache_write_tokens"),
    _int("input_audio_tokens"),
    _int("output_tokens"),
    _int("reasoning_tokens"),
    _int("output_audio_tokens"),
    _int("web_searches"),
    _int("file_searches"),
    _int("cost_nanousd", null=True),
    _int("cost_lower_nanousd", null=True),
    _int("cost_upper_nanousd", null=True),
    _text("price_source", null=True),
    _text("price_version", null=True),
    _text("service_tier", null=True),
    _units("cached_audio_tokens"),
    _units("input_image_tokens"),
    _units("cached_image_tokens"),
    _units("output_image_tokens"),
    _units("cache_write_12h_tokens"),
    _units("preview_searches"),
    _units("code_sessions"),
    _units("image_calls"),
    _units("unknown_units"),
    PrimaryKeyConstraint("attempt_id", "reason", "number"),
    Index(None, "request_id"),
    Index(None, "quarter_ms"),
    sqlite_strict=True,
)

rollups = Table(
    "rollups",
    metadata,
    _int("quarter_ms"),
    _text("team_id"),
    _text("key_id"),
    _text("model"),
    _text("upstream"),
    _int("requests"),
    _int("failed"),
    _int("input_tokens"),
    _int("cached_tokens"),
    _int("cache_write_tokens"),
    _int("output_tokens"),
    _int("reasoning_tokens"),
    _int("cost_nanousd"),
    _int("saved_nanousd"),
    _int("unpriced"),
    _int("estimated"),
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
    _text("object_id"),
    _text("upstream"),
    _text("team_id"),
    _text("kind"),
    _text("request_id"),
    _int("created_at_ms"),
    PrimaryKeyConstraint("object_id", "upstream"),
    sqlite_strict=True,
)

# What the database refused, kept as it was: item is "" for a record, else the object's id.
poison = Table(
    "poison",
    metadata,
    _text("request_id"),
    _text("item"),
    _text("payload"),
    _text("error"),
    _int("at_ms"),
    PrimaryKeyConstraint("request_id", "item"),
    sqlite_strict=True,
)

# What is settled in each window of each budget. ``version`` goes up by one with every batch that touches
# it, so that whoever was told a value knows which of two is newer. ``seeded_nanousd`` is the part that was
# spent before the row was made: the rest is the sum of the entries whose records name the window.
budgets = Table(
    "budgets",
    metadata,
    _text("budget_id"),
    _int("start_ms"),
    _text("team_id"),
    _int("spent_nanousd"),
    _int("seeded_nanousd"),
    _int("version"),
    PrimaryKeyConstraint("budget_id", "start_ms"),
    sqlite_strict=True,
)

# The most that a process holds, or has not confirmed, of a window: told before it goes beyond it.
marks = Table(
    "marks",
    metadata,
    _text("process_id"),
    _text("budget_id"),
    _int("start_ms"),
    _text("team_id"),
    _int("mark_nanousd"),
    PrimaryKeyConstraint("process_id", "budget_id", "start_ms"),
    Index(None, "budget_id", "start_ms"),
    sqlite_strict=True,
)

processes = Table(
    "processes",
    metadata,
    _text("id"),
    _text("node"),
    _int("slot"),
    _int("started_at_ms"),
    _int("seen_at_ms"),
    _int("acked_epoch"),
    _int("closed"),
    PrimaryKeyConstraint("id"),
    sqlite_strict=True,
)

# One row. An epoch is the life of what Redis holds: ``warming`` until all that counts is back in it.
epoch = Table(
    "epoch",
    metadata,
    Column("id", INT, nullable=False, autoincrement=False),
    _int("number"),
    _text("state"),
    _text("leader", null=True),
    _int("leader_until_ms"),
    _int("opened_at_ms"),
    PrimaryKeyConstraint("id"),
    CheckConstraint("id = 1", name="one_row"),
    sqlite_strict=True,
)

# In which epoch each hash tag of Redis (a team's id, or up:NAME) was first used.
tag_epochs = Table(
    "tag_epochs",
    metadata,
    _text("tag"),
    _int("epoch"),
    _int("at_ms"),
    PrimaryKeyConstraint("tag"),
    sqlite_strict=True,
)

# Requests of known keys that were refused: not a part of the bill, kept to explain them.
refusals = Table(
    "refusals",
    metadata,
    _text("request_id"),
    _text("team_id"),
    _text("key_id"),
    _int("at_ms"),
    _int("status"),
    _text("code"),
    _text("decision"),
    PrimaryKeyConstraint("request_id"),
    Index(None, "team_id", "at_ms"),
    sqlite_strict=True,
)

# What was taken out of the response cache, once for each extent: team_id and model are "" for all of them, model
# else a pattern. Answers to calls that began before ``change`` was known are not used any more.
cache_clears = Table(
    "cache_clears",
    metadata,
    _text("team_id"),
    _text("model"),
    _int("change"),
    _int("cleared_at_ms"),
    PrimaryKeyConstraint("team_id", "model"),
    Index(None, "change"),
    sqlite_strict=True,
)
