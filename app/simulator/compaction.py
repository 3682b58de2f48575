"""``POST /responses/compact``: a long conversation as its questions and one opaque item."""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING, Any

import msgspec

from app.simulator.errors import error_body
from app.simulator.identifiers import random_hex
from app.simulator.items import whole_item
from app.simulator.routes import JSON
from app.simulator.usage_report import report, responses_usage

if TYPE_CHECKING:
    from app.simulator.log import BilledUsage
    from app.simulator.prompt import Prompt
    from app.simulator.steering import Steering

COMPACTION_TOKENS = 48
"""What the model writes to remember a conversation, unless steered."""
_SECRET_BYTES = 120


class CompactionAnswer:
    """One compaction; ``used`` is what it uses."""

    complete = True
    failed_status = 500
    content_type = JSON

    def __init__(
        self, prompt: Prompt, used: BilledUsage, steering: Steering, compaction_id: str, created_s: int
    ) -> None:
        self._prompt = prompt
        self._used = used
        self._steering = steering
        self._id = compaction_id
        self._created_s = created_s

    def body(self) -> bytes:
        turns = reversed(list(self._prompt.conversation.newest_first()))
        output = [
            whole_item({"type": "message", "role": "user", "content": turn.text}, random_hex(50))
            for turn in turns
            if turn.role == "user"
        ]
        digest = hashlib.shake_256(self._prompt.conversation.digest(b"compaction")).digest(_SECRET_BYTES)
        secret = f"gAAAAA{base64.urlsafe_b64encode(digest).decode()}"
        output.append({"id": f"cmp_{random_hex(50)}", "type": "compaction", "encrypted_content": secret})
        answer: dict[str, Any] = {
            "id": self._id,
            "object": "response.compaction",
            "created_at": self._created_s,
            "output": output,
            "usage": None,
        }
        report(answer, responses_usage(self._used), self._steering.usage)
        return msgspec.json.encode(answer)

    def failed_body(self) -> bytes:
        return error_body("The simulator was steered into failing.", "server_error", None, "server_error")
