"""What a request may go on from: stored responses, conversations, and what its connection remembers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from app.simulator.errors import RequestRefused, refuse_missing, refuse_type

if TYPE_CHECKING:
    from app.simulator.conversation import Conversation
    from app.simulator.conversation_store import ConversationStore, KeptConversation
    from app.simulator.response_store import ResponseStore, StoredResponse


class Memory:
    """``own`` are the responses of one connection, which nobody else can go on from."""

    def __init__(
        self, responses: ResponseStore, conversations: ConversationStore, own: ResponseStore | None = None
    ) -> None:
        self.responses = responses
        self.conversations = conversations
        self.own = own

    def conversation_of(self, response_id: str) -> Conversation | None:
        """Everything up to and with the answer of an earlier response."""
        stored = self.responses.find(response_id)
        if stored is None and self.own is not None:
            stored = self.own.find(response_id)
        return None if stored is None else stored.conversation

    def keep(self, response_id: str, stored: StoredResponse, *, for_all: bool) -> None:
        """Remember a response, for its connection alone if it is not stored."""
        if for_all:
            self.responses.keep(response_id, stored)
        elif self.own is not None:
            self.own.keep(response_id, stored)

    def kept_conversation(self, conversation_id: str) -> KeptConversation:
        """The conversation that a request names."""
        kept = self.conversations.find(conversation_id)
        if kept is None:
            raise RequestRefused(404, f"Conversation with id '{conversation_id}' not found.")
        return kept

    def resolved(self, given: list[Any]) -> list[Any]:
        """An input with the items in the places of the references to them."""
        if not any(isinstance(item, dict) and item.get("type") == "item_reference" for item in given):
            return given
        return [self._item(item, f"input[{index}]") for index, item in enumerate(given)]

    def _item(self, item: Any, where: str) -> Any:
        if not isinstance(item, dict) or item.get("type") != "item_reference":
            return item
        item_id = item.get("id")
        if item_id is None:
            refuse_missing(f"{where}.id")
        if not isinstance(item_id, str):
            refuse_type(f"{where}.id", "a string", item_id)
        found = self.conversations.find_item(item_id) or self.responses.find_item(item_id)
        if found is None and self.own is not None:
            found = self.own.find_item(item_id)
        if found is None:
            message = (
                f"Item with id '{item_id}' not found. Items are not persisted when `store` is set to false. "
                "Try again with `store` set to true, or remove this item from your input."
            )
            raise RequestRefused(404, message, param="input")
        return found

    def __repr__(self) -> str:
        return f"Memory(responses={self.responses!r}, conversations={self.conversations!r}, own={self.own!r})"
