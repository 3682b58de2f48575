"""Streams of pictures, transcripts, sound and runs: billed by the usage that their last event tells."""

from __future__ import annotations

import json

import httpx
import pytest

from tests.fakes.gateway import RunningGateway
from tests.fakes.upstream import PlayedUpstream, chunked, config_for

USAGE = {"input_tokens": 11, "output_tokens": 7, "total_tokens": 18}
RUN_USAGE = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
IMAGE = {"model": "gpt-image-1", "prompt": "a cat", "stream": True}
SPEECH = {"model": "gpt-4o-mini-tts", "input": "hi", "voice": "coral", "stream_format": "sse"}
RUN = {"model": "gpt-4o", "assistant_id": "asst_public", "stream": True}
FORM = {"model": "gpt-4o-transcribe", "stream": "true"}
SOUND = {"file": ("a.wav", bytes(range(256)), "audio/wav")}

STREAMS = {
    "images": (
        {"url": "/images/generations", "json": IMAGE},
        {"type": "image_generation.partial_image", "b64_json": "AAAA"},
        {"type": "image_generation.completed", "b64_json": "AAAA", "usage": USAGE},
    ),
    "edits": (
        {
            "url": "/images/edits",
            "data": {**FORM, "model": "gpt-image-1", "prompt": "x"},
            "files": {"image": b"\x89PNG"},
        },
        {"type": "image_edit.partial_image", "b64_json": "AAAA"},
        {"type": "image_edit.completed", "b64_json": "AAAA", "usage": USAGE},
    ),
    "transcriptions": (
        {"url": "/audio/transcriptions", "data": FORM, "files": SOUND},
        {"type": "transcript.text.delta", "delta": "hi"},
        {"type": "transcript.text.done", "text": "hi", "usage": {"type": "tokens", **USAGE}},
    ),
    "speech": (
        {"url": "/audio/speech", "json": SPEECH},
        {"type": "speech.audio.delta", "audio": "AAAA"},
        {"type": "speech.audio.done", "usage": USAGE},
    ),
    "runs": (
        {"url": "/threads/runs", "json": RUN},
        {"object": "thread.run", "id": "run_1", "thread_id": "thread_1", "status": "in_progress", "usage": None},
        {"object": "thread.run", "id": "run_1", "thread_id": "thread_1", "status": "completed", "usage": RUN_USAGE},
    ),
}


def events_of(events) -> list[bytes]:
    return [f"data: {json.dumps(event)}\n\n".encode() for event in events]


@pytest.fixture(scope="module")
def upstream():
    with PlayedUpstream(lambda _: []) as running:
        yield running


@pytest.fixture(scope="module")
def gateway(tmp_path_factory, upstream):
    config = config_for(upstream.base_url, shared_objects="[asst_public]")
    with RunningGateway(tmp_path_factory.mktemp("media"), config) as running:
        running.json("teams", "create", "--name", "media", "--endpoints", "images,audio,threads")
        key = running.json("keys", "create", "--team", "media", "--name", "bot")["key"]
        headers = {"authorization": f"Bearer {key}"}
        running.client = httpx.Client(base_url=running.base_url, headers=headers, timeout=30)
        yield running
        running.client.close()
        assert running.check_ledger()["ok"]


def ask(gateway, upstream, request, steps) -> dict:
    before = len(gateway.records())
    upstream.play = lambda _: steps
    with gateway.client.stream("POST", **request) as answer:
        assert answer.status_code == 200, answer.read()
        try:
            gateway.body = answer.read()
        except httpx.RemoteProtocolError:
            gateway.body = None
    return gateway.records(wait_for=before + 1)[-1]


@pytest.mark.parametrize("name", STREAMS)
def test_the_last_event_tells_what_is_billed(gateway, upstream, name):
    request, *events = STREAMS[name]
    pieces = events_of(events)
    if name == "runs":
        pieces.append(b"event: done\ndata: [DONE]\n\n")
    record = ask(gateway, upstream, request, chunked(pieces))
    assert gateway.body == b"".join(pieces)
    (entry,) = record["entries"]
    assert (record["outcome"], entry["kind"], entry["input_tokens"], entry["output_tokens"]) == (
        "completed",
        "charge",
        11,
        7,
    )


@pytest.mark.parametrize("name", ["images", "edits", "speech", "runs"])
def test_of_a_stream_that_shows_no_text_and_is_cut_nobody_knows_how_much_it_was(gateway, upstream, name):
    """A picture is thousands of tokens: what was seen of it says nothing."""
    request, *events = STREAMS[name]
    record = ask(gateway, upstream, request, [*chunked(events_of(events[:1]))[:-1], "reset"])
    assert gateway.body is None
    (entry,) = record["entries"]
    assert (record["outcome"], entry["kind"]) == ("failed", "estimate")
    assert entry["output_tokens"] > 1000
