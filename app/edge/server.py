"""The HTTP server: uvicorn's httptools protocol, hardened.

Stock uvicorn 0.54 reads a head of any size for any time, merges trailers into the headers and serves
HTTP/0.9. Here a connection reads one request at a time: the bytes of the next one wait, unparsed and
bounded, until the last is answered. One sweep over all connections ends what is overdue, in place of
timers for each request.
"""

from __future__ import annotations

import asyncio
import math
import socket
import struct
import time
from collections.abc import Callable
from typing import Any, ClassVar

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from app.core.errors import GatewayError, Overloaded, RequestTimeout, render
from app.core.ids import new_request_id
from app.edge.cycle import App, Cycle, Scope
from app.edge.defaults import DefaultHeaders
from app.edge.pace import ReadPace, UploadPace
from app.edge.protocol import (
    HEAD_END,
    REQUEST_LINE_REST_BYTES,
    ChunkedBody,
    Head,
    ServerLimits,
    check_partial_head,
    parse_head,
)
from app.edge.raw import RawStream
from app.edge.sweeper import Sweeper

__all__ = ["Cycle", "HardenedProtocol", "ServerLimits", "hardened_protocol", "server_config"]

OnRefused = Callable[[GatewayError, str], None]

WRITE_BUFFER_HIGH_BYTES = 32 * 1024
DRAIN_BYTES_MAX = 64 * 1024
"""An unread rest of a request body up to this size is read away, so that the connection can be kept."""
LAST_REQUEST_S = 1.0
"""How long a connection that was made, or whose answer has promised to keep it, may bring one more request after
a shutdown began: its client may be sending already.
"""
LINGER_BYTES_MAX = 1024 * 1024
"""What a refused client may still send before it is cut off; it needs the time to see the refusal."""

# What a connection is doing. From _LINGER on it reads nothing more.
_HEAD, _BODY, _ANSWER, _RAW, _LINGER, _CLOSING = range(6)


