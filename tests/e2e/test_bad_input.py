"""Bad input never makes a 500 and never a traceback: random bodies, headers, paths and methods, and a table."""

from __future__ import annotations

import gzip
import json
import socket
import string
import time
import zlib

import brotli
import httpx
import psutil
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fakes.gateway import RunningGateway

QUICK = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
FIELDS = (
    "model input messages stream store temperature max_output_tokens max_tokens n user previous_response_id tools "
    "conversation prompt metadata background service_tier reasoning text include stream_options safety_identifier"
).split()


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    with RunningGateway(tmp_path_factory.mktemp("bad")) as gateway:
        gateway.client = httpx.Client(base_url=gateway.url, headers=gateway.headers, timeout=30)
        yield gateway
        gateway.client.close()
        text = gateway.log_path.read_text()
        assert "Traceback" not in text
        assert '"internal_error"' not in text
        assert gateway.metrics().get('headgate_refused_total{code="internal_error"}', 0) == 0
        assert gateway.check_ledger()["ok"]


def post(gateway: RunningGateway, body: bytes, path: str = "/v1/responses", **headers: str) -> httpx.Response:
    return gateway.client.post(path, content=body, headers={"content-type": "application/json", **headers})


def check_shape(answer: httpx.Response) -> None:
    assert answer.status_code != 500, answer.text
    if answer.status_code >= 400:
        error = answer.json()["error"]
        assert set(error) >= {"message", "type", "param", "code"}
        assert "Traceback" not in answer.text
        assert len(answer.text) < 4000


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)


@QUICK
@given(body=st.binary(max_size=200) | JSON_VALUES.map(lambda value: json.dumps(value).encode()))
def test_random_bodies(gateway, body):
    for path in ("/v1/responses", "/v1/chat/completions", "/v1/embeddings"):
        check_shape(post(gateway, body, path))


@QUICK
@given(fields=st.dictionaries(st.sampled_from(FIELDS), JSON_VALUES, max_size=8), keep_model=st.booleans())
def test_bodies_of_the_right_names_and_the_wrong_types(gateway, fields, keep_model):
    body = {**fields, "model": "sim-mini"} if keep_model else fields
    for path in ("/v1/responses", "/v1/chat/completions", "/v1/embeddings"):
        check_shape(post(gateway, json.dumps(body).encode(), path))


@QUICK
@given(
    headers=st.dictionaries(
        st.text(string.ascii_letters + "-", min_size=1, max_size=20).map(lambda name: f"x-{name}"),
        st.text(string.printable.strip(), max_size=60),
        max_size=5,
    ),
    tags=st.text(string.printable.strip(), max_size=60),
    kind=st.sampled_from(
        ["application/json", "text/plain", "", "application/json; charset=latin-1", "multipart/form-data"]
    ),
)
def test_random_headers(gateway, headers, tags, kind):
    body = b'{"model":"sim-mini","input":"[[sim: tokens=2]] hi"}'
    answer = gateway.client.post(
        "/v1/responses", content=body, headers={**headers, "x-headgate-tags": tags, "content-type": kind}
    )
    check_shape(answer)


@QUICK
@given(
    method=st.sampled_from(["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"]),
    path=st.text(string.ascii_letters + string.digits + "/.%-_~;:@&=+$,!*'()", max_size=60),
    query=st.text(string.ascii_letters + string.digits + "/%?&=+", max_size=30),
)
def test_random_methods_and_paths(gateway, method, path, query):
    request = f"{method} /{path}{'?' if query else ''}{query} HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as sock:
        sock.sendall(request.encode())
        received = b""
        while data := sock.recv(65536):
            received += data
    status = int(received.split(b" ", 2)[1])
    assert status != 500
    assert status < 600
    assert b"Traceback" not in received


def deep(depth: int) -> bytes:
    return b'{"model":"sim-mini","input":' + b"[" * depth + b"]" * depth + b"}"


