"""What is kept and told in both forms, for whom and for how long."""

from __future__ import annotations

import json

import msgspec
import pytest

from app.cache.entry import Look
from app.cache.inquiry import inquire
from app.cache.synthesis import stream_of
from app.store.cache import CacheClear
from tests.unit.cache.asking import SECRET, START_MS, asked, entry, policy, principal, whole
from tests.unit.cache.replicas import ANSWER, COMPACT, JSON, SSE, STREAM, UNTOLD, Replica, asks, once, response

CHAT_JSON = json.dumps({"id": "c", "choices": [{"finish_reason": "stop", "message": {"content": "hello"}}]}).encode()
CHAT_CHUNK = {"choices": [{"index": 0, "delta": {"content": "hello"}, "finish_reason": "stop"}]}
CHAT_STREAM = b"data: %b\n\ndata: [DONE]\n\n" % json.dumps(CHAT_CHUNK).encode()


@pytest.fixture
def one() -> Replica:
    return Replica()


# -- two forms ------------------------------------------------------------------------------------


async def test_a_json_answer_is_told_as_it_came_and_as_a_stream(one):
    assert one.keep(asks(), ANSWER)
    assert await one.found(asks()) == (ANSWER, JSON)
    streamed = await one.cache.look(asks(stream=True))
    assert streamed.form == "stream"
    assert streamed.entry is not None
    kept = (await one.cache.look(asks())).entry
    assert streamed.entry == msgspec.structs.replace(kept, body=STREAM, headers=[JSON[1], SSE[0]])
    with_options = asks(stream=True, stream_options={"include_obfuscation": False})
    assert await one.found(with_options) == (STREAM, [JSON[1], SSE[0]])
    assert await one.found(asks(input="other")) is None


@pytest.mark.parametrize("options", [{}, {"stream_options": {"include_obfuscation": False}}])
async def test_a_stream_is_told_as_it_came_and_as_its_last_response(one, options):
    stream = STREAM.replace(b"\n\n", b"\r\n\r\n", 1)
    assert one.keep(asks(stream=True, **options), stream, SSE)
    assert await one.found(asks(stream=True, **options)) == (stream, SSE)
    assert await one.found(asks()) == (COMPACT, [SSE[1], JSON[0]])
    # With other options it is another stream: the one that is made of the response.
    assert await one.found(asks(stream=True, stream_options={"a": 1})) == (STREAM, [SSE[1], SSE[0]])


async def test_what_came_last_is_told_in_both_forms(one):
    other = response(id="resp_2")
    one.keep(asks(), other)
    one.keep(asks(stream=True), STREAM, SSE)
    assert (await one.found(asks()))[0] == COMPACT
    assert await one.found(asks(stream=True)) == (STREAM, SSE)
    one.keep(asks("responses", (b"x-headgate-cache", b"refresh")), other)
    assert await one.found(asks()) == (other, JSON)
    assert (await one.found(asks(stream=True)))[0] == stream_of(other), "the stream of before a refresh is old"
    one.keep(asks(), ANSWER)
    assert await one.found(asks()) == (ANSWER, JSON), "a later call takes the place of an earlier one"


async def test_where_no_stream_can_be_made_there_is_none(one):
    assert stream_of(UNTOLD) is None
    assert one.keep(asks(), UNTOLD)
    assert await one.found(asks()) == (UNTOLD, JSON)
    assert await one.cache.look(asks(stream=True), "token") == Look(holder="token"), "and the call is the asker's"


@pytest.mark.parametrize(("kept", "body", "headers"), [(False, CHAT_JSON, JSON), (True, CHAT_STREAM, SSE)])
async def test_a_completion_is_told_only_as_it_came(one, kept, body, headers):
    assert one.keep(asks("chat", stream=kept), body, headers, family="chat")
    assert await one.found(asks("chat", stream=kept)) == (body, headers)
    assert await one.found(asks("chat", stream=not kept)) is None
    assert await one.found(asks("chat", stream=True, stream_options={"include_usage": True})) is None


@pytest.mark.parametrize(
    ("status", "headers", "body"),
    [
        (500, JSON, ANSWER),
        (201, JSON, ANSWER),
        (200, JSON, response(status="incomplete")),
        (200, JSON, ANSWER[:-1]),
        (200, JSON, b""),
        (200, JSON[1:], ANSWER),
        (200, SSE, ANSWER),
        (200, JSON, STREAM),
        (200, SSE, STREAM[: STREAM.rindex(b"event: response.completed")]),
        (200, SSE, STREAM[:-1]),
        (200, JSON, CHAT_JSON),
    ],
)
async def test_what_is_no_whole_success_is_not_kept(one, status, headers, body):
    for told in (asks(), asks(stream=True)):
        assert not one.keep(told, body, headers, status=status)
        assert await one.found(told) is None
    # Under an Idempotency-Key it is, as it came and in no other form.
    assert one.keep(once(), body, headers, status=status)
    assert await one.found(once()) == (body, headers)
    assert await one.found(asks()) is None


