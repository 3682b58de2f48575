"""``headgate limits``: every limit that can be set on a team or a key; running servers follow within a second."""

from __future__ import annotations

import time
from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Any

import typer
from msgspec import UNSET
from sqlalchemy.ext.asyncio import AsyncConnection

from app.cli.noting import note
from app.cli.options import AsJson, DataDir, limit_of, moment_text, reading, writing
from app.cli.output import Format, run, show_object, show_rows
from app.cli.plain_limits import BUDGET_WINDOWS, budget_of, time_zone_of
from app.core.identity import WINDOWS_OF_KIND, LimitKind, LimitMode, LimitPolicy, LimitRule, LimitWindow
from app.core.money import usd_text
from app.core.rules import check_rule, limit_name
from app.store import keys as stored_keys
from app.store import limits as stored
from app.store import teams as stored_teams
from app.store.limits import LimitChanges
from app.store.people import OwnerNames, names_of
from app.store.rows import LimitRow
from app.store.spending import running_window, spent_by_rule

limits = typer.Typer(help="Limits and budgets of teams and keys.", no_args_is_help=True)

COLUMNS = (
    "id",
    "team",
    "key",
    "limit",
    "maximum",
    "model",
    "tag",
    "policy",
    "mode",
    "bound",
    "spent_usd",
    "remaining_usd",
    "window_ends_at",
)


class BoundOption(StrEnum):
    """How much of a budget a request holds while it runs."""

    maximum = "maximum"
    estimate = "estimate"


Team = Annotated[str | None, typer.Option("--team", help="The team's name or id.")]
Key = Annotated[str | None, typer.Option("--key", help="The key's id or name: a limit of this key alone.")]
LimitId = Annotated[str, typer.Argument(help="The limit's id, as `headgate limits list` shows it.")]
Requests = Annotated[str | None, typer.Option("--requests", metavar="N", help="So many requests per window.")]
Tokens = Annotated[str | None, typer.Option("--tokens", metavar="N", help="So many tokens per window.")]
Concurrency = Annotated[str | None, typer.Option("--concurrency", metavar="N", help="So many requests at once.")]
BudgetUsd = Annotated[str | None, typer.Option("--budget-usd", metavar="X", help="So many dollars per window.")]
Protective = Annotated[
    bool | None,
    typer.Option(
        "--protective/--strict",
        help="Where limits cannot be counted: go on under a local share, or refuse. [default: --strict]",
        show_default=False,
    ),
]
Observe = Annotated[
    bool | None,
    typer.Option(
        "--observe/--enforce", help="Only count what it would refuse. [default: --enforce]", show_default=False
    ),
]
Bound = Annotated[
    BoundOption | None,
    typer.Option("--bound", help="What a running request holds of a budget. [default: maximum]", show_default=False),
]


def now_ms() -> int:
    return time.time_ns() // 1_000_000


