"""The endpoints that generate: from a request's bytes to the answer on its way."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.simulator.chat_answer import ChatAnswer
from app.simulator.chat_request import prompt_of_chat, read_chat_body
from app.simulator.conversation import TURN_TOKENS, Conversation, Turn
from app.simulator.delivery import answer_in_events, answer_wholly
from app.simulator.embeddings import EmbeddingsAnswer, read_embeddings_body, steering_text, tokens_of_inputs
from app.simulator.errors import RequestRefused
from app.simulator.generation import Call, Message, make_plan
from app.simulator.identifiers import random_hex
from app.simulator.log import BilledUsage
from app.simulator.prefix_cache import TOKENS_MIN, PrefixCache
from app.simulator.prompt import served_tier
from app.simulator.response_store import ResponseStore, StoredResponse
from app.simulator.responses_answer import ResponsesAnswer
from app.simulator.responses_request import prompt_of, read_responses_body
from app.simulator.steering import UNSTEERED, Steerer

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from app.simulator.exchange import Exchange
    from app.simulator.generation import Plan
    from app.simulator.prompt import Prompt
    from app.simulator.steering import Steering

CONTEXT_TOKENS_MAX = 1_000_000


class Generator:
    """Makes answers. Each method decides at once and returns the delivery, which does the waiting."""

    def __init__(self, store: ResponseStore) -> None:
        self.store = store
        self._steerer = Steerer()
        self._prefixes = PrefixCache()

    def respond(self, exchange: Exchange, data: bytes, header: bytes | None) -> Awaitable[None]:
        """``POST /responses``."""
        body = read_responses_body(data)
        prompt = prompt_of(body, self._conversation_of)
        steering = self._enter(exchange, prompt, header, stream=bool(body.stream), tier=body.service_tier)
        plan = make_plan(prompt, steering)
        exchange.used = self._used(prompt, steering, [plan])
        response_id = steering.repeat_id or f"resp_{random_hex(50)}"
        exchange.served.response_id = response_id

        def keep(finished: bytes) -> None:
            conversation = Conversation(_answer_turns(plan), prompt.conversation)
            self.store.keep(response_id, StoredResponse(finished, conversation))

        answer = ResponsesAnswer(
            body, plan, exchange.used, steering, response_id, exchange.clock, keep if body.stored else None
        )
        return answer_in_events(exchange, answer, answer) if body.stream else answer_wholly(exchange, answer)

    def complete_chat(self, exchange: Exchange, data: bytes, header: bytes | None) -> Awaitable[None]:
        """``POST /chat/completions``."""
        body = read_chat_body(data)
        prompt = prompt_of_chat(body)
        steering = self._enter(exchange, prompt, header, stream=bool(body.stream), tier=body.service_tier)
        plans = [make_plan(prompt, steering) for _ in range(body.n or 1)]
        exchange.used = self._used(prompt, steering, plans)
        completion_id = steering.repeat_id or f"chatcmpl-{random_hex(30)}"
        exchange.served.response_id = completion_id
        created_s = exchange.served.started_ms // 1000
        answer = ChatAnswer(body, plans, exchange.used, steering, completion_id, created_s)
        return answer_in_events(exchange, answer, answer) if body.stream else answer_wholly(exchange, answer)

    def embed(self, exchange: Exchange, data: bytes, header: bytes | None) -> Awaitable[None]:
        """``POST /embeddings``."""
        body = read_embeddings_body(data)
        model = body.model or ""
        exchange.served.model = model
        tokens = tokens_of_inputs(body)
        exchange.steering = self._steerer.steer(header=header, model=model, prompt=steering_text(body))
        exchange.used = BilledUsage(input_tokens=tokens)
        return answer_wholly(exchange, EmbeddingsAnswer(body, exchange.used, exchange.steering))

    def _conversation_of(self, response_id: str) -> Conversation | None:
        stored = self.store.find(response_id)
        return None if stored is None else stored.conversation

    def _enter(
        self, exchange: Exchange, prompt: Prompt, header: bytes | None, *, stream: bool, tier: str | None
    ) -> Steering:
        """Write down what is asked for; refuse what no model could read."""
        served = exchange.served
        served.model = prompt.model
        served.stream = stream
        served.service_tier = served_tier(tier)
        if prompt.input_tokens > CONTEXT_TOKENS_MAX:
            raise RequestRefused(
                400,
                "Your input exceeds the context window of this model. Please adjust your input and try again.",
                param="input",
                code="context_length_exceeded",
            )
        exchange.steering = self._steerer.steer(header=header, model=prompt.model, prompt=prompt.asked)
        return exchange.steering

    def _used(self, prompt: Prompt, steering: Steering, plans: list[Plan]) -> BilledUsage:
        """What the whole answer uses."""
        tokens = prompt.input_tokens
        cached = 0
        if steering is not UNSTEERED and steering.cached is not None:
            cached = min(steering.cached, tokens)
        elif tokens >= TOKENS_MIN:
            cached = self._prefixes.cached_tokens(prompt.model, _whole_text(prompt), tokens)
        return BilledUsage(
            tokens,
            cached,
            sum(plan.output_tokens for plan in plans),
            sum(plan.reasoning_tokens for plan in plans),
        )


def _whole_text(prompt: Prompt) -> str:
    turns = [turn.text for turn in prompt.conversation.newest_first()]
    turns.append(prompt.instructions)
    return "\0".join(reversed(turns))


def _answer_turns(plan: Plan) -> list[Turn]:
    """What a later turn sees of an answer; reasoning is not shown again."""
    turns: list[Turn] = []
    for part in plan.parts:
        if isinstance(part, Message):
            turns.append(Turn("assistant", part.text, part.tokens + TURN_TOKENS))
        elif isinstance(part, Call):
            turns.append(Turn("call", f"{part.name}({part.arguments})", part.tokens + TURN_TOKENS))
    return turns
