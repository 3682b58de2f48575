"""Streams of every framing, through a miss and a hit: the same bytes, on event boundaries."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest

from tests.e2e.cache.plays import USAGE, event, new_id, response, stream
from tests.e2e.cache.sites import INPUT_NANOUSD, OUTPUT_NANOUSD, Site, body_of, word
from tests.e2e.cache.wire import CHAT, RESPONSES, Told
from tests.fakes.upstream import JSON_HEAD, STREAM_HEAD, chunked, whole

DONE = b"data: [DONE]\n\n"
LARGE = 100_000


@dataclass(frozen=True)
class Case:
    """``writes`` are what the upstream writes; ``text`` is what the response says."""

    writes: Sequence[bytes]
    text: str = "Four."
    head: str = STREAM_HEAD
    path: str = RESPONSES


def crlf(response_id: str) -> Case:
    return Case([each.replace(b"\n", b"\r\n") for each in stream(response_id)])


def cr(response_id: str) -> Case:
    return Case([each.replace(b"\n", b"\r") for each in stream(response_id)])


def crlf_apart(response_id: str) -> Case:
    """CR at the end of one write, LF at the beginning of the next."""
    parts = b"".join(crlf(response_id).writes).split(b"\r")
    return Case([*(part + b"\r" for part in parts[:-1]), parts[-1]])


def byte_order_mark(response_id: str) -> Case:
    return Case([b"\xef\xbb\xbf", *stream(response_id)])


def comments(response_id: str) -> Case:
    events = stream(response_id)
    return Case([b": hello\n\n", *(each + b": still here\n\n" for each in events[:-1]), events[-1]])


def unknown_events(response_id: str) -> Case:
    first, *rest = stream(response_id)
    odd = event("response.something.new", odd=[1, {"a": None}], sequence_number=1)
    return Case([first, odd, b"id: 7\nretry: 10\n" + odd, *rest])


def done(response_id: str) -> Case:
    return Case([*stream(response_id), DONE])


def large_events(response_id: str) -> Case:
    text = "Ünïcödé " * (LARGE // 8)
    return Case(stream(response_id, text, deltas=1), text)


def one_event_a_write(response_id: str) -> Case:
    return Case(stream(response_id, deltas=60))


def all_at_once(response_id: str) -> Case:
    return Case([b"".join(stream(response_id, deltas=60))])


def within_characters(response_id: str) -> Case:
    text = "Grüße, 世界 🌍"
    body = b"".join(stream(response_id, text))
    return Case([body[at : at + 5] for at in range(0, len(body), 5)], text)


def many_data_lines(response_id: str) -> Case:
    """The JSON of an event over several lines."""
    events = [each.replace(b', "sequence_number"', b',\ndata: "sequence_number"') for each in stream(response_id)]
    return Case(events)


def other_media_type(response_id: str) -> Case:
    head = "HTTP/1.1 200 OK\r\nContent-Type: Text/Event-Stream\r\nx-odd: 1\r\n"
    return Case(stream(response_id), head=head)


def chunk(response_id: str, **more) -> bytes:
    told = {"id": response_id, "object": "chat.completion.chunk", "model": "played", "choices": [], **more}
    return b"data: %s\n\n" % json.dumps(told).encode()


def chat_with_usage(response_id: str) -> Case:
    usage = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
    said = [
        chunk(response_id, choices=[{"index": 0, "delta": {"content": "Four."}, "finish_reason": None}], usage=None)
    ]
    end = chunk(response_id, choices=[{"index": 0, "delta": {}, "finish_reason": "stop"}], usage=None)
    return Case([*said * 5, end, chunk(response_id, usage=usage), DONE], path=CHAT)


CASES: list[Callable[[str], Case]] = [
    crlf,
    cr,
    crlf_apart,
    byte_order_mark,
    comments,
    unknown_events,
    done,
    large_events,
    one_event_a_write,
    all_at_once,
    within_characters,
    many_data_lines,
    other_media_type,
    chat_with_usage,
]


def request_of(case: Case, model: str) -> dict:
    more = {"stream_options": {"include_usage": True}} if case.path == CHAT else {}
    return body_of("Say it.", path=case.path, model=model, stream=True, **more)


@pytest.mark.parametrize("made", CASES, ids=lambda made: made.__name__)
def test_a_stream_is_repeated_as_it_came(site, key, made):
    response_id = new_id()
    case = made(response_id)
    model = f"played-{word()}"
    calls = []

    def play(seen):
        calls.append(seen)
        return chunked(case.writes, head=case.head)

    site.serves(model, play)
    body = request_of(case, model)
    first, second, third = (site.ask(key, body=body, path=case.path) for _ in range(3))
    assert [told.cache for told in (first, second, third)] == ["miss", "hit", "hit"]
    for told in (first, second, third):
        assert told.body == b"".join(case.writes)
        assert told.is_whole
        assert told.status == 200
    second.check_boundaries()
    check_chunks(second, case)
    assert second.headers["content-type"] == first.headers["content-type"]
    assert len(calls) == 1
    if case.path == RESPONSES:
        alone = site.ask(key, body={**body, "stream": False})
        assert (alone.cache, alone.headers["content-type"]) == ("hit", "application/json")
        assert alone.json == response(response_id, case.text)
        assert len(calls) == 1


def check_chunks(told: Told, case: Case) -> None:
    """Each event has a chunk of its own."""
    ends = b"".join(case.writes).replace(b"\r\n", b"\n").replace(b"\r", b"\n").count(b"\n\n")
    assert len(told.chunks) == ends


def test_a_chat_stream_with_usage_is_kept_apart_from_one_without(site, key):
    """The options only say how it is told, and of a chat completion it is told as it came or not at all."""
    model = f"played-{word()}"
    calls = []

    def play(seen):
        calls.append(json.loads(seen.body))
        return chunked(chat_with_usage(f"chatcmpl-{len(calls)}").writes)

    site.serves(model, play)
    plain = body_of("Say it.", path=CHAT, model=model, stream=True)
    full = {**plain, "stream_options": {"include_usage": True}}
    told = [site.ask(key, body=body, path=CHAT) for body in (plain, full, plain, full)]
    assert [one.cache for one in told] == ["miss", "miss", "hit", "hit"]
    assert [one.id for one in told] == ["chatcmpl-1", "chatcmpl-2"] * 2
    assert ["stream_options" in call for call in calls] == [False, True]


def test_a_response_with_other_stream_options_is_the_same_response(site, key):
    model = f"played-{word()}"
    site.serves(model, lambda _seen: chunked(stream(new_id())))
    plain = body_of("Say it.", model=model, stream=True)
    bare = {**plain, "stream_options": {"include_obfuscation": False}}
    told = [site.ask(key, body=body) for body in (plain, bare, plain)]
    assert [one.cache for one in told] == ["miss", "hit", "hit"]
    assert told[2].body == told[0].body
    assert told[1].response == told[0].response
    assert b"obfuscation" not in told[1].body


def test_a_stream_is_made_of_an_answer_that_came_as_json(site, key):
    response_id = new_id()
    model = f"played-{word()}"
    site.serves(model, lambda _seen: whole(json.dumps(response(response_id, "Grüße ✨")).encode()))
    body = body_of("Say it.", model=model)
    first = site.ask(key, body=body)
    second, third = (site.ask(key, body={**body, "stream": True}) for _ in range(2))
    assert [told.cache for told in (first, second, third)] == ["miss", "hit", "hit"]
    assert second.is_stream
    second.check_boundaries()
    assert second.body == third.body
    assert second.events[0]["response"] == {**first.json, "status": "in_progress", "output": [], "usage": None}
    assert second.events[-1]["response"] == first.json
    assert "".join(each["delta"] for each in second.events if each["type"].endswith("text.delta")) == "Grüße ✨"


def test_an_answer_of_which_no_stream_can_be_made_is_called_again(site: Site, key):
    """A member that is not known: what it was at the beginning is not known either."""
    model = f"played-{word()}"
    calls = []

    def play(seen):
        calls.append(seen)
        if json.loads(seen.body).get("stream"):
            return chunked(stream(new_id()))
        return whole(json.dumps(response(new_id(), something_new=1)).encode(), JSON_HEAD)

    site.serves(model, play)
    body = body_of("Say it.", model=model)
    asked = [body, body, {**body, "stream": True}, {**body, "stream": True}]
    assert [site.ask(key, body=each).cache for each in asked] == ["miss", "hit", "miss", "hit"]
    assert len(calls) == 2


def test_usage_of_a_repeated_stream_is_the_streams(site, key):
    model = f"played-{word()}"
    site.serves(model, lambda _seen: chunked(stream(new_id())))
    body = body_of("Say it.", model=model, stream=True)
    told = [site.ask(key, body=body) for _ in range(2)]
    assert [one.events[-1]["response"]["usage"] for one in told] == [USAGE] * 2
    rows = site.records(key, 2)
    assert [(row["response_id"], row["outcome"]) for row in rows] == [(told[0].id, "completed")] * 2
    assert rows[1]["saved_nanousd"] == 11 * INPUT_NANOUSD + 7 * OUTPUT_NANOUSD
    team = site.people.name_of_team(key.team_id)
    (row,) = [row for row in site.json("usage", "--by", "team") if row["team"] == team]
    assert (row["input_tokens"], row["output_tokens"]) == (22, 14)