async def test_what_passes_the_cache_by_finds_nothing(one):
    one.keep(asks(), ANSWER)
    for told in (
        asks("responses", (b"cache-control", b"no-store")),
        asks("responses", (b"cache-control", b"no-cache")),
    ):
        assert await one.cache.look(told, "token") == Look()
    assert not one.keep(asks("responses", (b"cache-control", b"no-store")), ANSWER)
    refreshed = response(id="resp_2")
    assert one.keep(asks("responses", (b"cache-control", b"no-cache")), refreshed)
    assert await one.found(asks()) == (refreshed, JSON)


async def test_who_is_elsewhere_finds_nothing(one):
    one.keep(asks(), ANSWER)
    for told in (principal("key_2", "team_1"), principal("key_3", "team_2")):
        request = asked(whole("responses"), who=told)
        found = await one.found(inquire(request, policy("all"), SECRET, idempotency_ttl_s=1))
        assert (found is not None) == (told.team_id == "team_1")
    with_key = asked(whole("responses"), who=principal("key_2"), headers=[(b"idempotency-key", b"k")])
    one.keep(once(), ANSWER)
    assert await one.found(inquire(with_key, policy("all"), SECRET, idempotency_ttl_s=60)) is None


async def test_what_an_idempotency_key_stands_for_is_one_answer_in_one_form(one):
    assert one.keep(once(stream=True), STREAM, SSE)
    assert await one.found(once(stream=True)) == (STREAM, SSE)
    assert one.store.entries == 1


# -- how long -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("age_ms", "ttl_s", "headers", "told"),
    [
        (0, 60, [], True),
        (59_999, 60, [], True),
        (60_000, 60, [], True),
        (60_001, 60, [], False),
        # What was kept under a longer time is asked by the time that holds now.
        (5_001, 5, [], False),
        (5_000, 60, [b"max-age=5"], True),
        (5_001, 60, [b"max-age=5"], False),
        (5_001, 5, [b"max-age=60"], False),
        (0, 60, [b"max-age=0"], True),
        (1, 60, [b"max-age=0"], False),
        (1, 60, [b"max-age=x"], False),
        (59_999, 60, [b"max-age=99999999999999"], True),
        # A clock that is behind the one by which it was kept.
        (-3_000, 60, [b"max-age=1"], True),
    ],
)
def test_an_answer_gets_too_old(one, age_ms, ttl_s, headers, told):
    kept = entry(made_at_ms=START_MS, expires_at_ms=START_MS + 1_000_000)
    one.clock.ms = START_MS + age_ms
    asking = asks("responses", *((b"cache-control", value) for value in headers), ttl_s=ttl_s)
    assert one.cache.may_tell(kept, asking) == told


async def test_what_may_not_be_told_is_not_found_in_either_form(one):
    one.keep(asks(), ANSWER)
    one.clock.ms += 5_001
    for members in ({}, {"stream": True}):
        assert await one.found(asks(**members)) is not None
        assert await one.found(asks("responses", (b"cache-control", b"max-age=5"), **members)) is None
        assert await one.found(asks(ttl_s=5, **members)) is None
    one.clock.ms = START_MS + 60_000
    assert await one.found(asks(ttl_s=1000)) is None, "its own time is over"


@pytest.mark.parametrize(
    ("clear", "taken"),
    [
        (CacheClear("", "", 10, 0), True),
        (CacheClear("team_1", "", 10, 0), True),
        (CacheClear("team_2", "", 10, 0), False),
        (CacheClear("", "gpt-*", 10, 0), True),
        (CacheClear("", "gpt-5", 10, 0), False),
    ],
)
async def test_a_clearing_takes_both_forms_and_what_was_under_way(one, clear, taken):
    one.cache.clears.take([], 7)
    one.keep(asks(), ANSWER)
    one.keep(once(), ANSWER)
    with one.cache.leading(asks(input="late"), one.answer()) as lead:
        one.cache.clears.take([clear], 10)
        # The call began before: its answer is kept, and is none.
        one.cache.keep(lead, "responses", entry(ANSWER, change=lead.change))
    for told in (asks(), asks(stream=True), asks(input="late")):
        assert (await one.found(told) is None) == taken
    assert await one.found(once()) is not None, "what was promised is kept"
    one.keep(asks(), ANSWER)
    assert await one.found(asks()) is not None


def test_age_and_time_left_are_whole_seconds_and_not_negative(one):
    kept = entry(made_at_ms=START_MS, expires_at_ms=START_MS + 60_000)
    for passed_ms, age_s, left_s in [(0, 0, 60), (999, 0, 59), (1000, 1, 59), (60_500, 60, 0), (-5000, 0, 65)]:
        one.clock.ms = START_MS + passed_ms
        assert (one.cache.age_s(kept), one.cache.ttl_left_s(kept)) == (age_s, left_s)
