from __future__ import annotations

import pytest

from app.store.redis import Address, RedisClient


@pytest.mark.parametrize(
    ("url", "printed"),
    [
        ("redis://", "redis://localhost:6379/0"),
        ("redis://cache", "redis://cache:6379/0"),
        ("redis://cache:6380/2", "redis://cache:6380/2"),
        ("redis://user:pass@cache/1", "redis://cache:6379/1"),
        ("rediss://:pass@cache:1/", "rediss://cache:1/0"),
        ("redis://[::1]:7/0", "redis://[::1]:7/0"),
        ("unix:///run/redis/s", "unix:///run/redis/s?db=0"),
        ("unix://user:pass@/run/redis%20s?db=4", "unix:///run/redis s?db=4"),
    ],
)
def test_an_address_is_printed_without_credentials(url: str, printed: str) -> None:
    assert repr(Address.parse(url)) == printed


def test_credentials_are_unquoted() -> None:
    address = Address.parse("redis://us%40er:p%2Fa%3Ass@cache")
    assert (address.username, address.password) == ("us@er", "p/a:ss")
    assert Address.parse("redis://:only@cache").username is None


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://user:s3cret@cache", "starts with"),
        ("s3cret", "starts with"),
        ("redis://:s3cret#1@cache", "host and port"),
        ("redis://:s3cret/1@cache", "host and port"),
        ("redis://cache:port", "host and port"),
        ("redis://cache/s3cret", "expected"),
        ("redis://cache/0?password=s3cret&ssl=1", "unknown options in the Redis URL: password, ssl"),
        ("unix://", "expected"),
        ("unix:///run/s?db=s3cret", "expected"),
    ],
)
def test_a_wrong_url_is_refused_without_being_quoted(url: str, says: str) -> None:
    with pytest.raises(ValueError, match=says) as caught:
        RedisClient(url)
    assert "s3cret" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_a_client_that_was_not_started_says_so() -> None:
    client = RedisClient("redis://user:s3cret@cache:1/2")
    assert repr(client) == (
        "RedisClient(redis://cache:1/2, down: not started, in flight 0, posts kept 0, posts dropped 0)"
    )
    assert not client.up
