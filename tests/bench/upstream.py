"""The cheapest upstream that speaks HTTP: fixed answers, so that what is measured is the gateway."""

from __future__ import annotations

import asyncio
import json
import sys

import uvloop

USAGE = {
    "input_tokens": 250,
    "input_tokens_details": {"cached_tokens": 0},
    "output_tokens": 120,
    "output_tokens_details": {"reasoning_tokens": 0},
    "total_tokens": 370,
}
CONTENT = "The quick brown fox jumps over the lazy dog. " * 18
RESPONSE = {
    "id": "resp_0123456789abcdef",
    "object": "response",
    "created_at": 1_795_000_000,
    "status": "completed",
    "model": "gpt-4.1",
    "output": [
        {
            "type": "message",
            "id": "msg_1",
            "role": "assistant",
            "status": "completed",
            "content": [{"type": "output_text", "text": CONTENT, "annotations": []}],
        }
    ],
    "parallel_tool_calls": True,
    "tools": [],
    "usage": USAGE,
}
HEADERS = b"openai-version: 2020-10-01\r\nx-request-id: req_1\r\nopenai-processing-ms: 12\r\nserver: bench\r\n"
JSON_BODY = json.dumps(RESPONSE, separators=(",", ":")).encode()
JSON_ANSWER = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
    + HEADERS
    + b"content-length: %d\r\n\r\n" % len(JSON_BODY)
    + JSON_BODY
)
STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    + HEADERS
    + b"transfer-encoding: chunked\r\n\r\n"
)
EVENTS = 200


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def event(kind: str, body: dict) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **body}, separators=(',', ':'))}\n\n".encode()


CREATED = event("response.created", {"sequence_number": 0, "response": {**RESPONSE, "usage": None, "output": []}})
DELTAS = [
    event(
        "response.output_text.delta",
        {
            "sequence_number": n,
            "item_id": "msg_1",
            "output_index": 0,
            "content_index": 0,
            "delta": " word",
            "logprobs": [],
        },
    )
    for n in range(1, EVENTS - 1)
]
COMPLETED = event("response.completed", {"sequence_number": EVENTS, "response": RESPONSE})


class Upstream(asyncio.Protocol):
    """Answers by the path's query: ``pace=MS`` between events; ``idle=1`` opens a stream and says no more."""

    def connection_made(self, transport):
        self.transport = transport
        self.buffer = b""
        self.task = None

    def connection_lost(self, exc):
        if self.task is not None:
            self.task.cancel()

    def data_received(self, data):
        self.buffer += data
        while True:
            end = self.buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            head = self.buffer[:end].lower()
            at = head.find(b"content-length: ")
            length = int(head[at + 16 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(self.buffer) < end + 4 + length:
                return
            body = self.buffer[end + 4 : end + 4 + length]
            self.buffer = self.buffer[end + 4 + length :]
            self.answer(body)

    def answer(self, body):
        if b'"stream":true' not in body:
            self.transport.write(JSON_ANSWER)
        else:
            pace = body.partition(b"pace=")[2]
            pace_s = int(pace[:4]) / 1000 if pace else 0.0
            self.task = asyncio.get_running_loop().create_task(self.stream(pace_s, idle=b"idle=1" in body))

    async def stream(self, pace_s, *, idle):
        write = self.transport.write
        write(STREAM_HEAD + chunk(CREATED))
        if idle:
            await asyncio.sleep(3600)
        if not pace_s:
            write(b"".join(chunk(delta) for delta in DELTAS) + chunk(COMPLETED) + b"0\r\n\r\n")
            return
        for delta in DELTAS:
            await asyncio.sleep(pace_s)
            write(chunk(delta))
        await asyncio.sleep(pace_s)
        write(chunk(COMPLETED) + b"0\r\n\r\n")


async def main(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", port, backlog=4096)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
