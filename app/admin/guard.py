"""What every request of the control plane passes: a bound on its body, a strict reading, headers on its answer."""

from __future__ import annotations

from email.message import Message as MailMessage

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.admin.wire import rendered
from app.core.codec import parse_object
from app.core.errors import BodyTooLarge, InvalidRequest, quoted

BODY_BYTES_MAX = 1024 * 1024
TOO_LARGE = f"A body here has at most {BODY_BYTES_MAX} bytes."
BODILESS = frozenset({"GET", "HEAD", "OPTIONS"})
"""Nothing is read of a body that these bring: a stream of events waits for the client's end."""


class Guard:
    """Around the control plane. Nothing that it answers may be kept by a cache, unless a route says so."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.setdefault("cache-control", "no-store")
                headers.setdefault("x-content-type-options", "nosniff")
                headers.setdefault("referrer-policy", "no-referrer")
            await send(message)

        declared = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        if not declared.isdigit() or int(declared) > BODY_BYTES_MAX:
            await rendered(BodyTooLarge(TOO_LARGE))(scope, receive, with_headers)
            return
        if (fault := _nul_in(scope)) is not None:
            await rendered(fault)(scope, receive, with_headers)
            return
        try:
            body = b"" if scope["method"] in BODILESS else await _read(Request(scope, receive))
            if body and _is_json(scope):
                # As the model plane reads: two members of one name would be two requests in one body.
                parse_object(body)
        except ClientDisconnect:
            return
        except (InvalidRequest, BodyTooLarge) as error:
            await rendered(error)(scope, receive, with_headers)
            return
        await self._app(scope, _replayed(body, receive), with_headers)


async def _read(request: Request) -> bytes:
    """The whole body. Raises BodyTooLarge, ClientDisconnect."""
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > BODY_BYTES_MAX:
            raise BodyTooLarge(TOO_LARGE)
    return bytes(body)


def _replayed(body: bytes, receive: Receive) -> Receive:
    """``receive`` of a request whose body has been read: it comes once more, and then what the client does."""
    is_told = False

    async def replay() -> Message:
        nonlocal is_told
        if is_told:
            return await receive()
        is_told = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


def _is_json(scope: Scope) -> bool:
    """Whether FastAPI takes the body for JSON: it reads the header in this way, and what has none may be JSON too."""
    message = MailMessage()
    message["content-type"] = Headers(scope=scope).get("content-type") or "application/json"
    subtype = message.get_content_subtype()
    return message.get_content_maintype() == "application" and (subtype == "json" or subtype.endswith("+json"))


def _nul_in(scope: Scope) -> InvalidRequest | None:
    """What is wrong with an address that holds a NUL, in an identifier or a parameter: PostgreSQL has no such text."""
    if b"%00" not in scope["raw_path"] + scope["query_string"] or not scope["path"].startswith(("/admin/", "/me/")):
        return None
    holding = next((part for part in scope["query_string"].split(b"&") if b"%00" in part), b"")
    name = holding.partition(b"=")[0].decode("latin-1")
    return InvalidRequest("The address holds a NUL.", param=quoted(name) or None)
