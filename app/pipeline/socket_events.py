"""Events of a Responses WebSocket, as far as the gateway reads and writes them itself."""

from __future__ import annotations

from typing import Any

import msgspec

from app.core.clock import Clock
from app.core.errors import GatewayError
from app.core.exchange import Exchange
from app.core.ids import new_request_id


class ErrorMember(msgspec.Struct):
    code: Any = None
    type: Any = None


class SocketEvent(msgspec.Struct):
    """What is read of an upstream's event before the meter sees it."""

    type: Any = None
    stream_id: Any = None
    status: Any = None
    error: ErrorMember | None = None
    code: Any = None

    @property
    def refusal_status(self) -> int | None:
        """Of an error that came before a response began: the status that it has, or that its type stands for; None
        where nobody can tell.
        """
        if type(self.status) is int and 400 <= self.status <= 599:
            return self.status
        return 400 if self.error is not None and self.error.type == "invalid_request_error" else None


_event_decoder = msgspec.json.Decoder(SocketEvent)


def read_event(data: bytes) -> SocketEvent | None:
    """An upstream's event; None where it is none."""
    try:
        return _event_decoder.decode(data)
    except (ValueError, RecursionError):
        return None


def error_frame(error: GatewayError, stream_id: str | None, request_id: str) -> bytes:
    """An ``error`` event in the API's shape."""
    told: dict[str, Any] = {
        "type": "error",
        "status": error.status,
        "error": {"message": error.message, "type": error.type, "param": error.param, "code": error.code},
        "request_id": request_id,
    }
    if stream_id:
        told["stream_id"] = stream_id
    if error.retry_after_ms is not None:
        told["headers"] = {"retry-after-ms": str(error.retry_after_ms)}
    return msgspec.json.encode(told)


def exchange_of_frame(handshake: Exchange, clock: Clock) -> Exchange:
    """Each frame is a request of its own, with the handshake's headers."""
    now_ms = clock.now_ms()
    return Exchange(
        request_id=new_request_id(now_ms),
        received_ms=now_ms,
        started_s=clock.monotonic_s(),
        endpoint=handshake.endpoint,
        query=handshake.query,
        headers=handshake.headers,
        credential=None,
        peer=handshake.peer,
        connection=handshake.connection,
        read_body=_no_body,
        open_body=handshake.open_body,
        forget_body=_nothing,
    )


async def _no_body() -> bytes:
    return b""


def _nothing() -> None:
    """There is no body to forget."""
