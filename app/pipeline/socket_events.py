"""Events of a Responses WebSocket, as far as the gateway reads and writes them itself."""

from __future__ import annotations

from typing import Any

import msgspec

from app.core.errors import GatewayError


class ErrorMember(msgspec.Struct):
    code: Any = None


class SocketEvent(msgspec.Struct):
    """What is read of an upstream's event before the meter sees it."""

    type: Any = None
    stream_id: Any = None
    status: Any = None
    error: ErrorMember | None = None
    code: Any = None


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
