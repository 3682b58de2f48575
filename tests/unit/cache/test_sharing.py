"""One answer for all who asked: each gets all of it or sees that it is cut, and nobody holds up another."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from app.cache.sharing import Held, SharedAnswer
from app.core.errors import LedgerUnavailable
from tests.unit.cache.listening import COMMON, HEADERS, Client, Rider, new_answer, seat, turn

# -- all get the same -----------------------------------------------------------------------------


async def test_each_gets_all_of_a_stream_from_its_start():
    answer = new_answer()
    early = [seat(answer), seat(answer)]
    answer.start(200, HEADERS)
    answer.write(b"one")
    answer.write_all([b"two", b"", b"three"])
    late = seat(answer)
    answer.write(b"")
    answer.write(b"four")
    waiting = seat(answer, begun=False)
    answer.finish(b"five")
    after = seat(answer)
    waiting.listener.begin()
    for one in [*early, late, waiting, after]:
        assert one.client.told[0] == (200, [*COMMON, (b"own", b"stream")])
        assert one.told == [b"one", b"two", b"three", b"four", b"five", "settle", "finish"]
        assert one.how == "whole"
    assert (answer.status, answer.headers, answer.first_headers, answer.over) == (200, COMMON, HEADERS, "whole")
    assert answer.body == b"onetwothreefourfive"


async def test_nothing_is_told_before_the_beginning():
    answer = new_answer()
    waiting = seat(answer, begun=False)
    answer.start(200, HEADERS)
    answer.write(b"one")
    assert (waiting.client.told, waiting.listener.has_started) == ([], False)
    waiting.listener.begin()
    assert (waiting.told, waiting.listener.has_started) == ([b"one"], True)


async def test_an_answer_that_is_no_stream_is_told_at_once():
    answer = new_answer()
    early, waiting = seat(answer), seat(answer, begun=False)
    answer.respond(404, HEADERS, b"{}")
    late = seat(answer)
    waiting.listener.begin()
    for one in (early, waiting, late):
        assert one.client.told == ["settle", (404, [*COMMON, (b"own", b"json")]), b"{}", "finish"]
        assert one.how == "whole"
    assert (answer.status, answer.is_stream, answer.body, answer.over) == (404, False, b"{}", "whole")
    empty = new_answer()
    empty.respond(200, [], b"")
    assert seat(empty).told == ["settle", "finish"]
    assert empty.body == b""


async def test_after_its_end_nothing_is_added():
    answer = new_answer()
    only = seat(answer)
    answer.start(200, HEADERS)
    answer.finish(b"all")
    answer.write(b"more")
    answer.finish(b"more")
    answer.abort()
    assert (only.told, answer.body, answer.over) == ([b"all", "settle", "finish"], b"all", "whole")


# -- who leaves -----------------------------------------------------------------------------------


async def test_one_who_leaves_ends_nothing_for_the_others():
    answer = new_answer()
    gone: list[str] = []
    answer.on_disconnect(lambda: gone.append("all"))
    first, second = seat(answer), seat(answer)
    answer.start(200, HEADERS)
    answer.write(b"one")
    first.client.leave()
    assert (first.how, first.rider.lefts, answer.listeners, answer.disconnected, gone) == ("left", 1, 1, False, [])
    answer.write(b"two")
    third = seat(answer)
    answer.finish()
    assert first.told == [b"one"]
    assert second.told == third.told == [b"one", b"two", "settle", "finish"]
    second.client.leave()
    assert second.rider.lefts == 0, "it had everything"


async def test_where_nobody_is_left_the_call_is_told_once_and_the_answer_still_recorded():
    answer = new_answer()
    gone: list[str] = []
    shut: list[str] = []
    kept: list[bytes] = []
    answer.on_disconnect(lambda: gone.append("all"))
    answer.on_shut = lambda: shut.append("shut")
    answer.on_whole = lambda whole: kept.append(whole.body)
    seats = [seat(answer), seat(answer, begun=False)]
    answer.start(200, HEADERS)
    answer.write(b"one")
    for one in seats:
        one.client.leave()
    assert (gone, shut, answer.disconnected, answer.is_open) == (["all"], ["shut"], True, False)
    assert not await answer.drained(1), "nobody takes more"
    answer.abort()
    answer.write(b"two")
    assert (answer.is_kept, answer.body, answer.over) == (True, b"onetwo", None)
    answer.finish(b"three")
    assert (answer.body, answer.over, kept) == (b"onetwothree", "whole", [b"onetwothree"])
    answer.close()
    assert gone == ["all"]


async def test_who_asks_after_all_have_gone_is_told_at_once():
    answer = new_answer()
    seat(answer).client.leave()
    gone: list[str] = []
    answer.on_disconnect(lambda: gone.append("all"))
    assert gone == ["all"]


async def test_a_client_that_has_gone_already_does_not_join():
    answer = new_answer()
    gone: list[str] = []
    answer.on_disconnect(lambda: gone.append("all"))
    first = seat(answer)
    client = Client()
    client.leave()
    listener = answer.join(client, Rider(client))
    assert (listener.ended.result(), answer.listeners, answer.disconnected, gone) == ("left", 1, False, [])
    listener.begin()
    answer.respond(200, HEADERS, b"{}")
    assert client.told == []
    assert first.how == "whole"
    # Where it is the first one, nobody is there.
    lonely = new_answer()
    lonely.join(client, Rider(client))
    assert (lonely.disconnected, lonely.is_open) == (True, False)


async def test_after_the_end_it_does_not_matter_who_leaves():
    answer = new_answer()
    gone: list[str] = []
    answer.on_disconnect(lambda: gone.append("all"))
    slow = seat(answer, room=0)
    answer.start(200, HEADERS)
    answer.finish(b"one")
    slow.client.leave()
    assert (slow.how, gone) == ("left", [])


# -- accounts -------------------------------------------------------------------------------------


async def test_accounts_are_closed_before_the_last_is_told():
    answer = new_answer()
    seats = [seat(answer), seat(answer, room=0), seat(answer, begun=False)]
    answer.start(200, HEADERS)
    answer.write(b"one")
    answer.settled()
    assert [one.rider.settled for one in seats] == [1, 1, 0], "not of whom nothing was told"
    answer.write(b"last")
    answer.finish()
    seats[1].client.read()
    await turn()
    seats[1].client.read()
    await turn()
    seats[2].listener.begin()
    for one in seats:
        assert one.how == "whole"
        assert one.told.index("settle") < one.told.index("finish")
    assert seats[0].told.index("settle") < seats[0].told.index(b"last")
    assert seats[1].told.index("settle") < seats[1].told.index(b"last")


async def test_who_begins_after_the_account_was_closed_is_settled_before_the_last():
    """The last event is out, and its client's next request may be here before the client is seen to have read."""
    answer = new_answer()
    seat(answer)
    waiting = seat(answer, room=0, begun=False)
    answer.start(200, HEADERS)
    answer.write(b"one")
    answer.settled()
    answer.finish(b"response.completed")
    waiting.listener.begin()
    assert waiting.told == ["settle", b"one"]
    for _ in range(2):
        waiting.client.read()
        await turn()
    assert waiting.told == ["settle", b"one", b"response.completed", "finish"]


