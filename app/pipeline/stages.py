"""What a create goes through that comes over a WebSocket, by one configuration: read, planned, counted, reserved."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from app.auth.references import Reference
from app.cache.inquiry import Inquiry
from app.core.codec import JSONObject
from app.core.errors import GatewayError, InvalidAPIKey, InvalidRequest
from app.core.exchange import Exchange
from app.core.identity import Principal
from app.core.peek import Peek, peek
from app.pipeline.aloft import Aloft
from app.pipeline.boarding import Boarded, Boarding
from app.pipeline.desk import Desk
from app.pipeline.load import Load
from app.pipeline.plan import Plan
from app.pipeline.planning import Planner
from app.settings import Configuration
from app.upstream.breaker import Call
from app.upstream.pool import UpstreamPool


class Stages(msgspec.Struct, frozen=True):
    """``check`` refuses who may not use the endpoint."""

    planner: Planner
    boarding: Boarding
    desk: Desk
    configuration: Configuration
    load: Load
    pools: Mapping[str, UpstreamPool]
    principal_of: Callable[[str], Principal | None]
    check: Callable[[Principal, Exchange], None]
    on_refused: Callable[[Exchange, Principal, GatewayError], None]

    def principal_now(self, secret_id: str, exchange: Exchange) -> Principal:
        """Whose secret it is, as that stands now. Raises InvalidAPIKey, EndpointNotAllowed."""
        principal = self.principal_of(secret_id)
        if principal is None:
            raise InvalidAPIKey(should_retry=False)
        self.check(principal, exchange)
        return principal

    async def board(
        self,
        exchange: Exchange,
        principal: Principal,
        ask: Peek,
        references: list[Reference],
        pool: UpstreamPool | None,
        size_bytes: int,
    ) -> tuple[Boarded, Aloft]:
        """Reserve for a create, and count it among all that is in flight; ``pool`` is where its connection leads
        already. Raises GatewayError; from then on every way out leads through ``land``.
        """
        routes = await self.planner.socket_routes(principal, ask, references, pool)
        plan = Plan(ask, b"", routes, Inquiry("websocket"), size_bytes)
        self.load.enter(self.configuration.server.in_flight_max)
        try:
            boarded = await self.boarding.board(exchange, principal, plan, "bypass")
        except BaseException:
            self.load.leave()
            raise
        call = Call(self.pools[boarded.route.upstream].breaker)
        return boarded, Aloft(self.desk, self.load, boarded.flight, exchange, call)


def ask_of_create(document: JSONObject) -> Peek:
    """What a create asks for. Raises InvalidRequest."""
    ask = msgspec.structs.replace(peek("responses", document), stream=True)
    if ask.background:
        raise InvalidRequest("A background response is asked for over HTTP.", param="background")
    if document.get_bool("generate") is False:
        # The input is made ready, and nothing is made of it: no output, and no tool is called.
        extent = msgspec.structs.replace(ask.extent, tools=(), max_tool_calls=None)
        ask = msgspec.structs.replace(ask, output_tokens_max=0, extent=extent)
    return ask
