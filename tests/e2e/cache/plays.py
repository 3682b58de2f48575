"""What an upstream says, in its own bytes: whole answers, streams, and some that wait until they are let go."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Iterator, Sequence
from typing import Any

from tests.fakes.upstream import Step, chunked, whole

USAGE = {
    "input_tokens": 11,
    "input_tokens_details": {"cached_tokens": 0},
    "output_tokens": 7,
    "output_tokens_details": {"reasoning_tokens": 0},
    "total_tokens": 18,
}
_numbers = itertools.count(1)


def new_id() -> str:
    return f"resp_played{next(_numbers):06}"


def response(response_id: str, text: str = "Four.", **more: Any) -> dict[str, Any]:
    """A response that is complete."""
    part = {"type": "output_text", "text": text, "annotations": []}
    item = {
        "id": f"msg_{response_id}",
        "type": "message",
        "status": "completed",
        "role": "assistant",
        "content": [part],
    }
    return {
        "id": response_id,
        "object": "response",
        "created_at": 1_790_000_000,
        "model": "played",
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "status": "completed",
        "output": [item],
        "usage": USAGE,
        **more,
    }


def event(kind: str, **body: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **body}, ensure_ascii=False)}\n\n".encode()


def stream(response_id: str, text: str = "Four.", deltas: int = 6) -> list[bytes]:
    """The events of the same response, each by itself."""
    whole_one = response(response_id, text)
    begun = {**whole_one, "status": "in_progress", "output": [], "usage": None}
    (item,) = whole_one["output"]
    place = {"output_index": 0, "item_id": item["id"], "content_index": 0}
    said = [event("response.output_text.delta", delta=text, sequence_number=n + 2, **place) for n in range(deltas)]
    return [
        event("response.created", response=begun, sequence_number=0),
        event("response.output_item.added", item={**item, "status": "in_progress", "content": []}, sequence_number=1),
        *said,
        event("response.output_item.done", item=item, sequence_number=deltas + 2),
        event("response.completed", response=whole_one, sequence_number=deltas + 3),
    ]


class Gate:
    """Answers that wait until it opens: a stream behind its first half, anything else before its head."""

    def __init__(self) -> None:
        self._open = threading.Event()

    def open(self) -> None:
        self._open.set()

    def _wait(self) -> Iterator[Step]:
        while not self._open.is_set():
            yield 0.01

    def json(self, body: bytes) -> Iterator[Step]:
        yield from self._wait()
        yield from whole(body)

    def stream(self, events: Sequence[bytes]) -> Iterator[Step]:
        half = len(events) // 2
        first, *rest = chunked([b"".join(events[:half])])
        yield first
        yield from rest[:-2]
        yield from self._wait()
        yield from chunked(events[half:])[1:]
