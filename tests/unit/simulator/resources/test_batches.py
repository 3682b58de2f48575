from __future__ import annotations

import asyncio
import json

import openai
import pytest

from app.simulator.app import Simulator
from app.simulator.resources.batches import _lines_of
from app.simulator.resources.blobs import Blob
from app.simulator.server import running_simulator


def line(custom_id, body, url="/v1/responses"):
    return {"custom_id": custom_id, "method": "POST", "url": url, "body": body}


async def begin(client, lines, endpoint="/v1/responses", **members):
    data = "\n".join(json.dumps(one) for one in lines).encode()
    file = await client.files.create(file=("in.jsonl", data), purpose="batch")
    return await client.batches.create(input_file_id=file.id, endpoint=endpoint, completion_window="24h", **members)


async def ended(client, batch):
    for _ in range(500):
        batch = await client.batches.retrieve(batch.id)
        if batch.status not in ("validating", "in_progress", "finalizing"):
            return batch
        await asyncio.sleep(0.01)
    raise AssertionError(batch)


def entry_of(simulator, batch):
    (entry,) = simulator.log.find(wanted_id=batch.id)
    return entry


async def test_a_batch_is_answered_line_by_line_and_billed_once(client, simulator):
    lines = [line(f"ask-{number}", {"model": "sim-mini", "input": f"{number}+1"}) for number in range(40)]
    lines.append(line("bad", {"model": "sim-mini"}))
    begun = await begin(client, lines, metadata={"team": "a"})
    assert (begun.status, begun.usage, begun.object) == ("validating", None, "batch")
    before = simulator.log.last_number
    done = await ended(client, begun)
    assert simulator.log.last_number == before
    assert (done.status, done.metadata, done.model) == ("completed", {"team": "a"}, "sim-mini")
    assert done.request_counts.to_dict() == {"total": 41, "completed": 40, "failed": 1}
    output = [json.loads(text) for text in (await client.files.content(done.output_file_id)).text.splitlines()]
    assert [one["custom_id"] for one in output] == [f"ask-{number}" for number in range(40)]
    assert output[3]["response"]["body"]["output"][0]["content"][0]["text"] == "3 + 1 equals 4."
    (failed,) = (await client.files.content(done.error_file_id)).text.splitlines()
    assert json.loads(failed)["response"]["status_code"] == 400
    entry = entry_of(simulator, done)
    assert (entry.endpoint, entry.outcome, entry.billed, entry.service_tier) == ("batches", "completed", True, "batch")
    told = [one["response"]["body"]["usage"] for one in output]
    for name in ("input_tokens", "output_tokens"):
        total = sum(usage[name] for usage in told)
        assert getattr(done.usage, name) == getattr(entry.usage, name) == total > 0


@pytest.mark.parametrize(
    ("url", "body"),
    [
        ("/v1/chat/completions", {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}),
        ("/v1/embeddings", {"model": "m", "input": "Hi"}),
        ("/v1/completions", {"model": "m", "prompt": "Hi"}),
        ("/v1/images/generations", {"model": "gpt-image-1", "prompt": "Hi"}),
    ],
)
async def test_other_endpoints_run_in_batches_too(client, url, body):
    done = await ended(
        client, await begin(client, [line("a", body, url), line("b", body | {"stream": True}, url)], url)
    )
    assert done.request_counts.to_dict() == {"total": 2, "completed": 1, "failed": 1}
    assert done.usage.input_tokens > 0


async def test_a_batch_is_cancelled_and_costs_what_was_done(client, simulator):
    lines = [line(str(number), {"model": "sim-mini", "input": "2+2"}) for number in range(50)]
    begun = await begin(client, lines, metadata={"sim": "pace_ms=60"})
    await asyncio.sleep(0.2)
    cancelled = await client.batches.cancel(begun.id)
    assert cancelled.status == "cancelled" and cancelled.cancelled_at
    assert 0 < cancelled.request_counts.completed < 50
    entry = entry_of(simulator, begun)
    assert (entry.outcome, entry.billed) == ("cancelled", True)
    assert cancelled.usage.output_tokens == entry.usage.output_tokens == 6 * cancelled.request_counts.completed
    assert (
        len((await client.files.content(cancelled.output_file_id)).text.splitlines()) == entry.usage.output_tokens / 6
    )
    assert await client.batches.cancel(begun.id) == cancelled
    assert begun.id in [batch.id async for batch in client.batches.list()]


