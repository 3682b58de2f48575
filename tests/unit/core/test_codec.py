"""The strict reading of JSON bodies, against the standard library's as the judge."""

from __future__ import annotations

import json
import math
import random
import time
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from app.core.codec import DEPTH_MAX, JSONObject, parse_object, parse_object_fast, parse_object_slow
from app.core.errors import AmbiguousJSON, InvalidJSON, InvalidRequest


class RefusedError(Exception):
    pass


def strict(body: bytes) -> Any:
    """What ``body`` means to a slow and strict reader, or RefusedError."""

    def pairs(found: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({name for name, _ in found}) < len(found):
            raise RefusedError
        return dict(found)

    def number(text: str) -> float:
        value = float(text)
        if math.isinf(value):
            raise RefusedError
        return value

    def constant(_: str) -> None:
        raise RefusedError

    try:
        text = body.decode("utf-8")
        value = json.loads(text, object_pairs_hook=pairs, parse_float=number, parse_constant=constant)
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError) as error:
        raise RefusedError from error
    if not isinstance(value, dict):
        raise RefusedError
    return value


def values_of(parsed: JSONObject) -> dict[str, Any]:
    return {name: json.loads(bytes(raw)) for name, raw in parsed.members.items()}


def check_spans(parsed: JSONObject) -> None:
    for name, raw in parsed.members.items():
        start, end = parsed.span_of(name)
        assert parsed.body[start:end] == bytes(raw)


# The threat battery.

ATTACKS = [
    ("J1 twice", b'{"model":"cheap","model":"dear"}', AmbiguousJSON),
    ("J1 twice, equal", b'{"model":"cheap","model":"cheap"}', AmbiguousJSON),
    ("J1 twice, spaced", b'{"model": "cheap", "model": "dear"}', AmbiguousJSON),
    ("J1 empty name twice", b'{"":1,"":2}', AmbiguousJSON),
    ("J2 by escape", rb'{"model":"cheap","mod\u0065l":"dear"}', AmbiguousJSON),
    ("J2 both by escape", rb'{"mod\u0065l":"cheap","mod\u0065l":"dear"}', AmbiguousJSON),
    ("J2 in tools", b'{"tools":[{"type":"function","type":"mcp"}]}', AmbiguousJSON),
    ("J2 in tools by escape", rb'{"tools":[{"type":"function","t\u0079pe":"mcp"}]}', AmbiguousJSON),
    ("J2 in input", b'{"input":[{"content":[{"text":"a","text":"b"}]}]}', AmbiguousJSON),
    ("J2 deep", b'{"a":' * 100 + b'{"b":1,"b":2}' + b"}" * 100, AmbiguousJSON),
    ("J2 null twice", b'{"a":{"b":null,"b":null}}', AmbiguousJSON),
    ("J3 NaN", b'{"temperature":NaN}', InvalidJSON),
    ("J3 Infinity", b'{"temperature":Infinity}', InvalidJSON),
    ("J3 -Infinity", b'{"temperature":-Infinity}', InvalidJSON),
    ("J3 1e400", b'{"temperature":1e400}', InvalidJSON),
    ("J3 -1e400 deep", b'{"a":[{"b":-1e400}]}', InvalidJSON),
    ("J4 5,000 digits", b'{"a":' + b"1" * 5000 + b"}", InvalidJSON),
    ("J4 leading zero", b'{"a":01}', InvalidJSON),
    ("J4 hexadecimal", b'{"a":0x10}', InvalidJSON),
    ("J4 plus", b'{"a":+1}', InvalidJSON),
    ("J5 depth 900", b'{"a":' * 900 + b"1" + b"}" * 900, InvalidJSON),
    ("J5 depth 2,000", b'{"a":' * 2000 + b"1" + b"}" * 2000, InvalidJSON),
    ("J5 depth 200,000", b'{"a":' * 200_000 + b"1" + b"}" * 200_000, InvalidJSON),
    ("J5 lists", b'{"a":' + b"[" * 200_000 + b"]" * 200_000 + b"}", InvalidJSON),
    ("J5 unclosed", b'{"a":' + b"[" * 200_000, InvalidJSON),
    ("J6 high surrogate", rb'{"a":"\ud800"}', InvalidJSON),
    ("J6 low surrogate", rb'{"a":"\udc00"}', InvalidJSON),
    ("J6 swapped", rb'{"a":"\udc00\ud800"}', InvalidJSON),
    ("J6 in a name", rb'{"\ud800":1}', InvalidJSON),
    ("J7 0xFF", b'{"a":"\xff"}', InvalidJSON),
    ("J7 0xFF deep", b'{"a":[{"b":"\xff"}]}', InvalidJSON),
    ("J7 0xFF in a name", b'{"\xff":1}', InvalidJSON),
    ("J7 overlong", b'{"a":"\xc0\xaf"}', InvalidJSON),
    ("J7 encoded surrogate", b'{"a":"\xed\xa0\x80"}', InvalidJSON),
    ("J7 above U+10FFFF", b'{"a":"\xf4\x90\x80\x80"}', InvalidJSON),
    ("J7 byte order mark", b"\xef\xbb\xbf{}", InvalidJSON),
    ("J7 UTF-16", '{"a":1}'.encode("utf-16"), InvalidJSON),
    ("J7 UTF-16 without a mark", '{"a":1}'.encode("utf-16-le"), InvalidJSON),
    ("J7 UTF-32", '{"a":1}'.encode("utf-32-be"), InvalidJSON),
    ("J8 a million names", b"{" + b",".join(b'"%d":1' % n for n in range(1_000_000)) + b"}", InvalidJSON),
    ("J8 three million objects", b'{"a":[' + b"{}," * 3_000_000 + b"{}]}", InvalidJSON),
    ("J13 second document", b"{} {}", InvalidJSON),
    ("J13 trailing comma", b'{"a":1,}', InvalidJSON),
    ("J13 comment", b'{"a":1}//x', InvalidJSON),
    ("J13 single quotes", b"{'a':1}", InvalidJSON),
    ("J13 list", b"[{}]", InvalidRequest),
    ("J13 string", b'"model"', InvalidRequest),
    ("J13 null", b"null", InvalidRequest),
    ("J13 nothing", b"", InvalidJSON),
    ("J13 space", b" ", InvalidJSON),
    ("J13 control character", b'{"a":"\x01"}', InvalidJSON),
    ("J13 line break in a string", b'{"a":"\n"}', InvalidJSON),
    ("J13 NUL after the end", b"{}\x00", InvalidJSON),
]


