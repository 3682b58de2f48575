"""Stored responses: what a later turn can go on from."""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

from app.simulator.conversation import Conversation

RESPONSES_MAX = 10_000
STORED_BYTES_MAX = 64 * 1024 * 1024
TURN_OVERHEAD_BYTES = 400


class StoredResponse(NamedTuple):
    """A response as it was sent, and the conversation with its answer in it."""

    data: bytes
    conversation: Conversation

    @property
    def size_bytes(self) -> int:
        # The whole chain is counted for each of its responses: an upper bound of what one keeps alive.
        return len(self.data) + self.conversation.chars + TURN_OVERHEAD_BYTES


class ResponseStore:
    """The most recently used responses, bounded by number and by bytes."""

    def __init__(self, *, responses_max: int = RESPONSES_MAX, bytes_max: int = STORED_BYTES_MAX) -> None:
        self._responses: OrderedDict[str, StoredResponse] = OrderedDict()
        self._bytes = 0
        self.responses_max = responses_max
        self.bytes_max = bytes_max

    def keep(self, response_id: str, stored: StoredResponse) -> None:
        """Store a response; the least recently used go where there is no room."""
        self.remove(response_id)
        self._responses[response_id] = stored
        self._bytes += stored.size_bytes
        while len(self._responses) > self.responses_max or self._bytes > self.bytes_max:
            _, oldest = self._responses.popitem(last=False)
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
        self._bytes -= stored.size_bytes
        return True

    def __len__(self) -> int:
        return len(self._responses)

    def __repr__(self) -> str:
        return f"ResponseStore(responses={len(self._responses)}, bytes={self._bytes})"
