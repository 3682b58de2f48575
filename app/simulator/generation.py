"""Decides what the model would put out: reasoning, function calls, a message or a refusal, and how long."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from app.simulator.answers import QUESTION_CHARS_MAX, REFUSAL, answer, sentence
from app.simulator.dice import Dice
from app.simulator.identifiers import random_bytes
from app.simulator.steering import TOOL_MARK
from app.simulator.tokens import pieces_of, tokens_of_word
from app.simulator.values import ValueMaker

if TYPE_CHECKING:
    from app.simulator.prompt import FunctionTool, Prompt, ReasoningPolicy
    from app.simulator.steering import Steering

REASONING_TOKENS = {"minimal": 8, "low": 32, "medium": 64, "high": 192, "xhigh": 384, "max": 768}


class Reasoning(msgspec.Struct, gc=False):
    """Thinking: ``tokens`` are billed, ``summaries`` are what is shown of it."""

    tokens: int
    summaries: list[list[str]]
    complete: bool = True


class Message(msgspec.Struct, gc=False):
    """Text of the assistant's, in pieces of one token each.

    ``block`` is a last piece of steered size, of ``block_tokens`` tokens.
    """

    pieces: list[str]
    refusal: bool = False
    complete: bool = True
    block: str = ""
    block_tokens: int = 0

    @property
    def text(self) -> str:
        return "".join(self.pieces) + self.block

    @property
    def tokens(self) -> int:
        return len(self.pieces) + self.block_tokens


class Call(msgspec.Struct, gc=False):
    """A function that the model asks for; the arguments are JSON, in pieces of one token each."""

    name: str
    pieces: list[str]
    complete: bool = True

    @property
    def arguments(self) -> str:
        return "".join(self.pieces)

    @property
    def tokens(self) -> int:
        return len(self.pieces)


Part = Reasoning | Message | Call


class Plan(msgspec.Struct):
    """Everything that one choice puts out. ``output_tokens`` includes ``reasoning_tokens``."""

    parts: list[Part]
    output_tokens: int
    reasoning_tokens: int
    complete: bool


def make_plan(prompt: Prompt, steering: Steering) -> Plan:
    """What ``prompt`` leads to. At temperature 0 a function of model and conversation alone."""
    salt = f"{prompt.model}\0{prompt.instructions}\0{prompt.format.kind}".encode()
    if prompt.temperature != 0:
        salt += random_bytes(8)
    dice = Dice(prompt.conversation.digest(salt))
    parts: list[Part] = []
    reasoning = _reasoning(prompt.reasoning, steering, dice)
    if reasoning is not None:
        parts.append(reasoning)
    calls = [] if steering.refuse else _called_functions(prompt)
    if calls:
        parts.extend(_call(tool, prompt, dice) for tool in calls)
    else:
        parts.append(_message(prompt, steering, dice))
    return _limited(parts, prompt.tokens_max)


def _reasoning(policy: ReasoningPolicy | None, steering: Steering, dice: Dice) -> Reasoning | None:
    tokens = steering.reasoning
    if tokens == 0 or (policy is None and tokens is None):
        return None
    if tokens is None and policy is not None:
        tokens = REASONING_TOKENS[policy.effort] + dice.below(16)
    parts = policy.summary_parts if policy is not None else 1
    return Reasoning(tokens or 0, [pieces_of(f"**Thinking it over**\n\n{sentence(dice)}") for _ in range(parts)])


def _called_functions(prompt: Prompt) -> list[FunctionTool]:
    """Which functions are called: the named or required one, else those that the question asks for."""
    policy = prompt.tools
    if not policy.functions or policy.mode == "none":
        return []
    question = prompt.question[:QUESTION_CHARS_MAX].lower()
    mentioned: list[FunctionTool] = []
    turns = prompt.conversation.turns
    if policy.mode == "required" or not turns or turns[-1].role != "tool":
        mentioned = [tool for tool in policy.functions if _mentions(question, tool.name.lower())]
    if not mentioned and (policy.mode == "required" or TOOL_MARK in prompt.asked):
        mentioned = [policy.functions[0]]
    return mentioned if policy.parallel else mentioned[:1]


def _mentions(question: str, name: str) -> bool:
    return name in question or ("_" in name and name.replace("_", " ") in question)


def _call(tool: FunctionTool, prompt: Prompt, dice: Dice) -> Call:
    schema = {"type": "object", **tool.parameters}
    value = ValueMaker(schema, dice, prompt.question[:QUESTION_CHARS_MAX]).make()
    return Call(tool.name, pieces_of(_json_text(value if isinstance(value, dict) else {})))


def _message(prompt: Prompt, steering: Steering, dice: Dice) -> Message:
    if steering.refuse:
        return Message(pieces_of(REFUSAL), refusal=True)
    if prompt.format.kind == "json_schema":
        value = ValueMaker(prompt.format.schema, dice, prompt.question[:QUESTION_CHARS_MAX]).make()
        return Message(pieces_of(_json_text(value)))
    text = answer(prompt, dice)
    if prompt.format.kind == "json_object":
        return Message(pieces_of(_json_text({"answer": text})))
    pieces = pieces_of(_stopped(text, prompt.stops))
    if steering.tokens is not None:
        pieces = _of_length(text, steering.tokens, dice)
    block = f" {'x' * (steering.event_bytes - 1)}" if steering.event_bytes else ""
    return Message(pieces, block=block, block_tokens=tokens_of_word(len(block)))


def _of_length(text: str, tokens: int, dice: Dice) -> list[str]:
    """``text`` cut or gone on with until it has exactly ``tokens`` tokens."""
    pieces = pieces_of(text)
    while len(pieces) < tokens:
        pieces.extend(pieces_of(f" {sentence(dice)}"))
    return pieces[:tokens]


def _stopped(text: str, stops: tuple[str, ...]) -> str:
    for stop in stops:
        if stop:
            text = text.partition(stop)[0]
    return text


def _limited(parts: list[Part], tokens_max: int | None) -> Plan:
    """The plan of ``parts``, ended where ``tokens_max`` is reached."""
    left = tokens_max
    kept: list[Part] = []
    output_tokens = reasoning_tokens = 0
    complete = True
    for part in parts:
        if left is not None:
            if left <= 0:
                complete = False
                break
            complete = _cut(part, left)
            left -= part.tokens
        kept.append(part)
        output_tokens += part.tokens
        if isinstance(part, Reasoning):
            reasoning_tokens += part.tokens
        if not complete:
            break
    return Plan(kept, output_tokens, reasoning_tokens, complete)


def _cut(part: Part, tokens_max: int) -> bool:
    """Shorten ``part`` to ``tokens_max`` tokens; whether it was short enough already."""
    if part.tokens <= tokens_max:
        return True
    part.complete = False
    if isinstance(part, Reasoning):
        part.tokens = tokens_max
    else:
        part.pieces = part.pieces[:tokens_max]
        if isinstance(part, Message):
            part.block, part.block_tokens = "", 0
    return False


def _json_text(value: object) -> str:
    return msgspec.json.encode(value).decode()
