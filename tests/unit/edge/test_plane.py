"""What the door counts."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from app.core.clock import SystemClock
from app.edge.peers import Peers
from app.edge.plane import Gateway as GatewayApp
from app.settings import ServerSettings
from app.telemetry.logs import LogWriter
from app.telemetry.metrics import Metrics


class Broken:
    """A pipeline with a bug."""

    async def serve(self, exchange):
        raise ZeroDivisionError


async def test_a_bug_is_counted_and_left_to_the_connection_to_answer():
    metrics = Metrics()
    app = GatewayApp(
        Broken(),
        None,
        settings=ServerSettings(),
        peers=Peers([]),
        readiness=list,
        clock=SystemClock(),
        metrics=metrics,
        log=LogWriter(),
    )
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/responses",
        "raw_path": b"/v1/responses",
        "query_string": b"",
        "headers": [(b"content-type", b"application/json")],
        "client": ("127.0.0.1", 1),
        "headgate.connection": SimpleNamespace(request_id="", body_length=0),
    }
    with pytest.raises(ZeroDivisionError):
        await app(scope, None, None)
    assert metrics.registry.get_sample_value("headgate_refused_total", {"code": "internal_error"}) == 1
