"""Recorded streams of what is stored: a background response and its stream taken up again, and a conversation's. They
pass as every other does, and each response is billed once.
"""

from __future__ import annotations

import json

import httpx
import pytest

from tests.e2e.test_replay import FRAMINGS, framed, usage_in
from tests.fakes.gateway import RunningGateway
from tests.fakes.upstream import PlayedUpstream, chunked, config_for

BACKGROUND = "background_mode_streaming_starting_after_vcr"
CONVERSATION = "openai_conversation_id_streaming_provider_details.1"


def recorded(recordings, name: str) -> tuple[dict, bytes]:
    meta = json.loads((recordings / f"{name}.meta.json").read_text())
    return meta["request"], (recordings / f"{name}.sse").read_bytes()


def id_in(body: bytes) -> str:
    first = next(line for line in body.splitlines() if line.startswith(b"data: "))
    return json.loads(first.removeprefix(b"data: "))["response"]["id"]


def answer_json(value: dict) -> list[bytes]:
    body = json.dumps(value).encode()
    return [b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body) + body]


def one_charge(gateway: RunningGateway, usage: dict) -> None:
    (record,) = gateway.records(wait_for=1)
    (entry,) = record["entries"]
    assert (record["outcome"], entry["kind"]) == ("completed", "charge")
    assert (entry["input_tokens"], entry["output_tokens"]) == (usage["input_tokens"], usage["output_tokens"])
    assert gateway.check_ledger()["ok"]


@pytest.mark.parametrize("framing", FRAMINGS)
def test_a_background_stream_and_its_second_half(recordings, tmp_path, framing):
    request, first = recorded(recordings, f"{BACKGROUND}.0")
    _, second = recorded(recordings, f"{BACKGROUND}.1")

    def play(seen):
        return chunked(framed(first if seen.method == "POST" else second, framing))

    with PlayedUpstream(play) as upstream, RunningGateway(tmp_path, config_for(upstream.base_url)) as gateway:
        with httpx.Client(base_url=gateway.base_url, headers=gateway.headers, timeout=30) as client:
            assert client.post("/responses", json=request).content == b"".join(framed(first, framing))
            target = f"/responses/{id_in(first)}?starting_after=0&stream=true"
            for _ in range(3):
                assert client.get(target).content == b"".join(framed(second, framing))
            assert upstream.requests[-1].target == f"/v1{target}"
        one_charge(gateway, usage_in(second))


def test_a_background_stream_that_breaks_off_is_billed_by_its_second_half(recordings, tmp_path):
    request, first = recorded(recordings, f"{BACKGROUND}.0")
    _, second = recorded(recordings, f"{BACKGROUND}.1")
    broken = first.split(b"event: response.output_text.delta")[0]

    def play(seen):
        if seen.method == "POST":
            return [*chunked([broken])[:-1], "reset"]
        if "stream=true" in seen.target:
            return chunked([second])
        return answer_json({"id": id_in(first), "status": "in_progress", "usage": None})

    with PlayedUpstream(play) as upstream, RunningGateway(tmp_path, config_for(upstream.base_url)) as gateway:
        with httpx.Client(base_url=gateway.base_url, headers=gateway.headers, timeout=30) as client:
            told = b""
            with pytest.raises(httpx.RemoteProtocolError), client.stream("POST", "/responses", json=request) as answer:
                for part in answer.iter_bytes():
                    told += part
            # It goes on upstream: nobody is told that it failed.
            assert told == broken
            assert gateway.records() == []
            client.get(f"/responses/{id_in(first)}?starting_after=3&stream=true")
        one_charge(gateway, usage_in(second))


@pytest.mark.parametrize("framing", FRAMINGS)
def test_a_conversations_stream(recordings, tmp_path, framing):
    request, stream = recorded(recordings, CONVERSATION)

    def play(seen):
        if seen.target == "/v1/conversations":
            return answer_json({"id": request["conversation"], "object": "conversation"})
        return chunked(framed(stream, framing))

    with PlayedUpstream(play) as upstream, RunningGateway(tmp_path, config_for(upstream.base_url)) as gateway:
        with httpx.Client(base_url=gateway.base_url, headers=gateway.headers, timeout=30) as client:
            assert client.post("/responses", json=request).status_code == 404
            assert client.post("/conversations", json={}).status_code == 200
            assert client.post("/responses", json=request).content == b"".join(framed(stream, framing))
        one_charge(gateway, usage_in(stream))
