"""Usage and what it costs."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict

SUMS_EXAMPLE: JsonDict = {
    "requests": 180813,
    "failed": 760,
    "input_tokens": 487112904,
    "cached_tokens": 210004112,
    "cache_write_tokens": 0,
    "output_tokens": 103221870,
    "reasoning_tokens": 20700115,
    "cost_usd": "1521.944817",
    "saved_usd": "167.41",
    "unpriced": 0,
    "estimated": 41,
    "estimated_usd": "1.79",
}


class Sums(BaseModel):
    """What requests of a group add up to. Money leaves out what has no price: `unpriced` says of how many."""

    model_config = ConfigDict(json_schema_extra={"examples": [SUMS_EXAMPLE]})

    requests: int
    failed: int = Field(description="Of those, how many did not come to a good end through the upstream or the gateway")
    input_tokens: int = Field(description="All of the input, whether it was cached or not")
    cached_tokens: int = Field(description="Of the input, what the upstream had in its cache")
    cache_write_tokens: int
    output_tokens: int = Field(description="All of the output, reasoning with it")
    reasoning_tokens: int
    cost_usd: str = Field(description="Dollars as a decimal")
    saved_usd: str = Field(description="What answers from the cache would have cost")
    unpriced: int = Field(description="Calls that have no price, and are in no sum of money")
    estimated: int = Field(description="Calls of which nothing exact is known")
    estimated_usd: str = Field(description="How much of `cost_usd` is of those")


class UsageRow(Sums):
    """One group: each dimension of `by` under its own name, the ids of team and key beside them, and the sums."""

    model_config = ConfigDict(
        extra="allow",
        json_schema_extra={
            "examples": [{"team": "support", "team_id": "Tk3VmLq09sXa", "day": "2026-11-24", **SUMS_EXAMPLE}]
        },
    )

    team: str | None = None
    team_id: str | None = None
    key: str | None = None
    key_id: str | None = None
    model: str | None = None
    upstream: str | None = None
    hour: str | None = Field(default=None, description="With its offset: in autumn one comes twice")
    day: str | None = None
    week: str | None = Field(default=None, description="Its Monday")
    month: str | None = None


class Usage(BaseModel):
    """`total` is that of all rows, whatever the page shows."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "from": "2026-11-01T00:00:00.000Z",
                    "to": "2026-11-24T15:45:00.000Z",
                    "time_zone": "UTC",
                    "by": ["team"],
                    "rows": [{"team": "support", "team_id": "Tk3VmLq09sXa", **SUMS_EXAMPLE}],
                    "total": SUMS_EXAMPLE,
                    "colors": {"Tk3VmLq09sXa": 3},
                    "next": None,
                }
            ]
        }
    )

    since: str = Field(alias="from", description="The whole quarter of an hour in which the range begins")
    to: str = Field(description="The end of the quarter in which it ends; not included")
    time_zone: str
    by: list[str]
    rows: list[UsageRow]
    total: Sums
    colors: dict[str, int] = Field(
        description="The colour, 1 to 8, of each member of the first dimension that is no period: by id for teams and"
        " keys, else by name. It never changes. Of the fifty that cost most."
    )
    next: str | None
