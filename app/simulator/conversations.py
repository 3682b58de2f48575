"""The endpoints of conversations and their items."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from app.simulator.conversation import turns_of_input
from app.simulator.conversation_store import KeptConversation
from app.simulator.errors import RequestRefused, refuse_missing, refuse_type, refuse_value
from app.simulator.identifiers import random_hex
from app.simulator.items import new_items
from app.simulator.pages import page_of
from app.simulator.responses_request import METADATA_MEMBERS_MAX
from app.simulator.routes import Reply, json_reply

if TYPE_CHECKING:
    from app.core.clock import Clock
    from app.simulator.memory import Memory
    from app.simulator.routes import Request, Routes

ITEMS_ADDED_MAX = 20


class Conversations:
    """``/conversations``, ``/conversations/{id}`` and ``…/items``."""

    def __init__(self, memory: Memory, clock: Clock) -> None:
        self._memory = memory
        self._store = memory.conversations
        self._clock = clock

    def add_to(self, routes: Routes) -> None:
        routes.add("POST", "conversations", self.create)
        routes.add("GET", "conversations/{}", self.get)
        routes.add("POST", "conversations/{}", self.update)
        routes.add("DELETE", "conversations/{}", self.delete)
        routes.add("POST", "conversations/{}/items", self.add_items)
        routes.add("GET", "conversations/{}/items", self.list_items)
        routes.add("GET", "conversations/{}/items/{}", self.get_item)
        routes.add("DELETE", "conversations/{}/items/{}", self.delete_item)

    async def create(self, request: Request) -> Reply:
        members = await request.members()
        items = self._checked(members.get("items") or [])
        metadata = metadata_of(members)
        kept = KeptConversation(f"conv_{random_hex(48)}", self._clock.now_ms() // 1000, metadata)
        self._store.keep(kept)
        self._store.add(kept.id, items)
        return json_reply(kept.shown())

    async def get(self, request: Request, conversation_id: str) -> Reply:
        del request
        return json_reply(self._memory.kept_conversation(conversation_id).shown())

    async def update(self, request: Request, conversation_id: str) -> Reply:
        members = await request.members()
        if "metadata" not in members:
            refuse_missing("metadata")
        kept = self._memory.kept_conversation(conversation_id)
        kept.metadata = metadata_of(members)
        return json_reply(kept.shown())

    async def delete(self, request: Request, conversation_id: str) -> Reply:
        del request
        self._store.remove(self._memory.kept_conversation(conversation_id).id)
        return json_reply({"id": conversation_id, "object": "conversation.deleted", "deleted": True})

    async def add_items(self, request: Request, conversation_id: str) -> Reply:
        members = await request.members()
        kept = self._memory.kept_conversation(conversation_id)
        if "items" not in members:
            refuse_missing("items")
        items = self._checked(members["items"])
        self._store.add(kept.id, items)
        return json_reply(
            {
                "object": "list",
                "data": items,
                "first_id": items[0]["id"] if items else None,
                "last_id": items[-1]["id"] if items else None,
                "has_more": False,
            }
        )

    async def list_items(self, request: Request, conversation_id: str) -> Reply:
        kept = self._memory.kept_conversation(conversation_id)
        return json_reply(page_of(list(kept.items.values()), request))

    async def get_item(self, request: Request, conversation_id: str, item_id: str) -> Reply:
        del request
        item = self._memory.kept_conversation(conversation_id).items.get(item_id)
        if item is None:
            raise _no_item(conversation_id, item_id)
        return json_reply(item)

    async def delete_item(self, request: Request, conversation_id: str, item_id: str) -> Reply:
        """The answer is the conversation without it."""
        del request
        kept = self._memory.kept_conversation(conversation_id)
        if not self._store.remove_item(kept, item_id):
            raise _no_item(conversation_id, item_id)
        return json_reply(kept.shown())

    def _checked(self, given: Any) -> list[dict[str, Any]]:
        """Items that can be read, with ids."""
        if not isinstance(given, list):
            refuse_type("items", "an array", given)
        if len(given) > ITEMS_ADDED_MAX:
            message = f"Invalid 'items': at most {ITEMS_ADDED_MAX} items."
            refuse_value("items", message, "array_above_max_length")
        resolved = self._memory.resolved(given)
        # What a model could not read must not get in: it would spoil every request after it.
        turns_of_input(resolved)
        return new_items(resolved)


def metadata_of(members: dict[str, Any]) -> dict[str, Any]:
    """The checked ``metadata`` of a body."""
    metadata = members.get("metadata") or {}
    if not isinstance(metadata, dict):
        refuse_type("metadata", "an object", metadata)
    if len(metadata) > METADATA_MEMBERS_MAX:
        message = f"Invalid 'metadata': at most {METADATA_MEMBERS_MAX} members."
        refuse_value("metadata", message, "object_above_max_properties")
    for name, value in metadata.items():
        if not isinstance(value, str):
            refuse_type(f"metadata.{name}", "a string", value)
    return metadata


def _no_item(conversation_id: str, item_id: str) -> RequestRefused:
    return RequestRefused(404, f"Item with id '{item_id}' not found in conversation '{conversation_id}'.")
