"""Who is asking, as the data plane sees it."""

from __future__ import annotations

import msgspec


class LimitSettings(msgspec.Struct, frozen=True, omit_defaults=True):
    """The limits that were set on a team or a key; None is no limit."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrency: int | None = None


class Principal(msgspec.Struct, frozen=True, eq=False):
    """One secret of a live key, with all that its requests need. Compared by identity.

    ``models`` and ``endpoints`` are None where everything (that is on by default) is allowed.
    """

    team_id: str
    team_name: str
    key_id: str
    key_name: str
    secret_id: str
    key_limits: LimitSettings
    team_limits: LimitSettings
    models: tuple[str, ...] | None = None
    endpoints: tuple[str, ...] | None = None
    expires_at_ms: int | None = None
