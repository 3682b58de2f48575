"""The live feed: what is in flight and what has just ended, for whoever looks.

- ``board``: what the data plane tells, for next to nothing.
- ``rows``: how it is shown. ``deltas``: what has changed in one process since it was last looked at.
- ``scene``: the processes put together. ``viewer``: what one who looks is told, at most so often.
- ``feed``: begins when somebody looks, and ends with the last of them.
"""

from __future__ import annotations

from app.telemetry.live.board import LiveBoard, Sighting
from app.telemetry.live.feed import LiveFeed, Sharing, TooManyViewers
from app.telemetry.live.viewer import Event, Scope, Viewer

__all__ = ["Event", "LiveBoard", "LiveFeed", "Scope", "Sharing", "Sighting", "TooManyViewers", "Viewer"]
