"""A turn in the making: what is to be kept of an answer while it passes. It changes nothing of what passes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from app.core.errors import InvalidRequest
from app.core.ids import OBJECT_ID
from app.state.items import output_of, with_output
from app.state.turn import TURN_BYTES_MAX, Keeping

KEPT_EVENTS = frozenset(("response.completed", "response.incomplete"))
KEPT_STATUSES = frozenset(("completed", "incomplete"))
ITEM_DONE = "response.output_item.done"


class _Event(msgspec.Struct):
    type: Any = None
    response: msgspec.Raw = msgspec.Raw(b"")
    item: msgspec.Raw = msgspec.Raw(b"")


class _Response(msgspec.Struct):
    id: Any = None
    status: Any = None
    output: msgspec.Raw = msgspec.Raw(b"")


_event_decoder = msgspec.json.Decoder(_Event)
_response_decoder = msgspec.json.Decoder(_Response)
_EMPTY = (b"", b"[]", b"null")


class Draft:
    """Of one request. ``upstream`` is the one that answers; ``keep`` takes what is to be kept: the upstream, the
    response's id and the response. ``resize`` accounts for what is held; False where there is no room.

    The input is accounted for once there is some of an answer: until then the body that it is of counts as in flight.
    """

    __slots__ = ("_items", "_keep", "_keeping", "_resize", "_size", "_upstream", "_upstreams", "is_over", "was_kept")

    def __init__(
        self,
        keeping: Keeping,
        upstream: Callable[[], str],
        keep: Callable[[Keeping, str, str, bytes], bool],
        resize: Callable[[int], bool],
    ) -> None:
        self._keeping: Keeping | None = keeping
        self._upstreams = keeping.upstreams
        self._upstream = upstream
        self._keep = keep
        self._resize = resize
        self._size = 0
        self._items: list[bytes] = []
        self.is_over = False
        """Whether nothing more is to be learnt: it was kept, or cannot be."""
        self.was_kept = False

    def __repr__(self) -> str:
        return f"Draft(size={self._size}, over={self.is_over})"

    @property
    def is_of_upstream(self) -> bool:
        """Whether the upstream that answers keeps nothing itself: what it makes is stored here, or nowhere."""
        return self._upstream() in self._upstreams

    def see_event(self, data: bytes) -> None:
        """One whole event of a stream."""
        if not self._size:
            self._begin()
        if self.is_over or not (b"response." in data or b"\\u" in data):
            return
        try:
            event = _event_decoder.decode(data)
        except (msgspec.DecodeError, RecursionError):
            return
        if event.type == ITEM_DONE and event.item:
            self._items.append(bytes(event.item))
            self._hold(self._size + len(event.item))
        elif isinstance(event.type, str) and event.type in KEPT_EVENTS and event.response:
            self._take(bytes(event.response), None)

    def see_json(self, body: bytes) -> None:
        """A whole answer."""
        if not self.is_over:
            self._take(body, KEPT_STATUSES)

    def close(self) -> None:
        """Nothing more comes: what was held is let go."""
        self.is_over = True
        self._items = []
        self._keeping = None
        if self._size:
            self._resize(-self._size)
            self._size = 0

    def _begin(self) -> None:
        keeping = self._keeping
        if keeping is None:
            return
        if self.is_of_upstream:
            self._hold(len(keeping.input))
        else:
            self.close()

    def _take(self, response: bytes, statuses: frozenset[str] | None) -> None:
        try:
            found = _response_decoder.decode(response)
        except (msgspec.DecodeError, RecursionError):
            return
        if statuses is not None and not _has_ended(found, statuses):
            return
        keeping, upstream, items = self._keeping, self._upstream(), self._items
        self.close()
        if keeping is None or upstream not in self._upstreams:
            return
        if not isinstance(found.id, str) or OBJECT_ID.match(found.id) is None:
            return
        if items and bytes(found.output) in _EMPTY:
            try:
                response = with_output(response, items)
            except InvalidRequest:
                # A member occurs twice in it: nobody can say where its items belong.
                return
            if len(output_of(response)) != len(items):
                return
        if len(keeping.input) + len(response) <= TURN_BYTES_MAX:
            self.was_kept = self._keep(keeping, upstream, found.id, response)

    def _hold(self, size: int) -> None:
        if size > TURN_BYTES_MAX or not self._resize(size - self._size):
            self.close()
        else:
            self._size = size


def _has_ended(found: _Response, statuses: frozenset[str]) -> bool:
    """Whether a whole answer is one to go on from. Without a status, what it has said tells."""
    if found.status is None:
        return bytes(found.output)[:1] == b"["
    return isinstance(found.status, str) and found.status in statuses
