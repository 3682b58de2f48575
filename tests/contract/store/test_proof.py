from __future__ import annotations

import pytest
from sqlalchemy import delete, func, insert, select, text, update

from app.core.ids import new_request_id
from app.store.batch import write_batch
from app.store.folding import fold_all, keep_fold
from app.store.folds import LEVELS
from app.store.periods import DAY_MS
from app.store.proof import DIFFERENCES_MAX, prove
from app.store.prune import prune
from app.store.tables import entries, records, rollups, sums
from tests.contract.store.samples import NOON_MS, entry_of, record_of


async def proof_of(database):
    async with database.read() as connection:
        return await prove(connection)


@pytest.fixture
async def written(database):
    first, second = new_request_id(1), new_request_id(1)
    batch = [
        record_of(first, suspect=True, outcome="failed", saved_nanousd=4),
        record_of(second, model="other", entries=(entry_of(second, kind="estimate", cost_nanousd=None),)),
        record_of(),
    ]
    await write_batch(database, batch)
    return batch


async def test_an_empty_ledger_adds_up(database):
    proof = await proof_of(database)
    assert proof.holds
    assert (proof.records, proof.entries, proof.rollups) == (0, 0, 0)


async def test_what_was_written_adds_up_and_is_counted(database, written):
    proof = await proof_of(database)
    assert proof.holds
    assert proof.differences == []
    assert (proof.records, proof.entries, proof.rollups) == (3, 3, 2)
    assert (proof.unpriced, proof.estimated, proof.suspect, proof.poison) == (1, 1, 1, 0)


@pytest.mark.parametrize("column", [c.name for c in rollups.columns][5:])
async def test_a_rollup_that_was_tampered_with_is_found(database, written, column):
    async with database.transaction() as connection:
        await connection.execute(
            update(rollups).where(rollups.c.model == "other").values({column: rollups.c[column] + 1})
        )
    proof = await proof_of(database)
    assert not proof.holds
    assert proof.rollups_different == 1
    (difference,) = proof.differences
    assert (difference.model, difference.excess) == ("other", {column: 1})


async def test_a_missing_rollup_is_found(database, written):
    async with database.transaction() as connection:
        await connection.execute(delete(rollups))
    proof = await proof_of(database)
    assert proof.rollups_different == 2
    assert {difference.excess["requests"] for difference in proof.differences} <= {-1, -2}


async def test_a_deleted_entry_is_found(database, written):
    async with database.transaction() as connection:
        await connection.execute(delete(entries).where(entries.c.request_id == written[0].request_id))
    proof = await proof_of(database)
    assert not proof.holds
    assert (proof.records_without_entry, proof.rollups_different) == (1, 1)
    assert proof.request_ids == [written[0].request_id]


async def test_a_doubled_entry_is_found(database, written):
    async with database.transaction() as connection:
        row = (await connection.execute(select(entries).limit(1))).mappings().one()
        await connection.execute(insert(entries).values({**row, "number": 1}))
    proof = await proof_of(database)
    assert not proof.holds
    assert proof.rollups_different == 1


async def test_a_deleted_record_is_found(database, written):
    async with database.transaction() as connection:
        await connection.execute(delete(records).where(records.c.request_id == written[0].request_id))
    proof = await proof_of(database)
    assert not proof.holds
    assert (proof.entries_without_record, proof.request_ids) == (1, [written[0].request_id])


async def test_an_entry_that_was_moved_to_another_team_is_found(database, written):
    async with database.transaction() as connection:
        await connection.execute(
            update(entries).where(entries.c.request_id == written[0].request_id).values(team_id="thief")
        )
    proof = await proof_of(database)
    assert not proof.holds
    assert (proof.entries_misplaced, proof.rollups_different) == (1, 2)


async def test_a_correction_alone_does_not_stand_for_an_entry(database, written):
    async with database.transaction() as connection:
        await connection.execute(
            update(entries).where(entries.c.request_id == written[0].request_id).values(kind="adjust")
        )
    assert (await proof_of(database)).records_without_entry == 1


async def test_differences_are_counted_and_the_first_are_listed(database):
    await write_batch(database, [record_of(key_id=f"k{number:02}") for number in range(30)])
    async with database.transaction() as connection:
        await connection.execute(update(rollups).values(requests=7))
        await connection.execute(text("DELETE FROM entries"))
    proof = await proof_of(database)
    assert (proof.rollups_different, proof.records_without_entry) == (30, 30)
    assert len(proof.differences) == len(proof.request_ids) == DIFFERENCES_MAX
    assert proof.differences[0].key_id == "k00"


@pytest.fixture
async def folded(database):
    records_ = [
        record_of(at_ms=NOON_MS + day * DAY_MS, tags={"env": "prod"} if day % 2 else {}, key_id=f"k{day % 3}")
        for day in range(0, 60, 5)
    ]
    await write_batch(database, records_)
    for period, zone in (("day", "Europe/Berlin"), ("hour", "0")):
        await keep_fold(database, period, zone, 1)
    await fold_all(database, NOON_MS + 40 * DAY_MS)
    assert (await proof_of(database)).holds
    return records_


@pytest.mark.parametrize("level", [level.number for level in LEVELS])
async def test_a_sum_that_was_tampered_with_is_found(database, folded, level):
    async with database.transaction() as connection:
        count = (await connection.execute(select(func.count()).select_from(sums).where(sums.c.level == level))).scalar()
        here = sums.c.level == level
        first = (await connection.execute(select(sums.c.start).where(here).order_by(sums.c.start).limit(1))).scalar()
        await connection.execute(
            update(sums).where(here, sums.c.start == first, sums.c.tag == "").values(failed=sums.c.failed + 3)
        )
    proof = await proof_of(database)
    assert not proof.holds
    assert proof.sums_different >= 1
    assert proof.sum_differences[0].excess == {"failed": 3}
    async with database.transaction() as connection:
        await connection.execute(delete(sums).where(here))
    proof = await proof_of(database)
    assert proof.sums_different == count
    assert {difference.excess["requests"] < 0 for difference in proof.sum_differences} == {True}


async def test_sums_by_tag_are_proven_by_records_as_far_as_there_are_any(database, folded):
    async with database.transaction() as connection:
        await connection.execute(update(sums).where(sums.c.tag == "env").values(cost_nanousd=sums.c.cost_nanousd + 1))
        tagged = select(func.count()).select_from(sums).where(sums.c.tag == "env")
        count = (await connection.execute(tagged)).scalar()
    assert (await proof_of(database)).sums_different == count
    await prune(database, NOON_MS + 90 * DAY_MS)
    proof = await proof_of(database)
    assert (proof.holds, proof.records, proof.sums > 0) == (True, 0, True)
