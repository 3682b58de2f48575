"""Stored responses: what a later turn can go on from."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, NamedTuple

from app.simulator.conversation import Conversation
from app.simulator.events import Event
from app.simulator.items import decoded_input, input_items, output_items, stem_of_item, stem_of_response

RESPONSES_MAX = 10_000
STORED_BYTES_MAX = 64 * 1024 * 1024
TURN_OVERHEAD_BYTES = 400
EVENT_OVERHEAD_BYTES = 200


class StoredResponse(NamedTuple):
    """A response as it was sent, and the conversation with its answer in it.

    ``given`` is its input, text or JSON. ``events`` are those of one that ran in the background; another's
    can be made again, if it is known how many characters at the end came as one (``block_chars``).
    """

    data: bytes
    conversation: Conversation
    given: str | bytes = ""
    block_chars: int = 0
    events: tuple[Event, ...] = ()

    @property
    def size_bytes(self) -> int:
        # The whole chain is counted for each of its responses: an upper bound of what one keeps alive.
        size = len(self.data) + self.conversation.chars + TURN_OVERHEAD_BYTES
        if isinstance(self.given, bytes):
            size += len(self.given)
        if self.events:
            size += sum(len(event.data) + EVENT_OVERHEAD_BYTES for event in self.events)
        return size

    def input_items(self, response_id: str) -> list[dict[str, Any]]:
        """What it was asked, as items."""
        return input_items(decoded_input(self.given), response_id)


class ResponseStore:
    """The most recently used responses, bounded by number and by bytes."""

    def __init__(self, *, responses_max: int = RESPONSES_MAX, bytes_max: int = STORED_BYTES_MAX) -> None:
        self._responses: OrderedDict[str, StoredResponse] = OrderedDict()
        self._stems: dict[str, str] = {}
        self._bytes = 0
        self.responses_max = responses_max
        self.bytes_max = bytes_max

    def keep(self, response_id: str, stored: StoredResponse) -> None:
        """Store a response; the least recently used go where there is no room."""
        if response_id in self._responses:
            self.remove(response_id)
        self._responses[response_id] = stored
        self._stems[stem_of_response(response_id)] = response_id
        self._bytes += stored.size_bytes
        while len(self._responses) > self.responses_max or self._bytes > self.bytes_max:
            oldest_id, oldest = self._responses.popitem(last=False)
            self._stems.pop(stem_of_response(oldest_id), None)
            self._bytes -= oldest.size_bytes

    def find(self, response_id: str) -> StoredResponse | None:
        """The response, which is now the most recently used one."""
        stored = self._responses.get(response_id)
        if stored is not None:
            self._responses.move_to_end(response_id)
        return stored

    def remove(self, response_id: str) -> bool:
        """Forget a response; whether it was there."""
        stored = self._responses.pop(response_id, None)
        if stored is None:
            return False
        self._stems.pop(stem_of_response(response_id), None)
        self._bytes -= stored.size_bytes
        return True

    def find_item(self, item_id: str) -> dict[str, Any] | None:
        """An item of a stored response's input or output."""
        response_id = self._stems.get(stem_of_item(item_id), "")
        stored = self.find(response_id)
        if stored is None:
            return None
        items = [*stored.input_items(response_id), *output_items(stored.data)]
        return next((item for item in items if item.get("id") == item_id), None)

    def __len__(self) -> int:
        return len(self._responses)

    def __repr__(self) -> str:
        return f"ResponseStore(responses={len(self._responses)}, bytes={self._bytes})"
