"""Redis URLs. Nothing here is printed, or put into an error, with its credentials."""

from __future__ import annotations

import re
import ssl
from typing import Self
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec

REDIS_PORT = 6379
SENTINEL_PORT = 26379
HOSTS_MAX = 32

# The names that a sentinel takes for a master.
_MASTER = re.compile(r"[A-Za-z0-9._-]{1,100}")
_SENTINEL_FORM = "expected redis+sentinel://host:26379,host2:26379/master-name/database"
_CLUSTER_FORM = "expected redis+cluster://host:7000,host2:7001, without a database"

Host = tuple[str, int]


class Address(msgspec.Struct, frozen=True):
    """Where a server is and how to be let in; printed without credentials."""

    host: str = "localhost"
    port: int = REDIS_PORT
    path: str | None = None
    database: int = 0
    username: str | None = None
    password: str | None = None
    tls: bool = False
    tls_ca_file: str | None = None

    @classmethod
    def parse(cls, url: str) -> Self:
        """``redis://``, ``rediss://`` or ``unix://``; ValueError, without the URL, for anything else."""
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:  # it may quote a password that should have been percent-encoded
            raise ValueError("the Redis URL has no valid host and port") from None
        options = dict(parse_qsl(parts.query))
        is_unix = parts.scheme == "unix"
        database = options.pop("db", "0") if is_unix else parts.path.strip("/") or "0"
        tls_ca_file = options.pop("ssl_ca_certs", None)
        if parts.scheme not in {"redis", "rediss", "unix"}:
            raise ValueError(
                "a Redis URL starts with redis://, rediss://, unix://, redis+sentinel://, rediss+sentinel://, "
                "redis+cluster:// or rediss+cluster://"
            )
        _refuse_unknown(options)
        if not database.isdecimal() or (is_unix and not parts.path):
            raise ValueError("expected redis://host:port/database or unix:///path?db=database")
        return cls(
            host=parts.hostname or "localhost",
            port=port or REDIS_PORT,
            path=unquote(parts.path) if is_unix else None,
            database=int(database),
            username=unquote(parts.username) if parts.username else None,
            password=unquote(parts.password) if parts.password else None,
            tls=parts.scheme == "rediss",
            tls_ca_file=tls_ca_file,
        )

    def __repr__(self) -> str:
        if self.path is not None:
            return f"unix://{self.path}?db={self.database}"
        return f"{'rediss' if self.tls else 'redis'}://{printed((self.host, self.port))}/{self.database}"


class SentinelAddress(msgspec.Struct, frozen=True):
    """A master by name, and the sentinels that know where it is; TLS goes for both."""

    sentinels: tuple[Host, ...]
    master: str
    database: int = 0
    username: str | None = None
    password: str | None = None
    sentinel_username: str | None = None
    sentinel_password: str | None = None
    tls: bool = False
    tls_ca_file: str | None = None

    def sentinel_at(self, host: Host) -> Address:
        return Address(
            host=host[0],
            port=host[1],
            username=self.sentinel_username,
            password=self.sentinel_password,
            tls=self.tls,
            tls_ca_file=self.tls_ca_file,
        )

    def master_at(self, host: Host) -> Address:
        return Address(
            host=host[0],
            port=host[1],
            database=self.database,
            username=self.username,
            password=self.password,
            tls=self.tls,
            tls_ca_file=self.tls_ca_file,
        )

    def __repr__(self) -> str:
        hosts = ",".join(printed(host) for host in self.sentinels)
        return f"{'rediss' if self.tls else 'redis'}+sentinel://{hosts}/{self.master}/{self.database}"


class ClusterAddress(msgspec.Struct, frozen=True):
    """Some nodes of a cluster; it names the others."""

    seeds: tuple[Host, ...]
    username: str | None = None
    password: str | None = None
    tls: bool = False
    tls_ca_file: str | None = None

    def node_at(self, host: Host) -> Address:
        return Address(
            host=host[0],
            port=host[1],
            username=self.username,
            password=self.password,
            tls=self.tls,
            tls_ca_file=self.tls_ca_file,
        )

    def __repr__(self) -> str:
        return f"{'rediss' if self.tls else 'redis'}+cluster://{','.join(printed(host) for host in self.seeds)}"


