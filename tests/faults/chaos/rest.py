"""Heals a world, and waits until nothing is owed to anybody."""

from __future__ import annotations

import asyncio
import time

import asyncpg
import httpx

from tests.fakes.forking import run_headgate
from tests.faults.chaos.constants import LOST_NODE_REST_S_MAX, REST_S_MAX
from tests.faults.chaos.servers import environment_of
from tests.faults.chaos.truth import read_books, read_held
from tests.faults.chaos.world import World

LOOK_EVERY_S = 0.5
SLOW_S = 10.0
WRITE_OFF_AFTER_S = 31.0


async def heal(world: World) -> None:
    """Everything runs and reaches everything again."""
    for wires in world.wires.values():
        await asyncio.to_thread(wires.heal)
    world.hot.restore()
    world.ledger.server.resume()
    await world.ledger.start()
    if world.upstream.process is None or world.upstream.process.poll() is not None:
        await world.upstream.start()
    for gateway in world.gateways:
        gateway.resume()
        gateway.empty_disk()
        gateway.start()
    await world.ready()


async def come_to_rest(world: World) -> tuple[float, list[str], list[str]]:
    """How long that took, what was still owed after a while, and what at the end."""
    began_s = time.monotonic()
    slow: list[str] = []
    most_s = LOST_NODE_REST_S_MAX if world.lost_lives else REST_S_MAX
    while True:
        owed = await _owed(world, time.monotonic() - began_s)
        took_s = time.monotonic() - began_s
        if took_s > SLOW_S and not slow:
            slow = owed
        if not owed or took_s > most_s:
            return took_s, slow, owed
        await asyncio.sleep(LOOK_EVERY_S)


async def _owed(world: World, waited_s: float) -> list[str]:
    owed: list[str] = []
    async with httpx.AsyncClient() as client:
        for gateway in world.gateways:
            try:
                metrics = await gateway.metrics(client)
            except httpx.HTTPError as error:
                owed.append(f"{gateway.name} does not answer: {type(error).__name__}")
                continue
            counts = ("headgate_journal_records", "headgate_in_flight")
            owed += [f"{gateway.name} {name} {metrics[name]:.0f}" for name in counts if metrics[name]]
            owed += [
                f"{gateway.name} {name}"
                for name, value in metrics.items()
                if name.startswith("headgate_degraded") and value
            ]
    held = await asyncio.to_thread(read_held, world.hot)
    owed += [f"due in {tag}: {len(ids)} ({ids[0]})" for tag, ids in held.due.items()]
    owed += [f"leases in {key}: {ids}" for key, ids in held.leases.items()]
    owed += [f"reservation {each[:120]}" for each in held.open_or_done[:3]]
    try:
        books = await read_books(world.ledger.url)
    except (OSError, asyncpg.PostgresError, TimeoutError) as error:
        return [*owed, f"SQL: {type(error).__name__}"]
    owed += [
        f"{budget_id} in {tag}: {fields}"
        for (tag, budget_id, _), fields in held.budgets.items()
        if int(fields.get("e", 0)) == books.epoch and not is_at_rest(fields)
    ]
    if not books.epochs_open:
        owed.append(f"epoch {books.epoch} is not open")
    lost = [each for each in books.unclosed if each in world.lost_processes]
    if len(books.unclosed) - len(lost) > len(world.gateways):
        owed.append(f"{len(books.unclosed)} processes are not closed")
    if lost:
        owed.append(f"{len(lost)} processes were lost with their disk")
        if waited_s > WRITE_OFF_AFTER_S:
            await _write_off(world, lost)
    return owed


def is_at_rest(fields: dict[str, str]) -> bool:
    """Whether a budget counts nothing but what SQL has."""
    stand_ins = [value for name, value in fields.items() if name.startswith("s:")]
    return all(each == "0" for each in (fields.get("u", "0"), fields.get("h", "0"), *stand_ins))


async def _write_off(world: World, process_ids: list[str]) -> None:
    """What an operator does about a host that never comes back."""
    environment = environment_of(HEADGATE_DATABASE_URL=world.ledger.url)
    for process_id in process_ids:
        await asyncio.to_thread(run_headgate, ["processes", "write-off", process_id], environment=environment)
