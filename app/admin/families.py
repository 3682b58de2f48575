"""The families of endpoints that a team or a key may be given, and by whom."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy.ext.asyncio import AsyncConnection

from app.admin.access import Caller
from app.admin.wire import Tools
from app.core.errors import Forbidden, InvalidRequest
from app.core.families import EVERYTHING, Families, families_of, families_on
from app.store.teams import find_team_by_id


def families_sent(sent: Sequence[str] | None, tools: Tools) -> Families | None:
    """What a body gives; null is what is on without it. Raises InvalidRequest."""
    if sent is None:
        return None
    rule = f"endpoints are any of {', '.join(tools.families)}, or {EVERYTHING}; null is what is on without them."
    try:
        families = families_of(sent, tools.families)
    except ValueError as error:
        raise InvalidRequest(rule, param="endpoints") from error
    if not families:
        raise InvalidRequest(rule, param="endpoints")
    return families


async def require_may_give(
    connection: AsyncConnection,
    caller: Caller,
    tools: Tools,
    *,
    team_id: str,
    families: Families | None,
    owned: Families | None = None,
) -> None:
    """A lead gives a key of the team what the team has, never everything; what is ``owned``, the key's own by now, may
    stay. Raises Forbidden, NoSuchTeam.
    """
    if families is None or caller.role == "admin":
        return
    team = await find_team_by_id(connection, team_id)
    free = {*families_on(team.endpoints, tools.families, tools.default_families)} - {EVERYTHING}
    kept = () if owned is None else families_on(owned, tools.families, ())
    missing = [name for name in families if name not in free and name not in kept]
    if missing:
        names = ", ".join(missing)
        raise Forbidden(f"The team was not given {names}: an administrator may give it.", param="endpoints")
