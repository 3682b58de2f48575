"""The bill against the upstream's own log: every attempt exactly one charge or estimate, and nothing else."""

from __future__ import annotations

import asyncio
import json
import random

import httpx
import pytest
from openai import APIError, AsyncOpenAI

from tests.fakes.gateway import SIMULATED, RunningGateway

REQUESTS = 1000
AT_ONCE = 200
GENEROUS = SIMULATED + "stream: {drain_s_max: 600, drain_usd_max: 100}\n"


async def one_request(client: AsyncOpenAI, number: int, gate: asyncio.Semaphore, chance: random.Random) -> None:
    leaves = chance.random() < 0.1
    stream = chance.random() < 0.5
    pace_ms = chance.choice((0, 0, 5, 20))
    text = f"[[sim: tokens={chance.randint(5, 60)} pace_ms={pace_ms}]] request {number}"
    leave_after_s = chance.random() * 0.3
    async with gate:
        work = asyncio.ensure_future(ask(client, text, stream, chance.choice(("responses", "chat"))))
        if not leaves:
            await work
            return
        done, _ = await asyncio.wait({work}, timeout=leave_after_s)
        if not done:
            work.cancel()
        await asyncio.gather(work, return_exceptions=True)


async def ask(client: AsyncOpenAI, text: str, stream: bool, family: str) -> None:
    if family == "responses":
        answer = await client.responses.create(model="sim-large", input=text, stream=stream)
    else:
        more = {"stream_options": {"include_usage": True}} if stream else {}
        answer = await client.chat.completions.create(
            model="sim-large", messages=[{"role": "user", "content": text}], stream=stream, **more
        )
    if stream:
        async for _ in answer:
            pass


async def mixed_load(gateway: RunningGateway, seed: int) -> None:
    chance = random.Random(seed)
    gate = asyncio.Semaphore(AT_ONCE)
    async with AsyncOpenAI(base_url=gateway.base_url, api_key=gateway.key, max_retries=0, timeout=240) as client:
        await asyncio.gather(*(one_request(client, number, gate, chance) for number in range(REQUESTS)))


async def truth_of(gateway: RunningGateway) -> dict[str, dict]:
    transport = httpx.AsyncHTTPTransport(uds=str(gateway.data_dir / "simulator.sock"))
    async with httpx.AsyncClient(transport=transport, base_url="http://simulator", timeout=30) as client:
        served = (await client.get("/simulator/log")).json()
    return {row["attempt_id"]: row for row in served["entries"] if row["attempt_id"]}


async def settled(gateway: RunningGateway) -> None:
    """Wait until nothing is in flight and the ledger has it all."""
    for _ in range(600):
        metrics = gateway.metrics()
        if metrics["headgate_in_flight"] == 0 and metrics["headgate_journal_records"] == 0:
            return
        await asyncio.sleep(0.1)
    raise AssertionError("requests are left")


@pytest.mark.parametrize("config", [GENEROUS, SIMULATED], ids=["drain_raised", "defaults"])
async def test_a_thousand_mixed_requests_a_tenth_of_them_leaving(tmp_path, config):
    # Two hundred clients of one process connect at once; on a busy machine some send their head long after that.
    patient = config.replace("drain_delay_s: 0", "drain_delay_s: 0, head_timeout_s: 300, body_timeout_s: 300")
    assert patient != config
    with RunningGateway(tmp_path, patient) as gateway:
        await mixed_load(gateway, seed=20261120)
        await settled(gateway)
        truth = await truth_of(gateway)
        records = gateway.records()
        entries = [entry for record in records for entry in record["entries"]]

        billed = {attempt_id for attempt_id, row in truth.items() if row["billed"]}
        primary = {entry["attempt_id"]: entry for entry in entries if entry["kind"] in {"charge", "estimate"}}
        assert len(primary) == sum(entry["kind"] in {"charge", "estimate"} for entry in entries)
        assert set(primary) == billed
        assert {entry["attempt_id"] for entry in entries} <= set(truth)
        assert len(records) > REQUESTS * 0.9
        assert any(record["outcome"] == "disconnected" for record in records)

        estimates = 0
        for attempt_id, entry in primary.items():
            usage = truth[attempt_id]["usage"]
            cost = price(usage)
            if entry["kind"] == "charge":
                assert (entry["input_tokens"], entry["output_tokens"]) == (
                    usage["input_tokens"],
                    usage["output_tokens"],
                )
                assert entry["cost_nanousd"] == cost
            else:
                estimates += 1
                assert entry["cost_lower_nanousd"] <= cost <= entry["cost_upper_nanousd"]
                assert entry["cost_nanousd"] >= cost
        if config is GENEROUS:
            assert estimates == 0
        assert gateway.check_ledger()["ok"]
        assert gateway.stop() == 0


