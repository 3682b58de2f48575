"""Repricing: what had no price gets one, once, by entries that correct it; sums and budgets follow."""

from __future__ import annotations

import asyncio
import threading

from sqlalchemy import func, select

from app.core.clock import QUARTER_MS
from app.core.ids import new_request_id
from app.core.money import NANO_PER_USD
from app.core.records import BudgetWindow
from app.core.usage import Usage
from app.store import reprice as repricing
from app.store.batch import write_batch
from app.store.budgets import read_budgets
from app.store.database import Database
from app.store.proof import prove
from app.store.records import find_record
from app.store.reprice import Found, reprice
from app.store.tables import entries
from app.store.usage import usage
from tests.contract.store.samples import NOON_MS, entry_of, record_of

END_MS = NOON_MS + 10 * QUARTER_MS
LATER_MS = NOON_MS + 100 * QUARTER_MS
USED = Usage(input_tokens=100, output_tokens=20, web_searches=2)
EXACT = Usage(input_tokens=90, output_tokens=5, code_sessions=1)
WINDOW = BudgetWindow("default.team.budget_usd_per_month.UTC:team000001", 1_793_491_200_000)
NO_PRICE = {"cost_nanousd": None, "price_source": None, "price_version": None}


def cost_of(used):
    """Every bucket has a price of its own, so that none can be left out."""
    weights = range(1, 1000)
    return sum(weight * units for weight, units in zip(weights, _units(used), strict=False))


def _units(used):
    return [getattr(used, name) for name in Usage.__struct_fields__]


class Prices:
    """Prices of some models; remembers what was asked."""

    def __init__(self, *models, factor=1):
        self.models = models
        self.factor = factor
        self.asked = []

    def __call__(self, asked):
        self.asked.append(asked)
        if (asked.model_served or asked.model) not in self.models:
            return None
        return Found(self.factor * cost_of(asked.usage), "override", f"x{self.factor}")


def unpriced_record(request_id=None, model="new", **changes):
    request_id = request_id or new_request_id(NOON_MS)
    given = {"usage": USED, "model": model, **NO_PRICE, **changes.pop("entry", {})}
    return record_of(
        request_id,
        model=model,
        model_served=changes.pop("model_served", model),
        entries=(entry_of(request_id, **given),),
        budgets=(WINDOW,),
        **changes,
    )


async def total(database):
    async with database.read() as connection:
        proof = await prove(connection)
        assert proof.holds, proof
        (row,) = (await usage(connection, (), 0, 2 * NOON_MS)).rows
        assert proof.unpriced == row.unpriced
    return row


async def spent(database):
    async with database.transaction() as connection:
        return (await read_budgets(connection, [("team000001", WINDOW)]))[WINDOW]


async def view_of(database, request_id):
    async with database.read() as connection:
        return await find_record(connection, request_id)


async def run(database, prices, **options):
    return await reprice(database, prices, 0, END_MS, LATER_MS, **options)


async def test_an_unpriced_attempt_is_priced_by_its_units(database):
    record = unpriced_record(entry={"service_tier": "flex"})
    await write_batch(database, [record, record_of(budgets=(WINDOW,))])
    before, (spent_before, version) = await total(database), await spent(database)
    assert (before.unpriced, before.cost_nanousd) == (1, 61_000)
    prices = Prices("new")
    done = await run(database, prices)
    assert (done.attempts, done.cost_nanousd, done.unpriced) == (1, cost_of(USED), 0)
    (asked,) = prices.asked
    assert (asked.upstream, asked.model, asked.service_tier) == ("openai", "new", "flex")
    assert (asked.admitted_at_ms, asked.usage) == (NOON_MS, USED)
    after = await total(database)
    assert (after.unpriced, after.cost_nanousd) == (0, 61_000 + cost_of(USED))
    assert (after.requests, after.input_tokens) == (before.requests, before.input_tokens)
    assert await spent(database) == (spent_before + cost_of(USED), version + 1)
    view = await view_of(database, record.request_id)
    assert view.cost_nanousd == view.cost_lower_nanousd == view.cost_upper_nanousd == cost_of(USED)
    assert [(each.kind, each.reason, each.number, each.created_at_ms) for each in view.entries] == [
        ("charge", "", 0, record.ended_at_ms),
        ("adjust", "reprice", 0, LATER_MS),
    ]
    assert (view.price_source, view.price_version, view.entries[1].service_tier) == ("override", "x1", "flex")


