"""What a client sees, and what the bill says, when an upstream misbehaves: one row a fault."""

from __future__ import annotations

import json

import httpx
import pytest

from tests.fakes.gateway import RunningGateway
from tests.fakes.upstream import JSON_HEAD, STREAM_HEAD, PlayedUpstream, chunked, config_for, whole

USAGE = {"input_tokens": 11, "output_tokens": 7, "total_tokens": 18}
OK = json.dumps(
    {"id": "resp_1", "object": "response", "model": "gpt-4o", "status": "completed", "usage": USAGE}
).encode()
KEY = "sk-canary-upstream-0"


def error(status: int, reason: str, message: str = "no", code: str = "x", extra: str = "") -> list:
    body = json.dumps({"error": {"message": message, "type": "t", "param": None, "code": code}}).encode()
    return whole(body, f"HTTP/1.1 {status} {reason}\r\ncontent-type: application/json\r\n{extra}")


def respond(head: str, body: bytes = OK) -> list:
    return whole(body, head)


CHAT = {"id": "c", "model": "gpt-4o", "choices": [{"message": {"content": "x" * 2000}, "finish_reason": "stop"}]}
NO_COMPLETION = json.dumps({**CHAT, "usage": {"prompt_tokens": 12}}).encode()
NO_USAGE = json.dumps({"id": "resp_1", "model": "gpt-4o", "status": "completed"}).encode()

# name: (steps, status, code or None, kind of the last entry, x-should-retry)
FAULTS = {
    "fine": (whole(OK), 200, None, "charge", None),
    "no usage": (whole(NO_USAGE), 200, None, "estimate", None),
    "half a usage": (whole(NO_COMPLETION), 200, None, "estimate", None),
    "json by another name": (respond("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n"), 200, None, "charge", None),
    "problem json": (
        respond("HTTP/1.1 200 OK\r\ncontent-type: application/vnd.api+json\r\n"),
        200,
        None,
        "charge",
        None,
    ),
    "bad request": (error(400, "Bad Request"), 400, "x", "void", None),
    "not found": (error(404, "Not Found"), 404, "x", "void", None),
    "rate limited": (error(429, "Too Many", extra="retry-after: 7\r\n"), 429, "x", "void", None),
    "unauthorized": (
        error(401, "Unauthorized", f"Incorrect API key provided: {KEY}"),
        502,
        "upstream_auth_failed",
        "void",
        "false",
    ),
    "forbidden": (error(403, "Forbidden"), 502, "upstream_auth_failed", "void", "false"),
    "server error": (error(500, "Oops"), 500, "x", "estimate", "false"),
    "bad gateway": (error(502, "Bad Gateway"), 502, "x", "estimate", "false"),
    "unavailable": (error(503, "Unavailable"), 503, "x", "void", None),
    "html": (
        respond("HTTP/1.1 200 OK\r\ncontent-type: text/html\r\n", b"<h1>hi"),
        502,
        "upstream_invalid_response",
        "estimate",
        "false",
    ),
    "not json": (whole(b'{"id": "resp_1", "us'), 502, "upstream_invalid_response", "estimate", "false"),
    "a list": (whole(b"[1, 2]"), 502, "upstream_invalid_response", "estimate", "false"),
    "gzip": (respond(JSON_HEAD + "content-encoding: gzip\r\n"), 502, "upstream_invalid_response", "estimate", "false"),
    "redirect": (
        respond("HTTP/1.1 307 T\r\nlocation: http://127.0.0.1:1/\r\n", b""),
        502,
        "upstream_invalid_response",
        "void",
        "false",
    ),
    "no content": ([b"HTTP/1.1 204 No Content\r\n\r\n"], 502, "upstream_invalid_response", "estimate", "false"),
    "reset before the head": (["reset"], 502, "upstream_outcome_unknown", "estimate", "false"),
    "closed before the head": (["close"], 502, "upstream_outcome_unknown", "estimate", "false"),
    "not http": ([b"\x00\x01\x02 nonsense\r\n\r\n", "close"], 502, None, "estimate", "false"),
    "short body": (
        [JSON_HEAD.encode() + b"content-length: 500\r\n\r\n" + OK, "close"],
        502,
        "upstream_outcome_unknown",
        "estimate",
        "false",
    ),
    "silence": (["hang"], 504, "upstream_timeout", "estimate", "false"),
    "silence in the body": (
        [JSON_HEAD.encode() + b"content-length: 500\r\n\r\n{", "hang"],
        504,
        "upstream_timeout",
        "estimate",
        "false",
    ),
    "bad characters in an error": (
        respond("HTTP/1.1 400 Bad\r\ncontent-type: application/json\r\n", b'{"error":{"message":"cl\xe9","code":"x"}}'),
        400,
        None,
        "void",
        None,
    ),
    "a status of somebody else": (error(529, "Overloaded"), 529, "x", "estimate", "false"),
    "endless headers": (
        [b"HTTP/1.1 200 OK\r\nx: " + b"a" * 100_000 + b"\r\n\r\n", "close"],
        502,
        "upstream_invalid_response",
        "estimate",
        "false",
    ),
    "line break in a header": (respond(JSON_HEAD + "x-evil: a\x0bb\r\n"), None, None, None, None),
}


