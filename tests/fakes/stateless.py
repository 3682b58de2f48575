"""An upstream that keeps nothing, as llama.cpp and Ollama do: it refuses ``previous_response_id``, and answers with
what it was given.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

REFUSED = {"error": {"message": "llama.cpp does not support 'previous_response_id'.", "type": "invalid_request_error"}}


class Stateless:
    """Started with ``with``. ``bodies`` has every request as its bytes came; ``ids`` are given out first."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.gets: list[str] = []
        self.ids: list[str] = []
        self.more_output: list[dict[str, Any]] = []
        """Items before the answer."""
        self.status = "completed"
        self.bare_end = False
        """Whether the end of a stream tells no items."""
        self.is_busy = False
        self.number = 0

    def __enter__(self) -> Self:
        upstream = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                super().setup()
                self.connection.setsockopt(6, 1, 1)

            def log_message(self, *_: object) -> None:
                pass

            def do_GET(self) -> None:
                upstream.gets.append(self.path)
                self.tell(404, b'{"error":{"message":"There is no state here.","type":"not_found_error"}}')

            def do_DELETE(self) -> None:
                self.do_GET()

            def do_POST(self) -> None:
                raw = self.rfile.read(int(self.headers["content-length"]))
                upstream.bodies.append(raw)
                body = json.loads(raw)
                if upstream.is_busy:
                    self.tell(503, b'{"error":{"message":"Loading model","type":"unavailable_error"}}')
                elif "previous_response_id" in body:
                    self.tell(400, json.dumps(REFUSED).encode())
                elif body.get("stream"):
                    self.tell(200, b"".join(upstream.events(body)), "text/event-stream")
                else:
                    self.tell(200, json.dumps(upstream.response(body)).encode())

            def tell(self, status: int, body: bytes, media: str = "application/json") -> None:
                self.send_response(status)
                self.send_header("content-type", media)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/v1"

    @property
    def last(self) -> dict[str, Any]:
        return json.loads(self.bodies[-1])

    def response(self, body: dict[str, Any]) -> dict[str, Any]:
        """The whole answer: its text is all texts of the input, its input tokens their letters."""
        self.number += 1
        texts = list(texts_of(body.get("input", [])))
        message = {
            "id": f"msg_{self.number}",
            "type": "message",
            "role": "assistant",
            "status": "completed",
            "content": [{"type": "output_text", "annotations": [], "text": " | ".join(texts)}],
        }
        used = sum(len(text) for text in texts)
        return {
            "id": self.ids.pop(0) if self.ids else f"resp_{self.number}",
            "object": "response",
            "created_at": 1764500000.25,
            "status": self.status,
            "model": body["model"],
            "output": [*self.more_output, message],
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [],
            "previous_response_id": None,
            "usage": {"input_tokens": used, "output_tokens": 3, "total_tokens": used + 3},
        }

    def events(self, body: dict[str, Any]) -> Iterator[bytes]:
        whole = self.response(body)
        begun = {**whole, "status": "in_progress", "output": [], "usage": None}
        events: list[dict[str, Any]] = [{"type": "response.created", "response": begun}]
        for index, item in enumerate(whole["output"]):
            events.append(
                {"type": "response.output_item.added", "output_index": index, "item": {**item, "content": []}}
            )
            if item["type"] == "message":
                place = {"item_id": item["id"], "output_index": index, "content_index": 0}
                part = {"type": "output_text", "annotations": [], "text": ""}
                events.append({"type": "response.content_part.added", **place, "part": part})
                text = item["content"][0]["text"]
                events.append({"type": "response.output_text.delta", **place, "delta": text, "logprobs": []})
            events.append({"type": "response.output_item.done", "output_index": index, "item": item})
        end = {**whole, "output": []} if self.bare_end else whole
        events.append({"type": f"response.{self.status}", "response": end})
        for number, event in enumerate(events):
            told = json.dumps({**event, "sequence_number": number})
            yield f"event: {event['type']}\ndata: {told}\n\n".encode()


def texts_of(given: Any) -> Iterator[str]:
    if isinstance(given, str):
        yield given
        return
    for item in given:
        content = item.get("content", "")
        if isinstance(content, str):
            yield content
        elif content:
            yield from (part["text"] for part in content if "text" in part)


def config_of(*upstreams: str, extra: str = "") -> str:
    """A configuration whose model ``m0`` goes to the first of ``upstreams`` (their settings), and so on."""
    lines = ["upstreams:"]
    lines += [f"  u{number}: {{{settings}}}" for number, settings in enumerate(upstreams)]
    lines.append("models:")
    lines += [f"  - {{name: m{number}, upstream: u{number}, model: real-{number}}}" for number in range(len(upstreams))]
    lines += ["server: {drain_delay_s: 0, body_bytes_max: 1048576}"]
    return "\n".join(lines) + "\n" + extra
