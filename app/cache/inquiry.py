"""What the cache has to do with one request: where its answer would be, and what may be done with it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import msgspec

from app.cache.entry import JSON_FORM, Address
from app.cache.fingerprint import DIGEST_BYTES, Nature, digest_of, keeps_state, nature_of, stream_form, told_headers
from app.cache.wishes import NO_WISH, Policy, Wish, wish_of
from app.core.codec import JSONObject
from app.core.errors import Headers
from app.core.exchange import Endpoint
from app.core.identity import CacheMode, Principal
from app.core.peek import Peek

IDEMPOTENCY_FORM = "idempotency"
_PERSON = b"headgate-idem-1"
_parts_encoder = msgspec.msgpack.Encoder()


class Inquiry(msgspec.Struct, frozen=True):
    """``address`` is None where the cache is passed by, and ``reason`` says why.

    ``refreshes``: what was kept so far is old. ``looks``: what is kept may be the answer. ``keeps``: the answer may be
    kept. ``joins``: a call in flight for the same address may be joined. ``shadow``: nothing of that is done, only
    measured. ``also`` is the other form that would do. ``team_id`` and ``models`` (as asked for, and as routed) are
    what clearings name. ``request_digest`` is set where the address is that of an Idempotency-Key.
    """

    reason: str
    nature: Nature = "never"
    address: Address | None = None
    also: str = ""
    looks: bool = False
    keeps: bool = False
    joins: bool = False
    shadow: bool = False
    refreshes: bool = False
    age_s_max: float | None = None
    only_if_cached: bool = False
    ttl_s: float = 0.0
    request_digest: bytes = b""
    team_id: str = ""
    models: tuple[str, ...] = ()


class Asked(msgspec.Struct, frozen=True):
    """One request, as far as the cache must know it. ``sources`` tells (upstream, base URL, model) of those that may
    serve it, and which of the client's headers they are sent beside the usual ones.
    """

    endpoint: Endpoint
    query: bytes
    headers: Headers
    principal: Principal
    ask: Peek
    body: JSONObject
    sources: Callable[[], tuple[Sequence[tuple[str, str, str]], frozenset[bytes]]]


def inquire(asked: Asked, policy: Policy, secret: bytes, *, idempotency_ttl_s: float) -> Inquiry:
    """Raises InvalidRequest for wishes that cannot be understood."""
    wish = wish_of(asked.headers)
    if wish.idempotency_key and not wish.no_store:
        return _idempotent(asked, wish.idempotency_key, secret, idempotency_ttl_s)
    mode = policy.mode_for(asked.principal)
    if wish.on and mode == "deterministic":
        mode = "all"
    refusal = "off" if mode == "off" else "request" if wish.off else ""
    if refusal:
        return Inquiry(refusal, only_if_cached=wish.only_if_cached)
    is_plain = mode == "deterministic" and wish is NO_WISH and asked.endpoint.dialect != "embeddings"
    if is_plain and "temperature" not in asked.body.value:
        # Most requests: told apart by one look.
        return Inquiry("temperature")
    dialect = asked.endpoint.dialect
    nature, reason = nature_of(dialect, asked.ask, asked.body, only_deterministic=mode == "deterministic")
    if nature == "never" or (nature == "repeatable" and mode == "deterministic"):
        return Inquiry(reason, nature, only_if_cached=wish.only_if_cached)
    if policy.scope == "global" and keeps_state(asked.endpoint.dialect, asked.ask, asked.body):
        # Whoever is given the answer must be able to retrieve it, and only its team can.
        return Inquiry("store", "never", only_if_cached=wish.only_if_cached)
    return _kept(asked, policy, mode, wish, nature, secret)


def _kept(asked: Asked, policy: Policy, mode: CacheMode, wish: Wish, nature: Nature, secret: bytes) -> Inquiry:
    shadow = mode == "shadow"
    routes, forwarded = asked.sources()
    digest = digest_of(
        secret,
        scope=("shadow " if shadow else "") + _scope(policy, asked.principal),
        endpoint=asked.endpoint,
        query=asked.query,
        headers=asked.headers,
        forwarded=forwarded,
        routes=routes,
        body=asked.body,
    )
    is_stream = asked.ask.stream
    looks = not wish.refresh
    return Inquiry(
        reason="shadow" if shadow else "refresh" if wish.refresh else "",
        nature=nature,
        address=Address(digest, stream_form(asked.body) if is_stream else JSON_FORM),
        # A stream can be made of a JSON answer; the JSON of a stream is kept beside it.
        also=JSON_FORM if is_stream and asked.endpoint.dialect == "responses" else "",
        looks=looks,
        keeps=True,
        joins=looks and not shadow,
        shadow=shadow,
        refreshes=wish.refresh,
        age_s_max=wish.age_s_max,
        only_if_cached=wish.only_if_cached,
        ttl_s=policy.ttl_s,
        team_id=asked.principal.team_id,
        models=(asked.ask.model, *(model for _, _, model in routes)),
    )


def _scope(policy: Policy, principal: Principal) -> str:
    if policy.scope == "global":
        return "global"
    return f"key {principal.key_id}" if policy.scope == "key" else f"team {principal.team_id}"


def _idempotent(asked: Asked, idempotency_key: str, secret: bytes, ttl_s: float) -> Inquiry:
    """A key stands for one execution of one request of one gateway key: neither shared nor joined."""
    parts = (asked.principal.key_id, asked.endpoint.path, idempotency_key)
    _, forwarded = asked.sources()
    request = (asked.query, asked.body.body, told_headers(asked.headers, forwarded))
    return Inquiry(
        reason="idempotency key",
        address=Address(_digest(secret, parts), IDEMPOTENCY_FORM),
        looks=True,
        keeps=True,
        ttl_s=ttl_s,
        request_digest=_digest(secret, request),
    )


def _digest(secret: bytes, parts: tuple[object, ...]) -> bytes:
    told = _parts_encoder.encode(parts)
    return hashlib.blake2b(told, digest_size=DIGEST_BYTES, key=secret, person=_PERSON).digest()
