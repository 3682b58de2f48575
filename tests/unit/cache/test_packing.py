"""A value is an entry only where it was packed, with the secret, and as it was packed."""

from __future__ import annotations

import tracemalloc
from typing import Any

import msgspec
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from app.cache import packing
from app.cache.entry import Address, Entry
from app.cache.packing import COMPRESSED_FROM_BYTES, ENTRY_BYTES_MAX, VERSION, pack, unpack
from app.core.usage import Usage

SECRET = bytes(range(32))
WHERE = Address(b"\x5f" * 32, "json")
TEXT = b'{"object":"response","status":"completed","text":"all is well"}'


def entry(body: bytes = TEXT, **fields: Any) -> Entry:
    told: dict[str, Any] = {
        "status": 200,
        "headers": [(b"content-type", b"application/json"), (b"x-odd", b"\xff\x00")],
        "made_at_ms": 1_800_000_000_000,
        "expires_at_ms": 1_800_003_600_000,
        "change": 7,
        "team_id": "team_1",
        "model_requested": "gpt-4o",
        "upstream": "openai",
        "model": "gpt-4o",
        "usage": Usage(input_tokens=14, output_tokens=2),
    }
    return Entry(body=body, **(told | fields))


LARGE = entry(TEXT * 200)


def forged(form: int, data: bytes) -> bytes:
    """With our MAC: as a gateway of another making might have packed it."""
    behind = bytes([form]) + data
    return bytes([VERSION]) + packing._mac(behind, WHERE, SECRET) + behind


def form_of(value: bytes) -> int:
    return value[17]


@given(
    body=st.one_of(st.binary(max_size=300), st.binary(min_size=1, max_size=20).map(lambda part: part * 500)),
    headers=st.lists(st.tuples(st.binary(max_size=20), st.binary(max_size=50)), max_size=5),
    tool_usage=st.none() | st.text(max_size=50),
    cost=st.none() | st.integers(-(2**63), 2**63 - 1),
    form=st.text(max_size=20).filter(lambda text: text.isprintable()),
)
def test_what_is_packed_is_unpacked(body, headers, tool_usage, cost, form) -> None:
    kept = entry(body, headers=headers, tool_usage=tool_usage, cost_nanousd=cost)
    where = Address(b"\x01" * 32, form)
    assert unpack(pack(kept, where, SECRET), where, SECRET) == kept


@pytest.mark.parametrize("kept", [entry(), LARGE], ids=["plain", "compressed"])
def test_every_flipped_bit_is_noticed(kept: Entry) -> None:
    value = pack(kept, WHERE, SECRET)
    assert form_of(value) == (kept is LARGE)
    for at in range(len(value)):
        for bit in range(8):
            broken = bytearray(value)
            broken[at] ^= 1 << bit
            assert unpack(bytes(broken), WHERE, SECRET) is None, at


@pytest.mark.parametrize("kept", [entry(), LARGE], ids=["plain", "compressed"])
def test_what_is_cut_short_or_longer_is_noticed(kept: Entry) -> None:
    value = pack(kept, WHERE, SECRET)
    for length in range(len(value)):
        assert unpack(value[:length], WHERE, SECRET) is None
        assert unpack(value[length + 1 :], WHERE, SECRET) is None
    assert unpack(value + b"\0", WHERE, SECRET) is None
    assert unpack(value + value, WHERE, SECRET) is None


@pytest.mark.parametrize("kept", [entry(), LARGE], ids=["plain", "compressed"])
def test_a_value_is_nothing_at_another_address(kept: Entry) -> None:
    value = pack(kept, WHERE, SECRET)
    digest = WHERE.digest
    for elsewhere in (
        Address(digest[:31] + b"\x60", "json"),
        Address(digest, "stream"),
        Address(digest, ""),
        # The same bytes, cut in another place.
        Address(digest + b"j", "son"),
        Address(digest[:31], "\x5fjson"),
        Address(digest, "json" + chr(form_of(value))),
    ):
        assert unpack(value, elsewhere, SECRET) is None
    # The first byte behind the MAC moved into the form's name.
    shifted = bytes([VERSION]) + value[1:17] + value[18:]
    assert unpack(shifted, Address(digest, "json" + chr(form_of(value))), SECRET) is None


def test_a_value_is_nothing_without_the_secret() -> None:
    value = pack(entry(), WHERE, SECRET)
    for secret in (bytes(32), SECRET[::-1], SECRET[:31]):
        assert unpack(value, WHERE, secret) is None
    bare = packing.blake2b(value[17:], digest_size=16).digest()
    assert unpack(value[:1] + bare + value[17:], WHERE, SECRET) is None


def test_another_version_is_nothing() -> None:
    value = pack(entry(), WHERE, SECRET)
    for version in set(range(256)) - {VERSION}:
        assert unpack(bytes([version]) + value[1:], WHERE, SECRET) is None


