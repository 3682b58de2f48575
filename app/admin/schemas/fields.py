"""Fields that several bodies share, each checked where it comes in."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from app.core.calendar import zone_of
from app.core.money import nanousd_from_usd
from app.core.patterns import check_pattern
from app.core.rules import BUDGET_NANOUSD_MAX, COUNT_MAX
from app.core.tags import tags_of

NAME_CHARS_MAX = 100
PATTERNS_MAX = 100
TAGS_MAX = 16
ID = r"^[A-Za-z0-9._-]{1,64}$"


class Body(BaseModel):
    """A request's body: a member that is not known is refused."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=False)


class Answer(BaseModel):
    """What is answered."""

    model_config = ConfigDict(extra="forbid")


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("has a character that cannot be printed")
    return text


def _usd(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError('is a decimal string in dollars, such as "12.50"')  # noqa: TRY004 - pydantic takes ValueError
    try:
        nanousd = nanousd_from_usd(Decimal(value))
    except (InvalidOperation, ValueError) as error:
        raise ValueError('is a decimal string in dollars, such as "12.50"') from error
    if not 0 <= nanousd <= BUDGET_NANOUSD_MAX:
        raise ValueError("is between 0 and 9000000 dollars")
    return nanousd


def _pattern(text: str) -> str:
    check_pattern(text)
    return text


def _zone(text: str) -> str:
    zone_of(text)
    return text


def _tags(tags: dict[str, str]) -> dict[str, str]:
    text = ",".join(f"{name}={value}" for name, value in tags.items())
    try:
        known = tags_of(text.encode("latin-1"))
    except Exception as error:
        raise ValueError("are names and values as in x-headgate-tags") from error
    if known != tags:
        raise ValueError("are names and values as in x-headgate-tags")
    return tags


def _moment(at: datetime) -> datetime:
    if at.tzinfo is None:
        raise ValueError("has no time zone: write 2026-12-31T00:00:00Z")
    return at.astimezone(UTC)


Name = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=NAME_CHARS_MAX),
    AfterValidator(_printable),
]
Usd = Annotated[int, BeforeValidator(_usd, json_schema_input_type=str), Field(examples=["250.00"])]
"""Nano-dollars, of a decimal string in dollars."""
Count = Annotated[int, Field(strict=True, ge=1, le=COUNT_MAX)]
Pattern = Annotated[str, StringConstraints(min_length=1, max_length=NAME_CHARS_MAX), AfterValidator(_pattern)]
Patterns = Annotated[list[Pattern], Field(min_length=1, max_length=PATTERNS_MAX)]
Zone = Annotated[str, StringConstraints(max_length=64), AfterValidator(_zone)]
Tags = Annotated[dict[str, str], Field(max_length=TAGS_MAX), AfterValidator(_tags)]
Moment = Annotated[datetime, AfterValidator(_moment)]


def ms_of(at: datetime) -> int:
    """Milliseconds since 1970 UTC."""
    return round(at.timestamp() * 1000)
