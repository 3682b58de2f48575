"""``headgate usage``: the same query as the console's, read by the same rules."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any

import msgspec
import typer
from sqlalchemy.ext.asyncio import AsyncConnection

from app.admin.asking import RANGES, Asked, Span, groups_asked, span_asked
from app.cli.options import AsJson, DataDir, reading
from app.cli.output import Format, run, show_rows
from app.core.errors import InvalidRequest
from app.core.money import usd_text
from app.store.keys import find_key
from app.store.teams import find_team
from app.store.usage import MEMBERS, PERIODS, UsageFilter, UsageNotTold, UsageReport, UsageSums, usage

COLUMNS = (
    "requests",
    "input_tokens",
    "cached_tokens",
    "output_tokens",
    "reasoning_tokens",
    "cost_usd",
    "saved_usd",
    "unpriced",
    "estimated",
)
MORE_COLUMNS = ("failed", "cache_write_tokens", "estimated_usd")
"""In data, not in tables for people."""
TOTAL = "total"


def show_usage(
    by: Annotated[
        str, typer.Option("--by", help=f"Any of {', '.join((*MEMBERS, 'tag.NAME', *PERIODS))}.")
    ] = "team,key,model",
    named_range: Annotated[
        str | None, typer.Option("--range", metavar="NAME", help=f"{', '.join(RANGES)}. [default: this_month]")
    ] = None,
    since: Annotated[str | None, typer.Option("--from", metavar="D", help="A date or time of the zone.")] = None,
    until: Annotated[str | None, typer.Option("--to", metavar="D", help="A date (its end) or time.")] = None,
    time_zone: Annotated[str, typer.Option("--tz", metavar="ZONE", help="Whose days they are.")] = "UTC",
    team: Annotated[
        list[str] | None, typer.Option("--team", metavar="NAME|ID", help="Only this team; may be given again.")
    ] = None,
    key: Annotated[list[str] | None, typer.Option("--key", metavar="NAME|ID", help="Only this key.")] = None,
    model: Annotated[list[str] | None, typer.Option("--model", metavar="NAME", help="Only this model.")] = None,
    upstream: Annotated[list[str] | None, typer.Option("--upstream", metavar="NAME", help="Only this one.")] = None,
    tag: Annotated[
        list[str] | None, typer.Option("--tag", metavar="NAME=VALUE", help="Only with it; NAME= is without the tag.")
    ] = None,
    data_dir: DataDir = None,
    style: Annotated[Format, typer.Option("--format", help="How rows come out.")] = Format.table,
    as_json: AsJson = False,
) -> None:
    """Cost and tokens, by whatever you ask."""
    given = {"by": ",".join(dict.fromkeys(part.strip() for part in by.split(",") if part.strip())), "tz": time_zone}
    given |= {name: text for name, text in (("range", named_range), ("from", since), ("to", until)) if text is not None}
    groups, span = _read(given)
    wanted = UsageFilter(models=tuple(model or ()), upstreams=tuple(upstream or ()), tags=_tags(tag or ()))

    async def work() -> UsageReport:
        async with reading(data_dir) as connection:
            only = await _of_people(connection, wanted, team or (), key or ())
            try:
                return await usage(connection, groups, span.start_ms, span.end_ms, span.zone, only=only)
            except UsageNotTold as error:
                raise typer.BadParameter(str(error)) from error

    report = run(work())
    rows = [{**row.group, **_sums(row)} for row in report.rows]
    style = Format.json if as_json else style
    if style is not Format.table:
        show_rows(rows, (*groups, *COLUMNS, *MORE_COLUMNS), style)
        return
    if len(rows) > 1 and groups:
        rows.append({**dict.fromkeys(groups, ""), groups[0]: TOTAL, **_sums(report.total)})
    # Data keeps its shape; to a person, what has no price must not look as if it cost nothing.
    rows = [{**row, "cost_usd": "unpriced"} if row["requests"] == row["unpriced"] > 0 else row for row in rows]
    show_rows(rows, (*groups, *COLUMNS), style)


def _read(given: dict[str, str]) -> tuple[tuple[str, ...], Span]:
    """What is grouped by, and the whole quarters of the span. Raises BadParameter."""
    now_ms = time.time_ns() // 1_000_000
    asked = Asked((name, text) for name, text in given.items() if text)
    try:
        groups = groups_asked(asked)
        if "to" in given and "from" not in given:
            # From the first of this month on, as without an end.
            month = span_asked(Asked([("tz", given["tz"])]), now_ms, "this_month")
            first = datetime.fromtimestamp(month.start_ms / 1000, month.zone) if month is not None else None
            asked = Asked([("tz", given["tz"]), ("to", given["to"]), ("from", f"{first:%Y-%m-%d}")])
        span = span_asked(asked, now_ms, "this_month")
    except InvalidRequest as error:
        raise typer.BadParameter(str(error)) from error
    if span is None:
        raise typer.BadParameter("a range is missing")
    return groups, span.quarters


def _tags(texts: Sequence[str]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """NAME=VALUE, several values of one name together. Raises BadParameter."""
    found: dict[str, list[str]] = {}
    for text in texts:
        name, separator, value = text.partition("=")
        if not name or not separator:
            raise typer.BadParameter(f"{text!r} is not NAME=VALUE")
        found.setdefault(name, []).append(value)
    return tuple((name, tuple(values)) for name, values in found.items())


async def _of_people(
    connection: AsyncConnection, only: UsageFilter, team: Sequence[str], key: Sequence[str]
) -> UsageFilter:
    """``only``, and of these teams and keys alone. Raises NoSuchTeam, NoSuchKey."""
    team_ids = tuple([(await find_team(connection, name)).id for name in team])
    team_id = team_ids[0] if len(team_ids) == 1 else None
    key_ids = tuple([(await find_key(connection, name, team_id)).id for name in key])
    return msgspec.structs.replace(only, team_ids=team_ids, key_ids=key_ids)


def _sums(sums: UsageSums) -> dict[str, Any]:
    return {
        "requests": sums.requests,
        "input_tokens": sums.input_tokens,
        "cached_tokens": sums.cached_tokens,
        "output_tokens": sums.output_tokens,
        "reasoning_tokens": sums.reasoning_tokens,
        "cost_usd": usd_text(sums.cost_nanousd),
        "saved_usd": usd_text(sums.saved_nanousd),
        "unpriced": sums.unpriced,
        "estimated": sums.estimated,
        "failed": sums.failed,
        "cache_write_tokens": sums.cache_write_tokens,
        "estimated_usd": usd_text(sums.estimated_nanousd),
    }
