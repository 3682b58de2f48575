from __future__ import annotations

import random

from app.core.usage import Usage
from app.store import tables
from app.store.flatten import entry_row, object_row, record_row, rollup_rows
from tests.contract.store.samples import entry_of, owned_of, record_of


def as_columns(table, row):
    return dict(zip([column.name for column in table.columns], row, strict=True))


def test_rows_are_in_the_order_of_their_columns():
    record = record_of("r1", suspect=True, decision={"a": 1})
    row = as_columns(tables.records, record_row(record))
    expected = {name: getattr(record, name) for name in row}
    assert row == expected | {"stream": 1, "suspect": 1, "tags": "{}", "decision": '{"a":1}', "budgets": "[]"}
    entry = entry_of("r1")
    row = as_columns(tables.entries, entry_row(record, entry))
    for name in Usage.__struct_fields__:
        assert row.pop(name) == getattr(entry.usage, name)
    assert row.pop("created_at_ms") == record.ended_at_ms
    assert row == {name: getattr(entry, name, getattr(record, name, None)) for name in row}
    owned = owned_of("r1")
    row = as_columns(tables.objects, object_row(owned))
    assert row == {name: getattr(owned, name) for name in row}


def test_every_field_of_a_record_and_an_entry_has_a_column():
    # Entries have a table of their own, and so has what is still to be asked for.
    elsewhere = {"entries", "awaited"}
    assert set(record_of().__struct_fields__) - elsewhere == {column.name for column in tables.records.columns}
    fields = (set(entry_of("r").__struct_fields__) - {"usage"}) | set(Usage.__struct_fields__)
    assert fields <= {column.name for column in tables.entries.columns}


def test_rollups_are_the_sums_of_their_rows_in_the_order_of_their_keys():
    chance = random.Random(1)
    records = [
        record_of(
            f"r{number}",
            team_id=f"t{chance.randrange(3)}",
            model=chance.choice("ab"),
            outcome=chance.choice(["completed", "failed", "interrupted", "cancelled", "incomplete"]),
            saved_nanousd=number,
            entries=(
                entry_of(
                    f"r{number}", model=chance.choice("ab"), cost_nanousd=chance.choice([None, 5]), kind="estimate"
                ),
            ),
        )
        for number in range(60)
    ]
    pairs = [(record, record.entries[0]) for record in records]
    rows = [as_columns(tables.rollups, row) for row in rollup_rows(records, pairs)]
    keys = [tuple(row[name] for name in tables.ROLLUP_KEY) for row in rows]
    assert keys == sorted(set(keys))
    for row in rows:
        of_records = [r for r in records if (r.team_id, r.model) == (row["team_id"], row["model"])]
        of_entries = [e for r, e in pairs if (r.team_id, e.model) == (row["team_id"], row["model"])]
        assert row["requests"] == len(of_records)
        assert row["failed"] == sum(r.outcome in {"failed", "interrupted"} for r in of_records)
        assert row["saved_nanousd"] == sum(r.saved_nanousd for r in of_records)
        assert row["input_tokens"] == 100 * len(of_entries)
        assert row["cost_nanousd"] == sum(e.cost_nanousd or 0 for e in of_entries)
        assert row["unpriced"] == sum(e.cost_nanousd is None for e in of_entries)
        assert row["estimated"] == len(of_entries)
        assert row["estimated_nanousd"] == row["cost_nanousd"]
    assert rollup_rows([], []) == []
