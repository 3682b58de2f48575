"""Where a request may go that goes on from kept turns, and what is kept of it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from app.catalog import Route
from app.core.codec import parse_object
from app.core.errors import InvalidRequest, StoredObjectNotFound
from app.core.identity import Principal
from app.core.peek import peek
from app.pipeline.kept_turns import KeptTurns, open_kept_turns
from app.settings import ServerSettings, UpstreamSettings
from app.state.turn import Content, Turn
from tests.unit.pipeline.test_recall import exchange

HERE, THERE, KEEPS = Route("here", "m"), Route("there", "m"), Route("keeps", "m")
PRINCIPAL = Principal("t", "team", "k", "key", "s", (), ())


def pools(**states):
    return {
        name: SimpleNamespace(settings=UpstreamSettings(base_url="http://u/v1", state=state))
        for name, state in states.items()
    }


def opened() -> KeptTurns:
    found = open_kept_turns(None, pools(here="gateway", there="gateway", keeps="upstream"), ServerSettings(), None)
    assert found is not None
    return found


def turn(pinned=""):
    return Turn("2", "t", "resp_2", "here", "1", "1", 0, 0, Content("t", "2", b"", b"{}", pinned))


def asked(text):
    body = parse_object(b'{"model":"m",%b}' % text)
    return peek("responses", body), body


def test_where_all_keep_their_own_nothing_is_looked_for():
    assert open_kept_turns(None, pools(a="upstream"), ServerSettings(), None) is None


def test_a_file_that_was_named_before_pins_its_upstream():
    ask, body = asked(b'"input":"x"')
    kept = opened()
    assert kept.narrowed((HERE, THERE), ask, body, [turn()]) == (HERE, THERE)
    assert kept.narrowed((HERE, THERE), ask, body, [turn("there"), turn()]) == (THERE,)
    for elsewhere in ([turn("keeps")], [turn("here"), turn("there")]):
        with pytest.raises(InvalidRequest) as refused:
            kept.narrowed((HERE, THERE), ask, body, elsewhere)
        assert refused.value.param == "previous_response_id"


@pytest.mark.parametrize("what", [b'"background":true', b'"conversation":"conv_1"', b'"conversation":{"id":"conv_1"}'])
def test_what_needs_state_goes_where_there_is_some(what):
    ask, body = asked(what)
    kept = opened()
    assert kept.narrowed((HERE, KEEPS), ask, body, []) == (KEEPS,)
    with pytest.raises(InvalidRequest):
        kept.narrowed((HERE, THERE), ask, body, [])


def test_what_is_kept_of_a_request():
    kept = opened()

    def keeping(text=b'"input":"x"', path="/responses", chain=(), routes=(HERE, KEEPS), *, pinned=False):
        ask, body = asked(text)
        return kept.keeping(exchange(path), PRINCIPAL, ask, body, chain, routes, pinned=pinned)

    first = keeping()
    assert (first.team_id, first.upstreams, first.previous_id, first.chain_id) == ("t", {"here"}, None, None)
    assert first.input == b'{"type":"message","role":"user","content":"x"}'
    further = keeping(chain=[turn()], pinned=True)
    assert (further.previous_id, further.chain_id, further.pinned) == ("2", "1", "here")
    assert keeping(b'"input":"x","store":false') is None
    assert keeping(path="/responses/compact") is None
    assert keeping(routes=(KEEPS,)) is None


async def test_a_response_that_an_upstream_holds_is_left_to_it():
    kept = opened()
    ask = SimpleNamespace(param="previous_response_id", object_id="resp_1")
    other = SimpleNamespace(param="file_id", object_id="file_1")

    async def found(*_):
        return None

    kept._chains.find = kept._chains.wait_for = found
    kept._clock = SimpleNamespace(now_ms=lambda: 0)

    async def chain_of(held_by):
        async def holder_of(principal, references):
            assert references == [ask]
            if held_by is None:
                raise StoredObjectNotFound.of("previous_response_id", "resp_1")
            return held_by

        return await kept.chain_of(PRINCIPAL, [other, ask], holder_of)

    assert await chain_of("keeps") == ([], [other, ask])
    for nobody in (None, "here"):
        with pytest.raises(StoredObjectNotFound) as refused:
            await chain_of(nobody)
        assert refused.value.code == "previous_response_not_found"