@pytest.fixture(scope="module")
def faulty(tmp_path_factory):
    def play(seen):
        return FAULTS[json.loads(seen.body)["user"]][0]

    timeouts = {"timeouts": "{connect_s: 1, first_byte_s: 0.6, idle_s: 0.6}"}
    with (
        PlayedUpstream(play) as upstream,
        RunningGateway(tmp_path_factory.mktemp("faults"), config_for(upstream.base_url, **timeouts)) as gateway,
    ):
        gateway.upstream = upstream
        yield gateway


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_before_the_first_byte(faulty, name):
    _, status, code, kind, retry = FAULTS[name]
    before = len(faulty.records())
    answer = httpx.post(
        f"{faulty.base_url}/responses",
        json={"model": "gpt-4o", "input": "hi", "user": name},
        headers=faulty.headers,
        timeout=20,
    )
    record = faulty.records(wait_for=before + 1)[-1]
    assert len(faulty.records()) == before + 1
    if status is None:
        return
    assert answer.status_code == status
    assert answer.headers["x-headgate-request-id"] == record["request_id"]
    assert answer.headers["x-headgate-upstream"] == "u0"
    assert record["status"] == status
    assert record["entries"][-1]["kind"] == kind
    assert answer.headers.get("x-should-retry") == retry
    if status >= 400 and name != "bad characters in an error":
        assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
        if code is not None:
            assert answer.json()["error"]["code"] == code
    if kind == "estimate":
        entry = record["entries"][-1]
        assert 0 <= entry["cost_lower_nanousd"] <= entry["cost_nanousd"] <= entry["cost_upper_nanousd"]
    if kind == "void":
        assert record["entries"][-1]["cost_nanousd"] == 0
    assert KEY not in answer.text


def test_an_unavailable_upstream_is_asked_once_more_within_the_budget(faulty):
    records = [record for record in faulty.records() if record["end_user"] == "unavailable"]
    assert {record["attempts"] for record in records} <= {1, 2}
    for record in records:
        assert [entry["kind"] for entry in record["entries"]] == ["void"] * record["attempts"]


def test_the_secret_of_the_upstream_is_nowhere(faulty):
    assert KEY not in faulty.log_path.read_text()
    assert KEY.encode() not in (faulty.data_dir / "headgate.db").read_bytes()
    assert KEY not in httpx.get(f"{faulty.url}/metrics").text
    for path in (faulty.data_dir / "journal").rglob("*.log"):
        assert KEY.encode() not in path.read_bytes()


def test_the_ledger_ties_after_all_of_it(faulty):
    assert faulty.check_ledger()["ok"]


# -- streams ----------------------------------------------------------------------------------

CREATED = b'event: response.created\ndata: {"type":"response.created","response":{"id":"resp_1","model":"gpt-4o"}}\n\n'
DELTA = b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","delta":"Hello"}\n\n'
DONE = (
    b"event: response.completed\ndata: "
    + json.dumps({"type": "response.completed", "response": json.loads(OK)}).encode()
    + b"\n\n"
)
HEAD = STREAM_HEAD.encode() + b"transfer-encoding: chunked\r\n\r\n"


CLOSED_HEAD = STREAM_HEAD.encode() + b"connection: close\r\n\r\n"


