"""What is kept of an answer, and where."""

from __future__ import annotations

from typing import Protocol

import msgspec

from app.core.errors import Headers
from app.core.usage import NOTHING_USED, Usage

JSON_FORM = "json"
STREAM_FORM = "stream"
"""The form of a stream without ``stream_options``; with them their digest follows behind a dot."""


class Address(msgspec.Struct, frozen=True):
    """Where an answer is kept. ``digest`` (32 bytes, keyed) stands for the scope and all of the request that could
    change its answer; ``form`` for how the answer was told.
    """

    digest: bytes
    form: str


class Entry(msgspec.Struct, frozen=True):
    """One complete, successful answer: its bytes as they came, and what it cost.

    ``headers`` are the upstream's that may be repeated. Times are milliseconds since 1970 UTC; ``made_at_ms``
    is when the answer had come to its end. ``change`` is the last change of the ledger that was known when the
    call began: a later clearing takes the entry away. ``cost_nanousd`` is None where the model had no price.
    ``request_digest`` is of the request's body where the entry answers an Idempotency-Key, else empty.
    """

    status: int
    headers: Headers
    body: bytes
    made_at_ms: int
    expires_at_ms: int
    change: int
    team_id: str
    model_requested: str
    upstream: str
    model: str
    model_served: str | None = None
    service_tier: str | None = None
    response_id: str | None = None
    usage: Usage = NOTHING_USED
    usage_raw: str | None = None
    tool_usage: str | None = None
    cost_nanousd: int | None = None
    price_source: str | None = None
    price_version: str | None = None
    estimated: bool = False
    request_digest: bytes = b""


class Look(msgspec.Struct, frozen=True):
    """What a look-up found: an entry, told in ``form`` (as asked for, or the other one), or who is at work on it.

    ``holder`` is the token of whoever holds the lease on the address: the asker's own where it has just got it,
    another's, or "" where no lease was asked for, an entry was found, or the store does not answer (``away``).
    """

    entry: Entry | None = None
    form: str = ""
    holder: str = ""
    away: bool = False


class CacheStore(Protocol):
    """Where entries are kept: memory or Redis, one contract.

    Nothing raises for a store that is away: it knows nothing then, and what it is told is lost. Entries past
    their expiry are not found. An entry is found only at the address at which it was kept, as it was kept.
    """

    async def look(self, address: Address, *, also: str = "", token: str = "", lease_only: bool = False) -> Look:
        """The entry at ``address``, else the one with the same digest and the form ``also`` (if given). Where there
        is none and ``token`` is given: the lease on ``address``, which is ``token``'s, from now on, if nobody else
        has it.

        With ``lease_only`` what is kept does not matter, as it may not be told any more: nothing is read, and
        ``token`` asks for the lease all the same. Without a token that is ``Look()``.
        """
        ...

    def keep(
        self, address: Address, entry: Entry, *, token: str = "", derived: tuple[Address, Entry | None] | None = None
    ) -> None:
        """Keep ``entry``, visible to every later ``look`` of this process, and give the lease back if ``token`` has
        it.

        ``derived`` is the same answer in the other form, of the same digest. It takes the place of what is there,
        since what has just come is newer; None for the entry, or one that is too large, takes it away, since the
        answer that has just come makes an old one wrong. Without ``derived`` the other form stays as it is. Where
        ``entry`` is refused, what was there may stay, in either form.
        """
        ...

    def renew(self, address: Address, token: str) -> None:
        """The lease is ``token``'s for another while, if it still is or if nobody has it now: whoever is still at
        work puts back a lease that has lapsed meanwhile. Somebody else's is never taken.
        """
        ...

    def release(self, address: Address, token: str) -> None:
        """Give the lease back, if ``token`` has it."""
        ...

    async def close(self) -> None: ...
