from __future__ import annotations

import random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.records import Attempt, Bound, Opening
from app.ledger.lines import (
    AttemptLine,
    CloseLine,
    Damaged,
    OpenLine,
    SeenLine,
    Torn,
    decode_line,
    decode_lines,
    decode_payload,
    encode_line,
    encode_payload,
    joined_lines,
    mended,
    read_lines,
    with_decision,
)
from tests.contract.store.samples import attempt_of, opening_of, owned_of, record_of

LINES = [
    OpenLine(opening_of("r1", tags={"a": "naïve\n日本"})),
    AttemptLine("r1", attempt_of(2), "connect"),
    AttemptLine("r1", attempt_of(3)),
    SeenLine(owned_of("r1")),
    CloseLine(record_of("r1", usage_raw='{"a":1}\n')),
]


@pytest.mark.parametrize("line", LINES)
def test_a_line_comes_back_as_it_was(line):
    written = encode_line(line)
    assert written.endswith(b"\n") and written.count(b"\n") == 1
    assert decode_line(written[:-1]) == line


def test_a_segment_is_read_line_by_line():
    assert list(read_lines(b"".join(map(encode_line, LINES)))) == LINES
    assert list(read_lines(b"")) == []


def test_a_torn_tail_is_told_and_what_is_before_it_is_read():
    whole, torn = encode_line(LINES[0]), encode_line(LINES[4])
    for length in range(1, len(torn)):
        assert list(read_lines(whole + torn[:length])) == [LINES[0], Torn(len(whole))]


@pytest.mark.parametrize("rubbish", [b"\0" * 4096, b"\0" * 100 + b"\n", b"0" * 8, b"\n"])
def test_rubbish_at_the_end_is_a_torn_tail(rubbish):
    whole = encode_line(LINES[0])
    assert list(read_lines(whole + rubbish)) == [LINES[0], Torn(len(whole))]


def test_a_damaged_line_does_not_hide_those_behind_it():
    first, second, third = (bytearray(encode_line(line)) for line in LINES[:3])
    second[40] ^= 1
    found = list(read_lines(bytes(first + second + third)))
    assert found == [LINES[0], Damaged(len(first), "checksum"), LINES[2]]


def test_a_checksum_is_eight_hex_digits_and_nothing_else():
    line = encode_line(OpenLine(opening_of("r1")))[:-1]
    for wrong in (line.upper(), b"+" + line[1:], line[:8] + b"x" + line[9:], b"", b" ", line[:9], line[:8]):
        with pytest.raises(ValueError, match="checksum"):
            decode_line(wrong)


def test_a_line_of_a_kind_unknown_here_is_damaged_and_not_passed_over():
    import zlib

    payload = b'{"line":"newer"}'
    line = b"%08x %b\n" % (zlib.crc32(payload), payload)
    found = list(read_lines(line + encode_line(LINES[0])))
    assert found == [Damaged(0, "not a line of this journal"), LINES[0]]


@given(st.integers(0), st.integers(1, 12))
def test_bit_flips_never_crash_the_reader_and_harm_only_lines_they_touch(seed, flips):
    chance = random.Random(seed)
    lines = [encode_line(CloseLine(record_of(f"r{number}"))) for number in range(6)]
    data = bytearray(b"".join(lines))
    for _ in range(flips):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    found = [item.record.request_id for item in read_lines(bytes(data)) if isinstance(item, CloseLine)]
    assert len(found) >= 6 - 2 * flips
    assert found == sorted(found)


@given(st.binary(max_size=300))
def test_any_bytes_can_be_read(data):
    list(read_lines(data))


def test_half_a_surrogate_pair_does_not_lose_a_line():
    line = CloseLine(record_of("r1", end_user="a\ud800", tags={"k\udc00": "v"}))
    read = decode_line(encode_line(line)[:-1])
    assert isinstance(read, CloseLine)
    assert read.record.end_user is not None and read.record.end_user.startswith("a\N{REPLACEMENT CHARACTER}")
    assert read.record.entries == line.record.entries
    assert mended({"a": [1, None, ("b",)]}) == {"a": [1, None, ["b"]]}


def test_a_decision_is_put_into_an_opening_as_if_it_had_been_there():
    opening = Opening("r1", 1, 2, "t", "k", "s", "responses", True, "m", Attempt(1, "u", "m", Bound()), end_user="ü}}")
    decision = {"limits": [["key", "requests_per_minute", 5, 4]], "observed": ["}}"]}
    whole = encode_payload(OpenLine(msgspec.structs.replace(opening, decision=decision)))
    assert with_decision(encode_payload(OpenLine(opening)), decision) == whole
    line = decode_payload(whole)
    assert isinstance(line, OpenLine)
    assert line.opening.decision == decision


def test_several_lines_are_one_text_and_apart_again():
    opening = Opening("r1", 1, 2, "t", "k", "s", "responses", True, "a\nb", Attempt(1, "u", "m", Bound()))
    lines = [OpenLine(opening), AttemptLine("r1", Attempt(2, "u", "m", Bound()))]
    assert decode_lines(joined_lines(*map(encode_payload, lines))) == lines
    with pytest.raises(ValueError, match="not a line"):
        decode_lines(b"")