def piece(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


LARGE = b"event: response.output_text.delta\ndata: " + b"x" * 300_000

# name: (steps, what the client gets of them, the record's error_code); a cut stream gets an end of its own behind that.
STREAMS = {
    "bad characters": (
        chunked([CREATED, DELTA.replace(b"Hello", b"H\xe9"), DONE]),
        CREATED + DELTA.replace(b"Hello", b"H\xe9") + DONE,
        None,
    ),
    "reset": ([HEAD + piece(CREATED) + piece(DELTA), 0.05, "reset"], CREATED + DELTA, "upstream_disconnected"),
    "cut inside an event": (
        [HEAD + piece(CREATED) + piece(DELTA[:30]), 0.05, "close"],
        CREATED,
        "upstream_disconnected",
    ),
    "stalled": ([HEAD + piece(CREATED) + piece(DELTA), "hang"], CREATED + DELTA, "upstream_stalled"),
    "stalled inside an event": (
        [HEAD + piece(CREATED) + piece(DELTA[:60] + b"\n"), "hang"],
        CREATED,
        "upstream_stalled",
    ),
    "reset after the end": ([HEAD + piece(CREATED) + piece(DONE), 0.05, "reset"], CREATED + DONE, None),
    "without a terminal event": (chunked([CREATED, DELTA]), CREATED + DELTA, "upstream_disconnected"),
    "closed without a length": (
        [CLOSED_HEAD + CREATED + DELTA, 0.05, "close"],
        CREATED + DELTA,
        "upstream_disconnected",
    ),
    "whole, delimited by the end": ([CLOSED_HEAD + CREATED + DONE, 0.05, "close"], CREATED + DONE, None),
    "whole, without the last blank line": (chunked([CREATED, DONE[:-1]]), CREATED + DONE[:-1], None),
    "cut inside an event that is too large to hold": (
        [HEAD + piece(CREATED) + piece(LARGE), 0.05, "reset"],
        CREATED + LARGE,
        "upstream_disconnected",
    ),
}


@pytest.fixture(scope="module")
def streaming(tmp_path_factory):
    def play(seen):
        return STREAMS[json.loads(seen.body)["user"]][0]

    timeouts = {"timeouts": "{connect_s: 1, first_byte_s: 0.6, idle_s: 0.6}"}
    with (
        PlayedUpstream(play) as upstream,
        RunningGateway(tmp_path_factory.mktemp("streams"), config_for(upstream.base_url, **timeouts)) as gateway,
    ):
        yield gateway


@pytest.mark.parametrize("name", STREAMS)
def test_an_upstream_that_dies_mid_stream_never_looks_like_success(streaming, name):
    _, passed, code = STREAMS[name]
    before = len(streaming.records())
    received = b""
    ended = False
    try:
        with httpx.stream(
            "POST",
            f"{streaming.base_url}/responses",
            json={"model": "gpt-4o", "input": "hi", "user": name, "stream": True},
            headers=streaming.headers,
            timeout=20,
        ) as answer:
            for data in answer.iter_raw():
                received += data
        ended = True
    except httpx.RemoteProtocolError:
        pass
    assert received.startswith(passed)
    said = received.removeprefix(passed)
    if code is None:
        assert (ended, said) == (True, b"")
    elif not passed.endswith(b"\n\n"):
        assert (ended, said) == (False, b""), "part of an event is out: nothing can stand behind it"
    else:
        assert ended, "the connection is not to blame"
        name_line, data_line, *rest = said.split(b"\n")
        assert (name_line, rest) == (b"event: response.failed", [b"", b""])
        failed = json.loads(data_line.removeprefix(b"data: "))
        assert failed["response"]["id"] == "resp_1"
        assert failed["response"]["error"]["message"].startswith(f"{code}: ")
    record = streaming.records(wait_for=before + 1)[-1]
    assert (record["outcome"], record["error_code"]) == ("completed" if code is None else "failed", code)
    (entry,) = record["entries"]
    assert entry["kind"] == ("charge" if code is None else "estimate")
    assert streaming.metrics()["headgate_in_flight"] == 0


# -- several upstreams ------------------------------------------------------------------------


def test_an_unreachable_upstream_is_void_and_another_target_is_tried(tmp_path):
    with PlayedUpstream(lambda _: whole(OK)) as upstream:
        config = f"""
upstreams:
  dead: {{base_url: "http://127.0.0.1:1/v1"}}
  live: {{base_url: "{upstream.base_url}"}}
models:
  - name: fast
    targets: [{{upstream: dead, model: gpt-4o, weight: 10000}}, {{upstream: live, model: gpt-4.1-mini, weight: 1}}]
  - {{match: "*", upstream: dead}}
server: {{drain_delay_s: 0}}
"""
        with RunningGateway(tmp_path, config) as gateway:
            answer = httpx.post(
                f"{gateway.base_url}/responses",
                content=b'{"input" : "hi", "model" :  "fast" ,"x":null}',
                headers={**gateway.headers, "content-type": "application/json"},
            )
            assert answer.status_code == 200
            assert answer.headers["x-headgate-upstream"] == "live"
            # The alias is spliced in; every other byte is the client's.
            assert upstream.requests[0].body == b'{"input" : "hi", "model" :  "gpt-4.1-mini" ,"x":null}'
            record = gateway.records(wait_for=1)[0]
            assert [entry["kind"] for entry in record["entries"]] == ["void", "charge"]
            assert [entry["upstream"] for entry in record["entries"]] == ["dead", "live"]
            assert upstream.requests[0].headers["x-client-request-id"] == record["entries"][1]["attempt_id"]

            refused = httpx.post(
                f"{gateway.base_url}/responses", json={"model": "other", "input": "hi"}, headers=gateway.headers
            )
            assert (refused.status_code, refused.json()["error"]["code"]) == (502, "upstream_unreachable")
            assert refused.headers["retry-after"] == "2"
            assert "127.0.0.1" not in refused.text


def test_an_upstream_that_is_down_costs_none_of_the_calls_that_another_can_take(tmp_path):
    """However many there are: a call that was never sent burdens nobody, so no budget of retries is spent."""
    with PlayedUpstream(lambda _: whole(OK)) as upstream:
        config = f"""
upstreams:
  dead: {{base_url: "http://127.0.0.1:1/v1"}}
  live: {{base_url: "{upstream.base_url}"}}
models:
  - name: fast
    targets: [{{upstream: dead, model: gpt-4o, weight: 9}}, {{upstream: live, model: gpt-4o, weight: 1}}]
server: {{drain_delay_s: 0}}
"""
        with RunningGateway(tmp_path, config) as gateway:
            body = {"model": "fast", "input": "hi"}
            statuses = [
                httpx.post(f"{gateway.base_url}/responses", json=body, headers=gateway.headers).status_code
                for _ in range(40)
            ]
            assert statuses == [200] * 40
            assert len(upstream.requests) == 40


def test_only_listed_headers_reach_the_upstream(tmp_path):
    with PlayedUpstream(lambda _: whole(OK)) as upstream:
        config = config_for(upstream.base_url, organization="org-ours", forward_headers="[x-trace-me]")
        with RunningGateway(tmp_path, config) as gateway:
            httpx.post(
                f"{gateway.base_url}/responses?beta=true&include%5B%5D=a",
                json={"model": "gpt-4o", "input": "hi"},
                headers={
                    **gateway.headers,
                    "cookie": "a=b",
                    "openai-organization": "org-theirs",
                    "x-forwarded-for": "1.2.3.4",
                    "x-headgate-tags": "a=b",
                    "x-stainless-lang": "python",
                    "x-trace-me": "yes",
                    "x-other": "no",
                    "accept-encoding": "gzip",
                    "idempotency-key": "k1",
                },
            ).raise_for_status()
            (seen,) = upstream.requests
            assert seen.target == "/v1/responses?beta=true&include%5B%5D=a"
            assert seen.headers["authorization"] == f"Bearer {KEY}"
            assert seen.headers["accept-encoding"] == "identity"
            assert seen.headers["openai-organization"] == "org-ours"
            assert (seen.headers["x-trace-me"], seen.headers["x-stainless-lang"]) == ("yes", "python")
            assert len(seen.headers["idempotency-key"]) == 64
            assert not {"cookie", "x-forwarded-for", "x-headgate-tags", "x-other"} & set(seen.headers)


def test_the_upstreams_own_headers_pass_but_for_the_listed_ones(tmp_path):
    extra = (
        "set-cookie: a=b\r\nalt-svc: h3\r\nopenai-organization: org-1\r\nopenai-project: p\r\nx-request-id: req_7\r\n"
        "x-ratelimit-limit-requests: 15000\r\nx-headgate-upstream: forged\r\nopenai-processing-ms: 12\r\n"
    )
    with PlayedUpstream(lambda _: whole(OK, JSON_HEAD + extra)) as upstream:
        with RunningGateway(tmp_path, config_for(upstream.base_url)) as gateway:
            made = gateway.json("keys", "create", "--team", "default", "--name", "l", "--requests-per-minute", "5")
            body = {"model": "gpt-4o", "input": "hi"}
            plain = httpx.post(f"{gateway.base_url}/responses", json=body, headers=gateway.headers)
            limited = httpx.post(
                f"{gateway.base_url}/responses", json=body, headers={"authorization": f"Bearer {made['key']}"}
            )
        for answer in (plain, limited):
            assert not {"set-cookie", "alt-svc", "openai-organization", "openai-project"} & set(answer.headers)
            assert answer.headers["x-request-id"] == "req_7"
            assert answer.headers["openai-processing-ms"] == "12"
            assert answer.headers["x-headgate-upstream"] == "u0"
            assert answer.headers["x-headgate-cost-usd"] == "0.0000975"
        assert plain.headers["x-ratelimit-limit-requests"] == "15000"
        assert limited.headers["x-ratelimit-limit-requests"] == "5"
        assert limited.headers["x-ratelimit-remaining-requests"] == "4"
        assert limited.headers["x-upstream-ratelimit-limit-requests"] == "15000"
