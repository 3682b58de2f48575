"""What goes upstream is the client's own bytes, with what came before put in their place."""

from __future__ import annotations

import json

import msgspec
import pytest

from app.core.codec import parse_object
from app.core.errors import InvalidRequest
from app.state.expansion import expanded
from app.state.items import listed, own_items, replay_of, with_output
from app.state.turn import Content, Turn

EARLIER = b'{"type":"message","role":"user","content":"a"},{"x":1.50}'


def turn(given=b"", response=b"{}", upstream="u", turn_id="0-1"):
    return Turn(turn_id, "t", "resp_1", upstream, None, turn_id, 0, 0, Content("t", turn_id, given, response))


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        (
            b'{"model":"m","previous_response_id":"r","input":"hi \\u00e9\\n"}',
            b'{"model":"m","input":[%b,{"type":"message","role":"user","content":"hi \\u00e9\\n"}]}',
        ),
        (
            b'{"previous_response_id":"r","input":[{"role":"user","content":"x", "n": 1e0}],"model":"m"}',
            b'{"input":[%b,{"role":"user","content":"x", "n": 1e0}],"model":"m"}',
        ),
        (
            b' { "model" : "m" , "input" : [ ] , "temperature" : 0.70 , "previous_response_id" : "r" } ',
            b' { "model" : "m" , "input" : [%b ] , "temperature" : 0.70 } ',
        ),
        (
            b'{"model":"m","previous\\u005fresponse_id": "r" ,"top_p":1.0}',
            b'{"model":"m","input":[%b] ,"top_p":1.0}',
        ),
        (b'{"previous_response_id":"r"}', b'{"input":[%b]}'),
        (b'{"input":null,"previous_response_id":"r"}', b'{"input":[%b]}'),
        (b'{"previous_response_id":"r","input":null}', b'{"input":[%b]}'),
        (
            b'{"model":"m","input":"previous_response_id\\": [","previous_response_id":"r","z":{"previous_response_id":1}}',
            b'{"model":"m","input":[%b,{"type":"message","role":"user","content":"previous_response_id\\": ["}],"z":{"previous_response_id":1}}',
        ),
    ],
)
def test_every_other_byte_stays(body, wanted):
    found = expanded(parse_object(body), EARLIER)
    assert found == wanted % EARLIER
    assert "previous_response_id" not in json.loads(found)


def test_nothing_before_leaves_no_comma():
    assert expanded(parse_object(b'{"input":["x"],"previous_response_id":"r"}'), b"") == b'{"input":["x"]}'
    assert expanded(parse_object(b'{"previous_response_id":"r"}'), b"") == b'{"input":[]}'


@pytest.mark.parametrize("given", [b"1", b"true", b'{"role":"user"}'])
def test_an_input_that_is_none_is_refused(given):
    with pytest.raises(InvalidRequest) as refused:
        expanded(parse_object(b'{"input":%b,"previous_response_id":"r"}' % given), EARLIER)
    assert refused.value.param == "input"


def test_own_items_are_what_stands_in_the_array():
    assert own_items(parse_object(b'{"input": [ {"a": 1.0}, {"b":2} ] }')) == b'{"a": 1.0}, {"b":2}'
    assert own_items(parse_object(b'{"input":[]}')) == own_items(parse_object(b"{}")) == b""


REASONING = [
    ({"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gA"}, True),
    ({"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]}, True),
    ({"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "in short"}]}, False),
    ({"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": None, "content": []}, False),
    ({"type": "compaction", "id": "cmp_1", "encrypted_content": "gA"}, True),
    ({"type": "message", "role": "assistant", "content": "on reasoning and compaction"}, True),
]


@pytest.mark.parametrize(("item", "goes"), REASONING)
def test_reasoning_goes_where_it_can_be_read(item, goes):
    one = turn(b'{"q":1}', json.dumps({"id": "r", "output": [item, {"type": "message"}]}).encode())
    again = [b'{"q":1}', *([json.dumps(item).encode()] if goes else []), b'{"type": "message"}']
    assert replay_of(one, {"u"}, {"u", "v"}) == b",".join(again)
    # Another upstream can read none of it.
    elsewhere = again if item["type"] == "message" else [again[0], again[-1]]
    assert replay_of(one, {"u", "v"}, {"u", "v"}) == replay_of(one, {"v"}, {"u"}) == b",".join(elsewhere)


TOLD = b'{"type":"reasoning","id":"rs_1","summary":[],"content":[{"type":"reasoning_text","text":"hm"}]}'
MESSAGE = b'{"role":"user","content":"on reasoning \\u00e9"}'


@pytest.mark.parametrize(
    ("given", "elsewhere"),
    [
        (TOLD + b" , " + MESSAGE, MESSAGE),
        (TOLD.replace(b'g","id', b'\\u0067","id') + b"," + MESSAGE, MESSAGE),
        (TOLD.replace(b'"type"', b'"typ\\u0065"', 1) + b"," + MESSAGE, MESSAGE),
        (b"[" + TOLD + b", " + MESSAGE + b"]", b"[" + MESSAGE + b"]"),
        (TOLD, b""),
        (MESSAGE + b" ,1", MESSAGE + b",1"),
        # What it stands for is not there: its upstream is to say that it cannot read it.
        (TOLD + b',{"type":"compaction","encrypted_content":"gA"}', b'{"type":"compaction","encrypted_content":"gA"}'),
        (b'{"role": "user", "content": "x"}, 2', b'{"role": "user", "content": "x"}, 2'),
    ],
)
def test_reasoning_that_was_told_stays_where_nothing_is_found_by_its_id(given, elsewhere):
    one = turn(given)
    assert replay_of(one, {"u"}, {"u", "v"}) == given
    assert replay_of(one, {"v"}, {"u", "v"}) == replay_of(one, {"u", "v"}, {"u", "v"}) == elsewhere
    # It keeps its own by now, and what it would find may be another team's.
    assert replay_of(one, {"u"}, {"v"}) == elsewhere


def test_a_turn_without_anything_to_say():
    for response in (b"{}", b'{"output":null}', b'{"output":[]}', b'{"output":"x"}'):
        assert replay_of(turn(response=response), {"u"}, {"u"}) == b""


def test_items_of_a_stream_take_the_place_of_an_empty_output():
    items = [b'{"id": "a", "n": 1.0}', b'{"id":"b"}']
    for response in (b'{"id":"r", "output": [] ,"n":1.50}', b'{"id":"r", "output": null ,"n":1.50}'):
        assert with_output(response, items) == b'{"id":"r", "output": [{"id": "a", "n": 1.0},{"id":"b"}] ,"n":1.50}'
    assert with_output(b'{"id":"r"}', items[1:]) == b'{"id":"r","output":[{"id":"b"}]}'


def test_listed_items_have_ids_that_stay():
    one = turn(
        b'{"role":"user","content":"hi"}, {"type":"message","id":"msg_own","role":"user","content":[]},{"type":"function_call_output","call_id":"c","output":"1"}'
    )
    found = listed(one)
    assert found == listed(one)
    assert [item_id for item_id, _ in found] == ["msg_010000", "msg_own", "fco_010002"]
    first = msgspec.json.decode(found[0][1])
    assert first == {
        "id": "msg_010000",
        "type": "message",
        "role": "user",
        "content": [{"type": "input_text", "text": "hi"}],
    }
