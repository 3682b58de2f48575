"""Chat completions that were asked to be stored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from app.simulator.pages import page_of
from app.simulator.resources.table import Collection, Kind
from app.simulator.routes import Reply, json_reply

if TYPE_CHECKING:
    from app.simulator.resources.table import Tables
    from app.simulator.routes import Request, Routes

CHAT_KIND = Kind("chat/completions", "chatcmpl-", "chat.completion", listed_by="asc")
MESSAGES = "chat/completions/{}/messages"


class StoredChats(Collection):
    """They are made by ``POST /chat/completions``, and so not here."""

    def __init__(self, tables: Tables) -> None:
        super().__init__(CHAT_KIND, tables)

    def add_to(self, routes: Routes) -> None:
        routes.add("GET", CHAT_KIND.pattern, self.list)
        routes.add("GET", "chat/completions/{}", self.get)
        routes.add("POST", "chat/completions/{}", self.update)
        routes.add("DELETE", "chat/completions/{}", self.delete)
        routes.add("GET", MESSAGES, self.list_messages)

    def keep(self, completion: bytes, messages: list[Any], metadata: dict[str, Any] | None) -> None:
        """Remember a completion and what it was asked."""
        shown = {**msgspec.json.decode(completion), "metadata": metadata or {}}
        asked = [_shown_message(message, f"{shown['id']}-{index}") for index, message in enumerate(messages)]
        self._tables.keep((CHAT_KIND.pattern, shown["id"]), shown)
        self._tables.keep((MESSAGES, shown["id"]), {"messages": asked})

    async def list(self, request: Request, *parents: str) -> Reply:
        del parents
        model = request.text("model")
        shown = [chat for chat in self._tables.below((CHAT_KIND.pattern,)) if model in (None, chat["model"])]
        return json_reply(page_of(shown, request, order="asc"))

    async def delete(self, request: Request, *ids: str) -> Reply:
        reply = await super().delete(request, *ids)
        self._tables.remove((MESSAGES, *ids))
        return reply

    async def list_messages(self, request: Request, completion_id: str) -> Reply:
        self._tables.found((CHAT_KIND.pattern, completion_id))
        messages = self._tables.found((MESSAGES, completion_id))["messages"]
        return json_reply(page_of(messages, request, order="asc"))


def _shown_message(message: dict[str, Any], message_id: str) -> dict[str, Any]:
    content = message.get("content")
    if isinstance(content, list):
        return {**message, "id": message_id, "content": None, "content_parts": content}
    return {**message, "id": message_id, "content": content, "content_parts": None}
