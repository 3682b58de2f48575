"""Streams through the gateway, in every framing: the same bytes, on event boundaries, billed by their usage."""

from __future__ import annotations

import hashlib
import json
import re
import socket
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.fakes.gateway import RunningGateway
from tests.fakes.upstream import PlayedUpstream, chunked, config_for

FRAMINGS = ("whole", "one_write", "crlf", "line", "split", "pieces")
BOUNDARIES = (b"\n\n", b"\r\n\r\n", b"\n\r\n", b"\r\r")


def events_of(body: bytes) -> list[bytes]:
    return [event + b"\n\n" for event in body.split(b"\n\n") if event.strip(b"\n")]


def framed(body: bytes, framing: str) -> list[bytes]:
    """The body as an upstream would write it."""
    if framing == "whole":
        return events_of(body)
    if framing == "one_write":
        return [body]
    if framing == "crlf":
        return [event.replace(b"\n", b"\r\n") for event in events_of(body)]
    if framing == "line":
        return body.splitlines(keepends=True)
    if framing == "split":
        return [part for event in events_of(body) for part in (event[:-1], event[-1:])]
    return [body[start : start + 37] for start in range(0, len(body), 37)]


def read_chunks(port: int, key: str, body: dict) -> tuple[bytes, list[bytes], bool]:
    """Head, HTTP chunks as they stand on the wire, and whether the end was clean."""
    raw = json.dumps(body).encode()
    request = (
        b"POST /v1/responses HTTP/1.1\r\nhost: gateway\r\nauthorization: Bearer %s\r\n"
        b"content-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % (key.encode(), len(raw))
    ) + raw
    with socket.create_connection(("127.0.0.1", port), timeout=60) as sock:
        sock.sendall(request)
        received = b""
        try:
            while data := sock.recv(1 << 20):
                received += data
        except ConnectionError:
            pass
    head, _, rest = received.partition(b"\r\n\r\n")
    chunks = []
    while rest:
        size_text, _, rest = rest.partition(b"\r\n")
        size = int(size_text or b"0", 16)
        if size == 0:
            return head, chunks, rest == b"\r\n"
        chunks.append(rest[:size])
        rest = rest[size + 2 :]
    return head, chunks, False


def check_replay(gateway: RunningGateway, body: dict, expected: bytes) -> None:
    head, chunks, clean = read_chunks(gateway.port, gateway.key, body)
    assert head.startswith(b"HTTP/1.1 200"), head
    assert hashlib.sha256(b"".join(chunks)).digest() == hashlib.sha256(expected).digest()
    assert clean
    unaligned = [chunk[-20:] for chunk in chunks if not chunk.endswith(BOUNDARIES)]
    assert not unaligned


# -- the recordings ---------------------------------------------------------------------------


def replayable(recordings):
    for path in sorted(recordings.glob("*.meta.json")):
        meta = json.loads(path.read_text())
        request = meta["request"]
        if meta["method"] == "POST" and not request.get("background") and not request.get("conversation"):
            yield path.name.removesuffix(".meta.json"), meta, path.with_name(path.name.replace(".meta.json", ".sse"))


def usage_in(body: bytes) -> dict:
    for line in reversed(body.splitlines()):
        if line.startswith(b"data:") and b'"response.completed"' in line:
            return json.loads(line.removeprefix(b"data:"))["response"]["usage"]
    raise AssertionError("no usage")


def test_recordings_pass_unchanged_in_six_framings(recordings, tmp_path):
    chosen = list(replayable(recordings))
    assert len(chosen) == 7
    streams = {name: path.read_bytes() for name, _, path in chosen}

    def play(seen):
        name, framing = json.loads(seen.body)["user"].split("/")
        return chunked(framed(streams[name], framing))

    with PlayedUpstream(play) as upstream, RunningGateway(tmp_path, config_for(upstream.base_url)) as gateway:

        def replay(job):
            name, meta, framing = job
            request = {**meta["request"], "user": f"{name}/{framing}"}
            # The containers of a tool are stored objects; "auto" makes a new one.
            check_replay(gateway, request, b"".join(framed(streams[name], framing)))

        jobs = [(name, meta, framing) for name, meta, _ in chosen for framing in FRAMINGS]
        with ThreadPoolExecutor(12) as pool:
            list(pool.map(replay, jobs))

        records = gateway.records(wait_for=len(jobs))
        assert len(records) == len(jobs) == 42
        assert len(upstream.requests) == 42
        for record in records:
            usage = usage_in(streams[record["end_user"].split("/")[0]])
            (entry,) = record["entries"]
            assert (entry["kind"], record["outcome"]) == ("charge", "completed")
            assert entry["input_tokens"] == usage["input_tokens"]
            assert entry["output_tokens"] == usage["output_tokens"]
            assert entry["cached_tokens"] == usage["input_tokens_details"]["cached_tokens"]
            assert entry["reasoning_tokens"] == usage["output_tokens_details"]["reasoning_tokens"]
        assert gateway.check_ledger()["ok"]


