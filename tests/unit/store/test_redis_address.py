"""Redis URLs: what they mean, and that nothing of theirs that is secret is ever printed."""

from __future__ import annotations

import pytest

from app.store.redis import (
    Address,
    ClusterAddress,
    ClusterClient,
    RedisClient,
    SentinelAddress,
    connect,
    parse_url,
)


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


@pytest.mark.parametrize(
    ("url", "printed"),
    [
        ("redis+sentinel://s1/gate", "redis+sentinel://s1:26379/gate/0"),
        ("redis+sentinel://s1:1,s2:2,[::1]:3/gate-1.x/4", "redis+sentinel://s1:1,s2:2,[::1]:3/gate-1.x/4"),
        ("rediss+sentinel://u:p@s1,s1,s2/gate/", "rediss+sentinel://s1:26379,s2:26379/gate/0"),
        ("redis+sentinel://u:p@s1/gate?sentinel_password=q", "redis+sentinel://s1:26379/gate/0"),
        ("redis+cluster://n1", "redis+cluster://n1:6379"),
        ("redis+cluster://:p@n1:7000,[fe80::1]:7001,n3", "redis+cluster://n1:7000,[fe80::1]:7001,n3:6379"),
        ("rediss+cluster://n1:7000/0?ssl_ca_certs=/ca.pem", "rediss+cluster://n1:7000"),
    ],
)
def test_several_hosts_are_printed_without_credentials(url: str, printed: str) -> None:
    assert repr(parse_url(url)) == printed


def test_sentinels_have_credentials_of_their_own() -> None:
    address = parse_url("rediss+sentinel://us%40er:p%2Fw@s1/gate/2?sentinel_username=su&sentinel_password=s%26p")
    assert isinstance(address, SentinelAddress)
    master = address.master_at(("10.0.0.1", 7))
    assert (master.host, master.port, master.database, master.tls) == ("10.0.0.1", 7, 2, True)
    assert (master.username, master.password) == ("us@er", "p/w")
    sentinel = address.sentinel_at(("s1", 26379))
    assert (sentinel.username, sentinel.password, sentinel.database, sentinel.tls) == ("su", "s&p", 0, True)
    open_sentinel = parse_url("redis+sentinel://:secret@s1/gate")
    assert isinstance(open_sentinel, SentinelAddress)
    assert open_sentinel.sentinel_at(("s1", 1)).password is None


def test_every_node_of_a_cluster_gets_the_urls_credentials() -> None:
    address = parse_url("rediss+cluster://user:p%40ss@n1:7000?ssl_ca_certs=/ca.pem")
    assert isinstance(address, ClusterAddress)
    node = address.node_at(("n9", 7009))
    assert (node.host, node.port, node.username, node.password) == ("n9", 7009, "user", "p@ss")
    assert (node.tls, node.tls_ca_file, node.database) == (True, "/ca.pem", 0)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("redis+sentinel://s1:1", "expected redis.sentinel"),
        ("redis+sentinel://s1:1/", "expected redis.sentinel"),
        ("redis+sentinel://s1:1/gate/s3cret", "expected redis.sentinel"),
        ("redis+sentinel://s1:1/gate/1/2", "expected redis.sentinel"),
        ("redis+sentinel://s1:1/s3cret@x", "expected redis.sentinel"),
        ("redis+sentinel:///gate", "host and port"),
        ("redis+sentinel://:s3cret/1@s1/gate", "host and port"),
        ("redis+sentinel://user:12/s3cret@s1/gate", "expected redis.sentinel"),
        ("redis+sentinel://:s3cret#x@s1,/gate", "host and port"),
        ("redis+sentinel://s1:s3cret/gate", "host and port"),
        ("redis+sentinel://s1/gate?sentinel_username=s3cret", "sentinel_username .* needs"),
        ("redis+sentinel://s1/gate?db=s3cret", "unknown options in the Redis URL: db"),
        ("redis+cluster://", "host and port"),
        ("redis+cluster://n1,,n2", "host and port"),
        ("redis+cluster://n1:99999", "host and port"),
        ("redis+cluster://n1/1", "without a database"),
        ("redis+cluster://n1/s3cret", "without a database"),
        ("redis+cluster://n1?password=s3cret", "unknown options in the Redis URL: password"),
        ("redis+cluster://" + ",".join(f"n{number}" for number in range(33)), "more than 32 hosts"),
        ("rediss://cache/0?ssl_ca_certs=/no/such/s3cret", "no readable file of certificates"),
        ("rediss+cluster://n1?ssl_ca_certs=/no/such/s3cret", "no readable file of certificates"),
        ("rediss+sentinel://s1/gate?ssl_ca_certs=/no/such/s3cret", "no readable file of certificates"),
        ("redis+other://:s3cret@n1", "starts with"),
    ],
)
def test_a_wrong_url_of_several_hosts_is_refused_without_being_quoted(url: str, says: str) -> None:
    with pytest.raises(ValueError, match=says) as caught:
        connect(url)
    assert "s3cret" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_connect_takes_what_the_url_asks_for() -> None:
    assert isinstance(connect("redis://cache"), RedisClient)
    assert isinstance(connect("unix:///run/s"), RedisClient)
    assert repr(connect("redis+sentinel://:p@s1/gate")).startswith(
        "RedisClient(redis+sentinel://s1:26379/gate/0, down: not started,"
    )
    cluster = connect("redis+cluster://:p@n1:7000")
    assert isinstance(cluster, ClusterClient)
    assert repr(cluster) == (
        "ClusterClient(redis+cluster://n1:7000, down: not started, nodes 0, in flight 0, posts kept 0, posts dropped 0)"
    )
    with pytest.raises(ValueError, match="more than one connection"):
        RedisClient("redis+cluster://n1")
