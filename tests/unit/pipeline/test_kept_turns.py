"""Where a request may go that goes on from kept turns, and what is kept of it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from app.auth.references import Reference, find_references
from app.catalog import Route
from app.core.codec import parse_object
from app.core.errors import InvalidRequest
from app.core.identity import Principal
from app.core.peek import peek
from app.pipeline.kept_turns import KeptTurns, _page, names_in_input, open_kept_turns
from app.pipeline.own_lists import _asked
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
    found = open_kept_turns(
        None, pools(here="gateway", there="gateway", keeps="upstream"), ServerSettings(), None, None
    )
    assert found is not None
    return found


def turn(pinned=""):
    return Turn("2", "t", "resp_2", "here", "1", "1", 0, 0, Content("t", "2", b"", b"{}", pinned))


def asked(text):
    body = parse_object(b'{"model":"m",%b}' % text)
    return peek("responses", body), body


def test_where_all_keep_their_own_nothing_is_looked_for():
    assert open_kept_turns(None, pools(a="upstream"), ServerSettings(), None, None) is None


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


@pytest.mark.parametrize("limit", ["0", "101", "x", "-1", "9" * 5000, "²"])
def test_a_limit_that_is_none_is_refused(limit):
    with pytest.raises(InvalidRequest) as refused:
        _page(turn(), f"limit={limit}".encode())
    assert refused.value.param == "limit"


def test_a_limit_of_lists_of_the_teams_own_may_have_any_length():
    assert _asked(SimpleNamespace(filters=(), lists="file"), b"limit=" + b"9" * 5000).limit == 100


def test_pinned_is_what_the_input_names():
    _, body = asked(b'"input":[{"type":"input_file","file_id":"f_1"}],"tools":[{"vector_store_ids":["vs_1"]}]')
    in_input, in_tools = Reference("f_1", "file_id"), Reference("vs_1", "vector_store_ids")
    assert find_references("responses", body) == [in_input, in_tools]
    assert names_in_input(body, [in_tools, in_input])
    assert not names_in_input(body, [in_tools])
    assert not names_in_input(body, [])
    assert not names_in_input(asked(b'"prompt":{"id":"pmpt_1"}')[1], [Reference("pmpt_1", "prompt")])