def parse_url(url: str) -> Address | SentinelAddress | ClusterAddress:
    """ValueError, which quotes neither the URL nor a part of it, for what is none."""
    scheme, _, rest = url.partition("://")
    if scheme in {"redis+sentinel", "rediss+sentinel"}:
        return _parse_sentinel(rest, tls=scheme.startswith("rediss"))
    if scheme in {"redis+cluster", "rediss+cluster"}:
        return _parse_cluster(rest, tls=scheme.startswith("rediss"))
    return Address.parse(url)


def tls_context(*, tls: bool, ca_file: str | None) -> ssl.SSLContext | None:
    """ValueError where the file holds no certificates."""
    if not tls:
        return None
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError:  # ssl.SSLError is one
        raise ValueError("ssl_ca_certs in the Redis URL names no readable file of certificates") from None


def printed(host: Host) -> str:
    return f"[{host[0]}]:{host[1]}" if ":" in host[0] else f"{host[0]}:{host[1]}"


def _parse_sentinel(rest: str, *, tls: bool) -> SentinelAddress:
    authority, path, options = _split(rest)
    username, password, hosts = _parse_authority(authority, SENTINEL_PORT)
    sentinel_username = options.pop("sentinel_username", None)
    sentinel_password = options.pop("sentinel_password", None)
    tls_ca_file = options.pop("ssl_ca_certs", None)
    _refuse_unknown(options)
    if sentinel_username and not sentinel_password:
        raise ValueError("sentinel_username in the Redis URL needs a sentinel_password")
    master, _, database = path.partition("/")
    if not _MASTER.fullmatch(master) or not (database or "0").isdecimal():
        raise ValueError(_SENTINEL_FORM)
    return SentinelAddress(
        sentinels=hosts,
        master=master,
        database=int(database or 0),
        username=username,
        password=password,
        sentinel_username=sentinel_username,
        sentinel_password=sentinel_password,
        tls=tls,
        tls_ca_file=tls_ca_file,
    )


def _parse_cluster(rest: str, *, tls: bool) -> ClusterAddress:
    authority, path, options = _split(rest)
    username, password, hosts = _parse_authority(authority, REDIS_PORT)
    tls_ca_file = options.pop("ssl_ca_certs", None)
    _refuse_unknown(options)
    if path not in {"", "0"}:  # a cluster has one database
        raise ValueError(_CLUSTER_FORM)
    return ClusterAddress(seeds=hosts, username=username, password=password, tls=tls, tls_ca_file=tls_ca_file)


def _split(rest: str) -> tuple[str, str, dict[str, str]]:
    """Authority, path without its slashes, options."""
    place, _, query = rest.partition("?")
    authority, _, path = place.partition("/")
    return authority, path.strip("/"), dict(parse_qsl(query))


def _parse_authority(authority: str, port: int) -> tuple[str | None, str | None, tuple[Host, ...]]:
    """User, password and hosts of ``user:password@host:port,host2:port2``."""
    credentials, _, places = authority.rpartition("@")
    username, _, password = credentials.partition(":")
    hosts = tuple(dict.fromkeys(_parse_host(place, port) for place in places.split(",")))
    if len(hosts) > HOSTS_MAX:
        raise ValueError(f"the Redis URL names more than {HOSTS_MAX} hosts")
    return unquote(username) or None, unquote(password) or None, hosts


def _parse_host(place: str, port: int) -> Host:
    try:
        parts = urlsplit(f"//{place}")
        host = parts.hostname, parts.port or port
    except ValueError:  # as above, it may quote a password
        host = None, port
    if not host[0] or "#" in place or "@" in place:
        raise ValueError("the Redis URL has no valid host and port") from None
    return host[0], host[1]


def _refuse_unknown(options: dict[str, str]) -> None:
    if options:
        raise ValueError(f"unknown options in the Redis URL: {', '.join(sorted(options))}")
