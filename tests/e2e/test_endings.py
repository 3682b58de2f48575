"""How the official SDK takes a stream that was cut: as a failure that says why, never as an end or a broken line."""

from __future__ import annotations

import json
import socket
import threading
import time

import httpx
import openai
import pytest
from openai import OpenAI

from app.store.database import Database
from app.store.keys import revoke_key
from tests.e2e.test_replay import event, read_chunks
from tests.fakes.gateway import SIMULATED, RunningGateway
from tests.fakes.postgres import shared_server
from tests.fakes.upstream import STREAM_HEAD, PlayedUpstream, config_for

HEAD = STREAM_HEAD.encode() + b"transfer-encoding: chunked\r\n\r\n"
ITEM = event(
    "response.output_item.added",
    output_index=0,
    sequence_number=1,
    item={"type": "message", "id": "msg_1", "role": "assistant", "status": "in_progress", "content": []},
)
RESPONSE = {
    "id": "resp_1",
    "object": "response",
    "created_at": 1_790_000_000,
    "model": "gpt-4o",
    "status": "in_progress",
    "output": [],
    "parallel_tool_calls": False,
    "tool_choice": "required",
    "tools": [{"type": "web_search"}],
    "metadata": {"team": "search"},
    "usage": None,
}
BEGUN = event("response.created", sequence_number=0, response=RESPONSE) + ITEM
CHUNK = (
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"gpt-4o",'
    b'"choices":[{"index":0,"delta":{"role":"assistant","content":"Hel"},"finish_reason":null}]}\n\n'
)


def piece(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def cut_after(data: bytes, how: str = "reset") -> list:
    return [HEAD + (piece(data) if data else b""), 0.05, how]


PLAYS = {
    "begun": cut_after(BEGUN),
    "stalled": cut_after(BEGUN, "hang"),
    "nothing": cut_after(b""),
    "chat": cut_after(CHUNK),
    "chat, inside a chunk": cut_after(CHUNK + CHUNK[:40]),
    "embeddings": cut_after(b'data: {"x":1}\n\n'),
    "crlf": cut_after(BEGUN.replace(b"\n", b"\r\n") + b"event: x\r\n"),
    "cr": cut_after(BEGUN.replace(b"\n", b"\r")),
}


@pytest.fixture(scope="module")
def cutting(tmp_path_factory):
    def play(seen):
        return PLAYS[json.loads(seen.body)["user"]]

    timeouts = {"timeouts": "{connect_s: 1, first_byte_s: 2, idle_s: 0.5}"}
    with (
        PlayedUpstream(play) as upstream,
        RunningGateway(tmp_path_factory.mktemp("endings"), config_for(upstream.base_url, **timeouts)) as gateway,
        OpenAI(base_url=gateway.base_url, api_key=gateway.key, max_retries=0) as client,
    ):
        gateway.client = client
        yield gateway


ASK = {"model": "gpt-4o", "input": "hi"}


@pytest.mark.parametrize(("play", "cause"), [("begun", "upstream_disconnected"), ("stalled", "upstream_stalled")])
def test_a_response_that_was_begun_fails_by_its_own_id(cutting, play, cause):
    events = list(cutting.client.responses.create(**ASK, user=play, stream=True))
    assert [each.type for each in events] == ["response.created", "response.output_item.added", "response.failed"]
    assert [each.sequence_number for each in events] == [0, 1, 2]
    failed = events[-1].response
    assert (failed.id, failed.status, failed.error.code) == ("resp_1", "failed", "server_error")
    assert failed.error.message.startswith(f"{cause}: ")
    assert (failed.parallel_tool_calls, failed.tool_choice, failed.metadata) == (False, "required", {"team": "search"})


def test_the_stream_helper_takes_the_end_for_the_same_response(cutting):
    with cutting.client.responses.stream(**ASK, user="begun") as stream:
        kinds = [each.type for each in stream]
        assert kinds[-1] == "response.failed"
        with pytest.raises(RuntimeError, match=r"Didn't receive a `response\.completed` event"):
            stream.get_final_response()


def test_a_response_that_was_not_begun_is_an_error(cutting):
    with pytest.raises(openai.APIError, match="upstream_disconnected: ") as caught:
        list(cutting.client.responses.create(**ASK, user="nothing", stream=True))
    assert not isinstance(caught.value, openai.APIConnectionError)
    with (
        pytest.raises(openai.APIError, match="upstream_disconnected: "),
        cutting.client.responses.stream(**ASK, user="nothing") as stream,
    ):
        stream.until_done()


@pytest.mark.parametrize("play", ["chat", "chat, inside a chunk"])
def test_a_chat_stream_raises_its_error(cutting, play):
    chat = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}], "user": play}
    chunks = []
    with pytest.raises(openai.APIError, match="upstream_disconnected: ") as caught:
        chunks.extend(cutting.client.chat.completions.create(**chat, stream=True))
    assert not isinstance(caught.value, openai.APIConnectionError)
    with pytest.raises(openai.APIError), cutting.client.chat.completions.stream(**chat) as stream:
        stream.until_done()
    assert [chunk.choices[0].delta.content for chunk in chunks] == ["Hel"]
    raw = httpx.post(f"{cutting.base_url}/chat/completions", json={**chat, "stream": True}, headers=cutting.headers)
    assert raw.content.startswith(CHUNK + b'data: {"error":{')
    assert raw.content.endswith(b'"code":"upstream_disconnected"}}\n\n')
    assert b"[DONE]" not in raw.content


