"""An upstream that is cut off after each byte of its answer: what the client, the record and the metric say of it.

| the cut is | the client has | the record | billed |
|---|---|---|---|
| before or inside of the head | 502 `upstream_outcome_unknown`, no retry | failed, 502 | an estimate |
| before the first event is whole | 200, an event that says it failed | failed, `upstream_disconnected` | an estimate |
| inside of an event, or between events | the whole events before it, then that event | the same | the same |
| behind the last event | the whole answer, and a clean end | completed | exactly |
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.fakes.gateway import RunningGateway
from tests.fakes.upstream import PlayedUpstream, config_for

USAGE = {"input_tokens": 3, "output_tokens": 2, "total_tokens": 5}
CHAT_USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}


def event(name: str, data: dict) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (name.encode(), json.dumps({"type": name, **data}).encode())


EVENTS = {
    "/responses": [
        event("response.created", {"sequence_number": 0, "response": {"id": "resp_1", "usage": None}}),
        event("response.output_text.delta", {"sequence_number": 1, "delta": "hi"}),
        event(
            "response.completed",
            {"sequence_number": 2, "response": {"id": "resp_1", "status": "completed", "usage": USAGE}},
        ),
    ],
    "/chat/completions": [
        b'data: {"id":"c","choices":[{"index":0,"delta":{"content":"hi"}}]}\n\n',
        b'data: {"id":"c","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n',
        b'data: {"id":"c","choices":[],"usage":%b}\n\n' % json.dumps(CHAT_USAGE).encode(),
        b"data: [DONE]\n\n",
    ],
}
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
BODIES = {
    "/responses": {"model": "gpt-4o", "input": "hi", "stream": True},
    "/chat/completions": {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}], "stream": True},
}


def wire_of(path: str) -> bytes:
    chunks = [b"%x\r\n%b\r\n" % (len(piece), piece) for piece in EVENTS[path]]
    return HEAD + b"".join(chunks) + b"0\r\n\r\n"


def whole_events(path: str, cut_at: int) -> int:
    """How many events are whole in the first bytes of the answer."""
    at, whole = len(HEAD), 0
    for piece in EVENTS[path]:
        at += len(b"%x\r\n" % len(piece)) + len(piece)
        if at > cut_at:
            break
        whole += 1
        at += 2
    return whole


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    def play(seen):
        how, cut_at = json.loads(seen.body)["user"].split()
        return [wire_of(seen.target.removeprefix("/v1"))[: int(cut_at)], 0.001, how]

    with PlayedUpstream(play) as upstream:
        config = config_for(upstream.base_url, breaker='"off"')
        with RunningGateway(tmp_path_factory.mktemp("bytes"), config) as gateway:
            yield gateway


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("path", EVENTS)
def test_every_byte(gateway, path, how):
    wire, before = wire_of(path), len(gateway.records())
    metric = f'endpoint="{"responses" if path == "/responses" else "chat"}"'
    counted = outcomes(gateway, metric)

    def ask(cut_at: int) -> tuple[int, httpx.Response]:
        body = {**BODIES[path], "user": f"{how} {cut_at}"}
        return cut_at, httpx.post(f"{gateway.base_url}{path}", json=body, headers=gateway.headers, timeout=30)

    with ThreadPoolExecutor(4) as pool:
        for cut_at, answer in pool.map(ask, range(len(wire))):
            check_answer(path, cut_at, answer)
    records = gateway.records(before + len(wire))[before:]
    assert len(records) == len(wire)
    for record in records:
        check_record(path, int(record["end_user"].split()[1]), record)
    completed = sum(whole_events(path, cut_at) == len(EVENTS[path]) for cut_at in range(len(wire)))
    told = outcomes(gateway, metric)
    assert told["completed"] - counted["completed"] == completed > 0
    assert told["failed"] - counted["failed"] == len(wire) - completed


def outcomes(gateway: RunningGateway, metric: str) -> dict[str, int]:
    samples = gateway.metrics().items()
    return {
        outcome: int(
            sum(
                value
                for name, value in samples
                if name.startswith("headgate_requests_total{") and metric in name and f'outcome="{outcome}"' in name
            )
        )
        for outcome in ("completed", "failed")
    }


def check_answer(path: str, cut_at: int, answer: httpx.Response) -> None:
    if cut_at < len(HEAD):
        assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_outcome_unknown"), cut_at
        assert answer.headers["x-should-retry"] == "false"
        return
    assert answer.status_code == 200
    whole = whole_events(path, cut_at)
    passed = b"".join(EVENTS[path][:whole])
    assert answer.content.startswith(passed), cut_at
    rest = answer.content[len(passed) :]
    if whole == len(EVENTS[path]):
        assert rest == b"", cut_at
        return
    (data,) = [json.loads(line[6:]) for line in rest.split(b"\n") if line.startswith(b"data: ")]
    if path != "/responses":
        assert data["error"]["code"] == "upstream_disconnected"
    elif whole:
        assert (data["type"], data["response"]["id"], data["sequence_number"]) == ("response.failed", "resp_1", whole)
    else:
        assert (data["type"], data["code"]) == ("error", "server_error")


def check_record(path: str, cut_at: int, record: dict) -> None:
    (entry,) = record["entries"]
    if cut_at >= len(HEAD) and whole_events(path, cut_at) == len(EVENTS[path]):
        assert (record["outcome"], record["status"], entry["kind"]) == ("completed", 200, "charge"), cut_at
        assert (entry["input_tokens"], entry["output_tokens"]) == (3, 2)
        return
    # Of a chat all is known once its usage has come, also where its last word is missing.
    told = cut_at >= len(HEAD) and path != "/responses" and whole_events(path, cut_at) == len(EVENTS[path]) - 1
    assert (record["outcome"], entry["kind"]) == ("failed", "charge" if told else "estimate"), cut_at
    code = "upstream_outcome_unknown" if cut_at < len(HEAD) else "upstream_disconnected"
    assert record["error_code"] == code, cut_at
    assert told or entry["cost_upper_nanousd"] >= entry["cost_nanousd"] > 0
