"""Options that set limits on all that a team or a key does, and the columns that show them."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any

import msgspec
import typer
from msgspec import UNSET, UnsetType

from app.cli.options import limit_of
from app.core.calendar import CalendarWindow, zone_of
from app.core.identity import WINDOWS_OF_KIND, LimitKind, LimitRule, LimitWindow
from app.core.money import nanousd_from_usd, usd_text
from app.core.rules import BUDGET_NANOUSD_MAX, is_plain, limit_name
from app.store.limits import PlainLimit

PLAIN_LIMITS: tuple[tuple[LimitKind, LimitWindow], ...] = tuple(
    (kind, window) for kind, windows in WINDOWS_OF_KIND.items() if kind != "money" for window in windows
)
PLAIN_COLUMNS = ("requests_per_minute", "tokens_per_minute", "concurrency", "budget_usd", "budget_window")
"""Of a table; JSON has every one, and how many limits there are besides."""

BUDGET_WINDOWS = "|".join(WINDOWS_OF_KIND["money"])
_NONE = "A number, or none to take the limit away."

Command = Callable[..., None]


class PlainLimits(msgspec.Struct, frozen=True):
    """What the options said: UNSET where one was not given, None where a limit is to be taken away."""

    counts: dict[tuple[LimitKind, LimitWindow], int | UnsetType | None]
    budget_nanousd: int | UnsetType | None
    budget_window: CalendarWindow | None
    time_zone: str | None

    def changes(self, existing: Sequence[LimitRule] = ()) -> tuple[PlainLimit, ...]:
        """What is to be set on an owner that has the ``existing`` limits. Raises BadParameter."""
        counts = [
            PlainLimit(kind, window, maximum)
            for (kind, window), maximum in self.counts.items()
            if maximum is not UNSET and (maximum is not None or _has(existing, kind, window))
        ]
        return (*counts, *self._budget_changes([rule for rule in existing if rule.kind == "money" and is_plain(rule)]))

    def _budget_changes(self, budgets: list[LimitRule]) -> list[PlainLimit]:
        if self.budget_nanousd is UNSET and self.time_zone is None:
            if self.budget_window is not None:
                raise typer.BadParameter("--budget-window needs --budget-usd")
            return []
        if self.budget_window is not None:
            budgets = [rule for rule in budgets if rule.window == self.budget_window]
        elif len(budgets) > 1:
            windows = " and ".join(rule.window for rule in budgets)
            raise typer.BadParameter(f"there are budgets per {windows}: say which with --budget-window")
        if self.budget_nanousd is None:
            return [PlainLimit("money", rule.window, None) for rule in budgets]
        if self.budget_nanousd is UNSET and not budgets:
            raise typer.BadParameter("--time-zone needs --budget-usd")
        window = self.budget_window or (budgets[0].window if budgets else None)
        if window is None:
            raise typer.BadParameter(f"a budget needs --budget-window {BUDGET_WINDOWS}")
        maximum = budgets[0].maximum if self.budget_nanousd is UNSET else self.budget_nanousd
        return [PlainLimit("money", window, maximum, self.time_zone)]


def takes_limits(command: Command) -> Command:
    """Gives ``command``, which takes ``limits``, the options that say them."""
    # Annotations are texts until they are looked up where the command stands.
    signature = inspect.signature(command, eval_str=True)
    options = _options()
    parameters: list[inspect.Parameter] = []
    for parameter in signature.parameters.values():
        parameters += options if parameter.name == "limits" else [parameter]

    @functools.wraps(command)
    def with_limits(**given: Any) -> None:
        said = {option.name: given.pop(option.name) for option in options}
        command(**given, limits=_read(said))

    # What typer reads; the names of the parameters are the names of the options.
    with_limits.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    with_limits.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return with_limits


def _options() -> list[inspect.Parameter]:
    texts = [(limit_name(kind, window), "N", _NONE) for kind, window in PLAIN_LIMITS]
    texts += [
        ("budget_usd", "X", "Dollars per window, or none to take the budget away."),
        ("budget_window", BUDGET_WINDOWS, "When what was spent starts again."),
        ("time_zone", "ZONE", "Where days, weeks and months of the budget begin. [default: UTC]"),
    ]
    return [
        inspect.Parameter(
            name,
            inspect.Parameter.POSITIONAL_OR_KEYWORD,
            default=None,
            annotation=Annotated[
                str | None, typer.Option(f"--{name.replace('_', '-')}", metavar=metavar, help=text, show_default=False)
            ],
        )
        for name, metavar, text in texts
    ]


def _read(said: dict[str, str | None]) -> PlainLimits:
    """Raises BadParameter."""
    window, zone = said["budget_window"], said["time_zone"]
    return PlainLimits(
        counts={(kind, window): limit_of(said[limit_name(kind, window)]) for kind, window in PLAIN_LIMITS},
        budget_nanousd=budget_of(said["budget_usd"]),
        budget_window=None if window is None else budget_window_of(window),
        time_zone=None if zone is None else time_zone_of(zone),
    )


def budget_of(text: str | None) -> int | UnsetType | None:
    """A budget in nano-dollars: UNSET where it was not given, None for ``none``. Raises BadParameter."""
    if text is None:
        return UNSET
    if text.lower() == "none":
        return None
    try:
        nanousd = nanousd_from_usd(Decimal(text))
    except (ValueError, InvalidOperation) as error:
        raise typer.BadParameter(f"{text!r} is not an amount in dollars") from error
    if not 0 <= nanousd <= BUDGET_NANOUSD_MAX:
        raise typer.BadParameter(f"a budget is between 0 and {usd_text(BUDGET_NANOUSD_MAX)} dollars")
    return nanousd


def budget_window_of(text: str) -> CalendarWindow:
    """Raises BadParameter."""
    windows: tuple[CalendarWindow, ...] = ("day", "week", "month", "total")
    for window in windows:
        if text == window:
            return window
    raise typer.BadParameter(f"{text!r} is none of {', '.join(windows)}")


def time_zone_of(text: str) -> str:
    """Raises BadParameter."""
    try:
        zone_of(text)
    except ValueError as error:
        raise typer.BadParameter(f"{error}; write it as in Europe/Berlin") from error
    return text


def plain_columns(rules: Sequence[LimitRule]) -> dict[str, object]:
    """An owner's plain limits by name, its first budget, and the number of limits that are not told by these."""
    columns: dict[str, object] = {
        limit_name(kind, window): next((rule.maximum for rule in rules if _is(rule, kind, window)), None)
        for kind, window in PLAIN_LIMITS
    }
    budget = next((rule for rule in rules if rule.kind == "money" and is_plain(rule)), None)
    told = sum(value is not None for value in columns.values()) + (budget is not None)
    return {
        **columns,
        "budget_usd": None if budget is None else usd_text(budget.maximum),
        "budget_window": None if budget is None else budget.window,
        "further_limits": len(rules) - told,
    }


def _has(rules: Sequence[LimitRule], kind: LimitKind, window: LimitWindow) -> bool:
    return any(_is(rule, kind, window) for rule in rules)


def _is(rule: LimitRule, kind: LimitKind, window: LimitWindow) -> bool:
    return is_plain(rule) and (rule.kind, rule.window) == (kind, window)
