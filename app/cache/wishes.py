"""What policy and request say about the cache: who may be answered from it, and what is kept for whom.

Policy is the administrator's: the key's mode, else the model's, else the file's; ``off`` on a key or a model
holds whatever the others say. A request can be stricter than that; ``x-headgate-cache: on`` alone asks for
more, and gets it only where the policy is ``deterministic``.
"""

from __future__ import annotations

import re

import msgspec

from app.core.errors import Headers, InvalidRequest, quoted
from app.core.identity import CacheMode, CacheScope, Principal

IDEMPOTENCY_KEY_BYTES_MAX = 255
_WISHES = frozenset((b"on", b"off", b"refresh"))
_SECONDS = re.compile(r"[0-9]+\Z")
_PRINTABLE = re.compile(rb"[!-~](?:[ -~]*[!-~])?\Z")


class Policy(msgspec.Struct, frozen=True):
    """What holds for one model: ``mode`` is None where the model says nothing about it."""

    mode: CacheMode | None
    default: CacheMode
    scope: CacheScope
    ttl_s: float

    def mode_for(self, principal: Principal) -> CacheMode:
        """The mode that holds for a principal's requests."""
        if self.mode == "off" or principal.cache == "off":
            return "off"
        return principal.cache or self.mode or self.default


class Wish(msgspec.Struct, frozen=True):
    """What a request's headers say. ``age_s_max``: nothing older; ``refresh``: nothing kept so far."""

    on: bool = False
    off: bool = False
    no_store: bool = False
    refresh: bool = False
    only_if_cached: bool = False
    age_s_max: float | None = None
    idempotency_key: str = ""


NO_WISH = Wish()


def wish_of(headers: Headers) -> Wish:
    """Raises InvalidRequest for what cannot be understood, where it is ours to understand."""
    wish: bytes | None = None
    control: bytes | None = None
    idempotency: bytes | None = None
    for name, value in headers:
        if name == b"x-headgate-cache":
            wish = value
        elif name == b"cache-control":
            control = value if control is None else control + b"," + value
        elif name == b"idempotency-key":
            if idempotency is not None:
                raise InvalidRequest("There are two Idempotency-Key headers.", param="idempotency-key")
            idempotency = value
    if wish is None and control is None and idempotency is None:
        return NO_WISH
    word = b"" if wish is None else wish.strip().lower()
    if wish is not None and word not in _WISHES:
        told = quoted(wish.decode("latin-1"))
        raise InvalidRequest(f"x-headgate-cache is {told!r}: expected on, off or refresh.", param="x-headgate-cache")
    directives = _directives(control or b"")
    return Wish(
        on=word == b"on",
        off=word == b"off" or "no-store" in directives,
        no_store="no-store" in directives,
        refresh=word == b"refresh" or "no-cache" in directives,
        only_if_cached="only-if-cached" in directives,
        age_s_max=_age_s_max(directives),
        idempotency_key=_idempotency_key(idempotency),
    )


def _directives(control: bytes) -> dict[str, str]:
    """RFC 9111, 5.2: names in lower case with their arguments; what is not known does not matter."""
    found: dict[str, str] = {}
    for part in control.decode("latin-1").split(","):
        name, _, argument = part.strip().partition("=")
        if name:
            found.setdefault(name.strip().lower(), argument.strip().strip('"'))
    return found


def _age_s_max(directives: dict[str, str]) -> float | None:
    argument = directives.get("max-age")
    if argument is None:
        return None
    # RFC 9111, 4.2.1: what is not valid is stale.
    return float(argument) if _SECONDS.match(argument) else 0.0


def _idempotency_key(value: bytes | None) -> str:
    if value is None:
        return ""
    key = value.strip()
    if len(key) > IDEMPOTENCY_KEY_BYTES_MAX or _PRINTABLE.match(key) is None:
        raise InvalidRequest(
            f"An Idempotency-Key has 1 to {IDEMPOTENCY_KEY_BYTES_MAX} printable ASCII characters.",
            param="idempotency-key",
        )
    return key.decode("ascii")