async def test_a_file_that_is_no_batch_fails_for_nothing(client, simulator):
    for data in (b"not json", b"\n", b'{"custom_id": 5}'):
        file = await client.files.create(file=("in.jsonl", data), purpose="batch")
        begun = await client.batches.create(input_file_id=file.id, endpoint="/v1/responses", completion_window="24h")
        done = await ended(client, begun)
        assert done.status == "failed" and done.errors.data[0].message
        assert (entry_of(simulator, done).billed, entry_of(simulator, done).outcome) == (False, "failed")


@pytest.mark.parametrize(
    "changes", [{"endpoint": "/v1/files"}, {"input_file_id": None}, {"metadata": {"sim": "pace_ms=x"}}]
)
async def test_batches_that_make_no_sense_are_refused(caller, changes):
    body = {"input_file_id": "file-bytes-3", "endpoint": "/v1/responses", "completion_window": "24h"} | changes
    assert (await caller.post("/v1/batches", body)).status == 400
    assert caller.entries() == []


async def test_unknown_ones_are_not_found(client):
    for call in (
        client.batches.retrieve("batch_unknown"),
        client.batches.cancel("batch_unknown"),
        client.batches.create(input_file_id="file-unknown", endpoint="/v1/responses", completion_window="24h"),
    ):
        with pytest.raises(openai.NotFoundError):
            await call


async def test_a_simulator_that_stops_ends_them():
    simulator = Simulator()
    async with (
        running_simulator(simulator, port=0) as at,
        openai.AsyncOpenAI(base_url=f"{at.base_url}/v1", api_key="none", max_retries=0) as client,
    ):
        await begin(client, [line("a", {"model": "m", "input": "x"})], metadata={"sim": "queue_ms=60000"})
    assert [entry.outcome for entry in simulator.log] == ["cut"]


def test_lines_are_read_across_pieces(monkeypatch):
    monkeypatch.setattr("app.simulator.resources.batches.PIECE_BYTES", 3)
    assert list(_lines_of(Blob.of(b"one\n\ntwo and a half\nthree"))) == [b"one", b"two and a half", b"three"]


@pytest.mark.parametrize("stream", [False, True])
async def test_stored_chats_are_kept(client, stream):
    messages = [{"role": "user", "content": "2+2"}, {"role": "user", "content": [{"type": "text", "text": "3+3"}]}]
    made = await client.chat.completions.create(
        model="chat-kept", messages=messages, store=True, metadata={"a": "b"}, stream=stream
    )
    if stream:
        made = [chunk async for chunk in made][-1]
    kept = await client.chat.completions.retrieve(made.id)
    assert kept.choices[0].message.content == "3 + 3 equals 6."
    assert kept.usage.completion_tokens == 6
    assert (await client.chat.completions.update(made.id, metadata={"c": "d"})).metadata == {"c": "d"}
    assert made.id in [chat.id async for chat in client.chat.completions.list(model="chat-kept", limit=1)]
    asked = [message async for message in client.chat.completions.messages.list(made.id, limit=1)]
    assert [message.content for message in asked] == ["2+2", None]
    assert (await client.chat.completions.delete(made.id)).deleted
    for call in (client.chat.completions.retrieve(made.id), client.chat.completions.messages.list(made.id)):
        with pytest.raises(openai.NotFoundError):
            await call


async def test_other_chats_are_not_kept(client):
    made = await client.chat.completions.create(model="m", messages=[{"role": "user", "content": "2+2"}])
    with pytest.raises(openai.NotFoundError):
        await client.chat.completions.retrieve(made.id)