@limits.command("add")
def add_limit(
    team: Team = None,
    key: Key = None,
    requests: Requests = None,
    tokens: Tokens = None,
    concurrency: Concurrency = None,
    budget_usd: BudgetUsd = None,
    window: Annotated[
        str | None, typer.Option("--window", help=f"minute|hour|day; for a budget {BUDGET_WINDOWS}.")
    ] = None,
    time_zone: Annotated[
        str | None,
        typer.Option("--time-zone", metavar="ZONE", help="Where a budget's days begin. [default: UTC]"),
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", metavar="PATTERN", help="Count only requests for these models.")
    ] = None,
    tag: Annotated[
        str | None,
        typer.Option("--tag", metavar="NAME[=VALUE]", help="Count only this tag; without a value, each one by itself."),
    ] = None,
    protective: Protective = None,
    observe: Observe = None,
    bound: Bound = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Add a limit to a team, or to one key."""
    kind, maximum = _maximum(requests, tokens, concurrency, budget_usd)
    if kind != "money" and (time_zone is not None or bound is not None):
        raise typer.BadParameter("--time-zone and --bound belong to --budget-usd")
    tag_name, _, tag_value = (tag or "").partition("=")
    rule = LimitRule(
        id="",
        kind=kind,
        maximum=maximum,
        window=_window(kind, window),
        model=model,
        tag_name=None if tag is None else tag_name,
        tag_value=tag_value if tag is not None and "=" in tag else None,
        time_zone="UTC" if time_zone is None else time_zone_of(time_zone),
        policy=_policy(protective) or "strict",
        mode=_mode(observe) or "enforce",
        bound=bound.value if bound is not None else "maximum",
    )
    try:
        check_rule(rule)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error

    async def work() -> dict[str, Any]:
        async with writing(data_dir) as connection:
            team_id, key_id = await _owner(connection, team, key)
            if team_id is None:
                raise typer.BadParameter("a limit needs --team or --key")
            added = await stored.add_limit(connection, rule, team_id=team_id, key_id=key_id, now_ms=now_ms())
            shown = await _shown_one(connection, added)
            await _note(connection, "limit.create", added, None, shown)
            return shown

    show_object(run(work()), as_json=as_json)


@limits.command("list")
def list_limits(
    team: Team = None,
    key: Key = None,
    data_dir: DataDir = None,
    style: Annotated[Format, typer.Option("--format", help="How rows come out.")] = Format.table,
    as_json: AsJson = False,
) -> None:
    """List limits: all, a team's with those of its keys, or a key's. Defaults are in the configuration file."""

    async def work() -> list[dict[str, Any]]:
        async with reading(data_dir) as connection:
            team_id, key_id = await _owner(connection, team, key)
            rows = await stored.list_limits(connection, team_id, key_id)
            return await _shown(connection, rows)

    show_rows(run(work()), COLUMNS, Format.json if as_json else style)


@limits.command("update")
def update_limit(
    limit: LimitId,
    requests: Requests = None,
    tokens: Tokens = None,
    concurrency: Concurrency = None,
    budget_usd: BudgetUsd = None,
    protective: Protective = None,
    observe: Observe = None,
    bound: Bound = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Change a limit's maximum or how it is held. What it counted stays; for another window, add another limit."""
    given = [requests, tokens, concurrency, budget_usd]
    wanted = _maximum(*given) if any(text is not None for text in given) else None
    changes = LimitChanges(
        maximum=UNSET if wanted is None else wanted[1],
        policy=_policy(protective) or UNSET,
        mode=_mode(observe) or UNSET,
        bound=UNSET if bound is None else bound.value,
    )

    async def work() -> dict[str, Any]:
        async with writing(data_dir) as connection:
            row = await stored.find_limit(connection, limit)
            found, before = row.rule, await _shown_one(connection, row)
            if wanted is not None and wanted[0] != found.kind:
                raise typer.BadParameter(f"the limit is on {found.kind}, not on {wanted[0]}")
            if bound is not None and found.kind != "money":
                raise typer.BadParameter("--bound belongs to a budget")
            changed = await stored.update_limit(connection, limit, changes)
            shown = await _shown_one(connection, changed)
            await _note(connection, "limit.update", changed, before, shown)
            return shown

    show_object(run(work()), as_json=as_json)


@limits.command("remove")
def remove_limit(limit: LimitId, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Remove a limit."""

    async def work() -> dict[str, Any]:
        async with writing(data_dir) as connection:
            shown = await _shown_one(connection, await stored.find_limit(connection, limit))
            await _note(connection, "limit.delete", await stored.remove_limit(connection, limit), shown, None)
            return shown

    show_object(run(work()), as_json=as_json)


async def _note(
    connection: AsyncConnection, action: str, row: LimitRow, before: dict[str, Any] | None, after: dict[str, Any] | None
) -> None:
    await note(
        connection,
        action,
        now_ms=now_ms(),
        object_id=row.rule.id,
        object_name=limit_name(row.rule.kind, row.rule.window),
        team_id=row.team_id,
        before=before,
        after=after,
    )


def _maximum(
    requests: str | None, tokens: str | None, concurrency: str | None, budget_usd: str | None
) -> tuple[LimitKind, int]:
    """The one thing that is limited, and to how much. Raises BadParameter."""
    counts: tuple[tuple[LimitKind, str | None], ...] = (
        ("requests", requests),
        ("tokens", tokens),
        ("concurrency", concurrency),
    )
    given = [(kind, limit_of(text)) for kind, text in counts if text is not None]
    if budget_usd is not None:
        given.append(("money", budget_of(budget_usd)))
    if len(given) != 1:
        raise typer.BadParameter("expected one of --requests, --tokens, --concurrency and --budget-usd")
    ((kind, maximum),) = given
    if not isinstance(maximum, int):
        raise typer.BadParameter("a limit is taken away by `headgate limits remove`")
    return kind, maximum


def _window(kind: LimitKind, text: str | None) -> LimitWindow:
    """Raises BadParameter."""
    windows = WINDOWS_OF_KIND[kind]
    if windows == ("",):
        if text is not None:
            raise typer.BadParameter(f"a limit on {kind} has no --window")
        return ""
    for window in windows:
        if window == text:
            return window
    raise typer.BadParameter(f"a limit on {kind} needs --window {'|'.join(windows)}")


def _policy(protective: bool | None) -> LimitPolicy | None:  # noqa: FBT001 - a flag of the command line
    return None if protective is None else "protective" if protective else "strict"


def _mode(observe: bool | None) -> LimitMode | None:  # noqa: FBT001 - as above
    return None if observe is None else "observe" if observe else "enforce"


async def _owner(connection: AsyncConnection, team: str | None, key: str | None) -> tuple[str | None, str | None]:
    """The ids of the team and the key that are named; a key's team is known by the key."""
    team_id = (await stored_teams.find_team(connection, team)).id if team is not None else None
    if key is None:
        return team_id, None
    found = await stored_keys.find_key(connection, key, team_id)
    return found.team_id, found.id


async def _shown_one(connection: AsyncConnection, row: LimitRow) -> dict[str, Any]:
    return (await _shown(connection, [row]))[0]


async def _shown(connection: AsyncConnection, rows: Sequence[LimitRow]) -> list[dict[str, Any]]:
    """Limits as they are told: a row each, or one for each value of a tag that has spent something."""
    names = await names_of(connection, [row.team_id for row in rows], [row.key_id for row in rows if row.key_id])
    now = now_ms()
    spent = await spent_by_rule(connection, [row for row in rows if row.rule.kind == "money"], now)
    shown = []
    for row in rows:
        told = _told(row, names)
        by_value = sorted(spent.get(row.rule.id, {}).items(), key=lambda each: each[0] or "")
        shown += [{**told, **_standing(row.rule, value, nanousd, now)} for value, nanousd in by_value] or [told]
    return shown


def _told(row: LimitRow, names: OwnerNames) -> dict[str, Any]:
    rule = row.rule
    is_budget = rule.kind == "money"
    return {
        "id": rule.id,
        "team": names.teams[row.team_id],
        "key": None if row.key_id is None else names.keys[row.key_id],
        "limit": limit_name(rule.kind, rule.window),
        "maximum": usd_text(rule.maximum) if is_budget else rule.maximum,
        "model": rule.model,
        "tag": rule.tag_name if rule.tag_value is None else f"{rule.tag_name}={rule.tag_value}",
        "time_zone": rule.time_zone if is_budget else None,
        "policy": rule.policy,
        "mode": rule.mode,
        "bound": rule.bound if is_budget else None,
        "spent_usd": None,
        "remaining_usd": None,
        "window_ends_at": None,
    }


def _standing(rule: LimitRule, value: str | None, nanousd: int, now: int) -> dict[str, Any]:
    """What is settled in the window that runs; ``value`` is of a tag whose values count on their own."""
    return {
        **({} if value is None else {"tag": f"{rule.tag_name}={value}"}),
        "spent_usd": usd_text(nanousd),
        "remaining_usd": usd_text(max(rule.maximum - nanousd, 0)),
        "window_ends_at": None if rule.window == "total" else moment_text(running_window(rule, now)[1]),
    }
