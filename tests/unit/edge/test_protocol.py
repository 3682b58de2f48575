"""Request heads and chunked bodies as bytes."""

from __future__ import annotations

import random

import httptools
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.errors import BodyTooLarge, GatewayError, HeadersTooLarge, InvalidRequest, URITooLong
from app.edge.protocol import ChunkedBody, ServerLimits, check_partial_head, parse_head

LIMITS = ServerLimits()
HEAD = (
    b"POST /v1/a%20b/c?x=%5B1%5D&y HTTP/1.1\r\nHost: gate:4000\r\nContent-Type: application/json\r\n"
    b"X-Empty:\r\nx-Spaced:\t two  words \r\nContent-Length: 12\r\nConnection: Keep-Alive, TE\r\n\r\n"
)


def test_a_head_is_taken_apart():
    head = parse_head(HEAD, LIMITS)
    assert (head.method, head.minor_version) == ("POST", 1)
    assert (head.raw_path, head.path, head.query) == (b"/v1/a%20b/c", "/v1/a b/c", b"x=%5B1%5D&y")
    assert (head.content_length, head.chunked, head.keep_alive, head.expects_continue) == (12, False, True, False)
    assert head.headers == [
        (b"host", b"gate:4000"),
        (b"content-type", b"application/json"),
        (b"x-empty", b""),
        (b"x-spaced", b"two  words"),
        (b"content-length", b"12"),
        (b"connection", b"Keep-Alive, TE"),
    ]


@pytest.mark.parametrize(
    ("headers", "version", "attribute", "value"),
    [
        (b"Connection: close\r\n", b"1.1", "keep_alive", False),
        (b"Connection: x, CLOSE\r\n", b"1.1", "keep_alive", False),
        (b"Connection: x\r\nConnection: close\r\n", b"1.1", "keep_alive", False),
        (b"Connection: closed\r\n", b"1.1", "keep_alive", True),
        (b"Connection: keep-alive\r\n", b"1.0", "keep_alive", False),
        (b"Expect: 100-Continue\r\n", b"1.1", "expects_continue", True),
        (b"Expect: 100-continue\r\n", b"1.0", "expects_continue", False),
        (b"Expect: other\r\n", b"1.1", "expects_continue", False),
        (b"Transfer-Encoding: Chunked\r\n", b"1.1", "chunked", True),
        (b"Content-Length: 67108864\r\n", b"1.1", "content_length", 64 * 1024 * 1024),
    ],
)
def test_what_the_server_reads_of_the_headers(headers, version, attribute, value):
    head = parse_head(b"POST / HTTP/" + version + b"\r\nHost: t\r\n" + headers + b"\r\n", LIMITS)
    assert getattr(head, attribute) == value


@pytest.mark.parametrize(
    "host", [b"t", b"T.example:1", b"10.0.0.1:65535", b"[::1]", b"[fe80::1]:80", b"a_b", b"xn--bcher-kva"]
)
def test_good_hosts(host):
    parse_head(b"GET / HTTP/1.1\r\nHost: " + host + b"\r\n\r\n", LIMITS)


@pytest.mark.parametrize(
    "host",
    [b"", b"x/#@evil", b"a@b", b"a b", b"a,b", b"a:b", b"a:123456", b"[::1", b"::1", b"a?b", b"a\\b", b"a%00b", b"<a>"],
)
def test_bad_hosts(host):
    with pytest.raises(InvalidRequest):
        parse_head(b"GET / HTTP/1.1\r\nHost: " + host + b"\r\n\r\n", LIMITS)


