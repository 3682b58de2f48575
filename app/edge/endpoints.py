"""The endpoint table: what is not in it is 404.

Paths are compared as they came, undecoded: ``/v1/../x``, ``%2e`` and a trailing slash are other paths.
"""

from __future__ import annotations

from app.core.errors import GatewayError, MethodNotAllowed, NotFound, UpgradeRequired
from app.core.exchange import Endpoint

ENDPOINTS = (
    Endpoint("responses", "POST", "/responses", metered=True),
    Endpoint("chat", "POST", "/chat/completions", metered=True),
    Endpoint("embeddings", "POST", "/embeddings", metered=True),
    Endpoint("models", "GET", "/models", metered=False),
)
FAMILIES = tuple(endpoint.family for endpoint in ENDPOINTS)
PREFIXES = ("/v1", "/openai/v1", "")
"""SDKs are configured with and without the version; Azure-style clients put ``/openai`` before it."""

WEBSOCKET_PATHS = frozenset(f"{prefix}{path}".encode() for prefix in PREFIXES for path in ("/responses", "/realtime"))

_TABLE: dict[bytes, dict[str, Endpoint]] = {}
for _endpoint in ENDPOINTS:
    for _prefix in PREFIXES:
        _TABLE.setdefault(f"{_prefix}{_endpoint.path}".encode(), {})[_endpoint.method] = _endpoint


def is_data_plane(path: str) -> bool:
    """Whether ``path`` belongs to the data plane, served there or not."""
    return path.startswith(("/v1/", "/openai/v1/")) or path.encode() in _TABLE or path in {"/v1", "/openai/v1"}


def match(method: str, raw_path: bytes, *, wants_websocket: bool) -> Endpoint:
    """The endpoint of a request. Raises NotFound, MethodNotAllowed or UpgradeRequired."""
    if wants_websocket and raw_path in WEBSOCKET_PATHS:
        raise UpgradeRequired
    methods = _TABLE.get(raw_path)
    if methods is None:
        raise NotFound("There is no such endpoint.")
    endpoint = methods.get(method)
    if endpoint is None:
        allowed = ", ".join(sorted(methods)).encode()
        error: GatewayError = MethodNotAllowed(headers=[(b"allow", allowed)])
        raise error
    return endpoint