async def test_each_account_is_closed_once():
    answer = new_answer()
    seats = [seat(answer), seat(answer, begun=False)]
    answer.start(200, HEADERS)
    answer.write(b"one")
    answer.settled()
    answer.settled()
    answer.finish(b"two")
    seats[1].listener.begin()
    answer.settled()
    assert [one.rider.settled for one in seats] == [1, 1]


async def test_of_whom_nothing_was_told_no_account_is_closed():
    answer = new_answer()
    seats = [seat(answer), seat(answer, begun=False)]
    answer.settled()
    answer.close()
    assert [(one.how, one.told, one.rider.settled) for one in seats] == [("abandoned", [], 0)] * 2


async def test_who_cannot_be_written_down_is_refused_and_told_nothing():
    error = LedgerUnavailable()
    for stream in (True, False):
        answer = new_answer()
        first, refused = seat(answer), seat(answer, refusal=error)
        if stream:
            answer.start(200, HEADERS)
            answer.finish(b"all")
        else:
            answer.respond(200, HEADERS, b"all")
        assert (refused.how, refused.listener.refusal, refused.told) == ("refused", error, [])
        assert (refused.rider.settled, refused.rider.lefts, refused.listener.has_started) == (0, 0, False)
        assert (first.how, first.client.body) == ("whole", b"all")
    lonely = new_answer()
    gone: list[str] = []
    lonely.on_disconnect(lambda: gone.append("all"))
    seat(lonely, refusal=error)
    lonely.start(200, HEADERS)
    lonely.write(b"one")
    assert gone == ["all"]


