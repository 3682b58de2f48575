"""The kinds of alerts, and what a rule of each kind can say.

A rule's kind is the type of its events.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias, get_args

import msgspec
from msgspec import Meta

from app.core.errors import InvalidRequest
from app.core.money import nanousd_from_usd
from app.store.alert_rules import AlertRule

AlertKind = Literal["budget.threshold", "spend.velocity", "model.unpriced", "upstream.down", "key.expiring"]
KINDS: tuple[AlertKind, ...] = get_args(AlertKind)

EXHAUSTED_PERCENT = 100
MINIMUM_NANOUSD_MAX = 10**15
LEVELS_MAX = 10

Percent = Annotated[int, Meta(ge=1, le=1000)]
Days = Annotated[int, Meta(ge=1, le=365)]


class BudgetParameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``percents``: of budgets that have no ``warn_percents`` of their own. 100 always counts."""

    percents: Annotated[tuple[Percent, ...], Meta(max_length=LEVELS_MAX)] = (80,)


class VelocityParameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Ten minutes are too dear that cost ``minimum_usd`` and ``times`` the busiest ten of the key's week.

    The busiest, not the mean: a key that is used in office hours, or by one batch a night, is far above its mean
    every day, and an alarm that comes every day is read by nobody. The minimum keeps keys that cost next to
    nothing from waking anybody; it alone holds for a key that has no week yet.
    """

    times: Annotated[float, Meta(ge=1, le=1000)] = 3.0
    minimum_usd: Annotated[str, Meta(max_length=32)] = "5"

    def __post_init__(self) -> None:
        if not 0 < nanousd_from_usd(self.minimum_usd) <= MINIMUM_NANOUSD_MAX:
            raise ValueError("minimum_usd is more than 0 and at most 1000000")

    @property
    def minimum_nanousd(self) -> int:
        return nanousd_from_usd(self.minimum_usd)


class UnpricedParameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """There is nothing to choose."""


class UpstreamParameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An upstream is down that cannot be connected to for ``after_s``, or of whose requests of ten minutes so many
    percent got no answer but 500 and above.
    """

    after_s: Annotated[int, Meta(ge=15, le=86_400)] = 60
    failed_percent: Annotated[int, Meta(ge=1, le=100)] = 90


class ExpiryParameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """So many days before a key stops working people are told."""

    days: Annotated[tuple[Days, ...], Meta(min_length=1, max_length=LEVELS_MAX)] = (7, 1)


Parameters: TypeAlias = (
    BudgetParameters | VelocityParameters | UnpricedParameters | UpstreamParameters | ExpiryParameters
)

PARAMETERS: dict[AlertKind, type[Parameters]] = {
    "budget.threshold": BudgetParameters,
    "spend.velocity": VelocityParameters,
    "model.unpriced": UnpricedParameters,
    "upstream.down": UpstreamParameters,
    "key.expiring": ExpiryParameters,
}

NAMES: dict[AlertKind, str] = {
    "budget.threshold": "Budgets",
    "spend.velocity": "Sudden spending",
    "model.unpriced": "Models without a price",
    "upstream.down": "Upstreams that are down",
    "key.expiring": "Keys about to expire",
}


def kind_of(text: str) -> AlertKind:
    """Raises InvalidRequest."""
    for kind in KINDS:
        if text == kind:
            return kind
    raise InvalidRequest(f"There is no such kind of alert; there are {', '.join(KINDS)}.", param="kind")


def parameters_of(kind: AlertKind, given: dict[str, Any]) -> Parameters:
    """What a rule of ``kind`` says; what is not given is as in a new rule. Raises InvalidRequest."""
    try:
        return msgspec.convert(given, PARAMETERS[kind])
    except (msgspec.ValidationError, ValueError) as error:
        raise InvalidRequest(f"The parameters of {kind} are not valid: {error}.", param="parameters") from error


def as_written(parameters: Parameters) -> dict[str, Any]:
    """``parameters`` as a rule's row has them: all of them, those as in a new rule too."""
    written: dict[str, Any] = msgspec.to_builtins(parameters)
    return written


def first_rules(now_ms: int) -> list[AlertRule]:
    """What a new ledger has: a rule of every kind, for all teams, told to all targets."""
    return [
        AlertRule(
            id="",
            kind=kind,
            name=NAMES[kind],
            team_id=None,
            targets=None,
            enabled=True,
            parameters=as_written(PARAMETERS[kind]()),
            # They are listed in this order.
            created_at_ms=now_ms + place,
        )
        for place, kind in enumerate(KINDS)
    ]
