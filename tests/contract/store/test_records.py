from __future__ import annotations

import pytest

from app.core.clock import QUARTER_MS
from app.core.ids import new_request_id
from app.core.usage import Usage
from app.store.batch import write_batch
from app.store.objects import owner_of, remember
from app.store.records import count_records, find_record, find_records_of_response, recent_records
from app.store.usage import usage
from tests.contract.store.samples import NOON_MS, entry_of, owned_of, record_of


async def test_a_record_comes_back_with_the_sum_of_its_entries(database):
    request_id = new_request_id(NOON_MS)
    entries = (
        entry_of(request_id, 1, kind="void", upstream="a", usage=Usage(), cost_nanousd=0, price_source=None),
        entry_of(request_id, 2, kind="charge"),
        entry_of(request_id, 3, kind="estimate", cost_nanousd=9, cost_lower_nanousd=4, cost_upper_nanousd=9),
    )
    record = record_of(
        request_id,
        entries=entries,
        attempts=3,
        first_byte_at_ms=NOON_MS + 5,
        end_user="ann",
        tags={"project": "search"},
        model_served="gpt-4.1-mini-2025",
        service_tier="default",
        error_code="x",
        tool_usage='{"web_search":1}',
        usage_raw='{"input_tokens":100}',
        saved_nanousd=3,
        suspect=True,
        decision={"limits": ["requests"], "bound": 5},
    )
    await write_batch(database, [record])
    async with database.read() as connection:
        view = await find_record(connection, request_id)
        assert await find_record(connection, "nobody") is None
    assert view is not None
    same = set(view.__struct_fields__) & set(record.__struct_fields__) - {"entries"}
    assert {name: getattr(view, name) for name in same} == {name: getattr(record, name) for name in same}
    assert view.started_at_ms == record.admitted_at_ms
    assert (view.input_tokens, view.cached_tokens, view.cache_write_tokens) == (200, 80, 10)
    assert (view.output_tokens, view.reasoning_tokens) == (40, 14)
    assert (view.cost_nanousd, view.cost_lower_nanousd, view.cost_upper_nanousd) == (61_009, 61_004, 61_009)
    assert (view.price_source, view.price_version, view.estimated) == ("genai-prices", "0.2.3", True)
    assert [(entry.attempt_id, entry.kind) for entry in view.entries] == [
        (f"{request_id}.1", "void"),
        (f"{request_id}.2", "charge"),
        (f"{request_id}.3", "estimate"),
    ]


@pytest.mark.parametrize(("others", "known"), [((), None), ((0,), None), ((61_000,), 61_000)])
async def test_without_a_price_there_is_no_cost_but_what_sums_have(database, others, known):
    request_id = new_request_id(NOON_MS)
    costs = (*others, None)
    entries = tuple(entry_of(request_id, number, cost_nanousd=cost) for number, cost in enumerate(costs, 1))
    await write_batch(database, [record_of(request_id, entries=entries)])
    async with database.read() as connection:
        view = await find_record(connection, request_id)
        report = await usage(connection, (), NOON_MS - QUARTER_MS, NOON_MS + QUARTER_MS)
    assert view is not None
    assert (view.cost_nanousd, view.cost_lower_nanousd, view.cost_upper_nanousd) == (known, None, None)
    assert (view.unpriced, view.estimated) == (True, False)
    assert (report.total.cost_nanousd, report.total.unpriced) == (known or 0, 1)


async def test_the_last_records_come_first(database):
    records = [record_of(at_ms=NOON_MS + number, team_id=f"t{number % 2}", key_id=f"k{number}") for number in range(6)]
    await write_batch(database, records)
    async with database.read() as connection:
        recent = await recent_records(connection, limit=4)
        of_team = await recent_records(connection, team_id="t1")
        of_key = await recent_records(connection, key_id="k3")
        assert await count_records(connection) == 6
        of_response = await find_records_of_response(connection, records[2].response_id or "")
        assert await recent_records(connection, team_id="nobody") == []
    assert [view.key_id for view in recent] == ["k5", "k4", "k3", "k2"]
    assert [view.key_id for view in of_team] == ["k5", "k3", "k1"]
    assert [view.key_id for view in of_key] == ["k3"]
    assert [view.key_id for view in of_response] == ["k2"]
    assert all(len(view.entries) == 1 for view in recent)


async def test_the_first_owner_of_an_object_keeps_it(database):
    first = owned_of("r1", "resp_1")
    async with database.transaction() as connection:
        await remember(connection, [])
        await remember(connection, [first, owned_of("r2", "resp_1", team_id="thief"), owned_of("r3", "resp_3")])
        await remember(connection, [owned_of("r4", "resp_1", team_id="thief")])
        await remember(connection, [owned_of("r5", "resp_1", upstream="azure", team_id="other")])
    async with database.read() as connection:
        assert await owner_of(connection, "resp_1") == [
            owned_of("r5", "resp_1", upstream="azure", team_id="other"),
            first,
        ]
        assert await owner_of(connection, "resp_2") == []
