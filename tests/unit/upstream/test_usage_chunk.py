"""The chunk that a client did not ask for goes, and not a byte of anything else."""

from __future__ import annotations

import json
import random

import pytest

from app.core.sse import EventSplitter
from app.upstream.usage_chunk import HELD_BYTES_MAX, UsageFilter

USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}


def event(document, end: str = "\n", extra: str = "") -> bytes:
    return f"{extra}data: {json.dumps(document)}{end}{end}".encode()


def chunk(**members) -> dict:
    return {"id": "c", "object": "chat.completion.chunk", "model": "m", **members}


TEXT = [{"index": 0, "delta": {"content": 'say "usage" twice'}, "finish_reason": None}]
ALONE = chunk(choices=[], usage=USAGE)
DONE = b"data: [DONE]\n\n"

STAYS = {
    "text": event(chunk(choices=TEXT)),
    "a usage with choices": event(chunk(choices=TEXT, usage=USAGE)),
    "a usage that is null": event(chunk(choices=TEXT, usage=None)),
    "null, and no choices": event(chunk(choices=[], usage=None)),
    "what Azure filters": event(chunk(choices=[], prompt_filter_results=[{"a": '"usage"'}])),
    "no choices at all": event(chunk(usage=USAGE)),
    "an error": event({"error": {"message": "no"}, "choices": [], "usage": USAGE}),
    "a comment": b': "usage" {"choices":[],"usage":{}}\n\n',
    "not JSON": b'data: {"choices":[],"usage":{"a":1}\n\n',
    "a list": b'data: [{"choices":[],"usage":{"a":1}}]\n\n',
    "empty lines": b"\n\n\n",
    "done": DONE,
}
GOES = {
    "plain": event(ALONE),
    "with CR LF": event(ALONE, "\r\n"),
    "with CR": event(ALONE, "\r"),
    "named": event(ALONE, extra="event: message\nid: 7\n"),
    "without a space": b'data:{"choices":[],"usage":{"prompt_tokens":1}}\n\n',
    "spaced": b'data: {"usage" : {"prompt_tokens" : 1} , "choices" : [ ]}\n\n',
    "over two lines": b'data: {"choices":[],\ndata: "usage":{"prompt_tokens":1}}\n\n',
}


@pytest.mark.parametrize("name", STAYS)
def test_what_stays(name):
    one = UsageFilter()
    assert one.feed(STAYS["text"]) + one.feed(STAYS[name]) + one.feed(DONE) + one.finish(b"") == (
        STAYS["text"] + STAYS[name] + DONE
    )


@pytest.mark.parametrize("name", GOES)
@pytest.mark.parametrize("apart", [True, False])
def test_what_goes(name, apart):
    one = UsageFilter()
    pieces = [STAYS["text"], GOES[name], DONE]
    given = pieces if apart else [b"".join(pieces)]
    assert b"".join(map(one.feed, given)) + one.finish(b"") == STAYS["text"] + DONE


def test_without_its_last_empty_line_it_goes_too():
    one = UsageFilter()
    assert one.feed(STAYS["text"]) + one.finish(event(ALONE)[:-1]) == STAYS["text"]
    one = UsageFilter()
    assert one.feed(STAYS["text"]) + one.finish(b"data: [DONE]") == STAYS["text"] + b"data: [DONE]"


def test_a_part_of_it_is_held_until_the_rest_shows_what_it_is():
    one = UsageFilter()
    assert one.feed(event(ALONE)[:-1]) == b""
    assert one.feed(b"\n" + DONE) == DONE
    whole = event(chunk(choices=TEXT, usage=USAGE))
    assert one.feed(whole[:-1]) == b""
    assert one.feed(b"\n") == whole


def test_the_rest_of_an_event_that_is_partly_out_follows():
    one = UsageFilter()
    assert one.feed(b"data: x\n") == b"data: x\n"
    assert one.feed(b"\n" + event(ALONE) + DONE) == b"\n" + DONE
    large = b'data: {"usage":"' + b"x" * HELD_BYTES_MAX
    assert one.feed(large) == large
    rest = b'"}\n\n'
    assert one.feed(rest) == rest
    assert one.feed(event(ALONE)) == b""


def test_however_it_comes_all_but_that_chunk_is_byte_for_byte_the_upstreams():
    """Through the splitter as in a relay, in pieces of any size, with line ends of any kind, with silences."""
    chance = random.Random(11)
    stays = list(STAYS.values())
    # A silence within the one over two lines would have its first line go out.
    goes = [text for name, text in GOES.items() if not name.startswith(("with CR", "over"))]
    for _ in range(2000):
        end = chance.choice((b"\n", b"\r\n", b"\r"))
        events = [(chance.choice(stays), True) for _ in range(chance.randint(1, 6))]
        events.insert(chance.randint(1, len(events)), (chance.choice(goes), False))
        made = [(text.replace(b"\n", end), keep) for text, keep in events if text != STAYS["empty lines"]]
        stream = b"".join(text for text, _ in made)
        splitter, one, got, at = EventSplitter(), UsageFilter(), b"", 0
        while at < len(stream):
            size = chance.choice((1, 7, 40, 300))
            got += one.feed(splitter.feed(stream[at : at + size]))
            at += size
            if chance.random() < 0.1:
                got += one.feed(splitter.release_complete_line())
        got += one.feed(splitter.release_whole())
        got += one.finish(splitter.rest())
        assert got == b"".join(text for text, keep in made if keep)
