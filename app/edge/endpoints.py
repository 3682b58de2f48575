"""Which endpoint a method and a path are.

Paths are compared as they came, undecoded: ``/v1/../x``, ``%2e`` and a trailing slash are other paths. Only in the
place of an id may a character be escaped, and what it stands for must be of an id's characters.
"""

from __future__ import annotations

import re
from typing import TypeAlias
from urllib.parse import unquote

from app.core.errors import GatewayError, MethodNotAllowed, NotFound, UpgradeRequired
from app.core.exchange import Dialect, Endpoint
from app.core.families import EVERYTHING
from app.core.ids import OBJECT_ID
from app.edge.table import FAMILIES as TABLE

FAMILIES = tuple(family.name for family in TABLE)
ON_BY_DEFAULT = frozenset(family.name for family in TABLE if family.on)
PREFIXES = ("/v1", "/openai/v1", "")
"""SDKs are configured with and without the version; Azure-style clients put ``/openai`` before it."""
BARE = frozenset(("/responses", "/chat/completions", "/embeddings", "/models"))
"""What is also served without a prefix; all other roots are the console's."""
NEVER = frozenset(("organization", "organizations", "projects"))
"""They administer the provider's account: nobody reaches them with a gateway key."""

PAST_THE_GATEWAY = (
    "/realtime/client_secrets",
    "/realtime/sessions",
    "/realtime/transcription_sessions",
    "/realtime/translations",
    "/chatkit/sessions",
)
"""They hand out credentials that would outlive the key."""

SOCKET_PATHS: tuple[tuple[str, Dialect], ...] = (("/responses", "responses"), ("/realtime", "other"))
SOCKETS = {
    f"{prefix}{path}".encode(): Endpoint(path[1:], "GET", path, dialect=dialect, unbilled=path == "/realtime")
    for prefix in PREFIXES
    for path, dialect in SOCKET_PATHS
    if prefix or path in BARE
}
"""Where a WebSocket may be asked for."""
MODEL_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:/@+-]{0,255}\Z")
_PLAIN_SEGMENT = re.compile(rb"[A-Za-z0-9_.:~@+=,$!*'()-]+\Z")
PATH_BYTES_MAX = 2048

Methods: TypeAlias = dict[str, Endpoint]
Ids: TypeAlias = tuple[tuple[str, str], ...]


class Match:
    """The endpoint of a request, the path that the upstream is asked for, and the ids in it with their kinds."""

    __slots__ = ("endpoint", "ids", "path")

    def __init__(self, endpoint: Endpoint, path: str = "", ids: Ids = ()) -> None:
        self.endpoint = endpoint
        self.path = path or endpoint.path
        self.ids = ids

    def __repr__(self) -> str:
        return f"Match({self.endpoint.method} {self.endpoint.path})"


class _Node:
    """A place in the tree of paths: what follows by its name, and what follows whatever it is called."""

    __slots__ = ("by_name", "methods", "rest")

    def __init__(self) -> None:
        self.by_name: dict[bytes, _Node] = {}
        self.rest: _Node | None = None
        self.methods: Methods = {}


_FIXED: dict[bytes, Methods] = {}
_TREE = _Node()


def _plant() -> None:
    for family in TABLE:
        for endpoint in family.endpoints:
            if "{" in endpoint.path or "<" in endpoint.path:
                node = _TREE
                for part in endpoint.path[1:].split("/"):
                    if part[0] in "{<":
                        node.rest = node = node.rest or _Node()
                    else:
                        node = node.by_name.setdefault(part.encode(), _Node())
                node.methods[endpoint.method] = endpoint
                continue
            for prefix in PREFIXES:
                if prefix or endpoint.path in BARE:
                    _FIXED.setdefault(f"{prefix}{endpoint.path}".encode(), {})[endpoint.method] = endpoint


_plant()
_MATCHES = {path: {method: Match(endpoint) for method, endpoint in methods.items()} for path, methods in _FIXED.items()}


def is_data_plane(path: str) -> bool:
    """Whether ``path`` belongs to the data plane, served there or not."""
    return path.startswith(("/v1/", "/openai/v1/")) or path.encode() in _FIXED or path in {"/v1", "/openai/v1"}


