"""``chat_stream_usage: inject``: the bill is exact, and the client gets what it would have got."""

from __future__ import annotations

import json

import httpx
import pytest

from tests.fakes.gateway import RunningGateway
from tests.fakes.upstream import PlayedUpstream, chunked, whole

USAGE = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}


def chunk(**members) -> bytes:
    return b"data: " + json.dumps({"id": "c", "model": "gpt-4o", **members}).encode() + b"\n\n"


TEXT = [
    chunk(choices=[{"index": 0, "delta": {"content": "héllo"}, "finish_reason": None}], usage=None),
    b": ping\n\n",
    chunk(choices=[{"index": 0, "delta": {}, "finish_reason": "stop"}]),
]
ALONE = chunk(choices=[], usage=USAGE)
DONE = b"data: [DONE]\n\n"
JSON = json.dumps(
    {"id": "c", "model": "gpt-4o", "choices": [{"message": {"content": "x"}, "finish_reason": "stop"}], "usage": USAGE}
).encode()


def play(seen):
    body = json.loads(seen.body)
    if not body.get("stream"):
        return whole(JSON)
    asked = (body.get("stream_options") or {}).get("include_usage")
    return chunked([*TEXT, *([ALONE] if asked else []), DONE])


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    with PlayedUpstream(play) as upstream:
        config = f"""
upstreams:
  asks: {{base_url: "{upstream.base_url}", chat_stream_usage: inject}}
  plain: {{base_url: "{upstream.base_url}"}}
  dead: {{base_url: "http://127.0.0.1:1/v1", breaker: off}}
models:
  - {{name: asked, upstream: asks, model: gpt-4o}}
  - {{name: plain, upstream: plain, model: gpt-4o}}
  - {{name: both, targets: [{{upstream: dead, model: gpt-4o}}, {{upstream: asks, model: gpt-4o, priority: 1}}]}}
  - {{match: "*", upstream: asks}}
server: {{drain_delay_s: 0}}
"""
        with RunningGateway(tmp_path_factory.mktemp("usage"), config) as gateway:
            gateway.upstream = upstream
            yield gateway


def ask(site, body: bytes, **headers: str) -> tuple[bytes, dict, bytes]:
    """What the client got, the record, and what the upstream was sent."""
    before = len(site.records())
    answer = httpx.post(
        f"{site.base_url}/chat/completions",
        content=body,
        headers={**site.headers, "content-type": "application/json", **headers},
    )
    assert answer.status_code == 200
    return answer.content, site.records(wait_for=before + 1)[-1], site.upstream.requests[-1].body


def test_the_chunk_is_asked_for_billed_and_not_passed_on(site):
    body = b'{"model": "gpt-4o", "stream":true,  "messages":[{"role":"user","content":"\xc3\xa9"}] }'
    got, record, sent = ask(site, body)
    assert sent == body[:-1] + b',"stream_options":{"include_usage":true}}'
    assert got == b"".join([*TEXT, DONE])
    (entry,) = record["entries"]
    assert (entry["kind"], entry["input_tokens"], entry["output_tokens"]) == ("charge", 11, 7)


def test_with_an_alias_both_are_spliced_in(site):
    got, record, sent = ask(site, b'{"stream":true,"stream_options":{"x":1},"model":"asked","messages":[]}')
    expected = b'{"stream":true,"stream_options":{"include_usage":true,"x":1},"model":"gpt-4o","messages":[]}'
    assert sent == expected
    assert got == b"".join([*TEXT, DONE])
    assert record["entries"][0]["kind"] == "charge"


def test_whoever_asks_for_it_gets_it(site):
    body = b'{"model":"gpt-4o","stream":true,"stream_options":{"include_usage":true},"messages":[]}'
    got, record, sent = ask(site, body)
    assert (sent, got) == (body, b"".join([*TEXT, ALONE, DONE]))
    assert record["entries"][0]["kind"] == "charge"


def test_other_upstreams_and_other_requests_are_left_alone(site):
    got, record, sent = ask(site, b'{"model":"plain","stream":true,"messages":[]}')
    assert (sent, got) == (b'{"model":"gpt-4o","stream":true,"messages":[]}', b"".join([*TEXT, DONE]))
    assert record["entries"][0]["kind"] == "estimate"
    body = b'{"model":"gpt-4o","messages":[],"stream":false}'
    assert ask(site, body)[::2] == (JSON, body)


def test_after_a_fallback_it_is_asked_for_where_it_is_to_be(site):
    got, record, sent = ask(site, b'{"model":"both","stream":true,"messages":[]}')
    assert b"include_usage" in sent
    assert got == b"".join([*TEXT, DONE])
    assert [entry["kind"] for entry in record["entries"]] == ["void", "charge"]


def test_a_request_that_is_known_already_is_asked_the_same_way(site):
    """Its plan is kept, and the answer from the cache is what a client of the stream would have got."""
    body = b'{"model":"gpt-4o","stream":true,"temperature":0,"messages":[{"role":"user","content":"again"}]}'
    for _ in range(2):
        got, record, sent = ask(site, body, **{"cache-control": "no-cache"})
        assert b"include_usage" in sent
        assert got == b"".join([*TEXT, DONE])
        assert record["entries"][0]["kind"] == "charge"
    calls = len(site.upstream.requests)
    answer = httpx.post(
        f"{site.base_url}/chat/completions",
        content=body,
        headers={**site.headers, "content-type": "application/json"},
    )
    assert answer.headers["x-headgate-cache"] == "hit"
    assert b'"choices": [], "usage"' not in answer.content
    assert len(site.upstream.requests) == calls
