"""Conversations that the provider keeps, with their items."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import msgspec

from app.simulator.conversation import Conversation, turns_of_input

CONVERSATIONS_MAX = 10_000
CONVERSATIONS_BYTES_MAX = 64 * 1024 * 1024
OVERHEAD_BYTES = 400


class KeptConversation:
    """One conversation: its object, and its items, oldest first."""

    def __init__(self, conversation_id: str, created_s: int, metadata: dict[str, Any]) -> None:
        self.id = conversation_id
        self.created_s = created_s
        self.metadata = metadata
        self.items: dict[str, dict[str, Any]] = {}
        self.size_bytes = OVERHEAD_BYTES

    def shown(self) -> dict[str, Any]:
        """The conversation as the API shows it."""
        return {
            "id": self.id,
            "object": "conversation",
            "created_at": self.created_s,
            "metadata": self.metadata,
        }

    def spoken(self) -> Conversation:
        """What a model sees of it."""
        return Conversation(turns_of_input(list(self.items.values())))

    def __repr__(self) -> str:
        return f"KeptConversation({self.id}, items={len(self.items)}, bytes={self.size_bytes})"


class ConversationStore:
    """The most recently used conversations, bounded by number and by bytes."""

    def __init__(self, *, conversations_max: int = CONVERSATIONS_MAX, bytes_max: int = CONVERSATIONS_BYTES_MAX) -> None:
        self._conversations: OrderedDict[str, KeptConversation] = OrderedDict()
        self._owners: dict[str, str] = {}
        self._bytes = 0
        self.conversations_max = conversations_max
        self.bytes_max = bytes_max

    def keep(self, kept: KeptConversation) -> None:
        """Begin to remember a conversation."""
        self._conversations[kept.id] = kept
        self._bytes += kept.size_bytes
        self._make_room()

    def add(self, conversation_id: str, items: list[dict[str, Any]]) -> None:
        """Items at the end of a conversation, if it is still there."""
        kept = self.find(conversation_id)
        if kept is None:
            return
        for item in items:
            self.remove_item(kept, item["id"])
            size = _size_of(item)
            kept.items[item["id"]] = item
            kept.size_bytes += size
            self._bytes += size
            self._owners[item["id"]] = kept.id
        self._make_room()

    def find(self, conversation_id: str) -> KeptConversation | None:
        """The conversation, which is now the most recently used one."""
        kept = self._conversations.get(conversation_id)
        if kept is not None:
            self._conversations.move_to_end(conversation_id)
        return kept

    def find_item(self, item_id: str) -> dict[str, Any] | None:
        """An item of any conversation."""
        kept = self._conversations.get(self._owners.get(item_id, ""))
        return None if kept is None else kept.items.get(item_id)

    def remove(self, conversation_id: str) -> bool:
        """Forget a conversation; whether it was there."""
        kept = self._conversations.pop(conversation_id, None)
        if kept is None:
            return False
        self._forget(kept)
        return True

    def remove_item(self, kept: KeptConversation, item_id: str) -> bool:
        """Take an item out; whether it was there."""
        item = kept.items.pop(item_id, None)
        if item is None:
            return False
        kept.size_bytes -= _size_of(item)
        self._bytes -= _size_of(item)
        self._owners.pop(item_id, None)
        return True

    def _make_room(self) -> None:
        while self._conversations and (
            len(self._conversations) > self.conversations_max or self._bytes > self.bytes_max
        ):
            self._forget(self._conversations.popitem(last=False)[1])

    def _forget(self, kept: KeptConversation) -> None:
        self._bytes -= kept.size_bytes
        for item_id in kept.items:
            if self._owners.get(item_id) == kept.id:
                del self._owners[item_id]

    def __len__(self) -> int:
        return len(self._conversations)

    def __repr__(self) -> str:
        return f"ConversationStore(conversations={len(self._conversations)}, bytes={self._bytes})"


def _size_of(item: dict[str, Any]) -> int:
    return len(msgspec.json.encode(item)) + OVERHEAD_BYTES
