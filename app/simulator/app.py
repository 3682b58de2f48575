"""The simulator as an ASGI application: no framework, since it is also what load is measured against."""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

import msgspec

from app.core.clock import Clock, SystemClock
from app.simulator.channel import Channel, ClientGone
from app.simulator.delivery import send_body
from app.simulator.errors import RequestRefused, refusal_of_invalid, refusal_of_unparsable
from app.simulator.exchange import Exchange
from app.simulator.generate import Generator
from app.simulator.identifiers import random_hex
from app.simulator.log import BilledUsage, ServedLog
from app.simulator.response_store import ResponseStore
from app.simulator.steering import UNSTEERED

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from app.simulator.channel import Receive, Scope, Send

    Endpoint = Callable[[Exchange, bytes, bytes | None], Awaitable[None]]
    Headers = dict[bytes, bytes]

BODY_BYTES_MAX = 64 * 1024 * 1024
MODELS = ("sim-large", "sim-mini", "sim-reasoning", "sim-embedding")
MODELS_CREATED_S = 1_767_225_600
_JSON = [(b"content-type", b"application/json")]


class Simulator:
    """An OpenAI-compatible model server. ``log`` is what it served, ``store`` what can be gone on from."""

    def __init__(
        self,
        *,
        log: ServedLog | None = None,
        api_key: str | None = None,
        store: ResponseStore | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.log = ServedLog() if log is None else log
        self.store = ResponseStore() if store is None else store
        self._clock: Clock = clock or SystemClock()
        self._authorization = None if api_key is None else f"Bearer {api_key}".encode()
        generator = Generator(self.store)
        endpoints: dict[str, tuple[str, Endpoint]] = {
            "/responses": ("responses", generator.respond),
            "/chat/completions": ("chat.completions", generator.complete_chat),
            "/embeddings": ("embeddings", generator.embed),
        }
        self._endpoints = endpoints | {f"/v1{path}": endpoint for path, endpoint in endpoints.items()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind == "http":
            channel = Channel(scope, receive, send)
            try:
                await self._answer(scope, channel)
            except ClientGone:
                pass  # Before its request was whole: nothing was asked, so nothing is logged.
            finally:
                channel.close()
        elif kind == "lifespan":
            await _live(receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008})

    async def _answer(self, scope: Scope, channel: Channel) -> None:
        if scope["method"] == "POST":
            endpoint = self._endpoints.get(scope["path"])
            if endpoint is not None:
                await self._generate(endpoint, dict(scope["headers"]), channel)
                return
        try:
            body = self._look_up(scope)
            status = 200
        except RequestRefused as refusal:
            status, body = refusal.status, refusal.body()
        length = (b"content-length", b"%d" % len(body))
        await channel.start(status, [*_JSON, length, (b"x-request-id", _new_request_id().encode())])
        await channel.finish(body)

    async def _generate(self, endpoint: tuple[str, Endpoint], headers: Headers, channel: Channel) -> None:
        name, prepare = endpoint
        data = await channel.read_body(BODY_BYTES_MAX)
        attempt_id = headers.get(b"x-client-request-id", b"").decode("latin-1")
        served = self.log.open(attempt_id, name, self._clock.now_ms())
        exchange = Exchange(channel, served, UNSTEERED, BilledUsage(), self._clock, _new_request_id(), self.log)
        try:
            self._authorize(headers)
            await prepare(exchange, _whole(data), headers.get(b"x-sim"))
        except RequestRefused as refusal:
            await _refuse(exchange, refusal)
        except msgspec.ValidationError as error:
            await _refuse(exchange, refusal_of_invalid(error))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            # All of them come from reading the body, before anything was sent.
            await _refuse(exchange, refusal_of_unparsable(error))
        finally:
            # Reached without an end where the server is stopped in the middle of an answer.
            exchange.end("cut")

    def _authorize(self, headers: Headers) -> None:
        wanted = self._authorization
        if wanted is None or hmac.compare_digest(headers.get(b"authorization", b""), wanted):
            return
        raise RequestRefused(401, "Incorrect API key provided.", code="invalid_api_key")

    def _look_up(self, scope: Scope) -> bytes:
        """The body of what is not a generation."""
        method, path = scope["method"], scope["path"]
        if path == "/healthz" and method == "GET":
            return b'{"status":"ok"}'
        self._authorize(dict(scope["headers"]))
        if path == "/simulator/log":
            return self._log(method, scope["query_string"])
        family, _, name = path.removeprefix("/v1").removeprefix("/").partition("/")
        if family == "models" and method == "GET":
            return _models() if not name else msgspec.json.encode(_model(name))
        if family == "responses" and name and "/" not in name:
            return self._stored(method, path, name)
        raise _unknown_url(method, path)

    def _log(self, method: str, query: bytes) -> bytes:
        if method == "DELETE":
            self.log.clear()
        elif method != "GET":
            raise _unknown_url(method, "/simulator/log")
        wanted = parse_qs(query.decode("latin-1"))
        since = wanted.get("since", ["0"])[0]
        if not since.isascii() or not since.isdigit():
            raise RequestRefused(400, "Invalid 'since': expected a number.", param="since", code="invalid_value")
        entries = self.log.find(since=int(since), wanted_id=wanted.get("id", [None])[0])
        return msgspec.json.encode({"last_number": self.log.last_number, "entries": entries})

    def _stored(self, method: str, path: str, response_id: str) -> bytes:
        stored = self.store.find(response_id)
        if method not in ("GET", "DELETE"):
            raise _unknown_url(method, path)
        if stored is None:
            raise RequestRefused(404, f"Response with id '{response_id}' not found.")
        if method == "GET":
            return stored.data
        self.store.remove(response_id)
        return msgspec.json.encode({"id": response_id, "object": "response", "deleted": True})

    def __repr__(self) -> str:
        return f"Simulator(log={self.log!r}, store={self.store!r})"


def _whole(data: bytes | None) -> bytes:
    if data is None:
        raise RequestRefused(413, f"The request body is longer than {BODY_BYTES_MAX} bytes.")
    return data


async def _refuse(exchange: Exchange, refusal: RequestRefused) -> None:
    exchange.served.error_code = refusal.code
    await send_body(exchange, refusal.status, b"application/json", refusal.body(), "refused")


async def _live(receive: Receive, send: Send) -> None:
    """Answer the server's questions about starting and stopping; there is nothing to do for either."""
    while True:
        kind = (await receive())["type"]
        await send({"type": f"{kind}.complete"})
        if kind == "lifespan.shutdown":
            return


def _unknown_url(method: str, path: str) -> RequestRefused:
    return RequestRefused(404, f"Invalid URL ({method} {path})")


def _models() -> bytes:
    return msgspec.json.encode({"object": "list", "data": [_model(name) for name in MODELS]})


def _model(name: str) -> dict[str, object]:
    # Any name is answered, so any name exists.
    return {"id": name, "object": "model", "created": MODELS_CREATED_S, "owned_by": "headgate-simulator"}


def _new_request_id() -> str:
    return f"req_{random_hex(32)}"
