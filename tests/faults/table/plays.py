"""What the upstream of the table does with a request that names the play. Bytes as they stand on the wire."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from tests.fakes.upstream import JSON_HEAD, STREAM_HEAD, SeenRequest, Step, chunked, whole

USAGE = {"input_tokens": 11, "output_tokens": 7, "total_tokens": 18}
RESPONSE = {"id": "resp_1", "object": "response", "model": "gpt-4o", "status": "completed", "usage": USAGE}
OK = json.dumps(RESPONSE).encode()
HEAD = STREAM_HEAD.encode() + b"transfer-encoding: chunked\r\n\r\n"
TEXT = "Hello, and a good deal more than that. " * 20
PACE_S = 0.02
GATE_POLL_S = 0.01


def event(kind: str, **more: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **more})}\n\n".encode()


CREATED = event("response.created", response={"id": "resp_1", "model": "gpt-4o", "status": "in_progress"})
DELTA = event("response.output_text.delta", sequence_number=1, delta=TEXT)
DONE = event("response.completed", response=RESPONSE)
LARGE = event("response.output_text.delta", sequence_number=1, delta="x" * 60_000)


def chunk(content: str | None, finish: str | None = None) -> bytes:
    """One of a chat's."""
    choice = {"index": 0, "delta": {} if content is None else {"content": content}, "finish_reason": finish}
    return f"data: {json.dumps({'id': 'chatcmpl_1', 'model': 'gpt-4o', 'choices': [choice]})}\n\n".encode()


def piece(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def error(status: int, extra: str = "") -> list[Step]:
    body = b'{"error":{"message":"no","type":"t","param":null,"code":"x"}}'
    return whole(body, f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\n{extra}")


PLAYS: dict[str, list[Step]] = {
    "fine": whole(OK),
    "fine, closing": [*whole(OK, JSON_HEAD + "connection: close\r\n"), "close"],
    "stream": chunked([CREATED, DELTA, DONE]),
    "long stream": [HEAD + piece(CREATED), *[PACE_S, piece(DELTA)] * 25, piece(DONE) + b"0\r\n\r\n"],
    "large stream": [HEAD + piece(CREATED), *[piece(LARGE)] * 400, piece(DONE) + b"0\r\n\r\n"],
    "slow": [0.5, *whole(OK)],
    "silence": ["hang"],
    "stalls": [HEAD + piece(CREATED) + piece(DELTA), "hang"],
    "resets": ["reset"],
    "resets mid-stream": [HEAD + piece(CREATED) + piece(DELTA), 0.05, "reset"],
    "chat stream": chunked([chunk(TEXT), chunk(None, "stop"), b"data: [DONE]\n\n"]),
    "chat stalls": [HEAD + piece(chunk(TEXT)), "hang"],
    "chat resets mid-stream": [HEAD + piece(chunk(TEXT)), 0.05, "reset"],
    "html": whole(b"<h1>hi", "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\n"),
    "bad json": whole(b'{"id": "resp_1", "us'),
    "bad gzip": whole(OK, JSON_HEAD + "content-encoding: gzip\r\n"),
    "not http": [b"\x00\x01\x02 nonsense\r\n\r\n", "close"],
    "garbage events": chunked([b"data: {nonsense\n\n", b"event: ?\ndata: \xff\n\n", b": x\n\n"]),
    "no usage": whole(json.dumps({**RESPONSE, "usage": None}).encode()),
    "429": error(429, "retry-after: 7\r\n"),
    "401": error(401),
    "403": error(403),
    "500": error(500),
    "503": error(503, "retry-after: 9\r\n"),
}


def play_with(is_open: Callable[[str], bool]) -> Callable[[SeenRequest], Iterator[Step]]:
    """Plays; what is ``held`` waits until the gate of its client's name is open."""

    def play(seen: SeenRequest) -> Iterator[Step]:
        if not seen.body:
            yield from whole(b'{"object":"list","data":[]}')
            return
        body = json.loads(seen.body)
        name = body["metadata"]["play"]
        attempt = int(seen.headers["x-client-request-id"].rpartition(".")[2])
        if name in {"held", "held stream"}:
            if name == "held stream":
                yield HEAD + piece(CREATED) + piece(DELTA)
            while not is_open(body["user"]):
                yield GATE_POLL_S
            yield from ([piece(DONE) + b"0\r\n\r\n"] if name == "held stream" else whole(OK))
        elif name == "every other 503":
            yield from PLAYS["503" if attempt == 1 else "fine"]
        else:
            yield from PLAYS[name]

    return play
