"""An entry as bytes that prove where they belong.

A value is::

    version (1) · MAC (16) · form of what follows (1) · the entry in MessagePack, plain or as one zstd frame

The MAC is BLAKE2b with the cache's secret, over the address and everything behind it. Whoever can write to the
store but has not the secret can take entries away, yet neither alter one nor move it to another address, such as
another team's.

The entry's fields go by name: one that is added with a default may be read by an older and by a newer gateway of
a rolling update. Any other change is a new ``VERSION``, and what the other one wrote is then not there.

zstd and not the zlib of the standard library: each at level 1, zlib takes four times as long both ways for 20 KB of
JSON (254 µs against 60 to compress, 79 against 22 to decompress) and seven times for a stream of 77 KB (520 against
70, 184 against 40), and zstd's result is smaller. A stream becomes a fifth, JSON with prose a half. The MAC costs 1.5
to 2.5 µs per KB of what is stored, so that of streams compression takes less time than it saves. Below
``COMPRESSED_FROM_BYTES`` it does not pay: an answer of 1.5 KB would take twice as long to read, for 900 bytes.
"""

from __future__ import annotations

import threading
from hashlib import blake2b
from hmac import compare_digest

import msgspec
import zstandard

from app.cache.entry import Address, Entry

VERSION = 1
SECRET_BYTES = 32
MAC_BYTES = 16
COMPRESSED_FROM_BYTES = 4096
"""Of the body."""
COMPRESSED_SHARE_MAX = 0.8
"""A frame that is larger than this share of the plain entry is not worth the time that reading it takes."""
ENTRY_BYTES_MAX = 64 * 1024 * 1024
"""Of the plain entry: what is stated larger is not decompressed."""

_PLAIN = 0
_ZSTD = 1
_HEAD = MAC_BYTES + 1
_DATA = _HEAD + 1
_PERSON = b"headgate cache"
_LEVEL = 1


class _Codecs(threading.local):
    """Those of a thread: making one takes 15 µs, and two threads cannot use it at once."""

    def __init__(self) -> None:
        self.compressor = zstandard.ZstdCompressor(level=_LEVEL)
        self.decompressor = zstandard.ZstdDecompressor()


_codecs = _Codecs()
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Entry)


def pack(entry: Entry, address: Address, secret: bytes) -> bytes:
    """``entry`` as it is stored at ``address``. ``secret`` is ``SECRET_BYTES`` long.

    An entry of more than ``ENTRY_BYTES_MAX`` can be packed, but will not be unpacked. It takes 10 µs for a body of
    1.5 KB, 140 µs for 20 KB of JSON with prose, 1.4 ms for 200 KB, 6.5 ms for 1 MB, half of it for streams.
    """
    data = _encoder.encode(entry)
    form = _PLAIN
    if len(entry.body) >= COMPRESSED_FROM_BYTES:
        frame = _codecs.compressor.compress(data)
        if len(frame) <= COMPRESSED_SHARE_MAX * len(data):
            data, form = frame, _ZSTD
    behind = b"%c%b" % (form, data)
    return b"%c%b%b" % (VERSION, _mac(behind, address, secret), behind)


def unpack(value: bytes, address: Address, secret: bytes) -> Entry | None:
    """The entry that was packed as ``value`` for ``address`` with ``secret``; None if that never happened, or not in
    this version. It takes 11 µs for a body of 1.5 KB, 65 µs for 20 KB, 0.5 ms for 200 KB, 2.3 ms for 1 MB.
    """
    if len(value) < _DATA or value[0] != VERSION:
        return None
    view = memoryview(value)
    if not compare_digest(view[1:_HEAD], _mac(view[_HEAD:], address, secret)):
        return None
    data: memoryview | bytes | None = view[_DATA:]
    if value[_HEAD] == _ZSTD:
        data = _decompressed(view[_DATA:])
    elif value[_HEAD] != _PLAIN:
        return None
    try:
        return None if data is None else _decoder.decode(data)
    except (msgspec.DecodeError, RecursionError):  # one with our MAC, but of other fields
        return None


def _decompressed(frame: memoryview) -> bytes | None:
    """None unless it is exactly one frame, which comes to exactly the size that it states."""
    try:
        stated = zstandard.frame_content_size(frame)
        if not 0 < stated <= ENTRY_BYTES_MAX:
            return None
        return _codecs.decompressor.decompress(frame, allow_extra_data=False)
    except zstandard.ZstdError:
        return None


def _mac(behind: bytes | memoryview, address: Address, secret: bytes) -> bytes:
    """Lengths go first, so that no two addresses read alike."""
    form = address.form.encode()
    place = b"%c%d:%d:%b%b" % (VERSION, len(address.digest), len(form), address.digest, form)
    mac = blake2b(place, digest_size=MAC_BYTES, key=secret, person=_PERSON)
    mac.update(behind)
    return mac.digest()
