"""``POST /completions``: text that goes on from text, as before there were chats."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from app.simulator.conversation import Conversation, turn_of
from app.simulator.delivery import answer_in_events, answer_wholly
from app.simulator.errors import refuse_missing, refuse_type
from app.simulator.events import DELTA, DONE, PLAIN, TERMINAL, Event
from app.simulator.generation import Message, make_plan
from app.simulator.identifiers import random_hex
from app.simulator.log import BilledUsage
from app.simulator.prompt import Prompt
from app.simulator.resources.answers import Members, WholeAnswer
from app.simulator.responses_request import Positive, Temperature
from app.simulator.steering import without_directives
from app.simulator.usage_report import chat_usage, report

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterator

    from app.simulator.exchange import Exchange
    from app.simulator.generate import Generator
    from app.simulator.generation import Plan
    from app.simulator.steering import Steering

TOKENS_MAX = 16
"""What an answer has at most where nothing is said."""
CHOICES_MAX = 128


class CompletionBody(msgspec.Struct, kw_only=True):
    """What is read of the body."""

    model: str | None = None
    prompt: str | list[Any] | None = None
    stream: bool | None = None
    stream_options: dict[str, Any] | None = None
    n: Annotated[int, msgspec.Meta(ge=1, le=CHOICES_MAX)] | None = None
    max_tokens: Positive | None = None
    temperature: Temperature | None = None
    stop: str | list[str] | None = None


class LegacyCompletions:
    """The endpoint."""

    def __init__(self, generator: Generator) -> None:
        self._generator = generator

    def complete(self, exchange: Exchange, data: bytes, header: bytes | None) -> Awaitable[None]:
        body = msgspec.json.decode(data, type=CompletionBody)
        if not body.model:
            refuse_missing("model")
        if body.prompt is None:
            refuse_missing("prompt")
        texts = [body.prompt] if isinstance(body.prompt, str) else body.prompt
        if not all(isinstance(text, str) for text in texts) or len(texts) > CHOICES_MAX:
            refuse_type("prompt", "a string or an array of strings", body.prompt)
        steering = self._generator.steer(exchange, body.model, "\n".join(texts), header, stream=bool(body.stream))
        prompts = [_prompt_of(body, text) for text in texts]
        plans = [make_plan(prompt, steering) for prompt in prompts for _ in range(body.n or 1)]
        exchange.used = BilledUsage(
            sum(prompt.input_tokens for prompt in prompts),
            steering.cached or 0,
            sum(plan.output_tokens for plan in plans),
            sum(plan.reasoning_tokens for plan in plans),
        )
        completion_id = steering.repeat_id or f"cmpl-{random_hex(30)}"
        exchange.served.response_id = completion_id
        created_s = exchange.served.started_ms // 1000
        answer = CompletionAnswer(body, plans, exchange.used, steering, completion_id, created_s)
        return answer_in_events(exchange, answer, answer) if body.stream else answer_wholly(exchange, answer)


class CompletionAnswer(WholeAnswer):
    """One completion of several choices."""

    def __init__(
        self,
        body: CompletionBody,
        plans: list[Plan],
        used: BilledUsage,
        steering: Steering,
        completion_id: str,
        created_s: int,
    ) -> None:
        super().__init__(b"")
        self._plans = plans
        self._used = used
        self._steering = steering
        self._told = 0
        self._includes_usage = (body.stream_options or {}).get("include_usage") is True
        self._start: Members = {
            "id": completion_id,
            "object": "text_completion",
            "created": created_s,
            "model": body.model,
        }
        self.complete = all(plan.complete for plan in plans)

    def body(self) -> bytes:
        choices = [
            _choice(index, "".join(_pieces(plan)), _finish_reason(plan)) for index, plan in enumerate(self._plans)
        ]
        whole: Members = {**self._start, "choices": choices, "usage": None}
        report(whole, chat_usage(self._used), self._steering.usage)
        return msgspec.json.encode(whole)

    def events(self) -> Iterator[Event]:
        for index, plan in enumerate(self._plans):
            self._told += plan.reasoning_tokens
            for piece in _pieces(plan):
                self._told += 1
                yield self._event([_choice(index, piece, None)], DELTA)
            self._told = sum(before.output_tokens for before in self._plans[: index + 1])
            last = plan is self._plans[-1]
            yield self._event([_choice(index, "", _finish_reason(plan))], TERMINAL if last else PLAIN)
        if self._includes_usage and self._steering.usage != "missing":
            chunk: Members = {**self._start, "choices": []}
            report(chunk, chat_usage(self._used), self._steering.usage)
            yield Event(b"", msgspec.json.encode(chunk), self._told, 0)
        if self._steering.done is not False:
            yield DONE

    def failure(self) -> Event:
        return Event(b"", self.failed_body(), self._told, 0)

    def error(self) -> Event:
        return self.failure()

    def unknown(self) -> Event:
        return self._event([], PLAIN)

    def terminal_again(self) -> Event:
        last = len(self._plans) - 1
        return self._event([_choice(last, "", _finish_reason(self._plans[last]))], PLAIN)

    def _event(self, choices: list[Members], kind: int) -> Event:
        chunk = {**self._start, "choices": choices}
        if self._includes_usage:
            chunk["usage"] = None
        return Event(b"", msgspec.json.encode(chunk), self._told, 0, kind)


def _prompt_of(body: CompletionBody, text: str) -> Prompt:
    stops = (body.stop,) if isinstance(body.stop, str) else tuple(body.stop or ())
    return Prompt(
        model=body.model or "",
        conversation=Conversation([turn_of("user", text)]),
        asked=text,
        question=without_directives(text),
        temperature=1.0 if body.temperature is None else body.temperature,
        tokens_max=body.max_tokens or TOKENS_MAX,
        stops=stops,
    )


def _pieces(plan: Plan) -> list[str]:
    return [piece for part in plan.parts if isinstance(part, Message) for piece in part.pieces]


def _choice(index: int, text: str, finish_reason: str | None) -> Members:
    return {"text": text, "index": index, "logprobs": None, "finish_reason": finish_reason}


def _finish_reason(plan: Plan) -> str:
    return "stop" if plan.complete else "length"
