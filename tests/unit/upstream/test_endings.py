"""The end that a stream is given: what it says, that the SDK's types take it, and where it cannot stand."""

from __future__ import annotations

import json

import pytest
from openai.types.responses import ResponseErrorEvent, ResponseFailedEvent, ResponseStreamEvent
from pydantic import TypeAdapter

from app.core.sse import HOLD_BYTES_MAX, Event, EventReader, EventSplitter
from app.settings import StreamSettings
from app.upstream.endings import KEPT_BYTES_MAX, MESSAGES, Trail, chat_ending, response_ending
from app.upstream.relay import Collection, Passage, Relay
from app.upstream.watch import Sweep

AT_MS = 1_790_000_000_123
CREATED = b'{"type":"response.created","sequence_number":0,"response":{"id":"resp_1","model":"gpt-4o"}}'
TYPES = {"response.failed": ResponseFailedEvent, "error": ResponseErrorEvent}


def event_of(text: bytes) -> dict:
    """The one event that ``text`` is, taken by the SDK's own types."""
    (event,) = EventReader().feed(text)
    data = json.loads(event.data)
    assert event.event.decode() == data["type"]
    TypeAdapter(TYPES[data["type"]]).validate_python(data)
    assert TypeAdapter(ResponseStreamEvent).validate_python(data).type == data["type"]
    return data


def end_after(*events: Event, cause="upstream_disconnected") -> dict:
    trail = Trail()
    for event in events:
        trail.follow([event])
    return event_of(response_ending(cause, trail, b"\n", at_ms=AT_MS))


@pytest.mark.parametrize("cause", MESSAGES)
def test_the_response_that_was_created_fails(cause):
    failed = end_after(Event(CREATED), Event(b'{"type":"x","sequence_number":7}'), cause=cause)
    assert (failed["type"], failed["sequence_number"]) == ("response.failed", 8)
    response = failed["response"]
    assert (response["id"], response["model"], response["status"]) == ("resp_1", "gpt-4o", "failed")
    assert (response["created_at"], response["output"], response["usage"]) == (AT_MS // 1000, [], None)
    assert response["error"]["code"] == "server_error"
    assert response["error"]["message"].startswith(f"{cause}: ")


def test_what_the_upstream_said_of_the_response_stays(recordings):
    paths = sorted(recordings.glob("*.sse"))
    assert len(paths) >= 7
    for path in paths:
        events = EventReader().feed(path.read_bytes())
        created = json.loads(events[0].data)
        if created["type"] != "response.created":
            continue
        for upto in (1, 2, len(events) - 1):
            failed = end_after(*events[:upto])
            # An old recording has no numbers; there the place in the stream is one.
            last = json.loads(events[upto - 1].data)
            assert failed["sequence_number"] == last.get("sequence_number", upto - 1) + 1
            changed = {"status", "error", "incomplete_details", "usage"}
            assert {name: value for name, value in failed["response"].items() if name not in changed} == {
                name: value for name, value in created["response"].items() if name not in changed
            }


@pytest.mark.parametrize(
    "events",
    [
        [],
        [Event(b'{"type":"keepalive","sequence_number":0}')],
        [Event(b'{"type":"response.output_text.delta","delta":"\\"response.created\\""}')],
        [Event(b'{"type":"x","name":"response.created","response":{"id":"resp_1"}}')],
        [Event(b"not json", b"response.created")],
        [Event(b'{"type":"response.created","response":{"id":7}}', b"response.created")],
        [Event(b'{"type":"response.created","response":{"id":"resp_\xff"}}', b"response.created")],
    ],
)
def test_before_a_response_was_created_the_end_is_an_error(events):
    error = end_after(*events)
    assert (error["type"], error["code"]) == ("error", "server_error")
    assert error["message"] == error["error"]["message"]
    assert error["message"].startswith("upstream_disconnected: ")
    assert error["sequence_number"] == len(events)


def test_an_unnamed_and_a_late_creation_are_found():
    ping = Event(b'{"type":"keepalive"}', b"keepalive")
    named = Event(CREATED, b"response.created")
    for events in ([ping, named], [ping, Event(CREATED)], [ping, ping, named, ping]):
        trail = Trail()
        trail.follow(events)
        failed = event_of(response_ending("gateway_shutdown", trail, b"\n", at_ms=AT_MS))
        assert failed["response"]["id"] == "resp_1"


def test_numbers_go_on_where_events_were_too_large_to_keep():
    large = Event(b'{"type":"x","sequence_number":2,"b64":"%s"}' % (b"x" * KEPT_BYTES_MAX))
    trail = Trail()
    trail.follow([Event(CREATED), Event(b'{"type":"y","sequence_number":5}')])
    trail.follow([large])
    trail.follow([large, large])
    assert trail.next_number() == 9
    assert sum(len(kept) for kept in (trail._begun, trail._last)) <= 2 * KEPT_BYTES_MAX


@pytest.mark.parametrize("number", [b'"7"', b"-1", b"1.5", b"true", b"null"])
def test_without_a_number_the_place_in_the_stream_counts(number):
    trail = Trail()
    trail.follow([Event(CREATED), Event(b'{"type":"x","sequence_number":%s}' % number)])
    assert trail.next_number() == 2


def test_of_a_large_creation_only_what_is_needed_is_kept():
    response = {"id": "resp_1", "created_at": 5, "model": "m", "instructions": "x" * KEPT_BYTES_MAX, "tools": [{}]}
    created = json.dumps({"type": "response.created", "response": response}).encode()
    trail = Trail()
    trail.follow([Event(created)])
    assert len(trail._begun) < 200
    failed = event_of(response_ending("upstream_stalled", trail, b"\n", at_ms=AT_MS))["response"]
    assert (failed["id"], failed["created_at"], failed["model"], failed["tools"]) == ("resp_1", 5, "m", [])


def test_a_chat_stream_ends_with_an_error_and_no_done_marker():
    text = chat_ending("upstream_stalled", b"\n")
    (event,) = EventReader().feed(text)
    error = json.loads(event.data)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["code"], event.event, b"[DONE]" in text) == ("upstream_stalled", b"", False)