async def test_a_second_run_changes_nothing_whatever_prices_say(database):
    await write_batch(database, [unpriced_record() for _ in range(3)])
    await run(database, Prices("new"))
    before, budget = await total(database), await spent(database)
    done = await run(database, Prices("new", factor=9))
    assert (done.attempts, done.cost_nanousd, done.unpriced) == (0, 0, 0)
    assert await total(database) == before
    assert await spent(database) == budget


async def test_two_at_once_price_each_attempt_once(database_url, monkeypatch):
    monkeypatch.setattr(repricing, "BATCH_ATTEMPTS", 7)
    monkeypatch.setattr(repricing, "PAUSE_MIN_S", 0.001)
    databases = [await Database.open(database_url) for _ in range(3)]
    rows = [unpriced_record(at_ms=NOON_MS + number * 60_000, key_id=f"k{number % 3}") for number in range(60)]
    await write_batch(databases[0], rows)
    async with asyncio.timeout(30):
        done = await asyncio.gather(*[run(each, Prices("new", factor=2)) for each in databases])
    assert sum(each.attempts for each in done) == 60
    assert sum(each.cost_nanousd for each in done) == 120 * cost_of(USED)
    row = await total(databases[0])
    assert (row.unpriced, row.cost_nanousd) == (0, 120 * cost_of(USED))
    assert (await spent(databases[0]))[0] == 120 * cost_of(USED)
    for each in databases:
        await each.close()


async def test_beside_gateways_that_write(database_url, monkeypatch):
    """They add to the same rollups and the same budget, and correct the same estimates."""
    monkeypatch.setattr(repricing, "BATCH_ATTEMPTS", 5)
    monkeypatch.setattr(repricing, "PAUSE_MIN_S", 0.001)
    ours, theirs = [await Database.open(database_url) for _ in range(2)]
    estimates = [unpriced_record(entry={"kind": "estimate"}) for _ in range(40)]
    await write_batch(theirs, estimates)

    async def write():
        for record in estimates:
            exact = entry_of(record.request_id, usage=EXACT, model="new", **NO_PRICE)
            changed = record_of(record.request_id, model="new", entries=(exact,), budgets=(WINDOW,))
            await write_batch(theirs, [changed, record_of(budgets=(WINDOW,))])

    async with asyncio.timeout(60):
        await asyncio.gather(write(), run(ours, Prices("new")), run(ours, Prices("new")))
    await total(ours)
    # What was corrected after it had been priced is priced again, as the units are now.
    await run(ours, Prices("new"))
    row = await total(ours)
    assert (row.unpriced, row.estimated) == (0, 0)
    assert row.cost_nanousd == 40 * cost_of(EXACT) + 40 * 61_000
    assert (await run(ours, Prices("new"))).attempts == 0
    assert (await spent(ours))[0] == row.cost_nanousd
    for each in (ours, theirs):
        await each.close()


async def test_an_exact_outcome_that_comes_while_it_is_priced_has_to_wait(database_url):
    """Between reading an attempt's units and writing its price nobody may correct it."""
    request_id = new_request_id(NOON_MS)
    exact = entry_of(request_id, usage=EXACT, model="new", cost_nanousd=7)
    changed = record_of(request_id, model="new", entries=(exact,), budgets=(WINDOW,))
    ours = await Database.open(database_url)
    await write_batch(ours, [unpriced_record(request_id, entry={"kind": "estimate"})])

    async def correct():
        theirs = await Database.open(database_url)
        await write_batch(theirs, [changed])
        await theirs.close()

    thread = threading.Thread(target=asyncio.run, args=(correct(),))

    class SlowPrices(Prices):
        def __call__(self, asked):
            thread.start()
            thread.join(1)
            return super().__call__(asked)

    assert (await run(ours, SlowPrices("new"))).attempts == 1
    thread.join(30)
    row = await total(ours)
    assert (row.unpriced, row.estimated, row.cost_nanousd) == (0, 0, 7)
    assert (await spent(ours))[0] == 7
    await ours.close()


async def test_what_has_no_price_still_stays_and_is_told(database):
    rows = [unpriced_record(model=model) for model in ("new", "odd", "odd", "rare")]
    await write_batch(database, rows)
    done = await run(database, Prices("new"))
    assert (done.attempts, done.unpriced, done.unpriced_models) == (1, 3, {"odd": 2, "rare": 1})
    assert (await total(database)).unpriced == 3
    done = await run(database, Prices("new", "odd", "rare"))
    assert (done.attempts, done.unpriced, done.unpriced_models) == (3, 0, {})
    assert (await total(database)).unpriced == 0


