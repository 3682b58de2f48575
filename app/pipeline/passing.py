"""What leaves no record: the rest of the API, passed to the upstream that it concerns, if it is the team's."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from app.auth.references import (
    Reference,
    fields_of_query,
    find_references,
    references_of_fields,
    refuse_account_sources,
)
from app.auth.running import Running
from app.cache.telling import bypass_headers
from app.catalog import Route
from app.core.errors import (
    GatewayError,
    Headers,
    InvalidAPIKey,
    InvalidRequest,
    Overloaded,
    UpgradeRequired,
    UpstreamAuthFailed,
    UpstreamError,
    UpstreamInvalidResponse,
    UpstreamPaused,
    UpstreamTimeout,
)
from app.core.exchange import BodyStream, Exchange
from app.core.identity import Principal
from app.pipeline.batch_input import CHECKS_AT_ONCE, Match, check_batch_input
from app.pipeline.carriage import ERROR_BODY_BYTES_MAX, EVENT_STREAM
from app.pipeline.desk import Desk
from app.pipeline.errand import Errand, OnReading
from app.pipeline.models import ModelList
from app.pipeline.own_lists import OwnLists
from app.pipeline.plain_socket import PlainSocket
from app.pipeline.planning import Planner, named_model, parse, parse_multipart, references_of_path, with_model
from app.pipeline.sockets import Accept
from app.settings import Configuration
from app.upstream.client import Answer
from app.upstream.headers import find, subprotocols_of, toward_client, toward_upstream
from app.upstream.pool import UpstreamPool
from app.upstream.relay import HELD_BODY_BYTES_MAX, Collection, Cut, Relay
from app.upstream.watch import Sweep

PASSED_HEADERS = bypass_headers("endpoint")
OF_ITEMS = frozenset(("responses", "conversations"))
"""Families whose bodies hold items, whose ids are in known places."""
OF_GRADERS = frozenset(("evals", "fine_tuning"))
"""Families whose bodies may name models below their top."""
NO_BODY = (204, 304)


class Brought(msgspec.Struct, frozen=True):
    """What is read of a request that is only passed on."""

    body: bytes | BodyStream | None
    references: list[Reference]
    model: str | None = None
    model_span: tuple[int, int] = (0, 0)
    input_file_id: str | None = None
    route: Route | None = None
    """Where it goes, if kept turns have decided that."""


class Passing:
    """Serves such requests of one configuration."""

    def __init__(
        self,
        planner: Planner,
        models: ModelList,
        lists: OwnLists,
        desk: Desk,
        running: Running,
        *,
        sweep: Sweep,
        collection: Collection,
        configuration: Configuration,
        match_in_batch: Match,
        allows: Callable[[Principal, str], bool],
    ) -> None:
        """``match_in_batch`` tells what a line of a batch asks for, ``allows`` whether a key was given a family."""
        self._planner = planner
        self._models = models
        self._lists = lists
        self._desk = desk
        self._running = running
        self._sweep = sweep
        self._collection = collection
        self._configuration = configuration
        self._batch_checks = 0
        self._match_in_batch = match_in_batch
        self._allows = allows

    def __repr__(self) -> str:
        return f"Passing({self._planner!r})"

    async def serve(self, exchange: Exchange, principal: Principal) -> None:
        """Answer the request. What is refused is raised as GatewayError."""
        endpoint = exchange.endpoint
        if endpoint.family == "models" and endpoint.method == "GET":
            name = None if endpoint.path == "/models" else exchange.path.removeprefix("/models/")
            self._respond(exchange, await self._models.body_for(principal, name))
            self._tell(exchange, principal, 200)
            return
        if endpoint.lists:
            self._respond(exchange, await self._lists.body_for(exchange, principal))
            self._tell(exchange, principal, 200)
            return
        if self._planner.kept is not None and endpoint.family == "responses":
            told = await self._planner.kept.answer(exchange, principal, self._planner.holder_of)
            if told is not None:
                self._respond(exchange, told)
                self._tell(exchange, principal, 200)
                return
        load = await self._read(exchange, principal)
        references = load.references if not endpoint.known else [*references_of_path(exchange), *load.references]
        route = load.route
        if route is None:
            pool, route = await self._planner.pool_for(exchange, principal, references, load.model)
        else:
            pool = self._planner.pool_of(route)
        check_pause(exchange, pool)
        if endpoint.creates == "batch":
            await self._check_batch(principal, pool, load)
        body = load.body
        if isinstance(body, bytes) and route is not None and load.model is not None:
            name = pool.model_in_body(exchange.path, route.model)
            body = with_model(body, load.model_span, name, load.model)
        if exchange.method == "DELETE":
            for kind, object_id in exchange.ids:
                if kind == "response":
                    await self._desk.background.ask_before_it_goes(pool.name, object_id)
        await self._carry(exchange, principal, pool, body)

    async def serve_socket(
        self,
        exchange: Exchange,
        principal: Principal,
        accept: Accept,
        is_draining: Callable[[], bool],
        check: Callable[[], None],
    ) -> None:
        """A WebSocket that is passed on as it is, for as long as ``check`` raises no GatewayError of its key. What is
        refused before the handshake is raised as GatewayError.
        """
        references = references_of_path(exchange)
        fields = fields_of_query(exchange.query)
        if [name for name, _ in fields] != ["model"]:
            # A call of another team's could be joined by its id, and of two models nobody knows which one counts.
            raise InvalidRequest("A realtime session names one model, and nothing else.", param="model")
        model = fields[0][1]
        pool, route = await self._planner.pool_for(exchange, principal, references, model)
        if pool.breaker.is_paused:
            raise UpstreamPaused
        if not pool.has_sockets:
            raise UpgradeRequired
        headers = toward_upstream(exchange.headers, pool.forwarded, principal.team_id)
        headers.append((b"x-client-request-id", exchange.request_id.encode()))
        offered = subprotocols_of(exchange.headers)
        upstream = await pool.switch(
            exchange.path, exchange.query, headers, offered, "" if route is None else route.model
        )
        slow_s = self._configuration.server.slow_client_s
        try:
            client = accept(upstream.subprotocol)
        except BaseException:
            upstream.abort()
            raise
        socket = PlainSocket(client, upstream, slow_s=slow_s, is_draining=is_draining, check=check)
        if not self._running.enter(principal.secret_id, socket):
            socket.revoke()
        try:
            await socket.run()
        finally:
            self._running.leave(principal.secret_id, socket)
            self._tell(exchange, principal, 101)

    async def _read(self, exchange: Exchange, principal: Principal) -> Brought:
        """The body, and what it names. Raises InvalidRequest, and ModelNotAllowed for a model deep within."""
        if not exchange.media:
            return Brought(b"" if exchange.endpoint.body else None, [])
        if exchange.media == "upload":
            return Brought(exchange.open_body(), [])
        body = await exchange.read_body()
        if not body:
            # SDKs say that it is JSON, and send nothing, where a call has no arguments: a cancel.
            return Brought(b"", [])
        if exchange.media == "form":
            return Brought(body, references_of_fields((await parse_multipart(exchange, body)).texts()))
        document = await parse(body)
        dialect = "responses" if exchange.endpoint.family in OF_ITEMS else exchange.endpoint.dialect
        references = find_references(dialect, document)
        model = document.get_str("model")
        kept = self._planner.kept
        route = None
        if kept is not None and exchange.endpoint.family == "responses":
            document, references, route = await self._planner.bring_along(
                kept, exchange, principal, document, [*references_of_path(exchange), *references]
            )
            body = document.body
            if route is not None and model is None:
                name = self._planner.pool_of(route).model_in_body(exchange.path, route.model)
                body = named_model(body, name)
        span = (0, 0) if model is None else document.span_of("model")
        if exchange.endpoint.family == "evals":
            refuse_account_sources(document)
        if exchange.endpoint.family in OF_GRADERS:
            references += self._planner.check_nested_models(principal, document)
        file_id = document.get_str("input_file_id") if exchange.endpoint.creates == "batch" else None
        return Brought(body, references, model, span, file_id, route)

    async def _check_batch(self, principal: Principal, pool: UpstreamPool, load: Brought) -> None:
        """What the batch is to run. Raises GatewayError."""
        file_id = load.input_file_id
        if file_id is None:
            raise InvalidRequest("A batch needs an input_file_id.", param="input_file_id")
        if self._batch_checks >= CHECKS_AT_ONCE:
            raise Overloaded("The gateway reads as many batches' files as it may.")
        self._batch_checks += 1
        try:
            await check_batch_input(
                self._planner,
                pool,
                principal,
                file_id,
                self._match_in_batch,
                lambda family: self._allows(principal, family),
            )
        except TimeoutError:
            raise UpstreamTimeout from None
        finally:
            self._batch_checks -= 1

    # -- the call -------------------------------------------------------------------------------

    async def _carry(
        self, exchange: Exchange, principal: Principal, pool: UpstreamPool, body: bytes | BodyStream | None
    ) -> None:
        errand = Errand(self._desk, exchange, principal, pool.name, self._watcher(exchange, pool))
        relay = Relay(
            exchange.connection,
            errand,
            sweep=self._sweep,
            collection=self._collection,
            policy=self._configuration.stream,
            slow_client_s=self._configuration.server.slow_client_s,
        )
        try:
            if not self._running.enter(principal.secret_id, relay):
                raise InvalidAPIKey(should_retry=False)
            try:
                headers = toward_upstream(exchange.headers, pool.forwarded, principal.team_id)
                headers.append((b"x-client-request-id", exchange.request_id.encode()))
                # What only reads is given up with its client; what makes something is seen to its end.
                reads = exchange.method in {"GET", "HEAD"}
                answer = await relay.call(pool, exchange, headers=headers, body=body, wants_stream=reads)
                exchange.forget_body()
                if exchange.method == "DELETE" and 200 <= answer.status < 300:
                    await self._lists.forget(exchange, principal)
                    for _, object_id in exchange.ids:
                        self._desk.background.deleted(pool.name, object_id)
                await self._hand_over(exchange, errand, relay, answer, pool)
            finally:
                self._running.leave(principal.secret_id, relay)
        except UpstreamError as error:
            errand.status = error.status
            error.headers.append((b"x-headgate-upstream", pool.name.encode()))
            raise
        finally:
            relay.close()
            self._tell(exchange, principal, errand.status)

    def _watcher(self, exchange: Exchange, pool: UpstreamPool) -> OnReading | None:
        """Who waits for what has become of the response that is asked for."""
        found = next((object_id for kind, object_id in exchange.ids if kind == "response"), None)
        return None if found is None else self._desk.background.watcher(pool.name, found)

    async def _hand_over(
        self, exchange: Exchange, errand: Errand, relay: Relay, answer: Answer, pool: UpstreamPool
    ) -> None:
        status = errand.status = answer.status
        if status in {401, 403}:
            self._desk.log.error("upstream_auth_failed", upstream=pool.name, status=status)
            raise UpstreamAuthFailed
        # A redirect would take the key along; that nothing has changed is an answer.
        passes = 200 <= status < 300 or status >= 400 or status == 304
        if answer.content_encoding not in {"", "identity"} or not passes:
            raise UpstreamInvalidResponse
        headers = _headers(exchange, answer, pool)
        connection = exchange.connection
        if exchange.method == "HEAD" or status in NO_BODY:
            # Not as an empty body: its length would be told as that of what a GET brings.
            connection.start(status, headers)
            connection.finish()
        elif status >= 400:
            body, cut, more = await relay.read(answer, ERROR_BODY_BYTES_MAX)
            if cut is not None or more:
                raise _error_of(relay, cut)
            connection.respond(status, headers, pool.redact(body))
        elif answer.content_type == EVENT_STREAM:
            self._end(exchange, await relay.stream(answer, status, headers))
        elif answer.content_type in {"", "application/json"} and not exchange.path.endswith("/content"):
            body, cut, more = await relay.read(answer, HELD_BODY_BYTES_MAX)
            if cut is not None:
                raise _error_of(relay, cut)
            if more:
                self._end(exchange, await relay.pass_on(answer, status, headers, body))
                return
            if not errand.saw_json(body) and body and answer.content_type:
                raise UpstreamInvalidResponse
            connection.respond(status, headers, body)
        else:
            await self._pass_file(exchange, relay, answer, headers)

    async def _pass_file(self, exchange: Exchange, relay: Relay, answer: Answer, headers: Headers) -> None:
        """What is nobody's to read: bytes, as they come."""
        length = find(answer.headers, b"content-length")
        if length is not None:
            headers.append((b"content-length", length))
        headers.append((b"x-content-type-options", b"nosniff"))
        self._end(exchange, await relay.pass_on(answer, answer.status, headers, b""))

    def _end(self, exchange: Exchange, cut: Cut | None) -> None:
        """What was cut off must not look whole: it can be asked for again."""
        if cut is None:
            exchange.connection.finish()
        else:
            self._desk.log.info("cut", request_id=exchange.request_id, cause=cut)
            exchange.connection.abort()

    # -- what is told ---------------------------------------------------------------------------

    def _respond(self, exchange: Exchange, body: bytes) -> None:
        """An answer of the gateway's own."""
        request_id = exchange.request_id.encode()
        headers = [(b"content-type", b"application/json"), (b"x-headgate-request-id", request_id)]
        exchange.connection.respond(200, [*headers, (b"x-request-id", request_id), *PASSED_HEADERS], body)

    def _tell(self, exchange: Exchange, principal: Principal, status: int | None) -> None:
        outcome = "completed" if status is not None and status < 400 else "failed"
        self._desk.metrics.passed.labels(exchange.endpoint.family, outcome).inc()
        self._desk.log.info(
            "unmetered",
            request_id=exchange.request_id,
            team=principal.team_name,
            key_id=principal.key_id,
            endpoint=exchange.endpoint.family,
            method=exchange.method,
            status=status,
        )


