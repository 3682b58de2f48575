"""Who makes the call, and who waits for it: in one process, and among several."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from app.cache import cache as cache_module
from app.cache import leases as leases_module
from app.cache.cache import Lead, is_event_stream, is_of_request
from app.cache.entry import Entry, Look
from app.cache.inquiry import Inquiry
from app.cache.leases import STREAM_WAIT_S_MAX, WAIT_S_MAX
from app.cache.memory import LEASE_S
from app.store.cache import CacheClear
from tests.unit.cache.asking import entry
from tests.unit.cache.listening import seat, turn
from tests.unit.cache.replicas import ANSWER, JSON, SSE, UNTOLD, Replica, asks, once


@pytest.fixture
def one() -> Replica:
    return Replica()


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(cache_module, "LOOK_EVERY_S", 0)


# -- one process ----------------------------------------------------------------------------------


async def test_a_call_in_flight_may_be_joined_until_it_ends(one):
    assert one.cache.lead_of(asks()) is None
    answer = one.answer(100)
    with one.cache.leading(asks(), answer) as lead:
        first = seat(answer)
        assert one.cache.lead_of(asks()) is lead
        for other in (
            asks(stream=True),
            asks(input="other"),
            once(),
            asks("responses", (b"cache-control", b"no-cache")),
        ):
            assert one.cache.lead_of(other) is None
        answer.start(200, JSON)
        assert one.cache.lead_of(asks()) is lead
        answer.finish(b"all")
        assert one.cache.lead_of(asks()) is None
    assert (first.how, one.cache._leads) == ("whole", {})


@pytest.mark.parametrize("way", ["grows", "all leave", "fails"])
async def test_a_call_that_nobody_may_join_is_followed_by_another(one, way):
    answer, next_answer = one.answer(100), one.answer(100)
    with one.cache.leading(asks(), answer):
        first = seat(answer)
        if way == "grows":
            answer.start(200, SSE)
            answer.write(b"x" * 101)
        elif way == "all leave":
            first.client.leave()
        else:
            answer.abandon_others(first.listener)
        assert one.cache.lead_of(asks()) is None
        with one.cache.leading(asks(), next_answer) as second:
            assert one.cache.lead_of(asks()) is second
            answer.close()
            assert one.cache.lead_of(asks()) is second
    assert one.cache._leads == {}


async def test_the_end_of_an_earlier_call_is_not_the_end_of_a_later_one(one):
    earlier = one.cache.leading(asks(), one.answer())
    earlier.__enter__()
    with one.cache.leading(asks(), one.answer()) as later:
        earlier.__exit__(None, None, None)
        assert one.cache.lead_of(asks()) is later


async def test_whatever_comes_of_a_call_nobody_waits_for_it(one):
    answer = one.answer()
    with pytest.raises(ZeroDivisionError), one.cache.leading(asks(), answer):
        waiting = seat(answer, begun=False)
        raise ZeroDivisionError
    assert (waiting.how, one.cache.lead_of(asks()), answer.is_open) == ("abandoned", None, False)


@pytest.mark.parametrize("told", [asks("responses", (b"cache-control", b"no-cache")), once()])
async def test_a_call_of_its_own_is_joined_by_nobody(one, told):
    with one.cache.leading(told, one.answer()):
        assert one.cache.lead_of(told) is None
        assert one.cache.lead_of(asks()) is None


def test_a_lease_is_asked_for_only_where_somebody_else_could_have_it(one):
    shared = Replica(is_local=False).cache
    refresh = asks("responses", (b"cache-control", b"no-cache"))
    assert (one.cache.new_token(asks()), one.cache.new_token(refresh), shared.new_token(refresh)) == ("", "", "")
    caches = (one.cache, shared, Replica(is_local=False).cache)
    tokens = [cache.new_token(once()) for cache in caches for _ in range(3)] + [shared.new_token(asks())]
    assert len(set(tokens)) == len(tokens)
    assert all(is_of_request(token, once()) for token in tokens[:-1])
    assert not is_of_request(tokens[-1], once())
    assert not any(is_of_request(token, once(b"k", input="other")) for token in tokens)


async def test_an_idempotency_key_has_one_holder_at_a_time(one):
    for told, told_too in [(once(), once()), (once(), once(input="other"))]:
        token, token_too = one.cache.new_token(told), one.cache.new_token(told_too)
        look = await one.cache.look(told, token)
        assert look.holder == token
        with one.cache.leading(told, one.answer(), token, look):
            held = (await one.cache.look(told_too, token_too)).holder
            assert (held, is_of_request(held, told_too)) == (token, told is told_too or told == told_too)
        assert (await one.cache.look(told_too, token_too)).holder == token_too, "it was given back"
        one.store.release(told_too.address, token_too)


def test_what_is_an_event_stream():
    for value in (b"text/event-stream", b"Text/Event-Stream; charset=utf-8", b"text/event-stream;x"):
        assert is_event_stream([(b"x", b"y"), (b"content-type", value)])
    assert not is_event_stream([(b"content-type", b"application/json"), (b"accept", b"text/event-stream")])
    assert not is_event_stream([])


# -- several --------------------------------------------------------------------------------------


async def leads(replica: Replica, told: Inquiry) -> tuple[str, Look]:
    """What a request does before its call."""
    token = replica.cache.new_token(told)
    return token, await replica.cache.look(told, token)


@pytest.fixture
def pair(one) -> tuple[Replica, Replica]:
    return Replica(one.store, one.clock, is_local=False), Replica(one.store, one.clock, is_local=False)


def nobody_is_left(lead: Lead) -> bool:
    return lead.shared.disconnected


async def waited(replica: Replica, lead: Lead) -> asyncio.Task[Entry | None]:
    task = asyncio.create_task(replica.cache.wait_for_others(lead, lambda: nobody_is_left(lead)))
    await turn()
    return task


@pytest.mark.parametrize("end", ["keeps", "gives up", "dies", "grows", "is left", "is cleared"])
async def test_of_two_replicas_one_makes_the_call(pair, end):
    first, second = pair
    token, look = await leads(first, asks())
    assert look == Look(holder=token)
    answer = first.answer(5000)
    with first.cache.leading(asks(), answer, token, look) as lead:
        only = seat(answer)
        assert await first.cache.wait_for_others(lead, lambda: False) is None
        token_too, look_too = await leads(second, asks())
        assert look_too == Look(holder=token)
        with second.cache.leading(asks(), second.answer(), token_too, look_too) as other:
            seat(other.shared)
            task = await waited(second, other)
            assert not task.done()
            if end in {"keeps", "is cleared"}:
                if end == "is cleared":
                    second.cache.clears.take([CacheClear("", "", 9, 0)], 9)
                first.cache.keep(lead, "responses", entry(ANSWER))
            elif end == "gives up":
                first.cache._let_go(asks().address, token)
            elif end == "dies":
                first.clock.ms += int(LEASE_S * 1000)
            elif end == "grows":
                answer.start(200, SSE)
                answer.write(b"x" * 5001)
            else:
                only.client.leave()
            kept = await asyncio.wait_for(task, 5)
            assert (kept.body if kept else None) == (ANSWER if end == "keeps" else None)
            if end not in {"keeps", "is cleared"}:
                assert other.holder == token_too, "the call is its own now"
                third = await second.cache.look(asks(), "third")
                assert third.holder == token_too
    assert (await first.cache.look(asks(input="x"), "third")).holder == "third"
    if end not in {"keeps", "is cleared"}:
        assert (await second.cache.look(asks(), "third")).holder == "third", "all of them were given back"


@pytest.mark.parametrize(("told", "wait_s"), [(asks(), WAIT_S_MAX), (asks(stream=True), STREAM_WAIT_S_MAX)])
async def test_a_replica_that_takes_too_long_is_not_waited_for(pair, told, wait_s):
    """Sooner where a client waits for the first byte of a stream."""
    first, second = pair
    token, look = await leads(first, told)
    token_too, look_too = await leads(second, told)
    assert look_too.holder == token == look.holder
    with second.cache.leading(told, second.answer(), token_too, look_too) as other:
        seat(other.shared)
        task = await waited(second, other)
        for _ in range(int(wait_s) - 1):
            first.clock.ms += 1000
            first.store.renew(told.address, token)
            await turn()
            assert not task.done()
        first.clock.ms += 1000
        assert await asyncio.wait_for(task, 5) is None
        assert other.holder == token, "it has no lease, and calls"
    # What it was not given it does not give back.
    assert (await second.cache.look(told, "third")).holder == token
    first.store.release(told.address, token)


async def test_where_nobody_is_left_nothing_is_waited_for(pair):
    first, second = pair
    token, _ = await leads(first, asks())
    token_too, look_too = await leads(second, asks())
    with second.cache.leading(asks(), second.answer(), token_too, look_too) as other:
        only = seat(other.shared)
        task = await waited(second, other)
        only.client.leave()
        assert await asyncio.wait_for(task, 5) is None
    assert (await second.cache.look(asks(), "third")).holder == token


class ScriptedStore:
    """A store that says what it is told to say, and notes what it is asked."""

    def __init__(self, looks: Iterator[Look]) -> None:
        self.looks = looks
        self.asked: list[tuple[str, ...]] = []

    async def look(self, address: Any, *, also: str = "", token: str = "", lease_only: bool = False) -> Look:
        self.asked.append(("lease" if lease_only else "look", also, token))
        return next(self.looks)

    def release(self, address: Any, token: str) -> None:
        self.asked.append(("release", token))

    def renew(self, address: Any, token: str) -> None:
        self.asked.append(("renew", token))

    def keep(self, address: Any, kept: Entry, *, token: str = "", derived: Any = None) -> None:
        self.asked.append(("keep", token))

    async def close(self) -> None:
        self.asked.append(("close",))


def scripted(*looks: Look) -> tuple[Replica, ScriptedStore]:
    store = ScriptedStore(iter(looks))
    return Replica(store, is_local=False), store


AWAY = Look(away=True)
HELD = Look(holder="another")


@pytest.mark.parametrize(
    ("looks", "found"),
    [
        ([AWAY], False),
        ([HELD, HELD, AWAY], False),
        ([HELD, HELD, Look()], False),
        ([HELD, Look(entry=entry(ANSWER), form="json")], True),
    ],
)
async def test_it_is_looked_for_until_there_is_an_answer_or_nobody_at_work(looks, found):
    replica, store = scripted(*looks)
    token, look = await leads(replica, asks())
    with replica.cache.leading(asks(), replica.answer(), token, look) as lead:
        seat(lead.shared)
        kept = await asyncio.wait_for(replica.cache.wait_for_others(lead, lambda: False), 5)
    assert (kept is not None) == found
    assert store.asked == [("look", "", token)] * len(looks), "what was not given is not given back"


@pytest.mark.parametrize(
    ("told", "kept", "also"),
    [(asks(stream=True), entry(UNTOLD), "json"), (asks(), entry(ANSWER, made_at_ms=0), "")],
    ids=["no stream can be made of it", "it is too old"],
)
async def test_where_what_is_kept_may_not_be_told_somebody_is_to_make_the_call(told, kept, also):
    replica, store = scripted(Look(entry=kept, form="json"), HELD)
    assert await replica.cache.look(told, "token") == HELD
    assert store.asked == [("look", also, "token"), ("lease", "", "token")]
    replica, store = scripted(Look(entry=kept, form="json"))
    assert await replica.cache.look(told) == Look()
    assert store.asked == [("look", also, "")]


@pytest.mark.parametrize(("told", "shut"), [(asks(), True), (once(), False)])
@pytest.mark.parametrize("way", ["grows", "all leave"])
async def test_a_lease_is_given_back_once_nobody_may_join(told, shut, way):
    """Not that of an Idempotency-Key: its call is still the only one."""
    replica, store = scripted(Look(holder="token"))
    look = await replica.cache.look(told, "token")
    answer = replica.answer(10)
    with replica.cache.leading(told, answer, "token", look) as lead:
        first = seat(answer)
        answer.start(200, JSON)
        if way == "grows":
            answer.write(b"x" * 11)
        else:
            first.client.leave()
        assert store.asked[1:] == ([("release", "token")] if shut else [])
        assert replica.cache.keep(lead, "responses", entry(ANSWER))
        assert store.asked[-1] == ("keep", "" if shut else "token")
    assert store.asked.count(("release", "token")) == shut, "once, or with what was kept"


async def test_a_lease_that_was_not_needed_is_given_back():
    replica, store = scripted()
    replica.cache.give_back(asks(), "token", Look(holder="token"))
    assert store.asked == [("release", "token")]
    for token, look in [("", Look()), ("token", HELD), ("token", Look()), ("token", AWAY)]:
        replica.cache.give_back(asks(), token, look)
    assert store.asked == [("release", "token")]


async def test_a_lease_is_renewed_for_as_long_as_the_call_runs(monkeypatch):
    monkeypatch.setattr(leases_module, "RENEW_EVERY_S", 0)
    replica, store = scripted(Look(holder="token"))
    replica.cache.start()
    look = await replica.cache.look(asks(), "token")
    with replica.cache.leading(asks(), replica.answer(), "token", look):
        await turn()
        assert store.asked.count(("renew", "token")) > 2
    store.asked.clear()
    await turn()
    assert store.asked == []
    await replica.cache.close()
    assert store.asked == [("close",)]
    await replica.cache.close()


# -- what began before ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("clear", "taken"),
    [
        (CacheClear("", "", 10, 0), True),
        (CacheClear("team_1", "", 10, 0), True),
        (CacheClear("team_2", "", 10, 0), False),
        (CacheClear("team_1", "gpt-4*", 10, 0), True),
        (CacheClear("", "gpt-5", 10, 0), False),
    ],
)
async def test_a_call_that_began_before_a_clearing_is_joined_by_nobody_who_asks_after_it(one, clear, taken):
    one.cache.clears.take([], 7)
    with one.cache.leading(asks(), one.answer()) as lead:
        joined = seat(lead.shared)
        one.cache.clears.take([clear], 10)
        assert (one.cache.lead_of(asks()) is None) == taken
        with one.cache.leading(asks(), one.answer()) as later:
            assert one.cache.lead_of(asks()) is later
        lead.shared.respond(200, JSON, ANSWER)
    assert joined.how == "whole", "who was there already has its answer"


async def test_it_is_known_for_which_request_an_idempotency_key_is_at_work(one):
    other_key, told = once(b"other"), once()
    token = one.cache.new_token(told)
    assert one.cache.at_work(told) == ""
    with one.cache.leading(told, one.answer(), token):
        # Also where the store is away, so that no lease was given.
        assert one.cache.at_work(once(input="other")) == token
        assert is_of_request(token, told)
        assert (one.cache.at_work(other_key), one.cache.at_work(asks())) == ("", "")
    assert one.cache.at_work(told) == ""