async def test_only_what_was_asked_for(database):
    spread = [unpriced_record(at_ms=NOON_MS + number * QUARTER_MS + 5) for number in range(4)]
    await write_batch(database, [*spread, unpriced_record(model="alias", model_served="new-2026"), unpriced_record()])
    prices = Prices("new", "new-2026")
    done = await reprice(database, prices, NOON_MS + QUARTER_MS + 5, NOON_MS + 3 * QUARTER_MS + 5, LATER_MS)
    assert done.attempts == 2
    assert (await view_of(database, spread[0].request_id)).cost_nanousd is None
    assert (await run(database, prices, matches=lambda name: name == "other")).attempts == 0
    assert (await run(database, prices, matches=lambda name: name == "new-2026")).attempts == 1
    assert (await run(database, prices, matches=lambda name: name == "new")).attempts == 3
    assert (await total(database)).unpriced == 0


async def test_an_estimate_whose_exact_outcome_has_no_price(database):
    """The money of the estimate stays until there is a price; then the attempt costs what it used."""
    request_id = new_request_id(NOON_MS)
    estimate = entry_of(
        request_id,
        kind="estimate",
        model="new",
        usage=USED,
        cost_nanousd=500,
        cost_lower_nanousd=100,
        cost_upper_nanousd=9000,
    )
    exact = entry_of(request_id, model="new", usage=EXACT, **NO_PRICE)
    for entry in (estimate, exact):
        await write_batch(database, [record_of(request_id, model="new", entries=(entry,), budgets=(WINDOW,))])
    row = await total(database)
    assert (row.unpriced, row.cost_nanousd) == (1, 500)
    assert (await run(database, Prices("new"))).attempts == 1
    row = await total(database)
    assert (row.unpriced, row.estimated, row.cost_nanousd) == (0, 0, cost_of(EXACT))
    view = await view_of(database, request_id)
    assert view.cost_nanousd == view.cost_lower_nanousd == view.cost_upper_nanousd == cost_of(EXACT)
    assert (await spent(database))[0] == cost_of(EXACT)
    assert (await run(database, Prices("new", factor=2))).attempts == 0


async def test_an_exact_outcome_that_comes_after_the_price(database):
    """With a price of its own it is the last word; without one it is priced once more."""
    for priced in (True, False):
        request_id = new_request_id(NOON_MS)
        exact = entry_of(request_id, model="new", usage=EXACT, **({"cost_nanousd": 7} if priced else NO_PRICE))
        estimate = unpriced_record(request_id, entry={"kind": "estimate"})
        await write_batch(database, [estimate])
        assert (await run(database, Prices("new"))).attempts == 1
        await write_batch(database, [record_of(request_id, model="new", entries=(exact,), budgets=(WINDOW,))])
        assert (await total(database)).estimated == 0
        again = await run(database, Prices("new", factor=3))
        assert again.attempts == (0 if priced else 1)
        view = await view_of(database, request_id)
        assert view.cost_nanousd == (7 if priced else 3 * cost_of(EXACT))
        assert (await total(database)).unpriced == 0
        assert (await run(database, Prices("new", factor=5))).attempts == 0


async def test_of_several_attempts_the_served_model_is_the_last_ones(database):
    request_id = new_request_id(NOON_MS)
    two = tuple(entry_of(request_id, number, usage=USED, model=f"m{number}", **NO_PRICE) for number in (1, 2))
    await write_batch(database, [record_of(request_id, entries=two, attempts=2, model="m2", model_served="served")])
    prices = Prices("served", "m1")
    assert (await run(database, prices)).attempts == 2
    assert [(asked.model, asked.model_served) for asked in prices.asked] == [("m1", None), ("m2", "served")]
    await total(database)


async def test_what_costs_nothing_is_priced_too(database):
    await write_batch(database, [unpriced_record()])
    assert (await run(database, Prices("new", factor=0))).attempts == 1
    assert (await total(database)).unpriced == 0
    assert (await run(database, Prices("new", factor=0))).attempts == 0


async def test_where_all_is_priced_nothing_is_written(database):
    await write_batch(database, [record_of(entries=(entry_of("x", cost_nanousd=NANO_PER_USD),))])
    assert (await run(database, Prices())).unpriced == 0
    async with database.read() as connection:
        assert (await connection.execute(select(func.count()).select_from(entries))).scalar_one() == 1