OK = b'{"model":"sim-mini","input":"hi"'

# threats.md 3.2, by its ids.
PARSING = {
    "J1": (b'{"model":"sim-mini","model":"gpt-5","input":"hi"}', 400, "ambiguous_json"),
    "J1 other case": (b'{"model":"sim-mini","Model":"gpt-5","input":"hi"}', 400, "ambiguous_json"),
    "J2 escaped": (b'{"model":"sim-mini","mod\\u0065l":"gpt-5","input":"hi"}', 400, "ambiguous_json"),
    "J2 nested": (OK + b',"tools":[{"type":"function","name":"a","name":"b"}]}', 400, "ambiguous_json"),
    "J2 deep": (OK + b',"metadata":{"a":{"b":1,"b":2}}}', 400, "ambiguous_json"),
    "J3 nan": (OK + b',"temperature":NaN}', 400, "invalid_json"),
    "J3 infinity": (OK + b',"temperature":-Infinity}', 400, "invalid_json"),
    "J3 1e400": (OK + b',"temperature":1e400}', 400, "invalid_json"),
    "J4 exponent": (OK + b',"max_output_tokens":1e3}', 400, "invalid_request"),
    "J4 true": (OK + b',"max_output_tokens":true}', 400, "invalid_request"),
    "J4 text": (OK + b',"max_output_tokens":"5"}', 400, "invalid_request"),
    "J4 negative": (OK + b',"max_output_tokens":-1}', 400, "invalid_request"),
    "J4 zero": (OK + b',"max_output_tokens":0}', 400, "invalid_request"),
    "J4 2^63": (OK + b',"max_output_tokens":9223372036854775808}', 400, None),
    "J4 5000 digits": (OK + b',"max_output_tokens":' + b"9" * 5000 + b"}", 400, None),
    "J5 900": (deep(900), 400, "invalid_json"),
    "J5 2000": (deep(2000), 400, "invalid_json"),
    "J5 200000": (deep(200_000), 400, "invalid_json"),
    "J6": (b'{"model":"sim-mini","input":"\\ud800"}', 400, "invalid_json"),
    "J7 utf-8": (b'{"model":"sim-mini","input":"\xff"}', 400, "invalid_json"),
    "J7 overlong": (b'{"model":"sim-mini","input":"\xc0\xaf"}', 400, "invalid_json"),
    "J7 bom": (b"\xef\xbb\xbf" + OK + b"}", 400, "invalid_json"),
    "J7 utf-16": ('{"model":"sim-mini","input":"hi"}'.encode("utf-16"), 400, "invalid_json"),
    "J13 trailing": (OK + b"}{}", 400, "invalid_json"),
    "J13 comment": (OK + b"/* */}", 400, "invalid_json"),
    "J13 quotes": (b"{'model':'sim-mini'}", 400, "invalid_json"),
    "J13 list": (b"[]", 400, "invalid_request"),
    "J14 nul": (b'{"model":"sim-mini\\u0000","input":"hi"}', 404, "model_not_found"),
    "J17 text": (OK + b',"stream":"true"}', 400, "invalid_request"),
    "J17 number": (OK + b',"stream":1}', 400, "invalid_request"),
    "no model": (b'{"input":"hi"}', 400, "invalid_request"),
    "null model": (b'{"model":null,"input":"hi"}', 400, "invalid_request"),
    "model of another type": (b'{"model":5,"input":"hi"}', 400, "invalid_request"),
    "empty": (b"", 400, "invalid_json"),
    "background": (OK + b',"background":"yes"}', 400, "invalid_request"),
    "an id of its own": (OK + b',"request_id":"resp_1"}', 400, "invalid_request"),
    "spaces are fine": (b' { "model" : "sim-mini" ,\n "input" : "[[sim: tokens=2]] hi" } ', 200, None),
    "J15 unknown fields pass": (OK + b',"api_base":"http://127.0.0.1:1","user_config":{"a":1}}', 200, None),
}


