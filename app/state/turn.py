"""One turn: what a request brought, and the response to it, as both were written."""

from __future__ import annotations

import msgspec

TURNS_MAX = 1000
"""Of one chain. The longest conversations of agents have some hundred."""
TURN_BYTES_MAX = 32 * 2**20
"""A turn that is larger is not kept."""


class Content(msgspec.Struct, frozen=True, array_like=True):
    """What is encrypted of a turn. It says whose it is, so that one that was moved to another place is not read there.

    ``input`` is the request's own items as they stand in an array, without its brackets; ``response`` the whole
    response. ``pinned`` is the upstream that has what the input names (a file), "" for none.
    """

    team_id: str
    turn_id: str
    input: bytes
    response: bytes
    pinned: str = ""

    def __repr__(self) -> str:
        return f"Content(turn_id={self.turn_id!r}, bytes={len(self.input) + len(self.response)})"


class Turn(msgspec.Struct, frozen=True):
    """A kept turn. ``chain_id`` is the first one's of its chain, ``previous_id`` that of the one before it."""

    turn_id: str
    team_id: str
    response_id: str
    upstream: str
    previous_id: str | None
    chain_id: str
    created_at_ms: int
    replay_bytes: int
    content: Content

    def __repr__(self) -> str:
        return f"Turn(turn_id={self.turn_id!r}, response_id={self.response_id!r})"


class Keeping(msgspec.Struct, frozen=True):
    """What of a request is to be kept with its response, and which turn it goes on from. ``upstreams`` are those that
    keep nothing themselves.
    """

    team_id: str
    input: bytes
    upstreams: frozenset[str]
    pinned: str = ""
    previous_id: str | None = None
    chain_id: str | None = None

    def __repr__(self) -> str:
        return f"Keeping(team_id={self.team_id!r}, bytes={len(self.input)})"