def match(method: str, raw_path: bytes, *, wants_websocket: bool = False) -> Match:
    """The endpoint of a request. Raises NotFound, MethodNotAllowed or UpgradeRequired.

    A path that is in no table has an endpoint of its own that is not ``known``: whether the key may use it the
    pipeline decides. A HEAD is a GET, as far as the table is concerned.
    """
    if wants_websocket:
        socket = SOCKETS.get(raw_path)
        if socket is None:
            raise UpgradeRequired("There is no WebSocket here.")
        return Match(socket)
    fixed = _MATCHES.get(raw_path)
    if fixed is not None:
        found = fixed.get(method)
        if found is not None:
            return found
    methods, ids = (_FIXED.get(raw_path, {}), ()) if fixed is not None else _walk(raw_path)
    path = _below_prefix(raw_path).decode("ascii", "replace")
    if not methods:
        return _unknown(method, raw_path, path)
    endpoint = methods.get("GET" if method == "HEAD" else method)
    if endpoint is None:
        error: GatewayError = MethodNotAllowed(headers=[(b"allow", allowed(methods))])
        raise error
    return Match(endpoint, path, _kinds(endpoint, ids))


def match_in_batch(method: str, url: str) -> Endpoint | None:
    """What a line of a batch asks for, if it is a create that is billed by its tokens; else None."""
    found = _FIXED.get(url.encode("ascii", "replace"), {}).get(method) if url.startswith("/v1/") else None
    if found is None or found.body != "json":
        return None
    return found if found.metered or found.family == "moderations" else None


def allow(raw_path: bytes) -> bytes:
    """What an ``allow`` header says of a path. Raises NotFound."""
    methods = _FIXED.get(raw_path) or _walk(raw_path)[0]
    if not methods:
        raise NotFound("There is no such endpoint.")
    return allowed(methods)


def allowed(methods: Methods) -> bytes:
    """The methods of a path, and those that every path has."""
    names = {*methods, "OPTIONS"} | ({"HEAD"} if "GET" in methods else set())
    return ", ".join(sorted(names)).encode()


def _below_prefix(raw_path: bytes) -> bytes:
    for prefix in PREFIXES:
        start = prefix.encode() + b"/"
        if prefix and raw_path.startswith(start):
            return raw_path[len(prefix) :]
    return raw_path


def _walk(raw_path: bytes) -> tuple[Methods, tuple[str, ...]]:
    """The methods of a path with ids in it, and the ids; none where it is in no table."""
    path = _below_prefix(raw_path)
    if path == raw_path or len(path) > PATH_BYTES_MAX:
        return {}, ()
    if path.startswith(b"/models/"):
        # A model's name may have slashes in it.
        name = unquote(path[len(b"/models/") :].decode("ascii", "replace"))
        node = _TREE.by_name[b"models"].rest
        return (node.methods, (name,)) if node is not None and MODEL_ID.match(name) else ({}, ())
    node, ids = _TREE, []
    for part in path[1:].split(b"/"):
        following = node.by_name.get(part)
        if following is None:
            following = node.rest
            text = unquote(part.decode("ascii", "replace"))
            if following is None or OBJECT_ID.match(text) is None:
                return {}, ()
            ids.append(text)
        node = following
    return node.methods, tuple(ids)


def _kinds(endpoint: Endpoint, ids: tuple[str, ...]) -> Ids:
    """The ids of a path that must be the team's, each with its kind."""
    places = [part for part in endpoint.path.split("/") if part and part[0] in "{<"]
    return tuple((place[1:-1], each) for place, each in zip(places, ids, strict=True) if place[0] == "{")


def _unknown(method: str, raw_path: bytes, path: str) -> Match:
    """An endpoint for a path in no table, if its form is beyond doubt: no dots, no escapes, no empty parts."""
    parts = raw_path.split(b"/")[1:]
    if len(raw_path) > PATH_BYTES_MAX or path.encode() == raw_path or not all(map(_is_plain, parts)):
        raise NotFound("There is no such endpoint.")
    lower = path.lower()
    if lower[1:].split("/", maxsplit=1)[0] in NEVER or lower.startswith(PAST_THE_GATEWAY):
        raise NotFound("There is no such endpoint.")
    has_body = method in {"POST", "PUT", "PATCH"}
    return Match(Endpoint(EVERYTHING, method, path, body="upload" if has_body else "", known=False), path)


def _is_plain(part: bytes) -> bool:
    return _PLAIN_SEGMENT.match(part) is not None and part.strip(b".") != b""