def test_a_family_without_such_an_end_is_cut_off(cutting):
    body = {"model": "gpt-4o", "input": "hi", "user": "embeddings"}
    with pytest.raises(httpx.RemoteProtocolError):
        httpx.post(f"{cutting.base_url}/embeddings", json=body, headers=cutting.headers)


@pytest.mark.parametrize(("play", "line_end"), [("crlf", b"\r\n"), ("cr", b"\r")])
def test_the_end_is_a_chunk_of_its_own_in_the_streams_own_line_ends(cutting, play, line_end):
    _, chunks, clean = read_chunks(cutting.port, cutting.key, {**ASK, "user": play, "stream": True})
    assert clean
    assert b"".join(chunks[:-1]) == BEGUN.replace(b"\n", line_end)
    assert chunks[-1].startswith(b"event: response.failed" + line_end + b'data: {"type":"response.failed"')
    assert chunks[-1].endswith(b"}" + line_end * 2)
    assert set(chunks[-1]) & set(b"\r\n") == set(line_end)


def test_each_of_them_left_one_estimate(cutting):
    """Run last of these."""
    records = cutting.records(wait_for=14)
    assert len(records) == 14
    assert {record["outcome"] for record in records} == {"failed"}
    assert {record["error_code"] for record in records} == {"upstream_disconnected", "upstream_stalled"}
    assert {entry["kind"] for record in records for entry in record["entries"]} == {"estimate"}
    assert cutting.check_ledger()["ok"]
    assert cutting.metrics()["headgate_in_flight"] == 0


def test_a_chat_stream_that_told_its_usage_before_it_was_cut_is_charged(tmp_path):
    usage = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
    finish = json.loads(CHUNK[6:])
    finish["choices"][0]["finish_reason"] = "stop"
    last = {**finish, "choices": [], "usage": usage}
    told = CHUNK + b"".join(b"data: %s\n\n" % json.dumps(chunk).encode() for chunk in (finish, last))
    with (
        PlayedUpstream(lambda _: cut_after(told)) as upstream,
        RunningGateway(tmp_path, config_for(upstream.base_url)) as gateway,
    ):
        body = {"model": "gpt-4o", "messages": [], "stream": True}
        answer = httpx.post(f"{gateway.base_url}/chat/completions", json=body, headers=gateway.headers)
        assert b"upstream_disconnected" in answer.content
        (record,) = gateway.records(wait_for=1)
        assert (record["error_code"], record["entries"][0]["kind"]) == ("upstream_disconnected", "charge")
        assert record["entries"][0]["output_tokens"] == 7


# -- a key that is revoked --------------------------------------------------------------------

SLOW = "[[sim: tokens=400 pace_ms=50]] hi"