@pytest.mark.parametrize(("body", "error"), [row[1:] for row in ATTACKS], ids=[row[0] for row in ATTACKS])
def test_an_attack_is_refused_quickly(body, error):
    started = time.process_time()
    with pytest.raises(InvalidRequest) as caught:
        parse_object(body)
    assert time.process_time() - started < (0.05 if len(body) < 2_000_000 else 0.3)
    assert type(caught.value) is error
    assert len(caught.value.message) < 300


@pytest.mark.parametrize("opening", ["[", '{"a":'])
@pytest.mark.parametrize("spaces", ["", " "])
def test_the_depth_limit_is_the_same_both_ways(opening, spaces):
    def nested(depth: int) -> bytes:
        closing = {"[": "]", '{"a":': "}"}[opening]
        return f'{spaces}{{"a":{opening * (depth - 1)}1{closing * (depth - 1)}}}'.encode()

    parse_object(nested(DEPTH_MAX - 1))
    parse_object(nested(DEPTH_MAX))
    with pytest.raises(InvalidJSON, match="deeply"):
        parse_object(nested(DEPTH_MAX + 2))


def test_a_name_twice_is_named_without_its_flood():
    with pytest.raises(AmbiguousJSON) as caught:
        parse_object(b'{"a\\n' + b"x" * 1000 + b'":1,"a\\n' + b"x" * 1000 + b'":2}')
    assert len(caught.value.param or "") < 250
    assert "\n" not in (caught.value.param or "")