class HardenedProtocol(HttpToolsProtocol):
    """One connection. Made through ``hardened_protocol``, which sets the class's variables."""

    limits: ClassVar[ServerLimits]
    sweeper: ClassVar[Sweeper]
    defaults: ClassVar[DefaultHeaders]

    @staticmethod
    def on_refused(error: GatewayError, request_id: str) -> None:
        """Told of every request that is refused here."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        # Each head gets a parser of its own.
        self.parser = None  # type: ignore[assignment]
        self.current: Cycle | None = None
        self.deadline = math.inf
        self._phase = _HEAD
        self._fresh = True
        self._ends = False
        # Bytes that cannot be used yet: a partial head, or pipelined requests; and how many were scanned.
        self._held = b""
        self._scanned = 0
        self._body_left = 0
        self._chunks: ChunkedBody | None = None
        self._pace: UploadPace | None = None
        self._raw: RawStream | None = None
        self._discarded = 0
        self._read_pace = ReadPace()
        self._asgi = {"version": self.asgi_version, "spec_version": "2.3"}

    def __repr__(self) -> str:
        phase = ("head", "body", "answer", "raw", "linger", "closing")[self._phase]
        return f"HardenedProtocol({phase}, held={len(self._held)}, {self.current})"

    # What the event loop calls.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=WRITE_BUFFER_HIGH_BYTES)
        self.deadline = self.loop.time() + self.limits.head_timeout_s
        self.sweeper.add(self)
        if len(self.connections) > self.limits.connections_max:
            self._refuse(Overloaded(), linger=False)

    def connection_lost(self, exc: Exception | None) -> None:
        self.sweeper.discard(self)
        super().connection_lost(exc)
        self._phase = _CLOSING
        self._held = b""
        self._chunks = None
        cycle, self.current = self.current, None
        if cycle is not None:
            cycle.lost()
        if self._raw is not None:
            self._raw.lost()

    def eof_received(self) -> None:
        # Who ends his side has gone. The transport waits until its buffer is written: that may be never.
        if self.current is not None:
            self.current.lost()
        if self._raw is not None:
            self._raw.lost()
        self.flow.resume_writing()
        self._close()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._read_pace.begin(self.loop.time())

    def data_received(self, data: bytes) -> None:
        if self._raw is not None and self._phase == _RAW:
            self._raw.feed(data)
            return
        if self._phase >= _LINGER:
            self._discarded += len(data)
            if self._discarded > LINGER_BYTES_MAX:
                self.transport.abort()
            return
        if self._held:
            data = self._held + data
            self._held = b""
        self._read(data)

    def shutdown(self) -> None:
        """What uvicorn calls at the start of a graceful shutdown."""
        self._ends = True
        if self._raw is not None:
            # Whoever has it ends it.
            return
        if self.current is not None and not self.current.response_complete:
            if not self.current.response_started:
                self.current.keep_alive = False
        elif not self._held:
            given_s = self.limits.head_timeout_s if self._fresh else self.limits.keepalive_timeout_s
            self.deadline += LAST_REQUEST_S - given_s
            if self.deadline <= self.loop.time():
                self._close()

    # Reading requests.

    def _read(self, data: bytes) -> None:
        try:
            while data:
                if self._phase == _HEAD:
                    data = self._read_head(data)
                elif self._phase == _BODY:
                    data = self._read_body(data)
                else:
                    self._hold(data)
                    return
        except GatewayError as error:
            self._refuse(error)

    def _read_head(self, data: bytes) -> bytes:
        if not self._scanned and data.startswith(b"\r\n"):
            # Old clients end a body with a line break that its length does not count.
            data = data[2:]
            if not data:
                return data
        limit = self.limits.target_bytes_max + self.limits.header_bytes_max + REQUEST_LINE_REST_BYTES
        end = data.find(HEAD_END, max(0, self._scanned - 3), limit)
        if end < 0:
            if not self._scanned and not self._fresh:
                self.deadline = self.loop.time() + self.limits.head_timeout_s
            check_partial_head(data, self._scanned, self.limits)
            self._held = data
            self._scanned = len(data)
            return b""
        end += len(HEAD_END)
        self._scanned = 0
        self._fresh = False
        # A client that sends one request at a time sends its head alone or with the body: no copy then.
        self._begin(parse_head(data if end == len(data) else data[:end], self.limits))
        return data[end:]

    def _begin(self, head: Head) -> None:
        has_body = head.chunked or head.content_length > 0
        self._pace = None
        if has_body:
            self._phase = _BODY
            self._body_left = head.content_length
            self._chunks = ChunkedBody(self.limits.body_bytes_max) if head.chunked else None
            self.deadline = self.loop.time() + self.limits.body_timeout_s
        else:
            self._phase = _ANSWER
            self.deadline = math.inf
        cycle = Cycle(self, head, has_body=has_body)
        if self._ends:
            cycle.keep_alive = False
        self.current = cycle
        scope: Scope = {
            "type": "http",
            "asgi": self._asgi,
            "http_version": "1.1" if head.minor_version else "1.0",
            "server": self.server,
            "client": self.client,
            "scheme": self.scheme,
            "root_path": self.root_path,
            "method": head.method,
            "path": self.root_path + head.path,
            "raw_path": self.root_path.encode() + head.raw_path if self.root_path else head.raw_path,
            "query_string": head.query,
            "headers": head.headers,
            "state": self.app_state.copy(),
            "headgate.connection": cycle,
        }
        task = self.loop.create_task(cycle.run(self.app, scope))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def _read_body(self, data: bytes) -> bytes:
        if self._chunks is not None:
            parts: list[bytes] = []
            rest = self._chunks.feed(data, parts)
            done = self._chunks.done
        else:
            rest = data[self._body_left :]
            parts = [data[: self._body_left] if rest else data]
            self._body_left -= len(parts[0])
            done = self._body_left == 0
        if self._pace is not None:
            self._pace.arrived(len(data))
        cycle = self.current
        if cycle is None:
            return b""
        if done:
            self._chunks = None
            self.deadline = math.inf
            self._phase = _ANSWER
            self.flow.resume_reading()
        if cycle.body_arrived(parts, done=done):
            self.flow.pause_reading()
        if done and cycle.response_complete:
            self._next()
        return rest

    def _hold(self, data: bytes) -> None:
        """Keeps pipelined requests for later; past the limit the client must wait."""
        self._held = data
        if len(data) > self.limits.pipelined_bytes_max:
            self.flow.pause_reading()

    def _read_held(self) -> None:
        if self._phase == _HEAD:
            data, self._held = self._held, b""
            self._read(data)

    def _next(self) -> None:
        """Waits for a next request."""
        self._phase = _HEAD
        self.current = None
        self.deadline = self.loop.time() + (LAST_REQUEST_S if self._ends else self.limits.keepalive_timeout_s)
        self._scanned = 0
        self.flow.resume_reading()

    # What a cycle calls.

    def default_block(self, *, has_date: bool) -> bytes:
        return self.defaults.lines(self.server_state.default_headers, has_date=has_date)

    def rest_is_small(self, *, expects_continue: bool) -> bool:
        # A client that waits for 100 may send the body after all, or not: nobody can tell.
        return self._chunks is None and self._body_left <= DRAIN_BYTES_MAX and not expects_continue

    def want_body(self) -> None:
        if self._phase == _BODY:
            self.flow.resume_reading()

    def expect_upload(self) -> None:
        if self._phase == _BODY and self._pace is None:
            # From now on each sweep asks for the pace.
            self.deadline = self.loop.time()
            self._pace = UploadPace(self.deadline)

    def answered(self, cycle: Cycle) -> None:
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        if not cycle.keep_alive:
            if self._phase == _BODY:
                self._linger()
            else:
                self._close()
        elif self._phase == _BODY:
            self.flow.resume_reading()
        else:
            self._next()
            if self._held:
                # Not from here: this is a call of the application that has just answered.
                self.loop.call_soon(self._read_held)

    def switch(self) -> RawStream:
        """From now on what comes is the application's, as it comes."""
        raw = self._raw = RawStream(self.transport, self.flow, self._end_raw)
        if self.transport.is_closing():
            # The client left before: nothing tells that any more.
            raw.lost()
            return raw
        self._phase = _RAW
        if self._held:
            data, self._held = self._held, b""
            raw.feed(data)
        self.flow.resume_reading()
        return raw

    def _end_raw(self) -> None:
        if self._phase == _RAW and not self.transport.is_closing():
            self._linger()

    def cut(self, *, reset: bool) -> None:
        self._phase = _CLOSING
        self.deadline = math.inf
        if reset:
            opened = self.transport.get_extra_info("socket")
            if opened is not None:
                opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    # Ends.

    @property
    def must_progress(self) -> bool:
        return self.flow.write_paused or self._phase == _CLOSING

    def overdue(self, now: float) -> None:
        """The deadline of what the connection is doing has passed."""
        if self._phase == _HEAD:
            if self._held or (self._fresh and not self._ends):
                self._refuse(RequestTimeout())
            else:
                self._close()
        elif self._phase == _BODY:
            if self._pace is not None:
                if self._pace.is_too_slow(now, held_up=self.flow.read_paused):
                    self._refuse(RequestTimeout())
            elif self.flow.read_paused:
                # It is the application that does not read.
                self.deadline = now + self.limits.body_timeout_s
            else:
                self._refuse(RequestTimeout())
        else:
            self._close()

    def check_progress(self, now: float) -> None:
        """Cuts off a client that has not read for ``slow_client_s`` while there is something to read."""
        if self._read_pace.is_too_slow(now, self.transport.get_write_buffer_size(), self.limits.slow_client_s):
            self.cut(reset=True)

    def _refuse(self, error: GatewayError, *, linger: bool = True) -> None:
        """Answers with ``error``, unless an answer has begun, and serves this connection no more."""
        cycle = self.current
        if cycle is not None:
            if cycle.response_complete:
                self._close()
                return
            cycle.lost()
            if cycle.response_started:
                cycle.abort()
                return
        request_id = new_request_id(time.time_ns() // 1_000_000)
        self.on_refused(error, request_id)
        status, headers, body = render(error, request_id)
        lines = [b"%b: %b\r\n" % header for header in headers]
        block = self.default_block(has_date=False)
        self.transport.write(
            b"".join((STATUS_LINE[status], block, *lines, b"connection: close\r\n\r\n", body)),
        )
        if linger:
            self._linger()
        else:
            self._close()

    def _linger(self) -> None:
        """Ends our side and reads the client's away for a moment.

        Closing a socket with unread bytes resets it, and the client might lose the answer.
        """
        self._held = b""
        # With TLS only a client whose protocol was switched knows by itself that all has been said.
        if not (self.transport.can_write_eof() or self._raw):
            self._close()
            return
        self._phase = _LINGER
        self.deadline = self.loop.time() + self.limits.linger_s
        self.flow.resume_reading()
        try:
            if self.transport.can_write_eof():
                self.transport.write_eof()
        except OSError:
            # asyncio's own transport says so where the client has reset the connection.
            self.transport.abort()

    def _close(self) -> None:
        self._phase = _CLOSING
        self._held = b""
        self.deadline = math.inf
        self._read_pace.begin(self.loop.time())
        self.transport.close()


def hardened_protocol(limits: ServerLimits, *, on_refused: OnRefused | None = None) -> type[HardenedProtocol]:
    """A protocol class for ``uvicorn.Config(http=...)``; one for each server, as its connections share a sweeper."""

    class LimitedProtocol(HardenedProtocol):
        pass

    LimitedProtocol.limits = limits
    LimitedProtocol.sweeper = Sweeper()
    LimitedProtocol.defaults = DefaultHeaders()
    if on_refused is not None:
        LimitedProtocol.on_refused = staticmethod(on_refused)  # type: ignore[assignment]
    return LimitedProtocol


def server_config(app: App, limits: ServerLimits, *, on_refused: OnRefused | None = None, **settings: Any) -> Config:
    """A configuration of uvicorn with all that the hardening relies on; ``settings`` are uvicorn's others."""
    return Config(
        app,
        http=hardened_protocol(limits, on_refused=on_refused),
        ws="none",
        # Without them a spoofed X-Forwarded-For would become the client, and paths would be logged.
        proxy_headers=False,
        access_log=False,
        server_header=False,
        **settings,
    )
