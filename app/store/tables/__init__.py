"""The schema, once, for SQLite and PostgreSQL: a change needs a migration (``migrations/versions``)."""

from app.store.tables.alerts import (
    alert_blocks,
    alert_deliveries,
    alert_rules,
    alert_states,
    leases,
    upstream_sights,
)
from app.store.tables.bill import ROLLUP_KEY, ROLLUP_SUMS, awaited, entries, objects, poison, records, refusals, rollups
from app.store.tables.columns import INT, metadata
from app.store.tables.control import audit, colors, pauses, prices, secret_uses, sessions
from app.store.tables.holding import budgets, cache_clears, epoch, marks, meta, processes, tag_epochs
from app.store.tables.people import admin_tokens, change_counter, keys, limits, secrets, teams
from app.store.tables.sums import SUMS_KEY, TIMINGS_KEY, folds, sums, tag_values, timings
from app.store.tables.turns import turns

__all__ = [
    "INT",
    "ROLLUP_KEY",
    "ROLLUP_SUMS",
    "SUMS_KEY",
    "TIMINGS_KEY",
    "admin_tokens",
    "alert_blocks",
    "alert_deliveries",
    "alert_rules",
    "alert_states",
    "audit",
    "awaited",
    "budgets",
    "cache_clears",
    "change_counter",
    "colors",
    "entries",
    "epoch",
    "folds",
    "keys",
    "leases",
    "limits",
    "marks",
    "meta",
    "metadata",
    "objects",
    "pauses",
    "poison",
    "prices",
    "processes",
    "records",
    "refusals",
    "rollups",
    "secret_uses",
    "secrets",
    "sessions",
    "sums",
    "tag_epochs",
    "tag_values",
    "teams",
    "timings",
    "turns",
    "upstream_sights",
]