def test_sizes_are_met_to_the_byte():
    limits = ServerLimits(header_bytes_max=100, headers_max=3, target_bytes_max=10, body_bytes_max=5)

    def head(target: bytes = b"/", *headers: bytes) -> bytes:
        return b"\r\n".join([b"GET " + target + b" HTTP/1.1", b"Host: t", *headers, b"", b""])

    parse_head(head(b"/" * 10), limits)
    with pytest.raises(URITooLong):
        parse_head(head(b"/" * 11), limits)
    parse_head(head(b"/", b"A: 1", b"B: 2"), limits)
    with pytest.raises(HeadersTooLarge):
        parse_head(head(b"/", b"A: 1", b"B: 2", b"C: 3"), limits)
    room = 100 - len(b"Host: t\r\nA: \r\n\r\n")
    parse_head(head(b"/", b"A: " + b"a" * room), limits)
    with pytest.raises(HeadersTooLarge):
        parse_head(head(b"/", b"A: " + b"a" * (room + 1)), limits)
    parse_head(head(b"/", b"Content-Length: 5"), limits)
    with pytest.raises(BodyTooLarge):
        parse_head(head(b"/", b"Content-Length: 6"), limits)


def test_no_part_of_a_good_head_is_refused():
    for size in range(1, len(HEAD) - 3):
        for fresh_at in range(size + 1):
            check_partial_head(HEAD[:size], fresh_at, LIMITS)


@pytest.mark.parametrize(
    ("held", "error"),
    [
        (b"GET /x\r\n", InvalidRequest),
        (b"GET / HTTP/1.1\n", InvalidRequest),
        (b"GET / HTTP/1.1\r\nA: b\n", InvalidRequest),
        (b"\n", InvalidRequest),
        (b"\x16\x03\x01", InvalidRequest),
        (b"GET /" + b"a" * 17_000, URITooLong),
        (b"G" * 17_000, URITooLong),
        (b"GET / HTTP/1.1\r\nA: " + b"a" * 33_000, HeadersTooLarge),
    ],
)
def test_a_part_that_can_never_be_good_is_refused_at_once(held, error):
    with pytest.raises(error):
        check_partial_head(held, 0, LIMITS)


def test_a_line_end_in_two_pieces_is_no_bare_line_feed():
    check_partial_head(b"GET / HTTP/1.1\r\n", len(b"GET / HTTP/1.1\r"), LIMITS)
    with pytest.raises(InvalidRequest):
        check_partial_head(b"GET / HTTP/1.1\r\nA\n", len(b"GET / HTTP/1.1\r\n"), LIMITS)


PIECES = st.lists(
    st.sampled_from([b"GET ", b"POST ", b"/", b" HTTP/1.1", b"\r\n", b"\r\n", b"Host: t", b"\n", b"\r", b": ", b"a"])
    | st.sampled_from([b"Content-Length: 1", b"Transfer-Encoding: chunked", b"Connection: upgrade", b"Upgrade: x"])
    | st.binary(max_size=3),
    max_size=12,
)


@settings(max_examples=400, deadline=None)
@given(PIECES)
def test_any_head_is_parsed_or_refused_in_the_apis_shape(pieces):
    for data in (b"".join(pieces) + b"\r\n\r\n", b"GET / HTTP/1.1\r\nHost: t\r\n" + b"".join(pieces) + b"\r\n\r\n"):
        try:
            head = parse_head(data[: data.index(b"\r\n\r\n") + 4], LIMITS)
        except GatewayError as error:
            assert error.status in (400, 405, 413, 414, 431)
        else:
            assert len([name for name, _ in head.headers if name == b"host"]) == 1
            assert not (head.chunked and head.content_length)


# Chunked bodies.


def decode(pieces: list[bytes], body_bytes_max: int = 1000) -> tuple[bytes, bytes, bool]:
    """The body, what follows it, and whether it is whole."""
    body = ChunkedBody(body_bytes_max)
    parts: list[bytes] = []
    rest = b""
    for piece in pieces:
        if body.done:
            rest += piece
        else:
            rest += body.feed(piece, parts)
    return b"".join(parts), rest, body.done