# -- our own corpus ---------------------------------------------------------------------------

USAGE = {"input_tokens": 11, "output_tokens": 7, "total_tokens": 18}


def event(kind: str, *, named: bool = True, **body) -> bytes:
    data = json.dumps({"type": kind, **body}, ensure_ascii=False)
    return (f"event: {kind}\n" if named else "").encode() + f"data: {data}\n\n".encode()


def created(**more) -> bytes:
    return event(
        "response.created", sequence_number=0, response={"id": "resp_1", "model": "gpt-4o", "usage": None}, **more
    )


def completed(kind: str = "response.completed", **more) -> bytes:
    response = {"id": "resp_1", "model": "gpt-4o", "status": kind.removeprefix("response."), "usage": USAGE, **more}
    return event(kind, sequence_number=9, response=response)


DELTA = event("response.output_text.delta", sequence_number=1, delta="Grüße, 世界 🌍 and more text")
BIG = event("response.image_generation_call.partial_image", sequence_number=2, partial_image_b64="A" * 5_000_000)

CORPUS = {
    "unknown_events": created() + event("response.something.new", odd=[1, {"a": None}]) + DELTA + completed(),
    "comments": b": hello\n\n" + created() + b": keep-alive\n\n" + DELTA + b":\n\n" + completed(),
    "crlf_native": (created() + DELTA + completed()).replace(b"\n", b"\r\n"),
    "big_event": created() + BIG + completed(),
    "split_utf8": created() + DELTA * 5 + completed(),
    "no_event_lines": event("response.created", named=False, response={"id": "resp_1"})
    + event("response.completed", named=False, response={"id": "resp_1", "usage": USAGE}),
    "done_marker": created() + DELTA + completed() + b"data: [DONE]\n\n",
    "error_after_failed": created()
    + completed("response.failed", error={"code": "server_error", "message": "…"})
    + event("error", code="server_error", message="…"),
    "incomplete": created()
    + DELTA
    + completed("response.incomplete", incomplete_details={"reason": "max_output_tokens"}),
    "no_space": created().replace(b"data: ", b"data:") + DELTA + completed().replace(b"data: ", b"data:"),
    "many_data_lines": created() + b'event: x\ndata: {"type":\ndata: "x"}\n\n' + completed(),
    "bom": b"\xef\xbb\xbf" + created() + DELTA + completed(),
    "ids_and_retry": b"retry: 10\n\nid: 1\n" + created() + b"id: 2\n" + DELTA + completed(),
}
CODES = {"error_after_failed": "failed", "incomplete": "incomplete"}


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    def play(seen):
        name, framing = json.loads(seen.body)["user"].split("/")
        pause_s = 0.0 if name == "big_event" else 0.001
        pieces = framed(CORPUS[name], framing)
        if name == "big_event" and framing == "pieces":
            pieces = [CORPUS[name][start : start + 3700] for start in range(0, len(CORPUS[name]), 3700)]
        return chunked(pieces, pause_s=pause_s)

    with (
        PlayedUpstream(play) as upstream,
        RunningGateway(tmp_path_factory.mktemp("replay"), config_for(upstream.base_url)) as gateway,
    ):
        yield gateway


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("name", CORPUS)
def test_our_own_corpus_passes_unchanged(played, name, framing):
    if name == "crlf_native" and framing in {"crlf", "split"}:
        framing = "pieces"
    if name == "big_event":
        # A held event beyond the bound passes as it comes, so only the bytes are promised.
        body = {"model": "gpt-4o", "input": "x", "stream": True, "user": f"{name}/{framing}"}
        expected = CORPUS[name] if framing == "pieces" else b"".join(framed(CORPUS[name], framing))
        _, chunks, clean = read_chunks(played.port, played.key, body)
        assert clean
        assert b"".join(chunks) == expected
        return
    body = {"model": "gpt-4o", "input": "x", "stream": True, "user": f"{name}/{framing}"}
    check_replay(played, body, b"".join(framed(CORPUS[name], framing)))


def test_every_replay_of_the_corpus_was_billed_once(played):
    """Run last in this file."""
    expected = len(CORPUS) * len(FRAMINGS)
    records = played.records(wait_for=expected)
    assert len(records) == expected
    for record in records:
        name = record["end_user"].split("/")[0]
        (entry,) = record["entries"]
        assert (entry["kind"], entry["input_tokens"], entry["output_tokens"]) == ("charge", 11, 7), name
        assert record["outcome"] == CODES.get(name, "completed"), name
    assert played.check_ledger()["ok"]


def test_heads_tell_nothing_of_the_provider(played):
    body = {"model": "gpt-4o", "input": "x", "stream": True, "user": "comments/whole"}
    head, _, _ = read_chunks(played.port, played.key, body)
    names = set(re.findall(rb"\r\n([a-z0-9-]+):", head.lower()))
    assert {b"x-headgate-request-id", b"x-headgate-upstream", b"x-request-id"} <= names
    assert not names & {b"set-cookie", b"alt-svc", b"openai-organization", b"openai-project"}
