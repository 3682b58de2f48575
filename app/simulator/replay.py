"""The events of a stored response, once more: the same, with the same numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from app.simulator.generation import Call, Message, Part, Plan, Reasoning
from app.simulator.log import BilledUsage
from app.simulator.response_object import ENCRYPTED_REASONING
from app.simulator.responses_answer import ResponsesAnswer
from app.simulator.responses_request import ResponsesBody
from app.simulator.steering import UNSTEERED
from app.simulator.tokens import pieces_of, tokens_of_word

if TYPE_CHECKING:
    from app.core.clock import Clock
    from app.simulator.events import Event
    from app.simulator.response_store import StoredResponse


def replayed_events(stored: StoredResponse, clock: Clock, *, filled: bool) -> tuple[Event, ...]:
    """What was sent, or would have been, when the response was made; ``filled`` as its stream was."""
    if stored.events:
        return stored.events
    response = msgspec.json.decode(stored.data)
    parts = [_part_of(item, stored.block_chars) for item in response["output"]]
    encrypted = any("encrypted_content" in item for item in response["output"])
    begun = {**response, "status": "in_progress", "completed_at": None, "incomplete_details": None, "error": None}
    begun |= {"output": [], "usage": None}
    if begun["service_tier"] == "default":
        # What it was asked for is not known any more; hardly anybody names the default.
        begun["service_tier"] = "auto"
    body = ResponsesBody(
        stream_options={"include_obfuscation": filled}, include=[ENCRYPTED_REASONING] if encrypted else None
    )
    plan = Plan(parts, 0, 0, response["status"] == "completed")
    answer = ResponsesAnswer(body, plan, BilledUsage(), UNSTEERED, response["id"], clock, None)
    return tuple(answer.events_again(msgspec.json.encode(begun), stored.data))


def _part_of(item: dict[str, Any], block_chars: int) -> Part:
    complete = item.get("status") != "incomplete"
    if item["type"] == "reasoning":
        return Reasoning(0, [pieces_of(part["text"]) for part in item["summary"]])
    if item["type"] == "function_call":
        return Call(item["name"], pieces_of(item["arguments"]), complete)
    (content,) = item["content"]
    refusal = content["type"] == "refusal"
    text = content["refusal" if refusal else "text"]
    plain = text[: len(text) - block_chars]
    block = text[len(plain) :]
    return Message(pieces_of(plain), refusal, complete, block, tokens_of_word(len(block)))