# The usual bodies.


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"model": "gpt-4.1", "input": 'Grüße, 世界 \U0001f600 "quoted" \\ \n\t\r\b\f \x01 \x7f \u2028 </script>'},
        {"model": "m", "temperature": 0.7, "top_p": 1.0, "n": 3, "seed": -5, "big": 2**70, "stream": True, "x": None},
        {"input": [{"role": "user", "content": [{"type": "input_text", "text": '{"a":1,"a":2}'}]}], "tools": []},
        {"é": 1, "": {"": []}},
    ],
)
def test_what_the_python_sdk_sends_takes_the_fast_way(value):
    body = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
    parsed = parse_object_fast(body)
    assert parsed is not None
    assert parsed.body == body
    assert values_of(parsed) == value
    check_spans(parsed)


@pytest.mark.parametrize(
    "body",
    [
        b'{"model": "m", "stream": true}',
        b'\r\n{\n\t"model"\t:\n"m" , "stream"\r: true\n}\n ',
        rb'{"mod\u0065l":"m","stream":true}',
        rb'{"model":"\u006d","stream":true}',
        b'{"temperature":1E0,"model":"m","stream":true}',
        b'{"temperature":-0,"model":"m","stream":true}',
        b'{"url":"http:\\/\\/t","model":"m","stream":true}',
    ],
)
def test_any_other_spelling_is_read_the_slow_way(body):
    assert parse_object_fast(body) is None
    parsed = parse_object_slow(body)
    assert (parsed.get_str("model"), parsed.get_bool("stream")) == ("m", True)
    assert values_of(parsed) == json.loads(body)
    check_spans(parsed)


def test_a_value_is_replaced_at_its_span():
    body = b'{"input": "model", "x": {"model": "inner"}, "model": "alias", "y": 1}'
    start, end = parse_object(body).span_of("model")
    assert json.loads(body[:start] + b'"real"' + body[end:]) == {**json.loads(body), "model": "real"}
    with pytest.raises(KeyError):
        parse_object(body).span_of("z")


# Accessors.

BODY = parse_object(
    b'{"s":"t","e":"","b":true,"f":false,"i":5,"z":0,"m":-1,"big":9223372036854775808,"h":'
    + b"1" * 30
    + b',"d":0.5,"w":1e3,"o":1.0,"n":null,"l":[1],"q":"5"}'
)


def test_accessors_read_what_has_their_type():
    assert (BODY.get_str("s"), BODY.get_str("e")) == ("t", "")
    assert (BODY.get_bool("b"), BODY.get_bool("f")) == (True, False)
    assert [BODY.get_int(key) for key in ("i", "z", "m")] == [5, 0, -1]
    assert [BODY.get_int(key) for key in ("big", "h")] == [2**63, int("1" * 30)]
    assert [BODY.get_number(key) for key in ("i", "d", "w")] == [5, 0.5, 1000.0]
    assert (BODY.has("s"), BODY.has("f"), BODY.raw("l")) == (True, True, b"[1]")


@pytest.mark.parametrize("key", ["n", "absent"])
def test_null_is_as_absent(key):
    assert BODY.get_str(key) is BODY.get_bool(key) is BODY.get_int(key) is BODY.get_number(key) is None
    assert not BODY.has(key)
    assert BODY.raw(key) == b""


@pytest.mark.parametrize(
    ("method", "keys"),
    [("get_str", "b i d l"), ("get_bool", "s i z l q"), ("get_int", "s b f d w o l q"), ("get_number", "s b f l q")],
)
def test_a_value_of_another_type_is_refused_by_name(method, keys):
    for key in keys.split():
        with pytest.raises(InvalidRequest) as caught:
            getattr(BODY, method)(key)
        assert (caught.value.param, caught.value.code) == (key, "invalid_request")


# Properties.

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
    | st.sampled_from(
        [
            "model",
            '"',
            "\\",
            '\\"',
            '":',
            '{"a":1,"a":2}',
            "\ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16"),
        ]
    )
)
NAMES = st.sampled_from(["a", "b", "é", "", 'q"', "\\", "a:", '":'])
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)
OBJECTS = st.dictionaries(NAMES, VALUES, max_size=5)


