"""``/videos``: ready after a while, and billed by the second when they are asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from app.simulator.delivery import answer_wholly
from app.simulator.errors import RequestRefused, refuse_missing, refuse_value
from app.simulator.identifiers import random_hex
from app.simulator.log import BilledUsage
from app.simulator.pages import page_of
from app.simulator.resources.answers import WholeAnswer
from app.simulator.resources.blobs import PatternContent, send_content
from app.simulator.resources.multipart import form_of
from app.simulator.resources.table import SETTLE_MS
from app.simulator.routes import Reply, json_reply
from app.simulator.steering import without_directives

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from app.simulator.exchange import Exchange
    from app.simulator.generate import Generator
    from app.simulator.resources.table import Tables
    from app.simulator.routes import Request, Routes

PATTERN = "videos"
SECONDS = 4
SECONDS_MAX = 60
VIDEO_BYTES = 100_000
VIDEO_TYPE = b"video/mp4"


class Videos:
    """The endpoints of videos."""

    def __init__(self, generator: Generator, tables: Tables) -> None:
        self._generator = generator
        self._tables = tables

    def add_to(self, routes: Routes) -> None:
        routes.add("GET", PATTERN, self.list)
        routes.add("GET", "videos/{}", self.get)
        routes.add("DELETE", "videos/{}", self.delete)
        routes.add("GET", "videos/{}/content", self.content)

    def create(self, exchange: Exchange, data: bytes, header: bytes | None) -> Awaitable[None]:
        """``POST /videos``."""
        members = _members_of(exchange.content_type, data)
        prompt = members.get("prompt")
        if not isinstance(prompt, str) or not prompt:
            refuse_missing("prompt")
        told = str(members.get("seconds") or SECONDS)
        if not (told.isascii() and told.isdigit() and 0 < int(told[:9]) <= SECONDS_MAX):
            refuse_value("seconds", f"Invalid 'seconds': expected 1 to {SECONDS_MAX}.")
        model = str(members.get("model") or "sora-2")
        steering = self._generator.steer(exchange, model, prompt, header, stream=False)
        exchange.used = BilledUsage(seconds=int(told))
        video_id = steering.repeat_id or f"video_{random_hex(32)}"
        exchange.served.response_id = video_id
        shown: dict[str, Any] = {
            "id": video_id,
            "object": "video",
            "created_at": exchange.served.started_ms // 1000,
            "completed_at": None,
            "expires_at": None,
            "error": None,
            "model": model,
            "progress": 0,
            "prompt": without_directives(prompt),
            "remixed_from_video_id": None,
            "seconds": told,
            "size": members.get("size") or "720x1280",
            "status": "queued",
        }
        answer = WholeAnswer(msgspec.json.encode(shown))
        if steering.error is None:
            size = steering.event_bytes or VIDEO_BYTES
            self._tables.keep(("videos/{}/content", video_id), {"size": size})
            settled = {"status": "completed", "progress": 100, "completed_at": 0}
            self._tables.keep((PATTERN, video_id), shown, settled, steering.queue_ms or SETTLE_MS)
        return answer_wholly(exchange, answer)

    async def list(self, request: Request) -> Reply:
        return json_reply(page_of(self._tables.below((PATTERN,)), request))

    async def get(self, request: Request, video_id: str) -> Reply:
        del request
        return json_reply(self._tables.found((PATTERN, video_id)))

    async def delete(self, request: Request, video_id: str) -> Reply:
        del request
        self._tables.found((PATTERN, video_id))
        self._tables.remove((PATTERN, video_id))
        return json_reply({"id": video_id, "object": "video.deleted", "deleted": True})

    async def content(self, request: Request, video_id: str) -> None:
        if self._tables.found((PATTERN, video_id))["status"] != "completed":
            raise RequestRefused(404, f"Video {video_id} is not ready yet.")
        size = self._tables.found(("videos/{}/content", video_id))["size"]
        await send_content(request, PatternContent(size), VIDEO_TYPE)


def _members_of(content_type: bytes, data: bytes) -> dict[str, Any]:
    if not content_type.startswith(b"multipart/"):
        return msgspec.json.decode(data, type=dict[str, Any])
    form = form_of(content_type, data)
    form.close()
    return dict(form.fields)
