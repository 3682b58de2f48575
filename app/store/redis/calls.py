"""What is sent to Redis, and what may come of it."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import hiredis

Argument = str | bytes | int
OnAnswer = Callable[[Any], None]
OnLost = Callable[[], None]
OnRefused = Callable[[str, str], None]


# Its stub says: a tuple of one.
_pack: Callable[[tuple[Argument, ...]], bytes] = hiredis.pack_command  # type: ignore[assignment]


def pack(*words: Argument) -> bytes:
    """A command as it goes over the wire."""
    return _pack(words)


class RedisError(Exception):
    """Redis gave no usable answer."""


class RedisUnavailable(RedisError):
    """No answer. ``sent`` says whether the command may have been executed all the same."""

    def __init__(self, reason: str, *, sent: bool) -> None:
        self.sent = sent
        super().__init__(reason)


class RedisReplyError(RedisError):
    """The server refused this command, or its script failed."""


class Script:
    """Lua source and the name (its SHA-1, which protects nothing) under which the server keeps it. ``at_once``: a call
    of it does not wait for others of the same turn of the loop.
    """

    def __init__(self, name: str, source: str, *, at_once: bool = False) -> None:
        self.name = name
        self.source = source
        self.at_once = at_once
        self.sha = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()

    def pack(self, keys: Sequence[str], args: Sequence[Argument]) -> bytes:
        """The command that runs this script, as it goes over the wire."""
        return _pack(("EVALSHA", self.sha, len(keys), *keys, *args))


GAP = None
"""In the words of a ``Form``: what is told each time."""


class Form:
    """The command that runs a script, most of whose keys and arguments are the same each time: those are packed
    once. Packing forty words takes three times as long as filling ten gaps.
    """

    __slots__ = ("_template",)

    def __init__(self, script: Script, keys: Sequence[str | None], args: Sequence[Argument | None]) -> None:
        words = ("EVALSHA", script.sha, len(keys), *keys, *args)
        self._template = b"".join((b"*%d\r\n" % len(words), *map(_slot_for, words)))

    def fill(self, words: Iterable[bytes]) -> bytes:
        """The command with ``words`` in its gaps, in order."""
        told: list[int | bytes] = []
        for word in words:
            told += (len(word), word)
        return self._template % tuple(told)


def _slot_for(word: Argument | None) -> bytes:
    """A word as it goes over the wire, in a template."""
    if word is GAP:
        return b"$%d\r\n%b\r\n"
    text = word if isinstance(word, bytes) else str(word).encode()
    return b"$%d\r\n%b\r\n" % (len(text), text.replace(b"%", b"%%"))


@dataclass(slots=True, eq=False)
class Call:
    """A command on its way; ``answer`` is None for a post."""

    packed: bytes
    answer: asyncio.Future[Any] | None
    script: Script | None
    timeout_at_s: float = 0.0
    resent: bool = False


@dataclass(slots=True, eq=False)
class RoutedCall(Call):
    """A call in a cluster. ``deadline_s`` (of the loop) is set once it was sent to the wrong node."""

    slot: int = 0
    redirections: int = 0
    deadline_s: float = 0.0


@dataclass(slots=True, eq=False)
class Post(Call):
    """A script that nobody waits for. ``made_s`` is monotonic time; ``slot`` counts in a cluster only."""

    made_s: float = 0.0
    on_answer: OnAnswer | None = None
    on_lost: OnLost | None = None
    slot: int = 0
    redirections: int = 0


class Outcomes:
    """Tells what became of posts: those who made them, and once per change of state the operator."""

    def __init__(self, on_refused: OnRefused | None = None) -> None:
        self._on_refused = on_refused
        self._refused: dict[str, str] = {}
        self.dropped = 0

    def __repr__(self) -> str:
        return f"Outcomes(dropped {self.dropped}, refused {self._refused})"

    def answered(self, post: Post, reply: Any) -> None:
        if self._refused and post.script is not None:
            self._refused.pop(post.script.name, None)
        if post.on_answer is not None:
            _tell(post.on_answer, reply)

    def refused(self, post: Post, text: str) -> None:
        """The server does not want this post: it is given up."""
        name = post.script.name if post.script is not None else ""
        code = text.partition(" ")[0]
        if self._refused.get(name) != code:
            self._refused[name] = code
            if self._on_refused is not None:
                _tell(self._on_refused, name, text)
        self.given_up(post)

    def given_up(self, post: Post) -> None:
        self.dropped += 1
        if post.on_lost is not None:
            _tell(post.on_lost)


def _tell(callback: Callable[..., None], *arguments: Any) -> None:
    try:
        callback(*arguments)
    except Exception as error:  # noqa: BLE001 - one caller's mistake must not cost the others their answers
        asyncio.get_running_loop().call_exception_handler(
            {"message": "a callback of a post to Redis failed", "exception": error}
        )
