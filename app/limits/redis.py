"""The hot state shared through Redis: one script per command, all of its keys in the tag's hash slot.

Only here is it known which run of which server holds a tag: tokens come with the epoch's number, and the
server's run id is put behind it in the turn in which the command is sent.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

from app.core.clock import Clock
from app.limits.hot import (
    Answer,
    Beat,
    Command,
    Confirm,
    FindDue,
    Look,
    OpenTag,
    Peek,
    Reserve,
    Restore,
    Seed,
    Settle,
    StandIn,
    StoreAway,
    TakeOver,
    Void,
)
from app.limits.wire import Packed, Wire, Words, read_answer
from app.store.redis import Argument, Redis, RedisError, RedisUnavailable, Script

RUNS_MAX = 100_000
SCRIPTS = Path(__file__).parent / "scripts"

Write: TypeAlias = Callable[[Any], Packed]


class RedisHot:
    """The hot state of any number of processes. The client is its owner's to start and to close.

    With a ``clock`` (tests) the server is told the time; else its own decides.
    """

    def __init__(self, client: Redis, clock: Clock | None = None) -> None:
        self._client = client
        self._clock = clock
        self._runs: dict[str, str] = {}
        counting = ("prelude", "reservation", "budget")
        reserve = load_script("reserve", "prelude", "reservation")
        settle = load_script("settle", *counting, "slots")
        wire = self._wire = Wire(self._stamp, self._now, reserve, settle)
        self._writers: dict[type, tuple[Script, Write]] = {
            Reserve: (reserve, wire.reserve),
            Settle: (settle, wire.settle),
            Void: _written(load_script("void", *counting, "values", "slots", "tombstone"), wire.void),
            Restore: _written(load_script("restore", *counting), wire.restore),
            Beat: _written(load_script("beat", "prelude", "reservation"), wire.beat),
            FindDue: _written(load_script("find_due", "prelude"), wire.find_due),
            Look: _written(load_script("look", "prelude", "reservation", "known"), wire.look),
            Peek: _written(load_script("peek", "prelude"), wire.peek),
            TakeOver: _written(load_script("take_over", *counting, "known"), wire.take_over),
            Confirm: _written(load_script("confirm", *counting, "values", "tombstone"), wire.confirm),
            Seed: _written(load_script("seed", "prelude", "budget", "values"), wire.seed),
            StandIn: _written(load_script("stand_in", "prelude", "budget", "values"), wire.stand_in),
            OpenTag: _written(load_script("open_tag", "prelude"), wire.open_tag),
        }

    def __repr__(self) -> str:
        return f"RedisHot({self._client!r}, {self._wire!r})"

    async def do(self, command: Command) -> Answer:
        """What the store answers; StoreAway where it does not, or does not in time."""
        script, write = self._writers[type(command)]
        try:
            key, packed = write(command)
            reply = await self._client.call_packed(script, key, packed)
        except RedisUnavailable as error:
            raise StoreAway(str(error), sent=error.sent) from error
        except RedisError as error:
            raise StoreAway(str(error), sent=True) from error
        return read_answer(reply, command)

    def post(
        self,
        command: Command,
        on_answer: Callable[[Answer], None] | None = None,
        on_lost: Callable[[], None] | None = None,
    ) -> None:
        """Have the command carried out some time, behind all that was sent before it.

        It may be carried out twice, or never; one of the two is called in the end.
        """
        script, write = self._writers[type(command)]
        try:
            key, packed = write(command)
        except RedisUnavailable:
            if on_lost is not None:
                on_lost()
            return
        answered = None if on_answer is None else lambda reply: on_answer(read_answer(reply, command))
        self._client.post_packed(script, key, packed, answered, on_lost)

    def _stamp(self, token: str, tag: str) -> str:
        """The token with the run id of the server that has the tag, or had it last."""
        if not token:
            return token
        run_id = self._client.run_id_for(f"hg:{{{tag}}}:epoch")
        if run_id is None:
            # What is posted meanwhile is kept for the next connection. If that is to another run, whose data
            # may be older, nothing is lost by it: the epoch ends as soon as anything is asked there.
            run_id = self._runs.get(tag)
            if run_id is None:
                raise RedisUnavailable("there has been no connection yet", sent=False)
        elif self._runs.get(tag) != run_id:
            if len(self._runs) >= RUNS_MAX:
                self._runs.clear()
            self._runs[tag] = run_id
        return f"{token}:{run_id}"

    def _now(self) -> Argument:
        return "" if self._clock is None else self._clock.now_ms()


def load_script(name: str, *shared: str) -> Script:
    """``scripts/<name>.lua`` with the ``shared`` parts before it, behind the line that says what it may do."""
    shebang, _, body = (SCRIPTS / f"{name}.lua").read_text(encoding="utf-8").partition("\n")
    parts = [(SCRIPTS / "shared" / f"{part}.lua").read_text(encoding="utf-8") for part in shared]
    return Script(name, "\n".join([shebang, *parts, body]))


def _written(script: Script, words: Callable[[Any], Words]) -> tuple[Script, Write]:
    """``words`` of a command, packed."""

    def write(command: Command) -> Packed:
        keys, args = words(command)
        return keys[0], script.pack(keys, args)

    return script, write
