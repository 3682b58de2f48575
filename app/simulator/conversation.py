"""The conversation that a model would see, whichever endpoint it came through."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from app.simulator.errors import refuse_missing, refuse_type, refuse_value
from app.simulator.tokens import count_tokens

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

TURN_TOKENS = 4
"""What the frame around a turn costs."""
IMAGE_TOKENS = 85
BYTES_PER_FILE_TOKEN = 4

Role = Literal["user", "assistant", "system", "developer", "tool", "call"]
ROLES: dict[str, Role] = {
    "user": "user",
    "assistant": "assistant",
    "system": "system",
    "developer": "developer",
    "tool": "tool",
    "function": "tool",
}

_TEXT_PARTS = frozenset({"input_text", "output_text", "text", "summary_text", "reasoning_text"})
_IMAGE_PARTS = frozenset({"input_image", "image_url", "computer_screenshot"})


class Turn(msgspec.Struct, frozen=True, gc=False):
    """One contribution. ``call`` is the model asking for a tool, ``tool`` is what the tool said."""

    role: Role
    text: str
    tokens: int


def turn_of(role: Role, text: str, extra_tokens: int = 0) -> Turn:
    """A turn with its tokens counted."""
    return Turn(role, text, count_tokens(text) + TURN_TOKENS + extra_tokens)


class Conversation:
    """Turns, newest last, linked to the conversation that they go on from.

    The digest is a function of the turns alone: a history that is sent again and one that is
    remembered lead to the same answer.
    """

    __slots__ = ("_running", "chars", "previous", "tokens", "turns")

    def __init__(self, turns: Sequence[Turn], previous: Conversation | None = None) -> None:
        self.turns = turns
        self.previous = previous
        self.tokens: int = previous.tokens if previous else 0
        self.chars: int = previous.chars if previous else 0
        self._running = previous.running_hash() if previous else hashlib.sha256()
        for turn in turns:
            self.tokens += turn.tokens
            self.chars += len(turn.text)
            self._running.update(f"{turn.role}\0{turn.text}\0".encode())

    def running_hash(self) -> hashlib._Hash:
        """A hash of every turn so far, to go on from."""
        return self._running.copy()

    def digest(self, salt: bytes) -> bytes:
        """32 bytes that depend on every turn and on ``salt``."""
        whole = self.running_hash()
        whole.update(salt)
        return whole.digest()

    def newest_first(self) -> Iterator[Turn]:
        """Every visible turn."""
        part: Conversation | None = self
        while part is not None:
            yield from reversed(part.turns)
            part = part.previous

    def last_of(self, role: Role) -> str:
        """The text of the newest turn of ``role`` among those that came with this request."""
        for turn in reversed(self.turns):
            if turn.role == role:
                return turn.text
        return ""

    def __repr__(self) -> str:
        return f"Conversation(turns={len(self.turns)}, tokens={self.tokens}, goes_on={self.previous is not None})"


def turns_of_input(items: str | list[Any]) -> list[Turn]:
    """The turns of a Responses ``input``."""
    if isinstance(items, str):
        return [turn_of("user", items)]
    turns: list[Turn] = []
    for index, item in enumerate(items):
        if not isinstance(item, dict):
            refuse_type(f"input[{index}]", "an object", item)
        turn = _turn_of_item(item, f"input[{index}]")
        if turn is not None:
            turns.append(turn)
    return turns


def _turn_of_item(item: dict[str, Any], where: str) -> Turn | None:
    kind = item.get("type", "message")
    if not isinstance(kind, str):
        refuse_type(f"{where}.type", "a string", kind)
    if kind == "message":
        return _turn_of_message(item, where)
    if kind in {"function_call", "custom_tool_call"}:
        arguments = item.get("arguments") or item.get("input") or ""
        return turn_of("call", f"{item.get('name')}({arguments})")
    if kind in {"function_call_output", "custom_tool_call_output"}:
        text, extra = read_content(item.get("output") or "", f"{where}.output")
        return turn_of("tool", text, extra)
    if kind in {"reasoning", "item_reference"}:
        # Earlier reasoning is not shown to the model again, and references are not resolved here.
        return None
    return turn_of("tool", msgspec.json.encode(item).decode())


def _turn_of_message(item: dict[str, Any], where: str) -> Turn:
    role = role_of(item, where)
    text, extra = read_content(item.get("content"), f"{where}.content")
    return turn_of(role, text, extra)


def role_of(item: dict[str, Any], where: str) -> Role:
    """The role of a message, or a refusal."""
    name = item.get("role")
    if name is None:
        refuse_missing(f"{where}.role")
    role = ROLES.get(name) if isinstance(name, str) else None
    if role is None:
        refuse_value(f"{where}.role", f"Invalid value: {name!r}. Supported values are: {', '.join(ROLES)}.")
    return role


def turns_of_messages(messages: list[Any]) -> list[Turn]:
    """The turns of a chat completion's ``messages``."""
    turns: list[Turn] = []
    for index, message in enumerate(messages):
        where = f"messages[{index}]"
        if not isinstance(message, dict):
            refuse_type(where, "an object", message)
        role = role_of(message, where)
        content = message.get("content")
        if content is not None:
            text, extra = read_content(content, f"{where}.content")
            turns.append(turn_of(role, text, extra))
        elif role != "assistant":
            refuse_type(f"{where}.content", "a string or an array", content)
        turns.extend(_turns_of_calls(message.get("tool_calls"), where))
    return turns


def _turns_of_calls(calls: object, where: str) -> Iterator[Turn]:
    if not calls:
        return
    if not isinstance(calls, list):
        refuse_type(f"{where}.tool_calls", "an array", calls)
    for call in calls:
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict):
            refuse_type(f"{where}.tool_calls", "an array of objects", call)
        yield turn_of("call", f"{function.get('name')}({function.get('arguments')})")


def read_content(content: object, where: str) -> tuple[str, int]:
    """The text of a message's content, and the tokens of what is not text in it."""
    if isinstance(content, str):
        return content, 0
    if not isinstance(content, list):
        refuse_type(where, "a string or an array", content)
    texts: list[str] = []
    extra = 0
    for index, part in enumerate(content):
        if not isinstance(part, dict):
            refuse_type(f"{where}[{index}]", "an object", part)
        kind = part.get("type")
        if not isinstance(kind, str):
            refuse_type(f"{where}[{index}].type", "a string", kind)
        if kind in _TEXT_PARTS:
            text = part.get("text")
            if not isinstance(text, str):
                refuse_type(f"{where}[{index}].text", "a string", text)
            texts.append(text)
        elif kind == "refusal":
            texts.append(str(part.get("refusal")))
        elif kind in _IMAGE_PARTS:
            extra += IMAGE_TOKENS
        else:
            extra += len(msgspec.json.encode(part)) // BYTES_PER_FILE_TOKEN
    return "\n".join(texts), extra
