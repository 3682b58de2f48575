"""Which headers of an answer others may have, and what each is told of the cache."""

from __future__ import annotations

import pytest

from app.cache.telling import (
    JOINED_HEADERS,
    bypass_headers,
    common_headers,
    hit_headers,
    miss_headers,
    own_headers,
)
from app.core.errors import Headers

OF_THE_ANSWER: Headers = [
    (b"content-type", b"application/json"),
    (b"x-request-id", b"req_upstream"),
    (b"openai-processing-ms", b"412"),
    (b"openai-version", b"2020-10-01"),
    (b"x-headgate-upstream", b"openai"),
    (b"retry-after", b"7"),
    (b"x-should-retry", b"false"),
    (b"cache-status", b"cdn; hit"),
    (b"x-ratelimit", b"none"),
    (b"x-twice", b"1"),
    (b"x-twice", b"2"),
]
OF_ONE_REQUEST: Headers = [
    (b"x-headgate-request-id", b"req_1"),
    (b"x-request-id", b"req_1"),
    (b"x-headgate-cost-usd", b"0.0012"),
    (b"x-headgate-cache", b"miss"),
    (b"cache-status", b"headgate; fwd=miss"),
    (b"age", b"3"),
    (b"date", b"Sun, 06 Nov 1994 08:49:37 GMT"),
    (b"x-ratelimit-limit-requests", b"10"),
    (b"x-ratelimit-remaining-tokens", b"9"),
    (b"x-upstream-ratelimit-remaining-requests", b"9999"),
]


def test_what_is_of_one_request_is_told_to_no_other():
    mixed = [header for pair in zip(OF_ONE_REQUEST, OF_THE_ANSWER, strict=False) for header in pair]
    mixed += OF_THE_ANSWER[len(OF_ONE_REQUEST) :]
    assert set(mixed) == {*OF_ONE_REQUEST, *OF_THE_ANSWER}
    assert common_headers(mixed, "req_1") == OF_THE_ANSWER, "and the rest stays in its order"


@pytest.mark.parametrize("header", OF_ONE_REQUEST)
def test_each_of_them_alone(header):
    assert common_headers([header], "req_1") == []


def test_whatever_the_cache_says_of_one_is_not_repeated_to_another():
    told = [
        *miss_headers(""),
        *miss_headers("refresh"),
        *bypass_headers("off"),
        *hit_headers(1, 2, "a"),
        *JOINED_HEADERS,
    ]
    assert common_headers(told, "req_1") == []


def test_an_id_of_ours_is_known_whole():
    assert common_headers([(b"x-request-id", b"req_12")], "req_1") == [(b"x-request-id", b"req_12")]


def test_a_request_gets_its_own_id_and_limits():
    limits: Headers = [(b"x-ratelimit-limit-requests", b"5")]
    common = common_headers(OF_THE_ANSWER + OF_ONE_REQUEST, "req_1")
    own = own_headers(common, "req_2", limits)
    ours: Headers = [(b"x-headgate-request-id", b"req_2"), *limits]
    assert own[: len(common)] == common
    assert sorted(own[len(common) :]) == sorted(ours)
    assert common == OF_THE_ANSWER, "what others get is left as it is"
    # Where the upstream gave no id, ours is in its place.
    assert sorted(own_headers([], "req_2", limits)) == sorted([*ours, (b"x-request-id", b"req_2")])
    # And told once more it is still each one's own.
    assert own_headers(common_headers(own, "req_2"), "req_3", []) == own_headers(OF_THE_ANSWER, "req_3", [])


@pytest.mark.parametrize(
    ("headers", "word", "status", "age"),
    [
        (hit_headers(3540, 60, ""), b"hit", b"headgate; hit; ttl=3540", b"60"),
        (hit_headers(0, 0, "idempotency key"), b"hit", b'headgate; hit; ttl=0; detail="idempotency key"', b"0"),
        (miss_headers(""), b"miss", b"headgate; fwd=miss", None),
        (miss_headers("idempotency key"), b"miss", b"headgate; fwd=miss", None),
        (miss_headers("refresh"), b"miss", b"headgate; fwd=request", None),
        (JOINED_HEADERS, b"joined", b"headgate; fwd=miss; collapsed", None),
        (bypass_headers("temperature"), b"bypass", b'headgate; fwd=bypass; detail="temperature"', None),
    ],
)
def test_what_is_told_of_the_cache(headers, word, status, age):
    assert len({name for name, _ in headers}) == len(headers)
    told = dict(headers)
    assert (told[b"x-headgate-cache"], told[b"cache-status"], told.get(b"age")) == (word, status, age)
    assert len(told) == (2 if age is None else 3)
