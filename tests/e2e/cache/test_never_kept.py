"""Answers that are not kept: what broke, what was refused, and what is not the whole of it. Each is called again."""

from __future__ import annotations

import asyncio
import itertools
import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.e2e.cache.plays import event, new_id, response, stream
from tests.e2e.cache.sites import Site, body_of, opened_site, word
from tests.e2e.cache.wire import CHAT, RESPONSES, Told, Visit
from tests.e2e.doors import EMBEDDED
from tests.fakes.fleet import wait_for
from tests.fakes.upstream import JSON_HEAD, chunked, whole

AT_ONCE = 8

STREAMS = [
    "cut_after=0",
    "cut_after=1",
    "cut_after=3",
    "cut_after=8 cut_how=reset",
    "cut_after=4 mid=1",
    "cut_after=15",
    "fail_after=4",
    "fail_after=4 fail_usage=0",
    "error_event_after=3",
    "two_terminals=1",
    "badjson=1",
    "refuse=1",
    "bom=1 cut_after=6",
    "framing=crlf cut_after=6",
]
WHOLE = [
    "cut_after=1",
    "cut_after=1 cut_how=reset",
    "fail_after=1",
    "badjson=1",
    "refuse=1",
    "html=1",
    "status=201",
    "content_encoding=gzip",
    "cut=head",
    "redirect=http://127.0.0.1:1/",
]
BOTH = [f"error={status}" for status in (400, 401, 403, 404, 409, 422, 429, 500, 502, 503, 504)]
CHAT_STREAMS = ["cut_after=0", "cut_after=3", "fail_after=2", "refuse=1", "done=0", "badjson=1"]
CHAT_WHOLE = ["refuse=1", "fail_after=1", "badjson=1", "cut_after=1"]
CASES = [
    *((RESPONSES, True, steering) for steering in STREAMS + BOTH),
    *((RESPONSES, False, steering) for steering in WHOLE + BOTH),
    *((CHAT, True, steering) for steering in CHAT_STREAMS),
    *((CHAT, False, steering) for steering in CHAT_WHOLE),
]


def is_a_success(told: Told) -> bool:
    if told.status != 200 or not told.is_whole:
        return False
    if not told.is_stream:
        return told.body.startswith(b"{") and told.json.get("status", "completed") == "completed"
    return b"response.completed" in told.body or b"[DONE]" in told.body


def test_an_answer_that_is_no_success_is_called_again(site):
    """All of them at once, each twice."""
    faults = []

    def check(case: tuple[str, bool, str]) -> None:
        path, is_stream, steering = case
        text = f"[[sim: tokens=12 {steering}]] {word()}"
        told = [site.ask(key, text, path=path, stream=is_stream) for _ in range(2)]
        served = [site.simulator.log.find(wanted_id=f"{one.request_id}.1") for one in told]
        if [one.cache for one in told] != ["miss", "miss"] or [len(one) for one in served] != [1, 1]:
            faults.append((case, [(one.status, one.cache) for one in told]))

    key = site.key()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(check, CASES))
    assert faults == []
    rows = site.records(key, 2 * len(CASES))
    assert {row["cache"] for row in rows} == {"miss"}
    assert sum(row["saved_nanousd"] for row in rows) == 0
    site.check_ledger()


def test_the_directives_do_what_they_say(site, key):
    """The cases above are about answers that are no success, and without steering it is one that is kept."""
    text = f"[[sim: tokens=12]] {word()}"
    told = [site.ask(key, text, stream=True) for _ in range(2)]
    assert [one.cache for one in told] == ["miss", "hit"]
    assert is_a_success(told[0])
    broken = [
        site.ask(key, f"[[sim: tokens=12 {steering}]] {word()}", path=path, stream=is_stream)
        for path, is_stream, steering in CASES
        if not steering.startswith(("two_terminals", "badjson", "refuse", "status"))
    ]
    assert not [one for one in broken if is_a_success(one)]


@pytest.mark.parametrize("is_stream", [False, True], ids=["json", "stream"])
@pytest.mark.parametrize("path", [RESPONSES, CHAT], ids=["responses", "chat"])
def test_an_answer_that_was_cut_to_its_length_is_called_again(site, key, path, is_stream):
    most = {"max_output_tokens": 16} if path == RESPONSES else {"max_completion_tokens": 16}
    text = f"[[sim: tokens=40]] {word()}"
    with site.calls() as calls:
        told = [site.ask(key, text, path=path, stream=is_stream, **most) for _ in range(2)]
    assert [one.cache for one in told] == ["miss", "miss"]
    assert [call.outcome for call in calls] == ["incomplete", "incomplete"]
    assert [row["outcome"] for row in site.records(key, 2)] == ["incomplete" if path == RESPONSES else "completed"] * 2


# -- answers with a usage that is fine --------------------------------------------------------


def whole_of(text: str) -> bytes:
    return json.dumps(response(new_id(), text)).encode()