class Writer:
    """Writes JSON in any lawful spelling, and twice what must not be twice if told to."""

    def __init__(self, dice: random.Random, *, loosely: bool, repeat: float) -> None:
        self.dice = dice
        self.loosely = loosely
        self.repeat = repeat
        self.repeated = False

    def space(self) -> str:
        return self.dice.choice(["", "", "", " ", "\n", "\t", "\r\n "]) if self.loosely else ""

    def string(self, text: str) -> str:
        if not self.loosely:
            return json.dumps(text, ensure_ascii=False)
        parts = []
        for char in text:
            plain = json.dumps(char, ensure_ascii=False)[1:-1]
            escaped = json.dumps(char)[1:-1] if ord(char) > 126 else f"\\u{ord(char):04x}"
            parts.append(self.dice.choice([plain, escaped]))
        return f'"{"".join(parts)}"'

    def write(self, value: Any) -> str:
        if isinstance(value, str):
            written = self.string(value)
        elif isinstance(value, dict):
            members = [self.string(name) + self.space() + ":" + self.write(inner) for name, inner in value.items()]
            if value and self.dice.random() < self.repeat:
                self.repeated = True
                name = self.dice.choice(list(value))
                members.insert(self.dice.randrange(len(members) + 1), self.string(name) + ":" + self.write(value[name]))
            written = "{" + self.space() + ",".join(members) + self.space() + "}"
        elif isinstance(value, list):
            written = "[" + self.space() + ",".join(self.write(inner) for inner in value) + "]"
        else:
            written = json.dumps(value)
        return self.space() + written + self.space()


@settings(max_examples=150, deadline=None)
@given(OBJECTS, st.randoms(use_true_random=False), st.booleans())
def test_every_spelling_of_an_object_is_read_as_json_reads_it(value, dice, loosely):
    body = Writer(dice, loosely=loosely, repeat=0).write(value).encode()
    parsed = parse_object(body)
    assert values_of(parsed) == strict(body) == value
    assert values_of(parse_object_slow(body)) == value
    check_spans(parsed)


@settings(max_examples=150, deadline=None)
@given(OBJECTS, st.randoms(use_true_random=False), st.booleans())
def test_a_name_twice_at_any_depth_is_never_read(value, dice, loosely):
    writer = Writer(dice, loosely=loosely, repeat=0.5)
    body = writer.write(value).encode()
    assume(writer.repeated)
    for parse in (parse_object, parse_object_slow):
        with pytest.raises(AmbiguousJSON):
            parse(body)
    assert parse_object_fast(body) is None


@settings(max_examples=400, deadline=None)
@given(OBJECTS, st.randoms(use_true_random=False), st.data())
def test_a_damaged_body_is_refused_or_read_as_json_reads_it(value, dice, data):
    body = bytearray(Writer(dice, loosely=dice.random() < 0.5, repeat=0.1).write(value).encode())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(body)))
        piece = data.draw(
            st.binary(max_size=2)
            | st.sampled_from([b'"', b"\\", b"{", b"}", b",", b":", b'"a":1,', b"\\u0061", b"\xff", b"NaN", b"1e999"])
        )
        body[at : at + data.draw(st.integers(0, 2))] = piece
    check_against_json(bytes(body))


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=64))
def test_any_bytes_are_refused_or_read_as_json_reads_them(body):
    check_against_json(body)
    check_against_json(b'{"a":' + body + b"}")


def check_against_json(body: bytes) -> None:
    try:
        parsed = parse_object(body)
    except InvalidRequest:
        # Refusing more than json does is the aim; the test of lawful spellings says that it is not too much.
        return
    assert values_of(parsed) == strict(body)
    check_spans(parsed)
    for name in parsed.members:
        for accessor in (parsed.get_str, parsed.get_bool, parsed.get_int, parsed.get_number):
            try:
                accessor(name)
            except InvalidRequest as error:
                assert error.param == name