def test_the_version_is_under_the_mac(monkeypatch: pytest.MonkeyPatch) -> None:
    value = pack(entry(), WHERE, SECRET)
    monkeypatch.setattr(packing, "VERSION", VERSION + 1)
    assert unpack(bytes([VERSION + 1]) + value[1:], WHERE, SECRET) is None


@pytest.mark.parametrize("value", [b"", b"\x01", b"\x01" * 17, b"\x01" * 18, b"x" * 5000, TEXT], ids=len)
def test_what_never_was_an_entry_is_none(value: bytes) -> None:
    assert unpack(value, WHERE, SECRET) is None


def packed(told: Any) -> bytes:
    return msgspec.msgpack.encode(told)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        b"\xff" * 100,
        b"\x91" * 10_000,
        packed("text"),
        packed([1, 2, 3]),
        packed({}),
        packed({"status": 200}),
        packed(msgspec.to_builtins(entry(), builtin_types=(bytes,)) | {"status": "200"}),
        packed(msgspec.to_builtins(entry(), builtin_types=(bytes,)) | {"headers": [[b"one"]]}),
        packed(msgspec.to_builtins(entry(), builtin_types=(bytes,)) | {"body": None}),
        packed(entry()) + b"\x00",
        packed(entry())[:-1],
    ],
    ids=range(13),
)
def test_what_is_ours_and_no_entry_is_none(data: bytes) -> None:
    assert unpack(forged(0, data), WHERE, SECRET) is None
    assert unpack(forged(1, zstandard.compress(data)), WHERE, SECRET) is None


def test_a_form_that_is_not_known_is_none() -> None:
    assert unpack(forged(0, packed(entry())), WHERE, SECRET) == entry()
    for form in range(2, 256):
        assert unpack(forged(form, packed(entry())), WHERE, SECRET) is None


def test_a_field_that_is_new_or_left_out_does_no_harm() -> None:
    told = msgspec.to_builtins(entry(), builtin_types=(bytes,))
    assert unpack(forged(0, packed(told | {"seed": 7})), WHERE, SECRET) == entry()
    del told["response_id"], told["usage"]
    assert unpack(forged(0, packed(told)), WHERE, SECRET) == entry(usage=Usage())


# -- compression --------------------------------------------------------------------------------


def test_only_what_is_large_and_shrinks_is_compressed() -> None:
    assert form_of(pack(entry(b"a" * (COMPRESSED_FROM_BYTES - 1)), WHERE, SECRET)) == 0
    assert form_of(pack(entry(b"a" * COMPRESSED_FROM_BYTES), WHERE, SECRET)) == 1
    noise = b"".join(packing.blake2b(bytes([n, m])).digest() for n in range(32) for m in range(8))
    assert len(noise) > COMPRESSED_FROM_BYTES
    assert form_of(pack(entry(noise), WHERE, SECRET)) == 0
    assert len(pack(LARGE, WHERE, SECRET)) < len(LARGE.body) / 10


def test_a_frame_comes_to_what_it_states() -> None:
    data = packed(LARGE)
    frame = zstandard.compress(data)
    assert unpack(forged(1, frame), WHERE, SECRET) == LARGE
    unstated = zstandard.ZstdCompressor(write_content_size=False).compress(data)
    assert unpack(forged(1, unstated), WHERE, SECRET) is None
    assert unpack(forged(1, frame + frame), WHERE, SECRET) is None
    assert unpack(forged(1, frame + b"\x00"), WHERE, SECRET) is None
    assert unpack(forged(1, frame[:-1]), WHERE, SECRET) is None
    assert unpack(forged(1, b""), WHERE, SECRET) is None
    assert unpack(forged(1, zstandard.compress(b"")), WHERE, SECRET) is None


@pytest.mark.parametrize("size", [1, 100, 2**40])
def test_a_frame_that_states_another_size_is_none(size: int) -> None:
    """The frame of a single segment, with the size in eight bytes, rewritten."""
    data = packed(LARGE)
    frame = zstandard.compress(data)
    blocks = frame[zstandard.frame_header_size(frame) :]
    stated = zstandard.MAGIC_NUMBER.to_bytes(4, "little") + bytes([0b1110_0000]) + size.to_bytes(8, "little") + blocks
    assert zstandard.frame_content_size(stated) == size
    assert unpack(forged(1, stated), WHERE, SECRET) is None
    told = (
        zstandard.MAGIC_NUMBER.to_bytes(4, "little") + bytes([0b1110_0000]) + len(data).to_bytes(8, "little") + blocks
    )
    assert unpack(forged(1, told), WHERE, SECRET) == LARGE


def test_a_bomb_is_not_unpacked() -> None:
    bomb = zstandard.compress(bytes(ENTRY_BYTES_MAX + 1))
    assert len(bomb) < 10_000
    value = forged(1, bomb)
    tracemalloc.start()
    try:
        assert unpack(value, WHERE, SECRET) is None
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()
