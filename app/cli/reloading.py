"""Puts a changed configuration file in force, on SIGHUP or when it looks different."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from prometheus_client import Counter

from app.settings import Configuration, ConfigurationError, ConfigurationFile, parse_configuration
from app.telemetry.logs import LogWriter

LOOK_INTERVAL_S = 2.0

PutInForce = Callable[[bytes, Configuration], Awaitable[None]]


class Reloader:
    """Looks at the file, and refuses what is wrong: the old configuration then stays in force."""

    def __init__(self, file: ConfigurationFile, put_in_force: PutInForce, log: LogWriter, reloads: Counter) -> None:
        """``reloads`` has one label, the result."""
        self._file = file
        self._put_in_force = put_in_force
        self._log = log
        self._reloads = reloads
        self._asked = asyncio.Event()

    def __repr__(self) -> str:
        return f"Reloader({self._file!r})"

    def ask(self) -> None:
        """Read it again even if it looks the same: the file of a secret may have changed."""
        self._asked.set()

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_INTERVAL_S):
                    await self._asked.wait()
            if self._asked.is_set() or await asyncio.to_thread(self._file.changed):
                self._asked.clear()
                await self._reload()

    async def _reload(self) -> None:
        try:
            raw = await asyncio.to_thread(self._file.read)
            configuration = await asyncio.to_thread(parse_configuration, raw, self._file.path)
            await self._put_in_force(raw, configuration)
        except ConfigurationError as error:
            refusal = str(error)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with it, what runs goes on
            refusal = f"{type(error).__name__} while it was put in force"
        else:
            self._reloads.labels("reloaded").inc()
            off = sorted(name for name, upstream in configuration.upstreams.items() if upstream.is_off)
            self._log.info("configuration_reloaded", path=str(self._file.path), upstreams_off=off)
            return
        self._reloads.labels("refused").inc()
        self._log.error("configuration_refused", reason=refusal)
