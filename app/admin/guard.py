"""What every request of the control plane passes: a bound on its body, and headers on its answer."""

from __future__ import annotations

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.admin.wire import rendered
from app.core.errors import BodyTooLarge, InvalidRequest, quoted

BODY_BYTES_MAX = 1024 * 1024


class Guard:
    """Around the control plane. Nothing that it answers may be kept by a cache, unless a route says so."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        if not declared.isdigit() or int(declared) > BODY_BYTES_MAX:
            await rendered(BodyTooLarge(f"A body here has at most {BODY_BYTES_MAX} bytes."))(scope, receive, send)
            return
        if (fault := _nul_in(scope)) is not None:
            await rendered(fault)(scope, receive, send)
            return
        received = 0

        async def bounded() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > BODY_BYTES_MAX:
                # Of a length that was not declared: raised where the route reads it.
                raise BodyTooLarge(f"A body here has at most {BODY_BYTES_MAX} bytes.")
            return message

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.setdefault("cache-control", "no-store")
                headers.setdefault("x-content-type-options", "nosniff")
                headers.setdefault("referrer-policy", "no-referrer")
            await send(message)

        await self._app(scope, bounded, with_headers)


def _nul_in(scope: Scope) -> InvalidRequest | None:
    """What is wrong with an address that holds a NUL, in an identifier or a parameter: PostgreSQL has no such text."""
    if b"%00" not in scope["raw_path"] + scope["query_string"] or not scope["path"].startswith(("/admin/", "/me/")):
        return None
    holding = next((part for part in scope["query_string"].split(b"&") if b"%00" in part), b"")
    name = holding.partition(b"=")[0].decode("latin-1")
    return InvalidRequest("The address holds a NUL.", param=quoted(name) or None)
