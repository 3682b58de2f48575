"""A body with the wish for usage in it: understood as meant, and every other byte as it was."""

from __future__ import annotations

import json

import pytest

from app.core.codec import parse_object
from app.core.splices import Splice, spliced, usage_splice

ASKED = {"include_usage": True}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"model":"m"}', b'{"model":"m","stream_options":{"include_usage":true}}'),
        (b' {"model" : "m" } \n', b' {"model" : "m" ,"stream_options":{"include_usage":true}} \n'),
        (b'{"a":{"b":"}"},"model":"}"}', b'{"a":{"b":"}"},"model":"}","stream_options":{"include_usage":true}}'),
        (b'{"stream_options":null,"model":"m"}', b'{"stream_options":{"include_usage":true},"model":"m"}'),
        (b'{"stream_options":{},"model":"m"}', b'{"stream_options":{"include_usage":true},"model":"m"}'),
        (b'{"stream_options": { } ,"model":"m"}', b'{"stream_options": {"include_usage":true } ,"model":"m"}'),
        (
            b'{"stream_options":{"include_obfuscation":false},"model":"m"}',
            b'{"stream_options":{"include_usage":true,"include_obfuscation":false},"model":"m"}',
        ),
        (
            b'{"model":"m","stream_options":{"x":"include_usage", "include_usage" : false }}',
            b'{"model":"m","stream_options":{"x":"include_usage", "include_usage" : true }}',
        ),
        (
            b'{"model":"m","stream\\u005foptions":{"include\\u005fusage":null}}',
            b'{"model":"m","stream\\u005foptions":{"include\\u005fusage":true}}',
        ),
    ],
)
def test_where_it_is_not_asked_for(body, expected):
    splice = usage_splice(parse_object(body))
    assert spliced(body, [splice]) == expected
    assert json.loads(expected)["stream_options"]["include_usage"] is True
    assert {**json.loads(expected), "stream_options": 0} == {**json.loads(body), "stream_options": 0}


@pytest.mark.parametrize("options", ['{"include_usage":true}', '{"include_usage":1}', "[]", '"x"', "7"])
def test_where_it_is_or_nobody_can_tell(options):
    assert usage_splice(parse_object(f'{{"model":"m","stream_options":{options}}}'.encode())) is None


def test_several_at_once_in_any_order():
    assert spliced(b"abcdef", [Splice(4, 5, b"-"), Splice(0, 1, b"XY"), Splice(6, 6, b"!")]) == b"XYbcd-f!"
    assert spliced(b"abc", []) == b"abc"
