"""One story, from its first request to its verdict."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import asyncpg
import msgspec

from tests.fakes.forking import run_headgate
from tests.fakes.postgres import PostgresServer
from tests.faults.chaos.clients import Crowd
from tests.faults.chaos.gateways import Gateway
from tests.faults.chaos.mishaps import MISHAPS
from tests.faults.chaos.oracles import LEASE_S, Evidence, judge
from tests.faults.chaos.rest import come_to_rest, heal
from tests.faults.chaos.servers import environment_of
from tests.faults.chaos.story import Story
from tests.faults.chaos.truth import read_books, read_held, read_served
from tests.faults.chaos.world import REBUILT_S, Setting, Span, World, running_world
from tests.faults.chaos.zones import next_midnight_s

WATCH_EVERY_S = 0.25
TAIL_S = 1.5
CLOSED_BY = {"redis", "limits"}
GAP_S = 0.3
START_S_MAX = 15.0
OF_ANOTHER_CAUSE_S = 15.0


class Verdict(msgspec.Struct):
    """``closed_s``: each span in which a gateway decided no strict limits; ``rebuilt_s``: how long that lasted once
    Valkey was back; ``rolled``: a day ended in the
    middle; ``broken`` names oracles.
    """

    seed: int
    faults: list[str] = []
    asked: int = 0
    admitted: int = 0
    billed: int = 0
    estimates: int = 0
    adjusts: int = 0
    unsent: int = 0
    lost: int = 0
    refused: dict[str, int] = {}
    epochs: int = 0
    losses: int = 0
    closed_s: list[float] = []
    rebuilt_s: list[float] = []
    rolled: bool = False
    rest_s: float = 0.0
    slow: list[str] = []
    took_s: float = 0.0
    broken: list[str] = []


async def run_story(story: Story, server: PostgresServer, *, keep: bool = False) -> Verdict:
    """Tells it, and judges what is left. ``keep`` leaves the folder of logs behind."""
    began_s = time.monotonic()
    verdict = Verdict(story.seed)
    if story.midnight_at_s is not None and next_midnight_s() - time.time() < story.midnight_at_s + START_S_MAX:
        # Too late for this one.
        await asyncio.sleep(next_midnight_s() - time.time())
    setting = Setting(
        seed=story.seed,
        persistence=story.persistence,
        small_disk_mib=story.small_disk_mib,
        tracer=story.tracer,
        on_disconnect=story.on_disconnect,
    )
    async with running_world(setting, server) as world:
        crowd = Crowd(str(story.seed), world.people, world.gateways, story.clients, story.think_s)
        peaks: dict[tuple[str, int], int] = {}
        watching = asyncio.create_task(watch_budgets(world, peaks))
        try:
            await _tell(world, story, crowd)
            await heal(world)
            verdict.rest_s, verdict.slow, owed = await come_to_rest(world)
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
            if keep:
                world.keep(verdict.seed)
        verdict.broken += [f"6: not at rest after {verdict.rest_s:.0f} s: {each}" for each in owed[:8]]
        await _conclude(world, crowd, peaks, verdict)
        verdict.took_s = time.monotonic() - began_s
    return verdict


async def _tell(world: World, story: Story, crowd: Crowd) -> None:
    if story.midnight_at_s is not None:
        await asyncio.sleep(max(0.0, world.midnight_s - story.midnight_at_s - time.time()))
    began_s = time.monotonic()
    over = asyncio.Event()

    async def befall(number: int, at_s: float, name: str) -> None:
        await asyncio.sleep(at_s)
        world.tell(f"[{time.monotonic() - began_s:.1f}]")
        await MISHAPS[name](world, random.Random(f"{story.seed} {number} {name}"))

    asking = asyncio.create_task(crowd.ask(lambda: over.is_set() and time.monotonic() - began_s > story.load_s))
    befalling = [
        asyncio.create_task(befall(number, event.at_s, event.name)) for number, event in enumerate(story.events)
    ]
    try:
        await asyncio.gather(*befalling)
        await asyncio.sleep(TAIL_S)
        over.set()
        await asking
    finally:
        for task in (asking, *befalling):
            task.cancel()
        await asyncio.gather(asking, *befalling, return_exceptions=True)


async def watch_budgets(world: World, peaks: dict[tuple[str, int], int]) -> None:
    """The most that SQL ever has of each window."""
    while True:
        try:
            async with asyncio.timeout(2):
                connection = await asyncpg.connect(world.ledger.url)
                try:
                    while True:
                        for row in await connection.fetch("SELECT budget_id, start_ms, spent_nanousd FROM budgets"):
                            window = row["budget_id"], row["start_ms"]
                            peaks[window] = max(peaks.get(window, 0), row["spent_nanousd"])
                        async with asyncio.timeout(WATCH_EVERY_S * 8):
                            await asyncio.sleep(WATCH_EVERY_S)
                finally:
                    connection.terminate()
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError):
            await asyncio.sleep(WATCH_EVERY_S)


async def gather_evidence(world: World, crowd: Crowd, peaks: dict[tuple[str, int], int]) -> tuple[Evidence, list[str]]:
    """What is known of a world at rest, whose gateways are stopped for it; and what did not go well with that."""
    held = await asyncio.to_thread(read_held, world.hot)
    codes = await asyncio.gather(*(gateway.stop() for gateway in world.gateways))
    broken = [f"{gateway.name} exits with {code}" for gateway, code in zip(world.gateways, codes, strict=True) if code]
    world.upstream.kill()
    silence_s = max((until_s - from_s for from_s, until_s in world.silent), default=0.0)
    # Whoever could not speak while the hot state was built anew could not put its leases back.
    missed = any(
        from_s <= at_s + REBUILT_S and at_s <= until_s for at_s in world.losses for from_s, until_s in world.mute
    )
    evidence = Evidence(
        served=read_served(world.upstream.logs, world.prices),
        books=await read_books(world.ledger.url),
        held=held,
        told=crowd.told,
        people=world.people,
        losses=len(world.losses),
        longest_silence_s=silence_s,
        may_lose_leases=silence_s > LEASE_S or missed,
        peaks=peaks,
        unsafe_lives=world.unsafe_lives,
        prices=world.prices,
        days=world.days,
    )
    broken += await check_ledger(HEADGATE_DATABASE_URL=world.ledger.url)
    for gateway in world.gateways:
        broken += faults_in_log(gateway)
    return evidence, broken


async def _conclude(world: World, crowd: Crowd, peaks: dict[tuple[str, int], int], verdict: Verdict) -> None:
    evidence, broken = await gather_evidence(world, crowd, peaks)
    books, served = evidence.books, evidence.served
    verdict.broken += [*judge(evidence), *broken]
    if not books.records:
        verdict.broken.append("nothing was admitted")
    if not world.applied:
        verdict.broken.append("no fault was applied")
    verdict.faults = told_faults(world.applied)
    verdict.asked = len(crowd.told)
    verdict.admitted = len(books.records)
    verdict.billed = sum(each.billed for each in served.values())
    verdict.estimates = sum(attempt.kind == "estimate" for attempt in books.attempts.values())
    verdict.adjusts = sum(len(attempt.adjusts) for attempt in books.attempts.values())
    verdict.lost = sum(evidence.is_excused(each) for each in served.values())
    verdict.unsent = sum(attempt_id not in served for attempt_id in books.attempts)
    verdict.refused = dict(crowd.codes())
    verdict.epochs = books.epoch
    verdict.losses = len(world.losses)
    for gateway in world.gateways:
        spans = closed_spans(gateway)
        verdict.closed_s += [span.length_s for span in spans]
        verdict.rebuilt_s += rebuilt_s(spans, world.outages)
    begun = {start_ms for record in books.records.values() for _, start_ms in record["windows"]}
    verdict.rolled = begun.issuperset(world.days)


async def check_ledger(**environment: str) -> list[str]:
    """What ``headgate check --ledger`` has to say, if it is not content."""
    arguments = ["check", "--ledger", "--json"]
    done = await asyncio.to_thread(run_headgate, arguments, environment=environment_of(**environment))
    return [f"5: check --ledger: {done.stdout} {done.stderr}"] if done.returncode else []


def told_faults(applied: Sequence[str]) -> list[str]:
    """Moments and what happened then, in one text each."""
    found: list[str] = []
    for text in applied:
        if found and found[-1].endswith("]"):
            found[-1] += f" {text}"
        else:
            found.append(text)
    return found


def lines_of(gateway: Gateway) -> list[dict[str, Any]]:
    """Its log; what is no JSON stands under ``raw``."""
    found: list[dict[str, Any]] = []
    for line in gateway.log_path.read_text(errors="replace").splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            found.append({"raw": line})
    return found


def faults_in_log(gateway: Gateway) -> list[str]:
    """What no fault of another part may lead to: tracebacks, internal errors, what nobody has caught."""
    found: Counter[str] = Counter()
    for line in lines_of(gateway):
        event = line.get("event", "")
        where = (
            f"{line.get('exception', '')} {line.get('where', '')} {line.get('reason', '')} {line.get('message', '')}"
        )
        if "raw" in line and "Traceback" in line["raw"]:
            found["a traceback"] += 1
        if event in {"uncaught", "library", "upkeep_failed", "redis_script_refused", "ledger_row_refused"}:
            found[f"{event} {where}"] += 1
        if event in {"reservation_unreadable", "ledger_not_drained", "log_lines_dropped"}:
            found[event] += 1
        if "internal_error" in (line.get("code"), line.get("error_code")):
            found[f"internal_error {event} {where}"] += 1
        if event == "dependency_down" and "while confirming" in str(line.get("reason", "")):
            found[str(line["reason"])] += 1
    return [f"{gateway.name} logs {text}, {times} times" for text, times in found.items()]


def closed_spans(gateway: Gateway) -> list[Span]:
    """In which this gateway decided no strict limits, while it ran."""
    spans: list[Span] = []
    down: set[str] = set()
    since_s = last_s = 0.0
    for line in lines_of(gateway):
        if line.get("event") == "chaos: started":
            if down:
                spans.append(Span(since_s, last_s))
            down.clear()
        if "at" not in line:
            continue
        last_s = datetime.fromisoformat(line["at"]).timestamp()
        name = line.get("dependency", "")
        if line.get("event") == "dependency_down" and name in CLOSED_BY:
            since_s = since_s if down else last_s
            down.add(name)
        elif line.get("event") == "dependency_up" and name in down:
            down.discard(name)
            if not down:
                spans.append(Span(since_s, last_s))
    return joined(spans)


def joined(spans: Sequence[Span]) -> list[Span]:
    """As one: those with so little between them that nobody was served."""
    found: list[Span] = []
    for span in spans:
        if found and span.from_s - found[-1].until_s < GAP_S:
            found[-1] = Span(found[-1].from_s, span.until_s)
        else:
            found.append(span)
    return found


def rebuilt_s(spans: Sequence[Span], outages: Sequence[Span]) -> list[float]:
    """How long after Valkey was back this gateway decided strict limits again; or until it was gone once more."""
    found: list[float] = []
    ordered = sorted(outages, key=lambda outage: outage.from_s)
    gone = [*(outage.from_s for outage in ordered), float("inf")][1:]
    for outage, gone_s in zip(ordered, gone, strict=bool(ordered)):
        back_s = outage.until_s
        ends = [min(span.until_s, gone_s) for span in spans if span.from_s < gone_s and span.until_s > back_s]
        if ends and min(ends) - back_s < OF_ANOTHER_CAUSE_S:
            found.append(max(0.0, min(ends) - back_s))
    return found