def price(usage: dict) -> int:
    """sim-large: 2.00, 0.50 and 8.00 dollars per million; whole nano-dollars, so nothing is rounded."""
    plain = usage["input_tokens"] - usage["cached_tokens"]
    return plain * 2000 + usage["cached_tokens"] * 500 + usage["output_tokens"] * 8000


async def test_tight_drain_limits_make_estimates_that_bracket_the_truth(tmp_path):
    config = SIMULATED + "stream: {drain_s_max: 0.2, drain_usd_max: 0.0001}\n"
    with RunningGateway(tmp_path, config) as gateway:
        async with AsyncOpenAI(base_url=gateway.base_url, api_key=gateway.key, max_retries=0) as client:

            async def leave(number: int) -> None:
                stream = await client.responses.create(
                    model="sim-large", input=f"[[sim: tokens=500 pace_ms=10]] {number}", stream=True
                )
                async for event in stream:
                    if event.type == "response.output_text.delta":
                        break
                await stream.close()

            await asyncio.gather(*(leave(number) for number in range(30)))
        await settled(gateway)
        truth = await truth_of(gateway)
        records = gateway.records(wait_for=30)
        assert [record["outcome"] for record in records] == ["disconnected"] * 30
        for record in records:
            (entry,) = record["entries"]
            cost = price(truth[entry["attempt_id"]]["usage"])
            assert entry["kind"] == "estimate"
            assert entry["cost_lower_nanousd"] <= cost <= entry["cost_nanousd"] <= entry["cost_upper_nanousd"]
            assert truth[entry["attempt_id"]]["outcome"] == "disconnected"


async def test_a_killed_gateway_loses_nothing(tmp_path):
    with RunningGateway(tmp_path) as gateway:
        async with AsyncOpenAI(base_url=gateway.base_url, api_key=gateway.key, max_retries=0) as client:
            tasks = [
                asyncio.ensure_future(ask(client, f"[[sim: tokens=1000 pace_ms=20]] {number}", True, "responses"))
                for number in range(20)
            ]
            done = [client.responses.create(model="sim-large", input=f"{number}") for number in range(20)]
            await asyncio.gather(*done)
            while gateway.metrics()["headgate_in_flight"] < 20:
                await asyncio.sleep(0.05)
            gateway.kill()
            results = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(result, APIError | httpx.HTTPError | Exception) for result in results)
        gateway.start()
        records = gateway.records(wait_for=40)
        kinds = sorted((record["outcome"], record["entries"][0]["kind"]) for record in records)
        assert kinds == [("completed", "charge")] * 20 + [("interrupted", "estimate")] * 20
        assert gateway.check_ledger()["ok"]
        interrupted = [record for record in records if record["outcome"] == "interrupted"]
        assert all(json.loads(record["decision"])["sent"] == "unknown" for record in interrupted)


STEERED = [
    {"usage": usage, "stream": stream, "family": family}
    for usage in ("missing", "null", "negative", "float", "string", "huge", "cached_above_input")
    for stream in (False, True)
    for family in ("responses", "chat")
]


async def test_usage_that_is_missing_or_absurd_makes_estimates_that_bracket_the_truth(tmp_path):
    with RunningGateway(tmp_path) as gateway:
        async with AsyncOpenAI(base_url=gateway.base_url, api_key=gateway.key, max_retries=0) as client:
            for case in STEERED:
                text = f"[[sim: tokens=60 usage={case['usage']}]] Say something of some length, please."
                await ask(client, text, case["stream"], case["family"])
            chat = {"model": "gpt-5-mini", "messages": [{"role": "user", "content": "Say hi."}], "stream": True}
            async for _ in await client.chat.completions.create(**chat, reasoning_effort="low"):
                pass
        await settled(gateway)
        truth = await truth_of(gateway)
        records = gateway.records(wait_for=len(STEERED) + 1)
        assert len(records) == len(STEERED) + 1
        for record in records:
            (entry,) = record["entries"]
            usage = truth[entry["attempt_id"]]["usage"]
            assert entry["kind"] == "estimate", record["request_id"]
            if record["model"] == "sim-large":
                cost = price(usage)
                assert entry["cost_lower_nanousd"] <= cost <= entry["cost_nanousd"] <= entry["cost_upper_nanousd"]
            assert usage["output_tokens"] <= entry["output_tokens"] < 8000, "not below the truth, and not absurd"