async def test_what_goes_wrong_for_one_goes_on_for_the_others():
    seen: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: seen.append(context))
    answer = new_answer()
    broken, whole = seat(answer), seat(answer)

    def fail() -> None:
        raise ZeroDivisionError

    broken.rider.settle = fail
    answer.start(200, HEADERS)
    answer.write(b"one")
    answer.settled()
    answer.finish(b"two")
    assert [type(context["exception"]) for context in seen] == [ZeroDivisionError]
    assert (broken.how, broken.told) == ("cut", [b"one", "abort"])
    assert (whole.how, whole.client.body) == ("whole", b"onetwo")


# -- ends that are none ---------------------------------------------------------------------------


async def test_a_cut_looks_whole_to_nobody():
    answer = new_answer()
    told, slow, waiting = seat(answer), seat(answer, room=0), seat(answer, begun=False)
    answer.start(200, HEADERS)
    answer.write(b"one")
    answer.write(b"two")
    answer.abort()
    assert (answer.over, answer.is_open) == ("cut", False)
    answer.finish(b"three")
    answer.close()
    await turn()
    waiting.listener.begin()
    assert (told.how, told.told) == ("cut", [b"one", b"two", "abort"])
    assert (slow.how, slow.told) == ("cut", [b"one", "abort"])
    assert (waiting.how, waiting.told) == ("abandoned", [])
    assert [one.rider.settled for one in (told, slow, waiting)] == [0, 0, 0]


async def test_a_call_that_ends_without_an_answer_has_nobody_wait():
    before = new_answer()
    seats = [seat(before), seat(before, begun=False)]
    before.close()
    assert [(one.how, one.client.told) for one in seats] == [("abandoned", [])] * 2
    assert not before.is_open
    # After the first byte it is a cut.
    answer = new_answer()
    told, waiting = seat(answer), seat(answer, begun=False)
    answer.start(200, HEADERS)
    answer.close()
    answer.close()
    assert (told.how, told.told, waiting.how, waiting.client.told) == ("cut", ["abort"], "abandoned", [])
    answer.write(b"late")
    answer.finish()
    assert answer._held.held == 0


async def test_the_call_fails_for_its_maker_alone():
    answer = new_answer()
    maker, other, waiting = seat(answer), seat(answer), seat(answer, begun=False)
    answer.abandon_others(maker.listener)
    assert [one.how for one in (maker, other, waiting)] == ["", "abandoned", "abandoned"]
    assert (answer.is_open, answer.listeners, answer.disconnected) == (False, 1, False)
    answer.respond(401, [], b"no")
    assert (maker.how, maker.client.body, other.client.told, waiting.client.told) == ("whole", b"no", [], [])


async def test_who_is_dropped_is_told_nothing_more():
    answer = new_answer()
    gone: list[str] = []
    answer.on_disconnect(lambda: gone.append("all"))
    first, second = seat(answer), seat(answer)
    answer.start(200, HEADERS)
    answer.write(b"one")
    first.listener.drop("revoked")
    answer.write(b"two")
    assert (first.how, first.told, first.rider.lefts, first.rider.settled) == ("revoked", [b"one"], 0, 0)
    first.client.leave()
    assert (first.rider.lefts, gone) == (0, []), "what becomes of its client is for others to see"
    second.listener.drop("cancelled")
    second.listener.drop("revoked")
    assert (second.how, gone, answer.disconnected) == ("cancelled", ["all"], True)


