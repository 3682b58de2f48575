"""One who watches the live feed of a real gateway, and what it knows by the events that it was told."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from typing import Any, Self
from urllib.parse import urlencode

SILENCE_S_MAX = 20.0
LIVE, OWN = "/admin/api/v1/live", "/me/live"


class Screen:
    """Watches for as long as ``with`` lasts. ``ended`` is set where nothing follows any more."""

    def __init__(self, port: int, headers: dict[str, str], path: str = LIVE, **params: str) -> None:
        self.in_flight: dict[str, dict[str, Any]] = {}
        self.finished: dict[str, dict[str, Any]] = {}
        self.events: list[tuple[float, str]] = []
        self.dropped = 0
        self.count: dict[str, Any] = {}
        self.text = ""
        self.ended = threading.Event()
        self.ended_s = 0.0
        self._connection = HTTPConnection("127.0.0.1", port, timeout=SILENCE_S_MAX)
        self._connection.connect()
        self._socket: socket.socket = self._connection.sock
        self._connection.request("GET", f"{path}?{urlencode(params)}", headers=headers)
        self._answer = self._connection.getresponse()
        self.status = self._answer.status
        self.headers = {name.lower(): value for name, value in self._answer.getheaders()}
        self._thread = threading.Thread(target=self._run, daemon=True)
        if self.status != 200:
            # There is nothing to watch.
            self._close()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()

    def leave(self) -> None:
        """As a browser does that goes elsewhere."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(10)
        self._close()

    def _close(self) -> None:
        self._answer.close()
        self._connection.close()
        self._socket.close()

    def _run(self) -> None:
        name = ""
        try:
            while line := self._answer.readline().decode():
                self.text += line
                field, _, value = line.rstrip("\n").partition(": ")
                if field == "event":
                    name = value
                elif field == "data":
                    self._take(name, json.loads(value))
        except (OSError, HTTPException):
            pass
        finally:
            self.ended_s = time.monotonic()
            self.ended.set()

    def _take(self, name: str, data: Any) -> None:
        self.events.append((time.monotonic(), name))
        if name == "snapshot":
            self.in_flight = {row["request_id"]: row for row in data["in_flight"]}
            self.finished |= {row["request_id"]: row for row in data["finished"]}
        elif name == "started":
            self.in_flight[data["request_id"]] = data
        elif name == "progress":
            self.in_flight[data["request_id"]].update(data)
        elif name == "finished":
            self.in_flight.pop(data["request_id"], None)
            self.finished[data["request_id"]] = data
        elif name == "ended":
            for request_id in data["request_ids"]:
                del self.in_flight[request_id]
        elif name == "dropped":
            self.dropped += data["events"]
        else:
            assert name == "count"
            self.count = data

    def busiest_rate(self) -> float:
        """The most events a second, over any two: what was held up on the way may arrive in the second after."""
        times = [at_s for at_s, _ in self.events]
        return max(sum(1 for at_s in times if begin <= at_s < begin + 2) for begin in times) / 2


def until(holds: Callable[[], Any], timeout_s: float = 30.0, tell: Callable[[], Any] = str) -> float:
    """Waits until it is true; how long that took."""
    began_s = time.monotonic()
    while not holds():
        assert time.monotonic() - began_s < timeout_s, ("it did not come true", tell())
        time.sleep(0.01)
    return time.monotonic() - began_s
