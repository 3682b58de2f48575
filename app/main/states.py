"""Which dependencies answer, told once for each change."""

from __future__ import annotations

from collections.abc import Callable

from app.telemetry.logs import LogWriter
from app.telemetry.metrics import Metrics


class States:
    """Which dependencies answer: told once for each change, to the log, the metrics and the readiness."""

    def __init__(self, metrics: Metrics, log: LogWriter) -> None:
        self._metrics = metrics
        self._log = log
        self._down: set[str] = set()
        self._seen_up: set[str] = set()

    def __repr__(self) -> str:
        return f"States(down={sorted(self._down)})"

    def is_down(self, dependency: str) -> bool:
        return dependency in self._down

    def has_been_up(self, dependency: str) -> bool:
        """Whether it has ever said so."""
        return dependency in self._seen_up

    def reporter(self, dependency: str) -> Callable[[bool, str], None]:
        """The callback through which ``dependency`` tells about itself."""
        self._metrics.degraded.labels(dependency).set(0)

        def report(up: bool, reason: str) -> None:  # noqa: FBT001 - the callback's shape
            was_down = dependency in self._down
            self._metrics.degraded.labels(dependency).set(0 if up else 1)
            if up:
                self._seen_up.add(dependency)
                self._down.discard(dependency)
                if was_down:
                    self._log.info("dependency_up", dependency=dependency)
            else:
                self._down.add(dependency)
                self._log.error("dependency_down", dependency=dependency, reason=reason)

        return report
