"""The endpoints that generate: from a request's bytes to the answer on its way."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from app.simulator.background import BackgroundRun, BackgroundRuns
from app.simulator.begun import Begun
from app.simulator.chat_answer import ChatAnswer
from app.simulator.chat_request import prompt_of_chat, read_chat_body
from app.simulator.compaction import COMPACTION_TOKENS, CompactionAnswer
from app.simulator.delivery import answer_in_events, answer_wholly
from app.simulator.embeddings import EmbeddingsAnswer, read_embeddings_body, steering_text, tokens_of_inputs
from app.simulator.errors import RequestRefused
from app.simulator.generation import Plan, make_plan
from app.simulator.identifiers import random_hex
from app.simulator.log import BilledUsage
from app.simulator.memory import Memory
from app.simulator.prefix_cache import TOKENS_MIN, PrefixCache
from app.simulator.prompt import served_tier
from app.simulator.responses_answer import ResponsesAnswer
from app.simulator.responses_request import ResponsesBody, prompt_of, read_counted_body, read_responses_body
from app.simulator.routes import json_reply
from app.simulator.steering import UNSTEERED, Steerer

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from app.simulator.exchange import Exchange
    from app.simulator.prompt import Prompt
    from app.simulator.routes import Reply, Request
    from app.simulator.steering import Steering

KeepChat = Callable[[bytes, list[Any], dict[str, Any] | None], None]
CONTEXT_TOKENS_MAX = 1_000_000


class Generator:
    """Makes answers. Each method decides at once and returns the delivery, which does the waiting."""

    def __init__(self, memory: Memory, runs: BackgroundRuns, keep_chat: KeepChat) -> None:
        self._keep_chat = keep_chat
        self._memory = memory
        self._runs = runs
        self._steerer = Steerer()
        self._prefixes = PrefixCache()

    def respond(self, exchange: Exchange, data: bytes, header: bytes | None) -> Awaitable[None]:
        """``POST /responses``."""
        body = read_responses_body(data)
        if body.background:
            return self._respond_in_background(exchange, body, header)
        answer = self.response_of(exchange, body, header, self._memory)
        return answer_in_events(exchange, answer, answer) if body.stream else answer_wholly(exchange, answer)

    def response_of(
        self,
        exchange: Exchange,
        body: ResponsesBody,
        header: bytes | None,
        memory: Memory,
        *,
        generates: bool = True,
    ) -> ResponsesAnswer:
        """The answer to a checked body, from what ``memory`` has; one that only prepares is empty and free."""
        begun = self._begin(exchange, body, header, memory)
        if not generates:
            begun.plan = Plan([], 0, 0, complete=True)
            exchange.used = BilledUsage()
        keeps = body.stored or memory.own is not None or body.conversation is not None
        return self._answer(exchange, body, begun, begun.keep if keeps else None)

    def _respond_in_background(self, exchange: Exchange, body: ResponsesBody, header: bytes | None) -> Awaitable[None]:
        begun = self._begin(exchange, body, header, self._memory)
        answer = self._answer(exchange, body, begun, None)
        run = BackgroundRun(exchange, answer, begun.given, begun.keep)
        return self._runs.answer(exchange, run)

    def _begin(self, exchange: Exchange, body: ResponsesBody, header: bytes | None, memory: Memory) -> Begun:
        """Decide what is said, and prepare what will be remembered of it."""
        prompt = self._prompt_of(body, memory)
        steering = self._enter(exchange, prompt, header, stream=bool(body.stream), tier=body.service_tier)
        plan = make_plan(prompt, steering)
        exchange.used = self._used(prompt, steering, [plan])
        response_id = steering.repeat_id or f"resp_{random_hex(50)}"
        exchange.served.response_id = response_id
        return Begun(memory, body, plan, prompt, response_id)

    @staticmethod
    def _prompt_of(body: ResponsesBody, memory: Memory) -> Prompt:
        previous = None
        if body.conversation is not None and body.conversation_id is not None:
            previous = memory.kept_conversation(body.conversation_id).spoken()
        if isinstance(body.input, list):
            body.input = memory.resolved(body.input)
        return prompt_of(body, memory.conversation_of, previous)

    @staticmethod
    def _answer(
        exchange: Exchange, body: ResponsesBody, begun: Begun, keep: Callable[[bytes], None] | None
    ) -> ResponsesAnswer:
        return ResponsesAnswer(
            body, begun.plan, exchange.used, exchange.steering, begun.response_id, exchange.clock, keep
        )

    def compact(self, exchange: Exchange, data: bytes, header: bytes | None) -> Awaitable[None]:
        """``POST /responses/compact``."""
        body = read_responses_body(data)
        prompt = self._prompt_of(body, self._memory)
        steering = self._enter(exchange, prompt, header, stream=False, tier=body.service_tier)
        tokens = COMPACTION_TOKENS if steering.tokens is None else steering.tokens
        exchange.used = BilledUsage(prompt.input_tokens, steering.cached or 0, tokens)
        compaction_id = steering.repeat_id or f"resp_{random_hex(50)}"
        exchange.served.response_id = compaction_id
        created_s = exchange.served.started_ms // 1000
        return answer_wholly(exchange, CompactionAnswer(prompt, exchange.used, steering, compaction_id, created_s))

    async def count_input(self, request: Request) -> Reply:
        """``POST /responses/input_tokens``: costs nothing, so that the log has nothing of it."""
        prompt = self._prompt_of(read_counted_body(await request.body()), self._memory)
        return json_reply({"object": "response.input_tokens", "input_tokens": prompt.input_tokens})

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

        def keep(completion: bytes) -> None:
            self._keep_chat(completion, body.messages or [], body.metadata)

        answer = ChatAnswer(
            body, plans, exchange.used, steering, completion_id, created_s, keep if body.store else None
        )
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

    def steer(self, exchange: Exchange, model: str, text: str, header: bytes | None, *, stream: bool) -> Steering:
        """Write down what is asked for where there is no conversation; its directives."""
        served = exchange.served
        served.model = model
        served.stream = stream
        exchange.steering = self._steerer.steer(header=header, model=model, prompt=text)
        return exchange.steering

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
