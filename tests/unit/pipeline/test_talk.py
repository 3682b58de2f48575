"""Ends of WebSockets: whatever fails, nothing is left behind."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from app.core.codec import parse_object
from app.core.exchange import Endpoint
from app.pipeline.aloft import OwnIds
from app.pipeline.passing import Passing
from app.pipeline.stages import ask_of_create
from app.pipeline.talk import Talk


class Anything:
    """Takes every call, and remembers its name."""

    def __init__(self, **more: Any) -> None:
        self.calls: list[str] = []
        vars(self).update(more)

    def __getattr__(self, name: str) -> Any:
        def call(*_: Any, **__: Any) -> None:
            self.calls.append(name)

        return call


class Failing(Anything):
    def end(self, *_: Any, **__: Any) -> None:
        self.calls.append("end")
        raise OSError("the journal")


async def test_each_response_is_landed_also_where_one_fails_to():
    client = Anything(close_code=None, close_reason="")
    talk = Talk(Anything, Anything(request_id="r"), Anything(), client, lambda: False)
    aloft = [Anything(), Failing(), Failing(), Anything()]
    talk._aloft = {str(number): each for number, each in enumerate(aloft)}
    with pytest.raises(OSError, match="the journal"):
        talk.end()
    assert [each.calls for each in aloft] == [["end"]] * 4
    assert client.calls == ["close"]
    talk._aloft = {str(number): each for number, each in enumerate(aloft)}
    with pytest.raises(OSError, match="the journal"):
        talk.revoke()
    assert [each.calls for each in aloft] == [["end"] * 2] * 4


async def test_a_realtime_socket_upstream_is_closed_where_the_client_cannot_be_switched():
    upstream = Anything(subprotocol=None)

    class Pool(Anything):
        async def switch(self, *_: Any) -> Any:
            return upstream

    class Planner(Anything):
        async def pool_for(self, *_: Any) -> Any:
            return Pool(has_sockets=True, forwarded=frozenset(), breaker=Anything(is_paused=False)), None

    def accept(_: str | None) -> Any:
        raise RuntimeError("The protocol cannot be switched now.")

    configuration = Anything(server=Anything(slow_client_s=1))
    running, desk = Anything(), Anything()
    passing = Passing(
        Planner(),
        Anything(),
        Anything(),
        desk,
        running,
        sweep=Anything(),
        collection=Anything(),
        configuration=configuration,
        match_in_batch=Anything(),
        allows=Anything(),
    )
    endpoint = Endpoint("realtime", "GET", "/realtime")
    exchange = Anything(
        ids=(), query=b"model=m", headers=[], request_id="r", path="/realtime", endpoint=endpoint, method="GET"
    )
    with pytest.raises(RuntimeError):
        await passing.serve_socket(exchange, Anything(secret_id="s"), accept, lambda: False, lambda: None)
    assert upstream.calls == ["abort"]


def test_of_a_connections_own_ids_the_oldest_are_forgotten():
    own = OwnIds(3)
    own.learn(["a", "b", "c"])
    assert "a" in own
    own.learn(["d", "e"])
    assert [each in own for each in "abcde"] == [True, False, False, True, True]


def test_a_prewarm_has_no_output_and_calls_no_tools():
    body: dict[str, Any] = {"type": "response.create", "model": "m", "tools": [{"type": "web_search"}]}
    plain = ask_of_create(parse_object(msgspec.json.encode(body)))
    assert (plain.output_tokens_max, plain.extent.tools) == (None, ("web_search",))
    prewarm = ask_of_create(parse_object(msgspec.json.encode({**body, "generate": False})))
    assert (prewarm.output_tokens_max, prewarm.extent.tools) == (0, ())


async def test_a_client_that_leaves_is_noticed_while_its_upstream_takes_nothing():
    class Upstream(Anything):
        async def drained(self, timeout_s: float) -> bool:
            client.gone = True
            return False

    client = Anything(gone=False)
    upstream = Upstream(gone=False, write_paused=True)
    talk = Talk(Anything, Anything(request_id="r"), Anything(), client, lambda: False)
    talk._upstream = upstream
    await asyncio.wait_for(talk._send(Anything()), 30)
    assert upstream.calls == ["send"]


def error_of(stream_id: str | None = None) -> bytes:
    told = {"type": "error", "status": 400, "error": {"code": "invalid_value", "message": "x"}}
    return msgspec.json.encode(told if stream_id is None else {**told, "stream_id": stream_id})


def talk_with(*stream_ids: str, response_id: str | None) -> Talk:
    talk = Talk(Anything, Anything(request_id="r"), Anything(), Anything(gone=False), lambda: False)
    for stream_id in stream_ids:
        meter = Anything(reading=Anything(response_id=response_id), body_seen=False)
        talk._aloft[stream_id] = Anything(
            flight=Anything(meter=meter, record=None), is_disturbed=False, deadline_s=0.0, calls=[]
        )
    return talk


@pytest.mark.parametrize("response_id", [None, "resp_1"])
async def test_an_error_that_may_be_anothers_ends_no_response(response_id):
    talk = talk_with("", "b", response_id=response_id)
    talk._saw(error_of())
    assert [(each.calls, each.flight.calls) for each in talk._aloft.values()] == [([], []), ([], [])]
    # One that says whose it is ends that one.
    talk._saw(error_of("b"))
    assert talk._aloft["b"].calls == (["refused", "answers"] if response_id is None else ["answers"])
    assert (talk._aloft[""].calls, talk._aloft["b"].flight.calls) == ([], ["saw_event"])


@pytest.mark.parametrize("response_id", [None, "resp_1"])
async def test_after_another_frame_an_error_makes_no_response_free(response_id):
    """It may be about a cancel that came when its own response had ended."""
    talk = talk_with("", response_id=response_id)
    talk._has_passed = True
    talk._saw(error_of())
    assert talk._aloft[""].calls == ["doubted", "answers"]
