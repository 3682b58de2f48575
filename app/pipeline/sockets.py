"""Responses over a WebSocket: a client's connection, from its handshake to its end."""

from __future__ import annotations

from collections.abc import Callable

from app.auth.running import Running
from app.core.errors import UpgradeRequired
from app.core.exchange import Exchange
from app.core.identity import Principal
from app.pipeline.stages import Stages
from app.pipeline.talk import Talk
from app.upstream.frames import POLICY_VIOLATION, FrameStream

Accept = Callable[[str | None], FrameStream]
"""Switches the protocol, with the subprotocol that is chosen."""


class Sockets:
    """Serves such connections. ``stages`` are those of one configuration."""

    def __init__(self, stages: Stages, running: Running) -> None:
        self.stages = stages
        self._running = running

    def __repr__(self) -> str:
        return f"Sockets({self.stages.planner!r})"

    async def serve(
        self,
        exchange: Exchange,
        principal: Principal,
        accept: Accept,
        is_draining: Callable[[], bool],
        current: Callable[[], Stages],
    ) -> None:
        """One connection. ``current`` tells the stages in force, by which each create goes. Raises UpgradeRequired
        where no upstream has WebSockets.
        """
        if not self.stages.planner.has_sockets:
            raise UpgradeRequired
        talk = Talk(current, exchange, principal, accept(None), is_draining)
        if not self._running.enter(principal.secret_id, talk):
            talk.client.close(POLICY_VIOLATION, "key_revoked")
            return
        try:
            await talk.run()
        finally:
            self._running.leave(principal.secret_id, talk)
            talk.end()
