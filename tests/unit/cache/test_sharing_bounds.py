"""Slow clients of a shared answer: none holds up another, what is kept for them has an end, and so has their time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.cache.sharing import Held, SharedAnswer
from app.core.errors import LedgerUnavailable
from tests.unit.cache.listening import HEADERS, new_answer, seat, turn

MAX = 100


async def test_a_slow_client_holds_up_nobody_and_catches_up():
    answer = new_answer()
    quick, slow = seat(answer), seat(answer, room=5)
    answer.start(200, HEADERS)
    pieces = [b"%04d" % number for number in range(10)]
    for piece in pieces:
        answer.write(piece)
        assert not answer.write_paused, "all of it is kept: nobody waits"
    answer.finish()
    assert (quick.how, quick.client.body) == ("whole", b"".join(pieces))
    assert (slow.how, slow.told) == ("", pieces[:2])
    assert slow.listener.is_slow
    for _ in range(10):
        slow.client.read(4)
        await turn()
        assert b"".join(pieces).startswith(slow.client.body)
        # Never more than it took: one piece is what it takes to notice.
        assert slow.client.unread <= 5 + 4
    assert (slow.how, slow.told) == ("whole", [*pieces, "settle", "finish"])
    assert (slow.rider.lefts, slow.listener.is_slow) == (0, False)


async def test_a_client_that_reads_nothing_for_too_long_is_cut_off():
    answer = new_answer()
    quick, stalled = seat(answer), seat(answer, room=0)
    answer.start(200, HEADERS)
    answer.write(b"one")
    stalled.client.stall()
    await turn()
    answer.finish(b"two")
    assert (stalled.how, stalled.told, stalled.rider.lefts, stalled.rider.settled) == ("left", [b"one", "abort"], 1, 0)
    assert (quick.how, quick.client.body) == ("whole", b"onetwo")


async def test_a_slow_client_that_leaves_is_told_nothing_more():
    answer = new_answer()
    gone: list[str] = []
    answer.on_disconnect(lambda: gone.append("all"))
    slow = seat(answer, room=0)
    answer.start(200, HEADERS)
    answer.write(b"one")
    answer.write(b"two")
    slow.client.leave()
    await turn()
    assert (slow.how, slow.told, slow.rider.lefts, gone) == ("left", [b"one"], 1, ["all"])


async def test_an_answer_up_to_the_bound_is_kept_and_one_byte_more_is_not():
    for size, is_kept in [(MAX, True), (MAX + 1, False)]:
        for stream in (True, False):
            answer = new_answer(MAX)
            shut: list[str] = []
            kept: list[bytes] = []
            answer.on_shut = lambda shut=shut: shut.append("shut")
            answer.on_whole = lambda whole, kept=kept: kept.append(whole.body)
            only = seat(answer)
            if stream:
                answer.start(200, HEADERS)
                answer.write(b"x" * (size - 1))
                assert answer.is_open
                answer.write(b"x")
                assert answer.is_open == is_kept
                answer.finish()
            else:
                answer.respond(200, HEADERS, b"x" * size)
            assert (answer.is_kept, len(kept), len(shut)) == (is_kept, is_kept, not is_kept)
            assert (only.how, only.client.body) == ("whole", b"x" * size)
            answer.close()
            assert answer._held.held == 0


async def test_the_last_piece_may_be_the_one_too_many():
    answer = new_answer(MAX)
    kept: list[bytes] = []
    answer.on_whole = lambda whole: kept.append(whole.body)
    quick, slow = seat(answer), seat(answer, room=0)
    answer.start(200, HEADERS)
    answer.write(b"a" * MAX)
    answer.finish(b"b")
    assert (kept, quick.client.body) == ([], b"a" * MAX + b"b")
    answer.close()
    slow.client.read()
    await turn()
    slow.client.read()
    await turn()
    assert (slow.how, slow.client.body) == ("whole", b"a" * MAX + b"b")


async def test_beyond_the_bound_what_all_have_is_let_go_of():
    held = Held(10 * MAX)
    answer = new_answer(MAX, held)
    seats = [seat(answer), seat(answer)]
    answer.start(200, HEADERS)
    for _ in range(50):
        answer.write(b"x" * 9)
        assert held.held <= MAX
    assert held.held == 0
    assert not answer.write_paused
    answer.finish()
    assert [len(one.client.body) for one in seats] == [450, 450]


async def test_beyond_the_bound_the_call_goes_at_the_pace_of_the_quickest():
    answer = new_answer(MAX)
    one, other = seat(answer, room=0), seat(answer, room=0)
    answer.start(200, HEADERS)
    answer.write(b"x" * MAX)
    assert not answer.write_paused
    answer.write(b"y")
    assert answer.write_paused, "both are slow"
    waiting = asyncio.create_task(answer.drained(0.001))
    await turn()
    await asyncio.sleep(0.01)
    assert not waiting.done(), "how long a client may be slow is for each of them to say"
    one.client.read()
    await turn()
    assert not waiting.done(), "it was told the next piece, and is slow again"
    assert one.told == [b"x" * MAX, b"y"]
    one.client.read()
    await turn()
    assert await waiting
    assert not answer.write_paused
    assert (other.told, other.how) == ([b"x" * MAX], "")


@pytest.mark.parametrize("way", ["leave", "stall", "drop"])
async def test_who_waits_for_room_is_woken_where_all_go(way):
    answer = new_answer(MAX)
    seats = [seat(answer, room=0), seat(answer, room=0)]
    answer.start(200, HEADERS)
    answer.write(b"x" * MAX)
    answer.write(b"y" * MAX)
    waiting = asyncio.create_task(answer.drained(1))
    await turn()
    for one in seats:
        assert not waiting.done()
        if way == "drop":
            one.listener.drop("revoked")
        else:
            getattr(one.client, way)()
        await turn()
    assert not await waiting
    assert not answer.write_paused, "nobody is waited for"
    answer.write(b"z")
    assert answer._held.held == 0


async def test_who_falls_behind_by_all_that_is_kept_is_cut_off():
    held = Held(10 * MAX)
    answer = new_answer(MAX, held)
    quick, slow, waiting = seat(answer), seat(answer, room=0), seat(answer, begun=False)
    answer.start(200, HEADERS)
    answer.write(b"a" * 10)
    answer.write(b"b" * 90)
    assert (slow.how, waiting.how) == ("", "")
    answer.write(b"c" * 5)
    # What the slow one still needs is 95 bytes. Whoever has had nothing may ask again.
    assert (slow.how, waiting.how, waiting.told) == ("", "abandoned", [])
    answer.write(b"d" * 5)
    assert (slow.how, held.held) == ("", MAX)
    answer.write(b"e")
    await turn()
    assert (slow.how, slow.told) == ("cut", [b"a" * 10, "abort"])
    assert (slow.rider.settled, slow.rider.lefts, held.held) == (0, 0, 0)
    answer.finish()
    assert (quick.how, len(quick.client.body)) == ("whole", 111)


async def test_the_last_one_is_waited_for_and_never_cut_off():
    answer = new_answer(MAX)
    slow = seat(answer, room=0)
    answer.start(200, HEADERS)
    sent = b""
    for _ in range(20):
        piece = b"x" * 60
        answer.write(piece)
        sent += piece
        assert answer._held.held <= MAX + 60
        waiting = asyncio.create_task(answer.drained(1))
        while answer.write_paused:
            slow.client.read()
            await turn()
        assert await waiting
    answer.finish()
    while not slow.how:
        slow.client.read()
        await turn()
    assert (slow.how, slow.client.body) == ("whole", sent)


async def test_one_who_has_not_begun_does_not_keep_the_bound_from_holding():
    """The maker of the call left while the last one who is there is still being admitted."""
    answer = new_answer(MAX)
    maker, waiting = seat(answer), seat(answer, begun=False)
    answer.start(200, HEADERS)
    answer.write(b"x" * 60)
    assert not answer.write_paused, "so far all of it is kept"
    maker.client.leave()
    answer.write(b"x" * 60)
    assert answer.write_paused
    room = asyncio.create_task(answer.drained(1))
    await turn()
    assert not room.done()
    waiting.listener.begin()
    assert await room
    assert (waiting.client.body, answer._held.held) == (b"x" * 120, 0)


# -- at random ------------------------------------------------------------------------------------

PIECE_MAX = 40
WHO = st.integers(0, 5)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.integers(1, PIECE_MAX)),
        st.tuples(st.just("write"), st.integers(1, PIECE_MAX)),
        st.tuples(st.just("join"), st.sampled_from([None, 0, 5, 30]), st.booleans(), st.integers(1, 5)),
        st.tuples(st.just("begin"), WHO),
        st.tuples(st.just("read"), WHO, st.none() | st.integers(1, 50)),
        st.tuples(st.just("leave"), WHO),
        st.tuples(st.just("stall"), WHO),
        st.tuples(st.just("drop"), WHO),
        st.tuples(st.just("turn")),
    ),
    max_size=60,
)


class Play:
    """A call that keeps to ``write_paused``, clients that come, read and go, and what has to hold meanwhile."""

    def __init__(self, bytes_max: int, held_max: int) -> None:
        self.bytes_max = bytes_max
        self.held = Held(held_max)
        self.answer = new_answer(bytes_max, self.held)
        self.answer.on_disconnect(lambda: self.gone.append("all"))
        self.answer.on_whole = self.keep
        self.gone: list[str] = []
        self.kept: list[bytes] = []
        self.sent = b""
        self.seats = [seat(self.answer)]
        self.waiting: asyncio.Task[bool] | None = None
        self.answer.start(200, HEADERS)

    def keep(self, whole: SharedAnswer) -> None:
        assert not any("finish" in one.told for one in self.seats)
        self.kept.append(whole.body)

    async def step(self, name: str, *told: Any) -> None:
        if name == "write":
            self.write(*told)
        elif name == "join":
            if self.answer.is_open:
                room, begun, dice = told
                refusal = LedgerUnavailable() if dice == 1 else None
                self.seats.append(seat(self.answer, room, begun=begun, refusal=refusal))
        elif name == "turn":
            await turn()
        elif told[0] < len(self.seats):
            one = self.seats[told[0]]
            if name == "begin":
                one.listener.begin()
            elif name == "drop":
                one.listener.drop("revoked")
            else:
                getattr(one.client, name)(*told[1:])
        self.check()

    def write(self, size: int) -> None:
        if self.waiting is not None and not self.waiting.done():
            return
        if self.answer.write_paused:
            self.waiting = asyncio.create_task(self.answer.drained(1))
            return
        piece = bytes([65 + len(self.sent) % 26]) * size
        self.answer.write(piece)
        self.sent += piece

    def check(self) -> None:
        answer = self.answer
        active = [one for one in self.seats if not one.how]
        for one in self.seats:
            assert self.sent.startswith(one.client.body)
            quick = one.client.room is None and one.listener._begun
            assert one.how or not quick or one.client.body == self.sent, "nobody holds up another"
        assert answer.disconnected == (not active)
        assert self.gone == ([] if active else ["all"])
        assert answer.listeners == len(active)
        if answer.is_kept:
            assert answer.body == self.sent
            assert self.held.held == len(self.sent)
        else:
            assert self.held.held <= self.bytes_max + PIECE_MAX

    async def end(self, how: str) -> None:
        answer = self.answer
        went_before = not [one for one in self.seats if not one.how]
        was_kept = answer.is_kept
        if how == "settle":
            answer.settled()
        if how in {"finish", "settle"}:
            answer.finish()
        elif how == "abort":
            answer.abort()
        assert self.kept == ([self.sent] if was_kept and how in {"finish", "settle"} else [])
        answer.close()
        assert self.held.held == 0 or [one for one in self.seats if not one.how], "somebody still reads"
        for one in self.seats:
            one.listener.begin()
        for _ in range(len(self.sent) + 2):
            for one in self.seats:
                one.client.read()
            await turn()
            if all(one.how for one in self.seats):
                break
        assert self.held.held == 0
        assert self.gone == (["all"] if went_before else [])
        if self.waiting is not None:
            await asyncio.wait_for(self.waiting, 30)

    def check_ends(self, how: str) -> None:
        whole = how in {"finish", "settle"}
        for one in self.seats:
            assert one.told.count("finish") == (one.how == "whole")
            assert one.rider.lefts == (one.how == "left")
            assert one.rider.settled <= one.listener.has_started
            assert len([told for told in one.client.told if isinstance(told, tuple)]) <= 1
            if one.how == "whole":
                assert whole
                assert one.client.body == self.sent
                assert one.rider.settled == 1
                assert one.told[-1] == "finish"
            elif one.how == "cut":
                assert one.told[-1] == "abort"
                assert not whole or not self.answer.is_kept
            elif one.how == "abandoned":
                assert (one.client.told, one.rider.settled) == ([], 0)
                assert not whole or not self.answer.is_kept
            elif one.how == "refused":
                assert (one.client.told, one.rider.settled) == ([], 0)
            else:
                assert one.how in {"left", "revoked"}


@settings(max_examples=300, deadline=None)
@given(
    STEPS,
    st.sampled_from([20, 100, 10_000]),
    st.sampled_from([50, 10_000]),
    st.sampled_from(["finish", "settle", "abort", "close"]),
)
def test_whoever_comes_and_goes_all_are_told_the_same(steps, bytes_max, held_max, how):
    async def run() -> None:
        play = Play(bytes_max, held_max)
        for step in steps:
            await play.step(*step)
        await play.end(how)
        assert all(one.how for one in play.seats)
        play.check_ends(how)

    asyncio.run(run())


async def test_what_a_slow_client_still_reads_after_the_end_counts():
    answer = new_answer(MAX)
    slow = seat(answer, room=0)
    answer.start(200, HEADERS)
    answer.write(b"x" * 60)
    answer.finish()
    answer.close()
    assert (slow.how, answer._held.held) == ("", 60)
    slow.client.read(None)
    await turn()
    assert (slow.how, answer._held.held) == ("whole", 0)