@pytest.mark.parametrize("ending", [b"event: error", None])
async def test_who_is_revoked_ends_here_and_nobody_else(ending):
    answer = new_answer()
    revoked, slow, waiting, other = seat(answer), seat(answer, room=0), seat(answer, begun=False), seat(answer)
    answer.start(200, HEADERS)
    answer.write(b"one")
    answer.write(b"two")
    for one in (revoked, slow, waiting):
        one.listener.revoke(ending)
        one.listener.revoke(ending)
    await turn()
    answer.finish(b"three")
    # An event stands only behind all that came before it.
    assert revoked.told == ([b"one", b"two", ending, "finish"] if ending else [b"one", b"two", "abort"])
    assert slow.told == [b"one", "abort"]
    assert waiting.client.told == [], "the caller says why"
    assert [one.how for one in (revoked, slow, waiting, other)] == ["revoked"] * 3 + ["whole"]
    assert [one.rider.settled for one in (revoked, slow, waiting, other)] == [0, 0, 0, 1]
    other.listener.revoke(ending)
    assert other.told == [b"one", b"two", b"three", "settle", "finish"], "it had everything"


async def test_a_call_that_is_shut_goes_on_for_those_who_are_there():
    answer = new_answer()
    only = seat(answer)
    answer.start(200, HEADERS)
    answer.shut()
    assert not answer.is_open
    answer.finish(b"all")
    assert (only.how, only.client.body, answer.is_kept) == ("whole", b"all", True)


# -- what is kept of it ---------------------------------------------------------------------------


async def test_the_answer_is_kept_before_anybody_has_the_last_of_it():
    for stream in (True, False):
        answer = new_answer()
        only = seat(answer)
        seen: list[Any] = []
        answer.on_whole = lambda whole, only=only, seen=seen: seen.append((whole.body, whole.over, list(only.told)))
        if stream:
            answer.start(200, HEADERS)
            answer.write(b"one")
            answer.finish(b"two")
            assert seen == [(b"onetwo", "whole", [b"one"])]
        else:
            answer.respond(200, HEADERS, b"{}")
            assert seen == [(b"{}", "whole", [])]
        assert only.how == "whole"


async def test_an_answer_that_could_not_be_kept_is_told_all_the_same():
    answer = new_answer()
    only = seat(answer)

    def fail(_: SharedAnswer) -> None:
        raise ZeroDivisionError

    answer.on_whole = fail
    answer.start(200, HEADERS)
    with pytest.raises(ZeroDivisionError):
        answer.finish(b"all")
    assert (only.how, only.client.body) == ("whole", b"all")


@pytest.mark.parametrize("end", ["abort", "close"])
async def test_what_is_cut_is_never_kept(end):
    answer = new_answer()
    seat(answer)
    kept: list[bytes] = []
    answer.on_whole = lambda whole: kept.append(whole.body)
    answer.start(200, HEADERS)
    answer.write(b"one")
    getattr(answer, end)()
    answer.finish(b"two")
    assert (kept, answer.over) == ([], "cut")


async def test_bytes_are_counted_over_all_answers_and_given_back():
    held = Held(1000)
    answers = [new_answer(held=held) for _ in range(5)]
    for number, answer in enumerate(answers):
        seat(answer, room=0 if number % 2 else None)
        answer.start(200, HEADERS)
        answer.write(b"x" * 100)
    assert held.held == 500
    answers[0].finish(b"y")
    answers[1].abort()
    answers[2].close()
    assert held.held == 401
    for answer in answers:
        answer.close()
    assert held.held == 0


async def test_where_all_hold_too_much_together_no_more_is_kept():
    held = Held(250)
    answers = [new_answer(held=held) for _ in range(3)]
    for answer in answers:
        seat(answer)
        answer.start(200, HEADERS)
        answer.write(b"x" * 100)
    assert [answer.is_kept for answer in answers] == [True, True, False]
    assert [answer.is_open for answer in answers] == [True, True, False]
    assert held.held == 200, "what its client has is not held for nobody"
    kept: list[bytes] = []
    for answer in answers:
        answer.on_whole = lambda whole: kept.append(whole.body)
        answer.finish()
        answer.close()
    assert (kept, held.held) == ([b"x" * 100] * 2, 0)
