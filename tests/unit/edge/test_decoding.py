"""Encoded bodies: what comes out, what is refused, and how much is held meanwhile."""

from __future__ import annotations

import gzip
import zlib

import brotli
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.errors import BodyTooLarge, InvalidRequest, UnsupportedContentEncoding
from app.edge import decoding
from app.edge.body import BodyBudget, BodyReader
from app.edge.decoding import BodyDecoder, encodings_of
from tests.unit.edge.test_body import Sender

QUICK = settings(max_examples=60, deadline=None)
MIB = 1024 * 1024


def raw_deflate(data: bytes) -> bytes:
    encoder = zlib.compressobj(wbits=-15)
    return encoder.compress(data) + encoder.flush()


def zstd_streamed(data: bytes) -> bytes:
    encoder = zstandard.ZstdCompressor().compressobj()
    return encoder.compress(data) + encoder.flush()


ENCODERS = {
    "gzip": ("gzip", gzip.compress),
    "deflate": ("deflate", zlib.compress),
    "raw deflate": ("deflate", raw_deflate),
    "br": ("br", lambda data: brotli.compress(data, quality=4)),
    "zstd": ("zstd", zstandard.compress),
    "zstd streamed": ("zstd", zstd_streamed),
}


def decoded(encodings: tuple[str, ...], body: bytes, bytes_max: int = 100 * MIB, step: int = 1000) -> bytes:
    decoder = BodyDecoder(encodings, body, bytes_max=bytes_max)
    parts = []
    while not decoder.ended:
        parts.append(decoder.take(step))
    return b"".join(parts)


@pytest.mark.parametrize("kind", ENCODERS)
@QUICK
@given(data=st.binary(max_size=3000), times=st.integers(1, 40))
def test_what_was_encoded_comes_out(kind, data, times):
    encoding, encode = ENCODERS[kind]
    assert decoded((encoding,), encode(data * times)) == data * times


@pytest.mark.parametrize("kind", ENCODERS)
def test_pieces_may_end_anywhere(kind, monkeypatch):
    encoding, encode = ENCODERS[kind]
    encoded = encode(b"abc" * 50 + bytes(range(200)))
    for size in range(1, len(encoded) + 1):
        monkeypatch.setattr(decoding, "PIECE_BYTES", size)
        monkeypatch.setattr(decoding, "ZSTD_INPUT_BYTES", size)
        assert decoded((encoding,), encoded) == b"abc" * 50 + bytes(range(200))


@pytest.mark.parametrize("kind", ENCODERS)
def test_what_is_cut_short_or_goes_on_is_broken(kind):
    encoding, encode = ENCODERS[kind]
    encoded = encode(b'{"model":"m"}' * 20)
    for size in range(len(encoded)):
        with pytest.raises(InvalidRequest):
            decoded((encoding,), encoded[:size])
    with pytest.raises(InvalidRequest):
        decoded((encoding,), encoded + b"garbage")


@pytest.mark.parametrize("kind", ENCODERS)
def test_a_bomb_is_refused_where_it_bursts(kind):
    encoding, encode = ENCODERS[kind]
    bomb = encode(bytes(64 * MIB))
    decoder = BodyDecoder((encoding,), bomb, bytes_max=1000 * MIB)
    size = 0
    with pytest.raises(BodyTooLarge):
        while True:
            size += len(decoder.take(1000))
    assert size <= decoding.DECODED_BYTES_FREE + decoding.DECODED_PER_ENCODED_MAX * len(bomb)


def test_a_bomb_in_a_bomb_is_refused_inside():
    bomb = gzip.compress(zstandard.compress(bytes(512 * MIB)))
    with pytest.raises(BodyTooLarge):
        decoded(("zstd", "gzip"), bomb)


def test_the_bound_is_of_decoded_bytes():
    body = gzip.compress(bytes(1000))
    assert len(decoded(("gzip",), body, bytes_max=1000)) == 1000
    with pytest.raises(BodyTooLarge):
        decoded(("gzip",), body, bytes_max=999)


def test_members_and_frames_are_joined_and_bounded():
    assert decoded(("gzip",), gzip.compress(b"a") + gzip.compress(b"b")) == b"ab"
    assert decoded(("zstd",), zstandard.compress(b"a") + zstandard.compress(b"b")) == b"ab"
    for encoding, encode in (("gzip", gzip.compress), ("zstd", zstandard.compress)):
        with pytest.raises(InvalidRequest):
            decoded((encoding,), encode(b"") * (decoding.MEMBERS_MAX + 1))


def test_a_zstd_window_is_bounded():
    parameters = zstandard.ZstdCompressionParameters(window_log=24, write_content_size=False)
    encoder = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    encoded = encoder.compress(b"hi") + encoder.flush()
    with pytest.raises(InvalidRequest):
        decoded(("zstd",), encoded)


def test_which_encodings_are_taken():
    assert encodings_of(b" GZip , identity") == ("gzip",)
    assert encodings_of(b"x-gzip") == ("gzip",)
    assert encodings_of(b"identity") == ()
    assert encodings_of(b"br, zstd") == ("br", "zstd")
    for value in (b"compress", b"gzip, gzip", b"gzip, br, zstd", b"gzip;q=1"):
        with pytest.raises(UnsupportedContentEncoding):
            encodings_of(value)


@pytest.mark.parametrize("size", [100, 3 * MIB])
async def test_what_is_decoded_counts_as_held(size):
    body = gzip.compress(bytes(range(100)) * (size // 100), 1)
    budget = BodyBudget(10 * MIB)
    reader = BodyReader(Sender(body).receive, budget, Sender(), bytes_max=4 * MIB, upload_bytes_max=1)
    reader.encodings = ("gzip",)
    read = await reader.read()
    assert len(read) == budget.held == size // 100 * 100
    reader.close()
    assert budget.held == 0
