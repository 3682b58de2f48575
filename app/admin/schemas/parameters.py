"""Parameters of query strings that many routes share, in the words of OpenAPI.

They are read by ``app.admin.asking``, which refuses what is not among them: a tag's name is part of its
parameter's name, and that no signature of a function can say.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from app.admin.asking import RANGES

Parameter = dict[str, Any]

ID = r"^[0-9A-Za-z_.-]{1,64}$"
"""What an id can be, whatever it is of."""


def query(name: str, description: str, example: Any = None, **schema: Any) -> Parameter:
    """One parameter, a text unless ``schema`` says otherwise; never required."""
    parameter: Parameter = {
        "name": name,
        "in": "query",
        "required": False,
        "description": description,
        "schema": {"type": "string", **schema},
    }
    if example is not None:
        parameter["example"] = example
    return parameter


def documented(*groups: Sequence[Parameter]) -> dict[str, Any]:
    """For ``openapi_extra`` of a route."""
    return {"parameters": [parameter for group in groups for parameter in group]}


ZONE = (
    query("tz", "The IANA time zone in which days, weeks and months begin. UTC where none is given.", "Europe/Berlin"),
)
RANGE = (
    query(
        "range",
        "A span by its name. What is not over yet ends with the quarter of an hour that runs.",
        "this_month",
        enum=list(RANGES),
    ),
    query("from", "Instead of `range`: a date (from its first moment in `tz`) or an ISO 8601 time.", "2026-11-01"),
    query(
        "to", "With `from`: a date, all of it, or a time, up to and not including it. Now if left out.", "2026-11-24"
    ),
    *ZONE,
)

_SEVERAL = "Several with commas between them: any of these."
OWNERS = (
    query("team", f"Ids of teams. {_SEVERAL}", "Tk3VmLq09sXa"),
    query("key", f"Ids of keys. {_SEVERAL}", "9t2xkdQ4mZ"),
)
FILTERS = (
    *OWNERS,
    query("model", f"Names of models. {_SEVERAL}", "gpt-4.1-mini"),
    query("upstream", f"Names of upstreams. {_SEVERAL}", "openai"),
    *(
        query(f"not.{name}", f"Leaves out these {name}s; several with commas between them.")
        for name in ("team", "key", "model", "upstream")
    ),
    {
        "name": "tag",
        "in": "query",
        "required": False,
        "description": (
            "`tag.NAME=value[,value]`: requests that bear one of these values of the tag NAME;"
            " `not.tag.NAME=…` leaves them out."
        ),
        "style": "form",
        "explode": True,
        "schema": {
            "type": "object",
            "patternProperties": {r"^(not\.)?tag\.[A-Za-z0-9_.-]{1,64}$": {"type": "string"}},
            "additionalProperties": False,
        },
        "example": {"tag.project": "search"},
    },
)
"""As ``UsageFilter`` has them."""

BY = (
    query(
        "by",
        "What to group by, with commas in between: any of `team`, `key`, `model`, `upstream` and `tag.NAME`, and at"
        " most one of `hour`, `day`, `week` and `month`. Without it one row holds everything.",
        "team,day",
    ),
)
CURSOR = (query("cursor", "`next` of the page before."),)


def limit(default: int, at_most: int) -> tuple[Parameter, ...]:
    return (
        query(
            "limit", "How many rows a page has at most.", type="integer", minimum=1, maximum=at_most, default=default
        ),
    )


PAGE = (*limit(50, 200), *CURSOR)