@pytest.mark.parametrize("name", PARSING)
def test_parser_differentials(gateway, name):
    body, status, code = PARSING[name]
    answer = post(gateway, body)
    assert answer.status_code == status, answer.text
    check_shape(answer)
    if code is not None:
        assert answer.json()["error"]["code"] == code
    if code == "invalid_request" and name.startswith(("J4", "J17")):
        assert answer.json()["error"]["param"] in {"max_output_tokens", "stream"}


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"content-type": "text/plain"}, "unsupported_media_type"),
        ({"content-type": "multipart/form-data; boundary=x"}, "unsupported_media_type"),
        ({"content-type": "application/json; charset = latin-1"}, "unsupported_media_type"),
        ({"content-type": "application/json; charset=utf-8; charset=utf-16"}, "unsupported_media_type"),
        ({"content-encoding": "compress"}, "unsupported_content_encoding"),
        ({"content-encoding": "gzip, br, zstd"}, "unsupported_content_encoding"),
        ({"content-encoding": "gzip, gzip"}, "unsupported_content_encoding"),
    ],
)
def test_bodies_of_another_kind_are_415(gateway, headers, code):
    answer = post(gateway, OK + b"}", **headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (415, code)


@pytest.mark.parametrize(
    "parameters",
    ["; charset=utf-8; x=y", "; charset=utf-8 ;", ";", '; x=y; Charset="UTF-8"', "; charset = utf-8", "; x"],
)
def test_parameters_beside_the_charset_are_nobodys_concern(gateway, parameters):
    answer = post(gateway, OK + b',"max_output_tokens":2}', **{"content-type": f"application/json{parameters}"})
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("kind", ["gzip", "deflate", "br", "zstd"])
def test_a_body_that_is_not_what_its_encoding_says_is_400(gateway, kind):
    answer = post(gateway, OK + b"}", **{"content-encoding": kind})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_request")


def test_encoded_bodies_are_served_and_a_bomb_is_413(gateway):
    body = OK + b',"max_output_tokens":2}'
    frame = zstandard.ZstdCompressor(level=3).compressobj()
    streamed = frame.compress(body) + frame.flush()
    for encoding, encoded in (("zstd", streamed), ("gzip", gzip.compress(body)), ("br", brotli.compress(body))):
        assert post(gateway, encoded, **{"content-encoding": encoding}).status_code == 200
    before = psutil.Process(gateway.process.pid).memory_info().rss
    bomb = b" " * (256 * 2**20)
    for encoding, encoded in (
        ("zstd", zstandard.compress(bomb)),
        ("gzip", gzip.compress(bomb, 1)),
        ("deflate", zlib.compress(bomb, 1)),
        ("br", brotli.compress(bomb, quality=1)),
    ):
        began = time.monotonic()
        answer = post(gateway, encoded, **{"content-encoding": encoding})
        assert (answer.status_code, answer.json()["error"]["code"]) == (413, "body_too_large"), encoding
        assert time.monotonic() - began < 20
    assert psutil.Process(gateway.process.pid).memory_info().rss - before < 180 * 2**20


def test_a_million_keys_do_not_stop_the_others(gateway):
    """J8: the large body is parsed off the event loop."""
    body = OK + b"," + b",".join(b'"k%d":0' % number for number in range(1_000_000)) + b"}"
    answer = post(gateway, body)
    check_shape(answer)
    assert gateway.client.get("/healthz").elapsed.total_seconds() < 5


def test_models_that_clients_make_up_are_no_metric_labels(gateway):
    def series() -> int:
        return len(gateway.metrics())

    post(gateway, b'{"model":"gpt-4o","input":"[[sim: error=404]] hi"}')
    before = series()
    for number in range(30):
        post(gateway, b'{"model":"made-up-%d","input":"[[sim: error=404]] hi"}' % number)
    assert series() <= before + 5
