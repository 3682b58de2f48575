"""An upstream that plays the Responses API over WebSockets: what a create's input says is what it does."""

from __future__ import annotations

import json
import threading
import time
from contextlib import suppress
from typing import Any, Self

from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection, serve

USED = {"input_tokens": 7, "output_tokens": 5, "total_tokens": 12}
FLOOD_EVENTS = 400
FLOOD_BYTES = 64 * 1024


class PlayedSockets:
    """A server on threads of its own."""

    def __init__(self) -> None:
        self.creates: list[dict[str, Any]] = []
        self.connections = 0
        self.closed_with: list[int | None] = []
        self._made = 0

    def __enter__(self) -> Self:
        self._server = serve(self._serve, "127.0.0.1", 0, compression=None, max_size=None)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._server.socket.getsockname()[1]}/v1"

    def _serve(self, socket: ServerConnection) -> None:
        self.connections += 1
        with suppress(ConnectionClosed, OSError):
            for text in socket:
                threading.Thread(target=self._play, args=(socket, json.loads(text)), daemon=True).start()
        self.closed_with.append(socket.close_code)

    def _play(self, socket: ServerConnection, create: dict[str, Any]) -> None:
        self.creates.append(create)
        self._made += 1
        how = create["input"]
        # One that is "unnamed" is told of as by a server that knows no streams.
        stream = {"stream_id": create["stream_id"]} if "stream_id" in create and how != "unnamed" else {}
        response = {"id": f"resp_{self._made}", "object": "response", "status": "in_progress", "model": "gpt-4.1"}

        def tell(kind: str, **more: Any) -> None:
            socket.send(json.dumps({"type": kind, **more, **stream}))

        with suppress(ConnectionClosed, OSError):
            if how == "silent":
                return
            if how == "abort":
                socket.socket.close()
                return
            tell("response.created", response=response)
            if how == "hold":
                return
            if how == "bye":
                with socket.protocol_mutex:
                    socket.protocol.send_close()
                    socket.send_data()
                return
            if how == "ticks":
                for _ in range(15):
                    time.sleep(0.2)
                    tell("response.output_text.delta", delta="x")
            if how == "flood":
                for _ in range(FLOOD_EVENTS):
                    # No output, of which a client that has left has only so much made.
                    tell("padding", padding="x" * FLOOD_BYTES)
            tell("response.completed", response={**response, "status": "completed", "usage": USED})
