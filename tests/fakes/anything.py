"""An upstream that has every endpoint: a POST makes an object with an id of its own, a GET tells of the one it names.

It knows nothing of teams, as a provider that is called with one key knows nothing of them.
"""

from __future__ import annotations

import json
import secrets
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import urlsplit

USAGE = {"input_tokens": 1, "output_tokens": 1, "total_tokens": 2, "prompt_tokens": 1, "completion_tokens": 1}


class Anything:
    """Started with ``with``. ``asked`` has method and target of every request, in order; ``more`` what every answer has
    beside its id, ``gone`` the ids of what is not there any more; ``lengths`` how long each POST said that it is,
    ``idempotency_keys`` those of POSTs that had one. While ``broken`` every answer has status 500, while there are
    ``events`` a POST is answered by a stream of them.
    """

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.more: dict[str, Any] = {}
        self.gone: set[str] = set()
        self.broken = False
        self.events: list[dict[str, Any]] = []
        self.idempotency_keys: list[str] = []
        self.lengths: list[str | None] = []

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
                last = urlsplit(self.path).path.rpartition("/")[2]
                if last == "content":
                    self.tell_bytes(b"")
                elif last in upstream.gone:
                    self.tell({"error": {"message": "No such object.", "type": "invalid_request_error"}}, 404)
                else:
                    self.tell({"id": last, "object": "thing", "status": "completed", "usage": None})

            def do_HEAD(self) -> None:
                self.do_GET()

            def do_DELETE(self) -> None:
                last = urlsplit(self.path).path.rpartition("/")[2]
                self.tell({"id": last, "object": "thing", "deleted": True})

            def do_POST(self) -> None:
                upstream.lengths.append(self.headers.get("content-length"))
                upstream.idempotency_keys += self.headers.get_all("idempotency-key") or []
                if self.headers.get("transfer-encoding") == "chunked":
                    while int(self.rfile.readline(), 16):
                        self.rfile.readline()
                    self.rfile.readline()
                else:
                    self.rfile.read(int(self.headers.get("content-length") or 0))
                if upstream.events:
                    stream = "".join(f"data: {json.dumps(event)}\n\n" for event in upstream.events)
                    self.tell_bytes(stream.encode(), "text/event-stream")
                    return
                made = f"obj_{secrets.token_hex(12)}"
                self.tell({"id": made, "object": "thing", "status": "completed", "output": [], "usage": USAGE})

            def tell_bytes(self, body: bytes, content_type: str = "application/octet-stream") -> None:
                upstream.asked.append((self.command, self.path))
                self.send_response(200)
                self.send_header("content-type", content_type)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def tell(self, value: dict[str, Any], status: int = 200) -> None:
                upstream.asked.append((self.command, self.path))
                body = json.dumps({**value, **upstream.more}).encode()
                self.send_response(500 if upstream.broken else status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join(5)

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/v1"
