"""What a request's headers say about the cache, and which mode holds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.cache.wishes import IDEMPOTENCY_KEY_BYTES_MAX, NO_WISH, Policy, Wish, wish_of
from app.core.errors import InvalidRequest
from tests.unit.cache.asking import principal

# The rows are the model's mode, the columns the key's; "file" is whatever the file says.
MODES = """
model          none           off  shadow  deterministic  all
none           file           off  shadow  deterministic  all
off            off            off  off     off            off
shadow         shadow         off  shadow  deterministic  all
deterministic  deterministic  off  shadow  deterministic  all
all            all            off  shadow  deterministic  all
"""
HEAD, *ROWS = [line.split() for line in MODES.split("\n") if line]
CELLS = [(row[0], key, mode) for row in ROWS for key, mode in zip(HEAD[1:], row[1:], strict=True)]


@pytest.mark.parametrize("default", ["off", "shadow", "deterministic", "all"])
@pytest.mark.parametrize(("model", "key", "mode"), CELLS)
def test_the_mode_is_the_keys_else_the_models_else_the_files(default, model, key, mode):
    told = Policy(mode=None if model == "none" else model, default=default, scope="team", ttl_s=60)
    who = principal(cache=None if key == "none" else key)
    assert told.mode_for(who) == (default if mode == "file" else mode)


def wish(*headers: tuple[str, str]) -> Wish:
    return wish_of([(name.encode(), value.encode("latin-1")) for name, value in headers])


def controlled(*values: str) -> Wish:
    return wish(*(("cache-control", value) for value in values))


def test_a_request_that_says_nothing_wishes_nothing():
    assert wish() is NO_WISH
    assert wish(("accept", "no-store"), ("x-headgate-tags", "cache=off"), ("pragma", "no-cache")) is NO_WISH
    assert Wish() == NO_WISH


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("on", Wish(on=True)),
        ("off", Wish(off=True)),
        ("refresh", Wish(refresh=True)),
        (" Refresh\t", Wish(refresh=True)),
        ("OFF", Wish(off=True)),
    ],
)
def test_the_header_of_our_own(word, expected):
    assert wish(("x-headgate-cache", word)) == expected


@pytest.mark.parametrize("word", ["", " ", "yes", "true", "on, off", "onn", "no-store", "\xff", "x" * 9000])
def test_a_word_that_is_not_known_is_refused(word):
    with pytest.raises(InvalidRequest) as caught:
        wish(("x-headgate-cache", word))
    assert caught.value.param == "x-headgate-cache"
    assert len(caught.value.message) < 400


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["no-store"], Wish(off=True, no_store=True)),
        (["No-Store"], Wish(off=True, no_store=True)),
        (["no-cache"], Wish(refresh=True)),
        (["NO-CACHE , no-transform"], Wish(refresh=True)),
        (["no-cache, no-store"], Wish(off=True, no_store=True, refresh=True)),
        (["only-if-cached"], Wish(only_if_cached=True)),
        (["max-age=0"], Wish(age_s_max=0.0)),
        (["max-age=60"], Wish(age_s_max=60.0)),
        (["max-age=007"], Wish(age_s_max=7.0)),
        (['Max-Age="60"'], Wish(age_s_max=60.0)),
        (["max-age = 60"], Wish(age_s_max=60.0)),
        (["max-age=60, only-if-cached"], Wish(age_s_max=60.0, only_if_cached=True)),
        (
            ["max-age=60", "no-store", "only-if-cached"],
            Wish(age_s_max=60.0, off=True, no_store=True, only_if_cached=True),
        ),
        (["max-age=60,max-age=0"], Wish(age_s_max=60.0)),
        (["max-age=60", "max-age=0"], Wish(age_s_max=60.0)),
        ([",, ,no-store,,"], Wish(off=True, no_store=True)),
    ],
)
def test_cache_control(values, expected):
    assert controlled(*values) == expected


@pytest.mark.parametrize(
    "value",
    ["", ",", "=", "max-stale=5", "min-fresh", "private, s-maxage=0", "no-storey", "no store", "x-no-store=1",
     "foo=no-store", "store", "max-age-x=0", "\xff\xfe"],
)  # fmt: skip
def test_what_is_not_known_does_not_matter(value):
    assert controlled(value) == NO_WISH


@pytest.mark.parametrize(
    "argument", ["", "=", "=-1", "=+1", "=1.5", "=1e3", "=x", "=1 2", "=0x10", "=\xb2", '=""', "=1;"]
)
def test_an_age_that_is_none_lets_nothing_be_fresh(argument):
    assert controlled("max-age" + argument).age_s_max == 0.0


@pytest.mark.parametrize("seconds", ["2147483648", "9999999999", "99999999999", "9" * 400, "9" * 60_000])
def test_an_age_beyond_all_bounds_is_as_good_as_none(seconds):
    """RFC 9111, 1.2.2: what overflows is the largest number that there is."""
    age_s = controlled(f"max-age={seconds}").age_s_max
    assert age_s is not None
    assert age_s >= 2**31


def test_both_headers_count():
    assert wish(("x-headgate-cache", "on"), ("cache-control", "no-store")) == Wish(on=True, off=True, no_store=True)
    assert wish(("cache-control", "max-age=9"), ("x-headgate-cache", "refresh")) == Wish(refresh=True, age_s_max=9.0)


KEY_CHARS = "".join(map(chr, range(0x20, 0x7F)))


@given(st.text(KEY_CHARS, min_size=1, max_size=IDEMPOTENCY_KEY_BYTES_MAX).filter(lambda text: text.strip() == text))
def test_an_idempotency_key_is_taken_as_it_is(key):
    assert wish(("idempotency-key", key)) == Wish(idempotency_key=key)
    assert wish(("idempotency-key", f" {key}\t")) == Wish(idempotency_key=key), "space around a value is none of it"


@pytest.mark.parametrize("length", [1, 2, 3, 254, 255])
def test_an_idempotency_key_may_be_so_long(length):
    assert wish(("idempotency-key", "k" * length)).idempotency_key == "k" * length


@pytest.mark.parametrize(
    "key",
    ["", " ", "\t", "k" * 256, "k" * 60_000, "a\tb", "a\nb", "a\x00b", "\x7f", "a\x7f", "é", "a\xa0b",
     "\x1b[0m", "ключ".encode().decode("latin-1")],
)  # fmt: skip
def test_an_idempotency_key_that_is_none_is_refused(key):
    with pytest.raises(InvalidRequest) as caught:
        wish(("idempotency-key", key))
    assert caught.value.param == "idempotency-key"


@pytest.mark.parametrize("other", ["a", "b", ""])
def test_two_idempotency_keys_are_refused(other):
    with pytest.raises(InvalidRequest) as caught:
        wish(("idempotency-key", "a"), ("accept", "*/*"), ("idempotency-key", other))
    assert caught.value.param == "idempotency-key"


@given(
    st.lists(
        st.tuples(
            st.sampled_from([b"x-headgate-cache", b"cache-control", b"idempotency-key", b"accept"]),
            st.binary(max_size=20) | st.sampled_from([b"on", b"no-store", b"max-age=5", b"max-age=\xb9", b'a="b,c"']),
        ),
        max_size=4,
    )
)
def test_any_headers_are_understood_or_refused(headers):
    try:
        found = wish_of(headers)
    except InvalidRequest as error:
        assert error.param in {"x-headgate-cache", "idempotency-key"}
        return
    assert found.age_s_max is None or found.age_s_max >= 0
    assert len(found.idempotency_key) <= IDEMPOTENCY_KEY_BYTES_MAX
    assert found.idempotency_key.isascii()