@settings(max_examples=300, deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=20), max_size=8), st.randoms(use_true_random=False))
def test_a_chunked_body_is_read_in_any_pieces(chunks, dice):
    data = b""
    for chunk in chunks:
        size = dice.choice([b"%x", b"%X", b"%04x"]) % len(chunk)
        data += size + dice.choice([b"", b";a", b";a=b", b';a="b c"']) + b"\r\n" + chunk + b"\r\n"
    data += b"0\r\n" + dice.choice([b"", b"X-Trailer: 1\r\n", b"A: b\r\nC:\r\n"]) + b"\r\n"
    stream = data + b"GET / HTTP/1.1\r\n"
    cuts = sorted(dice.randint(0, len(stream)) for _ in range(dice.randint(0, 30)))
    pieces = [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert decode(pieces) == (b"".join(chunks), b"GET / HTTP/1.1\r\n", True)


class Judge:
    """llhttp's view of a chunked body."""

    def __init__(self) -> None:
        self.body = b""
        self.done = 0

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.done += 1


CHUNK_PIECES = st.lists(
    st.sampled_from(
        [b"0\r\n\r\n", b"2\r\nab\r\n", b"2\r\n", b"ab", b"\r\n", b"\n", b"\r", b"0\r\n", b"A: b\r\n", b"a:"]
    )
    | st.sampled_from([b"1;x\r\na\r\n", b"F", b";", b" ", b"0x", b"-", b"\x00", b"01\r\n", b"00\r\n\r\n", b"10\r\n"]),
    max_size=8,
)


@settings(max_examples=600, deadline=None)
@given(CHUNK_PIECES, st.randoms(use_true_random=False))
def test_nothing_is_read_as_a_body_that_llhttp_reads_otherwise(pieces, dice):
    data = b"".join(pieces)
    try:
        body, rest, done = decode([data])
    except GatewayError:
        # Stricter than llhttp is fine; but in one piece or in many must be the same.
        with pytest.raises(GatewayError):
            decode([data[at : at + 1] for at in range(len(data))])
        return
    assert decode([data[at : at + 1] for at in range(len(data))]) == (body, rest, done)
    judge = Judge()
    parser = httptools.HttpRequestParser(judge)
    parser.feed_data(b"POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n")
    try:
        parser.feed_data(data[: len(data) - len(rest)])
    except httptools.HttpParserError:
        # It refuses a line before its end, which is still to come here.
        assert not done
    else:
        assert (judge.body, judge.done) == (body, int(done))


def test_framing_is_paid_for_by_the_body():
    with pytest.raises(InvalidRequest, match="framing"):
        decode([b"1;" + b"x" * 1000 + b"\r\na\r\n"] * 20)
    with pytest.raises(InvalidRequest, match="framing"):
        decode([b"0\r\n" + b"A: %b\r\n" % (b"x" * 1000) * 20])
    with pytest.raises(InvalidRequest, match="framing"):
        decode([b"1\r\na\r\n" * 6_000], 6_000)
    body, _, _ = decode([b"8\r\n01234567\r\n" * 10_000], 80_000)
    assert len(body) == 80_000


def test_a_line_without_end_is_not_kept():
    body = ChunkedBody(1000)
    with pytest.raises(InvalidRequest):
        for _ in range(10):
            body.feed(b"1;" + b"x" * 1000, [])


def test_a_body_beyond_the_limit_is_refused_before_it_comes():
    assert decode([b"3e8\r\n" + b"x" * 1000 + b"\r\n0\r\n\r\n"])[2]
    with pytest.raises(BodyTooLarge):
        decode([b"3e9\r\n"])
    with pytest.raises(BodyTooLarge):
        decode([b"1f4\r\n" + b"x" * 500 + b"\r\n1f5\r\n"])


def test_pieces_may_be_of_any_size():
    dice = random.Random(3)
    data = b"ffff\r\n" + b"x" * 65535 + b"\r\n0\r\n\r\n"
    pieces = []
    while data:
        size = dice.randint(1, 5000)
        pieces.append(data[:size])
        data = data[size:]
    assert decode(pieces, 70_000) == (b"x" * 65535, b"", True)
