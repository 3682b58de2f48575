"""Changes that commands make, in the audit log: they name the person whose terminal it is."""

from __future__ import annotations

import getpass
from collections.abc import Mapping
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from app.store.audit import Actor, note_change

VOLATILE = frozenset({"secrets", "key", "token"})
"""Secrets are told of by their key; the text of one is in nothing that is kept."""


def at_terminal() -> Actor:
    """Whoever runs the command, as the system names them."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        # A container may run as a number that nobody has named.
        name = "unknown"
    return Actor("cli", name, name)


async def note(
    connection: AsyncConnection,
    action: str,
    *,
    now_ms: int,
    object_id: str,
    object_name: str,
    team_id: str | None,
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
) -> None:
    """Writes down a change in its own transaction; ``action`` is ``kind.verb``."""
    await note_change(
        connection,
        at_terminal(),
        action=action,
        object_kind=action.partition(".")[0],
        object_id=object_id,
        object_name=object_name,
        team_id=team_id,
        before=_kept(before),
        after=_kept(after),
        now_ms=now_ms,
    )


def _kept(side: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return None if side is None else {name: value for name, value in side.items() if name not in VOLATILE}