# -- where it may stand -----------------------------------------------------------------------


STREAM_IN = {
    b"\n": b"event: a\ndata: {}\n\n",
    b"\r\n": b"event: a\r\ndata: {}\r\n\r\n",
    b"\r": b"event: a\rdata: {}\r\r",
}


@pytest.mark.parametrize("line_end", STREAM_IN)
@pytest.mark.parametrize("held", [b"", b"ev", b"event: b"])
@pytest.mark.parametrize("size", [1, 3, 1000])
def test_the_end_has_the_streams_own_line_ends(line_end, held, size):
    stream = STREAM_IN[line_end] * 2
    splitter = EventSplitter()
    came = stream + held
    released = b"".join(splitter.feed(came[at : at + size]) for at in range(0, len(came), size))
    released += splitter.release_whole()
    assert released == stream
    assert splitter.rest() == held
    assert splitter.aligned
    assert splitter.line_end == line_end
    text = response_ending("upstream_disconnected", Trail(), splitter.line_end, at_ms=AT_MS)
    assert text.count(line_end) == 3
    assert text.endswith(line_end * 2)
    assert len(EventReader().feed(released + text)) == 3


def test_line_ends_are_taken_from_what_is_held_where_nothing_else_was_seen():
    for line_end in STREAM_IN:
        splitter = EventSplitter()
        splitter.feed(b"event: a" + line_end + b"data: {")
        assert splitter.line_end == line_end
    assert EventSplitter().line_end == b"\n"
    mixed = EventSplitter()
    mixed.feed(b"data: {}\r\n\r")
    assert mixed.release_whole() == b"data: {}\r\n\r", "the line feed that is missing changes no event"
    assert mixed.line_end == b"\r\n"


def test_part_of_an_event_is_not_released_as_a_whole_one():
    splitter = EventSplitter()
    splitter.feed(b"data: {}\r\n")
    assert splitter.release_whole() == b""
    assert splitter.rest() == b"data: {}\r\n"


class Client:
    """The client's side: what was written, and how it ended."""

    disconnected = False
    response_started = True
    write_paused = False

    def __init__(self) -> None:
        self.ends: list[bytes | str] = []

    def on_disconnect(self, _) -> None:
        pass

    def abort(self) -> None:
        self.ends.append("abort")

    def finish(self, last: bytes = b"") -> None:
        self.ends.append(last)


async def cut(passage: Passage | None, *, client_gone: bool = False) -> list[bytes | str]:
    client = Client()
    relay = Relay(client, None, sweep=Sweep(), collection=Collection(), policy=StreamSettings(), slow_client_s=1)
    relay._passage = passage
    relay.client_gone = client_gone
    relay.cut_short("upstream_disconnected", AT_MS)
    relay.close()
    return client.ends


async def test_an_end_stands_only_behind_an_events_end():
    whole = Passage("responses")
    whole.splitter.feed(b"data: {}\n\nda")
    (end,) = await cut(whole)
    assert event_of(end)["type"] == "error"

    part = Passage("responses")
    part.splitter.feed(b"data: " + b"x" * HOLD_BYTES_MAX)
    assert not part.splitter.aligned
    assert await cut(part) == ["abort"]
    part.splitter.feed(b"x\n\ndata: y")
    assert event_of((await cut(part))[0])["type"] == "error"

    silent = Passage("responses")
    silent.splitter.feed(b"event: a\n")
    silent.splitter.release_complete_line()
    assert await cut(silent) == ["abort"]


async def test_what_was_not_read_may_have_been_the_end():
    passage = Passage("responses")
    passage.reader.feed(b"data: x")
    passage.reader.overflow()
    passage.splitter.feed(b"data: {}\n\n")
    assert await cut(passage) == ["abort"]


async def test_other_families_and_bodies_are_cut_off():
    assert await cut(None) == ["abort"]
    assert await cut(Passage("embeddings")) == ["abort"]
    assert await cut(Passage("chat"), client_gone=True) == []
    assert await cut(Passage("chat")) == [chat_ending("upstream_disconnected", b"\n")]
