"""A response that is about to be given, and what is remembered of it when it has been."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.simulator.conversation import TURN_TOKENS, Conversation, Turn
from app.simulator.generation import Call, Message
from app.simulator.items import decoded_input, encoded_input, input_items, output_items
from app.simulator.response_store import StoredResponse

if TYPE_CHECKING:
    from app.simulator.events import Event
    from app.simulator.generation import Plan
    from app.simulator.memory import Memory
    from app.simulator.prompt import Prompt
    from app.simulator.responses_request import ResponsesBody


class Begun:
    """What a request leads to. ``given`` is its input as it will be kept."""

    __slots__ = ("_body", "_memory", "_prompt", "given", "plan", "response_id")

    def __init__(self, memory: Memory, body: ResponsesBody, plan: Plan, prompt: Prompt, response_id: str) -> None:
        self._memory = memory
        self._body = body
        self._prompt = prompt
        self.plan = plan
        self.response_id = response_id
        # Made before the head goes out: what cannot be encoded is still refused properly.
        self.given = encoded_input(body.input or "")

    def keep(self, finished: bytes, events: tuple[Event, ...] = ()) -> None:
        """Remember the finished response wherever it has to be."""
        body, memory = self._body, self._memory
        conversation = Conversation(_answer_turns(self.plan), self._prompt.conversation)
        last = self.plan.parts[-1] if self.plan.parts else None
        block_chars = len(last.block) if isinstance(last, Message) else 0
        stored = StoredResponse(finished, conversation, self.given, block_chars, events)
        memory.keep(self.response_id, stored, for_all=body.stored)
        if body.conversation is not None and body.conversation_id is not None:
            asked = input_items(decoded_input(self.given), self.response_id) if body.input else []
            memory.conversations.add(body.conversation_id, [*asked, *output_items(finished)])


def _answer_turns(plan: Plan) -> list[Turn]:
    """What a later turn sees of an answer; reasoning is not shown again."""
    turns: list[Turn] = []
    for part in plan.parts:
        if isinstance(part, Message):
            turns.append(Turn("assistant", part.text, part.tokens + TURN_TOKENS))
        elif isinstance(part, Call):
            turns.append(Turn("call", f"{part.name}({part.arguments})", part.tokens + TURN_TOKENS))
    return turns
