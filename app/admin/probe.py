"""Trying an upstream: one small call, by the way that requests take, with the gateway's own credential."""

from __future__ import annotations

import asyncio
import time
from typing import Any
from weakref import WeakSet

from app.core.errors import Conflict, UpstreamError
from app.upstream.pool import UpstreamPool

PROBE_S_MAX = 10.0
PATH = "/models"

UNREACHABLE = "It cannot be connected to."
REFUSED = "It refuses our credential: look at the key in the configuration."
LATE = f"It gave no answer within {PROBE_S_MAX:.0f} s."


class Probes:
    """One at a time of each upstream."""

    def __init__(self) -> None:
        self._running: WeakSet[UpstreamPool] = WeakSet()

    def __repr__(self) -> str:
        return f"Probes(running={len(self._running)})"

    async def probe(self, pool: UpstreamPool) -> dict[str, Any]:
        """``{"ok", "status", "took_ms", "error"}``: nothing that the upstream says, and no credential.

        The pool learns whether it can be reached, as it does from any call. Raises Conflict.
        """
        if pool in self._running:
            raise Conflict("A probe of this upstream is running: wait for it.")
        self._running.add(pool)
        began_s = time.monotonic()
        try:
            status, error = await _asked(pool)
        finally:
            self._running.discard(pool)
        took_ms = round((time.monotonic() - began_s) * 1000)
        return {"ok": error is None, "status": status, "took_ms": took_ms, "error": error}


async def _asked(pool: UpstreamPool) -> tuple[int | None, str | None]:
    try:
        async with asyncio.timeout(PROBE_S_MAX):
            answer = await pool.send("GET", PATH, b"", [(b"accept", b"application/json")], None)
    except TimeoutError:
        return None, LATE
    except UpstreamError as failed:
        return None, UNREACHABLE if failed.code == "upstream_unreachable" else failed.message
    # The head says enough; a body of any length may follow.
    answer.close()
    if answer.status in {401, 403}:
        return answer.status, REFUSED
    if answer.status >= 400:
        return answer.status, f"It answers {answer.status} to GET {PATH}."
    return answer.status, None
