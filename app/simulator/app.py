"""The simulator as an ASGI application: no framework, since it is also what load is measured against."""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING

import msgspec

from app.core.clock import Clock, SystemClock
from app.simulator.background import BackgroundRuns
from app.simulator.channel import Channel, ClientGone
from app.simulator.conversation_store import ConversationStore
from app.simulator.conversations import Conversations
from app.simulator.delivery import send_body
from app.simulator.errors import REFUSED, RequestRefused, refusal_of
from app.simulator.exchange import Exchange
from app.simulator.generate import Generator
from app.simulator.identifiers import new_request_id
from app.simulator.log import BilledUsage, ServedLog
from app.simulator.memory import Memory
from app.simulator.realtime import RealtimeSession
from app.simulator.resources.batches import Batches
from app.simulator.resources.kinds import Kept
from app.simulator.resources.media import media_endpoints
from app.simulator.resources.videos import Videos
from app.simulator.response_store import ResponseStore
from app.simulator.responses_socket import ResponsesSocket
from app.simulator.routes import BODY_BYTES_MAX, Reply, Request, Routes, json_reply
from app.simulator.socket import Socket
from app.simulator.steering import UNSTEERED
from app.simulator.stored_responses import StoredResponses

if TYPE_CHECKING:
    from app.simulator.channel import Receive, Scope, Send
    from app.simulator.exchange import Endpoint

    Headers = dict[bytes, bytes]

MODELS = ("sim-large", "sim-mini", "sim-reasoning", "sim-embedding")
RESPONSES_PATHS = ("/v1/responses", "/responses")
REALTIME_PATHS = ("/v1/realtime", "/realtime")
MODELS_CREATED_S = 1_767_225_600


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
        self.conversations = ConversationStore()
        self.runs = BackgroundRuns()
        self.kept = Kept(self._clock)
        self._memory = memory = Memory(self.store, self.conversations)
        self._generator = generator = Generator(memory, self.runs, self.kept.chats.keep)
        endpoints: dict[str, tuple[str, Endpoint]] = {
            "/responses": ("responses", generator.respond),
            "/responses/compact": ("responses.compact", generator.compact),
            "/chat/completions": ("chat.completions", generator.complete_chat),
            "/embeddings": ("embeddings", generator.embed),
            **media_endpoints(generator, self.kept),
        }
        self._endpoints = endpoints | {f"/v1{path}": endpoint for path, endpoint in endpoints.items()}
        self.batches = Batches(self.kept.tables, self.kept.files, self._endpoints, self.log, self._clock)
        self._routes = self._routed(memory, generator)

    def _routed(self, memory: Memory, generator: Generator) -> Routes:
        routes = Routes()
        routes.add("GET", "models", _list_models)
        routes.add("GET", "models/{}", _get_model)
        routes.add("GET", "models/{}/{}", _get_model)
        routes.add("POST", "responses/input_tokens", generator.count_input)
        StoredResponses(self.store, self.runs, self._clock).add_to(routes)
        Conversations(memory, self._clock).add_to(routes)
        self.kept.add_to(routes)
        Videos(generator, self.kept.tables).add_to(routes)
        self.batches.add_to(routes)
        return routes

    def stop(self) -> None:
        """End what runs in the background, and give back what is on disk."""
        self.runs.stop()
        self.batches.stop()
        self.kept.close()

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
            await self._serve_socket(scope, receive, send)

    async def _serve_socket(self, scope: Scope, receive: Receive, send: Send) -> None:
        socket = Socket(scope, receive, send)
        headers = dict(scope["headers"])
        try:
            self._authorize(headers)
            if scope["path"] not in (*RESPONSES_PATHS, *REALTIME_PATHS):
                raise _unknown_url("GET", scope["path"])
        except RequestRefused as refusal:
            await socket.refuse(refusal)
            return
        await socket.accept(new_request_id())
        channel = Channel(scope, receive, send)
        generator, log, clock = self._generator, self.log, self._clock
        if scope["path"] in REALTIME_PATHS:
            model = Request(scope, channel).text("model")
            await RealtimeSession(socket, channel, generator, log, clock, model).serve(headers)
        else:
            await ResponsesSocket(socket, channel, generator, self._memory, log, clock).serve(headers)

    async def _answer(self, scope: Scope, channel: Channel) -> None:
        if scope["method"] == "POST":
            endpoint = self._endpoints.get(scope["path"])
            if endpoint is not None:
                await self._generate(endpoint, dict(scope["headers"]), channel)
                return
        try:
            reply = await self._look_up(Request(scope, channel))
        except REFUSED as error:
            refusal = refusal_of(error)
            reply = Reply(refusal.body(), refusal.status)
        if reply is None:
            return
        length = (b"content-length", b"%d" % len(reply.body))
        kind = (b"content-type", reply.content_type)
        await channel.start(reply.status, [kind, length, (b"x-request-id", new_request_id())])
        await channel.finish(reply.body)

    async def _generate(self, endpoint: tuple[str, Endpoint], headers: Headers, channel: Channel) -> None:
        name, prepare = endpoint
        data = await channel.read_body(BODY_BYTES_MAX)
        attempt_id = headers.get(b"x-client-request-id", b"").decode("latin-1")
        served = self.log.open(attempt_id, name, self._clock.now_ms())
        exchange = Exchange(channel, served, UNSTEERED, BilledUsage(), self._clock, new_request_id(), self.log)
        exchange.content_type = headers.get(b"content-type", b"")
        try:
            self._authorize(headers)
            await prepare(exchange, _whole(data), headers.get(b"x-sim"))
        except REFUSED as error:
            # All of them come from reading the body, before anything was sent.
            await _refuse(exchange, refusal_of(error))
        finally:
            # Reached without an end where the server is stopped in the middle of an answer.
            if not exchange.runs_on:
                exchange.end("cut")

    def _authorize(self, headers: Headers) -> None:
        wanted = self._authorization
        if wanted is None or hmac.compare_digest(headers.get(b"authorization", b""), wanted):
            return
        raise RequestRefused(401, "Incorrect API key provided.", code="invalid_api_key")

    async def _look_up(self, request: Request) -> Reply | None:
        """The answer to what is not a generation."""
        method, path = request.method, request.path
        if path == "/healthz" and method == "GET":
            return Reply(b'{"status":"ok"}')
        self._authorize(request.headers)
        if path == "/simulator/log":
            return Reply(self._log(request))
        found = self._routes.find(method, path)
        if found is None:
            raise _unknown_url(method, path)
        handler, ids = found
        return await handler(request, *ids)

    def _log(self, request: Request) -> bytes:
        if request.method == "DELETE":
            self.log.clear()
        elif request.method != "GET":
            raise _unknown_url(request.method, request.path)
        since = request.text("since") or "0"
        if not since.isascii() or not since.isdigit():
            raise RequestRefused(400, "Invalid 'since': expected a number.", param="since", code="invalid_value")
        entries = self.log.find(since=int(since), wanted_id=request.text("id"))
        return msgspec.json.encode({"last_number": self.log.last_number, "entries": entries})

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


async def _list_models(request: Request) -> Reply:
    del request
    return json_reply({"object": "list", "data": [_model(name) for name in MODELS]})


async def _get_model(request: Request, *names: str) -> Reply:
    del request
    return json_reply(_model("/".join(names)))


def _model(name: str) -> dict[str, object]:
    # Any name is answered, so any name exists.
    return {"id": name, "object": "model", "created": MODELS_CREATED_S, "owned_by": "headgate-simulator"}