class Call:
    """One request on a thread of its own, and what came of it."""

    def __init__(self, gateway: RunningGateway, key: str, **body) -> None:
        self.status = 0
        self.headers: httpx.Headers | None = None
        self.received = b""
        self.error: Exception | None = None
        self.ended_s = 0.0
        self._url = f"{gateway.base_url}/responses"
        self._key = key
        self._body = {"model": "sim-large", "input": SLOW, **body}
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            headers = {"authorization": f"Bearer {self._key}"}
            with httpx.stream("POST", self._url, json=self._body, headers=headers, timeout=30) as answer:
                self.status, self.headers = answer.status_code, answer.headers
                for data in answer.iter_raw():
                    self.received += data
        except httpx.HTTPError as error:
            self.error = error
        self.ended_s = time.monotonic()

    def join(self) -> None:
        self._thread.join(30)
        assert self.error is None

    @property
    def last_event(self) -> dict:
        return json.loads(self.received.rstrip().rpartition(b"data: ")[2])


def half_a_request(gateway: RunningGateway, key: str) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", gateway.port), timeout=20)
    begun = b'{"model": "sim-large", "input": '
    head = f"POST /v1/responses HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n"
    sock.sendall(f"{head}content-type: application/json\r\ncontent-length: {len(begun) + 5}\r\n\r\n".encode() + begun)
    return sock


@pytest.mark.quiet
async def test_a_key_that_is_revoked_now_is_cut_off_in_every_gateway_within_a_second(tmp_path):
    shared = {"HEADGATE_DATABASE_URL": await shared_server().create_database()}
    first = RunningGateway(tmp_path / "a", SIMULATED, **shared)
    second = RunningGateway(tmp_path / "b", SIMULATED, **shared)
    with first, second:
        made = first.json("keys", "create", "--team", "default", "--name", "bad")
        rotated = first.json("keys", "rotate", made["id"])
        streams = [Call(first, made["key"], stream=True), Call(second, rotated["key"], stream=True)]
        waiting = [Call(each, made["key"], input="[[sim: first_ms=9000]] hi") for each in (first, second)]
        unsent = half_a_request(first, made["key"])
        spared = Call(first, first.key, input="[[sim: tokens=30 pace_ms=100]] hi", stream=True)
        while not all(b"delta" in stream.received for stream in (*streams, spared)):
            time.sleep(0.02)
        first.command("keys", "revoke", made["id"], "--now")
        revoked_s = time.monotonic()
        for call in (*streams, *waiting):
            call.join()
            # The command's own process took a moment to end after its commit, which counts for the gateways.
            assert call.ended_s - revoked_s < 1
        for stream in streams:
            assert stream.last_event["type"] == "response.failed"
            assert stream.last_event["response"]["error"]["message"].startswith("key_revoked: ")
        for call in waiting:
            assert (call.status, json.loads(call.received)["error"]["code"]) == (401, "invalid_api_key")
            assert call.headers["x-should-retry"] == "false"
        unsent.sendall(b'"hi"}')
        assert unsent.recv(10_000).startswith(b"HTTP/1.1 401 "), "its key was good when its head came"
        unsent.close()
        spared.join()
        assert spared.last_event["type"] == "response.completed"
        late = Call(second, rotated["key"])
        late.join()
        assert late.status == 401

        while any(gateway.metrics()["headgate_journal_records"] for gateway in (first, second)):
            time.sleep(0.1)
        assert first.check_ledger()["ok"]
        cut = [line for gateway in (first, second) for line in gateway.log() if line.get("error_code") == "key_revoked"]
        assert {line["outcome"] for line in cut} == {"interrupted"}
        assert sorted(line["estimated"] for line in cut) == [False, True, True, True, True]


@pytest.mark.quiet
async def test_a_key_that_is_revoked_lets_what_runs_end(tmp_path):
    with RunningGateway(tmp_path) as gateway:
        key_id = gateway.key.split("-")[2]
        call = Call(gateway, gateway.key, input="[[sim: tokens=40 pace_ms=60]] hi", stream=True)
        while b"delta" not in call.received:
            time.sleep(0.02)
        # What the command does, without the second that a process takes to start.
        database = await Database.open(f"sqlite:///{gateway.data_dir / 'headgate.db'}")
        async with database.transaction() as connection:
            await revoke_key(connection, key_id, now_ms=time.time_ns() // 1_000_000)
        await database.close()
        deadline = time.monotonic() + 1
        while httpx.get(f"{gateway.base_url}/models", headers=gateway.headers).status_code == 200:
            assert time.monotonic() < deadline
        assert call.ended_s == 0, "the key stopped while the stream went on"
        call.join()
        assert call.last_event["type"] == "response.completed"
