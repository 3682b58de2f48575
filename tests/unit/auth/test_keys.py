"""Keys: their shape, their checksum, and that only the whole text opens anything."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.auth.keys import ADMIN_PREFIX, digest_of, mint, parse


def test_a_key_has_the_documented_shape():
    minted = mint()
    assert re.fullmatch(r"sk-hg-[0-9A-Za-z]{10}-[0-9A-Za-z]{38}", minted.text)
    assert parse(minted.text) == minted.id
    assert minted.digest == digest_of(minted.text)
    assert minted.text not in repr(minted)
    assert mint(ADMIN_PREFIX).text.startswith("hg-admin-")


def test_keys_differ():
    assert len({mint().text for _ in range(1000)}) == 1000


@given(st.integers(0, 54), st.characters(codec="ascii"))
def test_one_wrong_character_breaks_the_checksum(place, char):
    text = mint().text
    changed = text[:place] + char + text[place + 1 :]
    if changed != text:
        assert parse(changed) is None


@pytest.mark.parametrize("text", ["", "sk-hg-", "sk-live-1", "' OR '1'='1", "sk-hg-" + "0" * 49, "\x00", "é" * 55])
def test_garbage_is_refused_without_a_look_up(text):
    assert parse(text) is None


@given(st.text(max_size=80))
def test_no_text_breaks_the_parser(text):
    parse(text)
    digest_of(text)


def test_the_digest_is_not_a_key():
    assert parse(mint().digest.hex()) is None