def check_pause(exchange: Exchange, pool: UpstreamPool) -> None:
    """Raises UpstreamPaused where new work is asked for; what is stored there can be read, changed and deleted."""
    endpoint = exchange.endpoint
    works = endpoint.creates or endpoint.unbilled or not endpoint.known or not exchange.ids
    if pool.breaker.is_paused and exchange.method not in {"GET", "HEAD", "DELETE"} and works:
        error = UpstreamPaused()
        error.headers.append((b"x-headgate-upstream", pool.name.encode()))
        raise error


def _headers(exchange: Exchange, answer: Answer, pool: UpstreamPool) -> Headers:
    headers = toward_client(answer.headers, rename_limits=False)
    request_id = exchange.request_id.encode()
    headers.append((b"x-headgate-request-id", request_id))
    if find(headers, b"x-request-id") is None:
        headers.append((b"x-request-id", request_id))
    headers.append((b"x-headgate-upstream", pool.name.encode()))
    if exchange.method == "HEAD":
        length = find(answer.headers, b"content-length")
        if length is not None:
            headers.append((b"content-length", length))
    headers.extend(PASSED_HEADERS)
    return headers


def _error_of(relay: Relay, cut: Cut | None) -> GatewayError:
    return UpstreamInvalidResponse() if cut is None else relay.error_of(cut)