HEADS = {
    "another media type": "HTTP/1.1 200 OK\r\ncontent-type: application/octet-stream\r\n",
    "no media type": "HTTP/1.1 200 OK\r\n",
    "two media types": "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-type: text/plain\r\n",
    "another status": "HTTP/1.1 202 Accepted\r\ncontent-type: application/json\r\n",
}
BODIES = {
    "not UTF-8": lambda: whole_of("Four.").replace(b"Four.", b"\xff\xfe."),
    "no id": lambda: whole_of("Four.").replace(b'"id": "resp', b'"ident": "resp'),
    "no output": lambda: json.dumps({**response(new_id()), "output": None}).encode(),
    "an item of a hosted tool": lambda: json.dumps(
        {**response(new_id()), "output": [{"id": "ws_1", "type": "web_search_call", "status": "completed"}]}
    ).encode(),
    "an item that has not ended": lambda: whole_of("Four.").replace(
        b'"type": "message", "status": "completed"', b'"type": "message", "status": "in_progress"'
    ),
    "an error beside it": lambda: json.dumps({**response(new_id()), "error": {"code": "x", "message": "m"}}).encode(),
    "in progress": lambda: json.dumps({**response(new_id()), "status": "in_progress"}).encode(),
    "nothing": lambda: b"{}",
}


@pytest.mark.parametrize("fault", [*HEADS, *BODIES])
def test_a_body_that_is_not_what_it_should_be_is_called_again(site, key, fault):
    model = f"played-{word()}"
    calls = []

    def play(seen):
        calls.append(seen)
        body = BODIES.get(fault, lambda: whole_of("Four."))()
        return whole(body, HEADS.get(fault, JSON_HEAD))

    site.serves(model, play)
    body = body_of("Say it.", model=model)
    told = [site.ask(key, body=body) for _ in range(2)]
    assert [one.cache for one in told] == ["miss", "miss"]
    assert len(calls) == 2


def spoilt(how: str) -> list[bytes]:
    events = stream(new_id())
    if how == "no terminal event":
        return events[:-1]
    if how == "an event is not JSON":
        return [*events[:2], b"event: response.output_text.delta\ndata: {oops\n\n", *events[2:]]
    if how == "the last empty line is missing":
        return [*events[:-1], events[-1][:-1]]
    if how == "another id at the end":
        return [*events[:-1], stream(new_id())[-1]]
    if how == "an item less at the end":
        return [*events[:-1], event("response.completed", response={**response(new_id()), "output": []})]
    if how == "a refusal":
        return [*events[:2], event("response.refusal.delta", delta="No."), *events[2:]]
    if how == "events behind the last":
        return [*events, events[2]]
    return [*events[:-1], event("response.incomplete", response={**response(new_id()), "status": "incomplete"})]


@pytest.mark.parametrize(
    "how",
    [
        "no terminal event",
        "an event is not JSON",
        "the last empty line is missing",
        "another id at the end",
        "an item less at the end",
        "a refusal",
        "events behind the last",
        "incomplete",
    ],
)
def test_a_stream_that_is_not_what_it_should_be_is_called_again(site, key, how):
    model = f"played-{word()}"
    calls = []

    def play(seen):
        calls.append(seen)
        return chunked(spoilt(how))

    site.serves(model, play)
    body = body_of("Say it.", model=model, stream=True)
    told = [site.ask(key, body=body) for _ in range(2)]
    assert [one.cache for one in told] == ["miss", "miss"]
    assert len(calls) == 2


def test_what_is_larger_than_an_entry_may_be_is_called_again(site, key):
    """A megabyte by default, bytes of the body."""
    model = f"played-{word()}"
    calls = []

    def play(seen):
        calls.append(seen)
        size = json.loads(seen.body)["metadata"]["size"]
        return whole(whole_of("x" * int(size)))

    site.serves(model, play)
    for size, wanted in ((1_100_000, ["miss", "miss"]), (1_000_000, ["miss", "hit"])):
        body = body_of("Say it.", model=model, metadata={"size": str(size)})
        assert [site.ask(key, body=body).cache for _ in range(2)] == wanted
    assert len(calls) == 3


# -- clients that leave where that cancels ----------------------------------------------------


@pytest.fixture(scope="module")
def strict(tmp_path_factory):
    """A gateway that cancels a call nobody waits for."""
    with opened_site(tmp_path_factory.mktemp("strict"), EMBEDDED, "stream: {on_disconnect: cancel}\n") as site:
        yield site


@pytest.mark.parametrize("events", [1, 3, 10])
def test_a_stream_that_its_client_cancelled_is_called_again(strict: Site, events):
    key = strict.key()
    body = body_of(f"[[sim: tokens=40 pace_ms=20 times=1 tag={word()}]] hi", stream=True)

    async def leave() -> None:
        visit = await Visit.begin(strict.port, key.text, body)
        for _ in range(events):
            assert await visit.chunk()
        visit.leave()

    with strict.calls() as calls:
        asyncio.run(leave())
        wait_for(lambda: strict.in_flight() == 0)
        told = [strict.ask(key, body=body) for _ in range(2)]
    assert [one.cache for one in told] == ["miss", "hit"]
    assert [call.outcome for call in calls] == ["disconnected", "completed"]
    outcomes = [(row["cache"], row["outcome"]) for row in strict.records(key, 3)]
    assert outcomes == [("miss", "disconnected"), ("miss", "completed"), ("hit", "completed")]


def test_one_that_joined_keeps_the_call_alive_where_leaving_cancels(strict: Site):
    key = strict.key()
    body = body_of(f"[[sim: tokens=30 pace_ms=20]] {word()}", stream=True)

    async def work() -> Told:
        first, second = [await Visit.begin(strict.port, key.text, body) for _ in range(2)]
        for visit, _ in itertools.product((first, second), range(3)):
            assert await visit.chunk()
        first.leave()
        return await second.rest()

    with strict.calls() as calls:
        told = asyncio.run(work())
        again = strict.ask(key, body=body)
    assert [call.outcome for call in calls] == ["completed"]
    assert is_a_success(told)
    assert (again.cache, again.body) == ("hit", told.body)
