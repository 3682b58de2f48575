"""Encoded request bodies, decoded: gzip, deflate, br and zstd, under a bound and never far ahead of it.

Each encoding is a generator over pieces whose outputs are bounded, so that a chain of them holds no more than a
few pieces, and whoever counts can stop a bomb where it bursts.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator

import brotli  # type: ignore[import-untyped]
import zstandard

from app.core.errors import BodyTooLarge, Headers, InvalidRequest, UnsupportedContentEncoding

DECODED_BYTES_FREE = 1024 * 1024
"""So much any body may decode to."""
DECODED_PER_ENCODED_MAX = 100
"""And beyond that so many times its encoded size: conversations in JSON shrink to a tenth, bombs to a thousandth."""

ENCODINGS_MAX = 2
PIECE_BYTES = 64 * 1024
"""The output of one step, where the decoder can be told."""
ZSTD_INPUT_BYTES = 256
"""zstd cannot be told: four bytes of it can be a block of 128 KiB, so these at once are 8 MiB at the most."""
ZSTD_WINDOW_BYTES_MAX = 8 * 1024 * 1024
"""RFC 9659: what a decoder of this content-encoding has to hold, and nobody may ask for more."""
MEMBERS_MAX = 1000
"""Members of a gzip body, frames of a zstd one: each makes a decoder, also where it is empty."""

_GZIP = 16 + zlib.MAX_WBITS
_ZLIB = zlib.MAX_WBITS
_RAW = -zlib.MAX_WBITS

Pieces = Iterator[bytes]


class BodyDecoder:
    """A body being decoded. May be used by one thread after another."""

    def __init__(self, encodings: tuple[str, ...], encoded: bytes, *, bytes_max: int) -> None:
        """``encodings`` in the order in which they were applied."""
        most = min(bytes_max, DECODED_BYTES_FREE + DECODED_PER_ENCODED_MAX * len(encoded))
        pieces = _cut(encoded, PIECE_BYTES)
        for encoding in reversed(encodings):
            pieces = _bounded(_DECODERS[encoding](pieces), most)
        self._pieces = pieces
        self.ended = False

    def __repr__(self) -> str:
        return f"BodyDecoder(ended={self.ended})"

    def take(self, bytes_wanted: int) -> bytes:
        """At least so much more, unless it is ``ended``. Raises BodyTooLarge, and InvalidRequest for what is broken."""
        taken: list[bytes] = []
        size = 0
        for piece in self._pieces:
            taken.append(piece)
            size += len(piece)
            if size >= bytes_wanted:
                break
        else:
            self.ended = True
        return taken[0] if len(taken) == 1 else b"".join(taken)


def encodings_of(value: bytes) -> tuple[str, ...]:
    """What a content-encoding header names, in the order in which it was applied.

    Raises UnsupportedContentEncoding; more than two, or one of them twice, is nothing that a client has a use for.
    """
    found = tuple(name for token in value.decode("latin-1").split(",") if (name := token.strip().lower()))
    found = tuple(name.removeprefix("x-") if name == "x-gzip" else name for name in found if name != "identity")
    if len(found) > ENCODINGS_MAX or len(set(found)) != len(found) or not _DECODERS.keys() >= set(found):
        raise UnsupportedContentEncoding(headers=accepted())
    return found


def accepted() -> Headers:
    """RFC 9110, 15.5.16: what would have been taken."""
    return [(b"accept-encoding", ", ".join(_DECODERS).encode())]


def _cut(data: bytes, size: int) -> Pieces:
    view = memoryview(data)
    return (bytes(view[at : at + size]) for at in range(0, len(data), size))


def _bounded(pieces: Pieces, bytes_max: int) -> Pieces:
    size = 0
    for piece in pieces:
        size += len(piece)
        if size > bytes_max:
            raise BodyTooLarge("The decoded request body is too large, or too large for its encoded size.")
        yield piece


def _broken(encoding: str) -> InvalidRequest:
    return InvalidRequest(f"The body is not whole and valid {encoding}.")


def _gunzip(pieces: Pieces) -> Pieces:
    return _inflate(pieces, _GZIP, members_max=MEMBERS_MAX, encoding="gzip")


def _undeflate(pieces: Pieces) -> Pieces:
    """RFC 9110 says that it is zlib's format, and some clients send what is inside of it."""
    head = b""
    for piece in pieces:
        head += piece
        if len(head) > 1:
            break
    # No deflate stream that an encoder makes begins like this: it would be a stored block with bits in its padding.
    is_zlib = len(head) > 1 and head[0] & 0x0F == zlib.DEFLATED and int.from_bytes(head[:2]) % 31 == 0
    yield from _inflate(_after(head, pieces), _ZLIB if is_zlib else _RAW, members_max=1, encoding="deflate")


def _after(head: bytes, pieces: Pieces) -> Pieces:
    yield head
    yield from pieces


def _inflate(pieces: Pieces, window: int, *, members_max: int, encoding: str) -> Pieces:
    decoder = zlib.decompressobj(window)
    members = 1
    for piece in pieces:
        rest = piece
        while rest or not decoder.eof:
            if decoder.eof:
                members += 1
                if members > members_max:
                    raise _broken(encoding)
                decoder = zlib.decompressobj(window)
            try:
                decoded = decoder.decompress(rest, PIECE_BYTES)
            except zlib.error:
                raise _broken(encoding) from None
            if decoded:
                yield decoded
            rest = decoder.unused_data if decoder.eof else decoder.unconsumed_tail
            if not rest and len(decoded) < PIECE_BYTES:
                break
    if not decoder.eof:
        raise _broken(encoding)


def _unbrotli(pieces: Pieces) -> Pieces:
    decoder = brotli.Decompressor()
    for piece in pieces:
        rest = piece
        while True:
            try:
                # Refuses what follows the end.
                decoded: bytes = decoder.process(rest, output_buffer_limit=PIECE_BYTES)
            except brotli.error:
                raise _broken("br") from None
            if decoded:
                yield decoded
            rest = b""
            if decoder.is_finished() or (not decoded and decoder.can_accept_more_data()):
                break
    if not decoder.is_finished():
        raise _broken("br")


def _unzstd(pieces: Pieces) -> Pieces:
    frames = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW_BYTES_MAX)
    decoder = frames.decompressobj(write_size=PIECE_BYTES)
    members = 1
    for piece in pieces:
        for part in _cut(piece, ZSTD_INPUT_BYTES):
            rest = part
            while rest:
                if decoder.eof:
                    members += 1
                    if members > MEMBERS_MAX:
                        raise _broken("zstd")
                    decoder = frames.decompressobj(write_size=PIECE_BYTES)
                try:
                    decoded = decoder.decompress(rest)
                except zstandard.ZstdError:
                    raise _broken("zstd") from None
                if decoded:
                    yield decoded
                rest = decoder.unused_data if decoder.eof else b""
    if not decoder.eof:
        raise _broken("zstd")


_DECODERS: dict[str, Callable[[Pieces], Pieces]] = {
    "gzip": _gunzip,
    "deflate": _undeflate,
    "br": _unbrotli,
    "zstd": _unzstd,
}
