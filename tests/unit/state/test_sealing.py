"""Turns at rest can be read with their keys alone, and only in their own place."""

from __future__ import annotations

import msgspec
import pytest
import zstandard
from cryptography.fernet import Fernet

from app.state import sealing
from app.state.sealing import KeysInvalid, Seal, SealBroken, new_key
from app.state.turn import Content

CONTENT = Content("team", "turn", b'{"content":"a secret"}', b'{"id":"resp_1"}')
A, B = new_key(), new_key()


def test_there_and_back_and_nothing_to_be_seen():
    token = Seal(A).close(CONTENT)
    assert Seal(A).open(token, "team", "turn") == CONTENT
    assert b"secret" not in token
    assert b"secret" not in zstandard.ZstdCompressor().compress(token)


def test_what_repeats_itself_is_small():
    large = Content("team", "turn", b'{"content":"%b"}' % (b"the same " * 10_000), b"{}")
    assert len(Seal(A).close(large)) < 1000


@pytest.mark.parametrize(("team_id", "turn_id"), [("other", "turn"), ("team", "other")])
def test_a_row_that_was_moved_is_not_read(team_id, turn_id):
    with pytest.raises(SealBroken):
        Seal(A).open(Seal(A).close(CONTENT), team_id, turn_id)


def test_what_was_changed_or_is_of_other_keys_is_not_read():
    token = Seal(A).close(CONTENT)
    for wrong in (token[:-1], token[:40] + b"A" + token[41:], b"", b"x"):
        with pytest.raises(SealBroken):
            Seal(A).open(wrong, "team", "turn")
    with pytest.raises(SealBroken):
        Seal(B).open(token, "team", "turn")


def test_keys_are_changed_one_after_the_other():
    old = Seal(A).close(CONTENT)
    both = Seal(f"{B},\n{A}")
    assert both.open(old, "team", "turn") == CONTENT
    new = both.turned(old)
    assert Seal(B).open(new, "team", "turn") == both.open(new, "team", "turn") == CONTENT
    with pytest.raises(SealBroken):
        Seal(A).open(new, "team", "turn")
    with pytest.raises(SealBroken):
        Seal(B).turned(old)


def test_the_canary_knows_its_keys():
    canary = Seal(A).canary()
    assert Seal(A).knows(canary)
    assert Seal(f"{B},{A}").knows(canary)
    assert not Seal(B).knows(canary)
    assert not Seal(A).knows("nothing")


@pytest.mark.parametrize(
    "text",
    ["", " , ", "short", A[:-2], f"{A},nothing", ",".join([A] * 17)],
    ids=["none", "empty", "short", "cut", "one of two", "too many"],
)
def test_what_are_no_keys_is_refused_without_being_repeated(text):
    with pytest.raises(KeysInvalid) as refused:
        Seal(text)
    assert "nothing" not in str(refused.value)
    assert A[:8] not in str(refused.value)
    assert A not in repr(Seal(A))


def test_what_unpacks_to_too_much_is_not_unpacked(monkeypatch):
    monkeypatch.setattr(sealing, "TURN_BYTES_MAX", 1000)
    seal = Seal(A)
    bomb = Content("team", "turn", b"0" * 100_000, b"{}")
    with pytest.raises(SealBroken):
        seal.open(seal.close(bomb), "team", "turn")
    # Of a frame that does not say how large it is nobody knows.
    frame = zstandard.ZstdCompressor(write_content_size=False).compress(msgspec.msgpack.encode(CONTENT))
    with pytest.raises(SealBroken):
        seal.open(Fernet(A).encrypt(frame), "team", "turn")
