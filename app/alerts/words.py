"""What people read: a title and a sentence for each alert, from its figures and names alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from app.alerts.kinds import EXHAUSTED_PERCENT
from app.core.errors import quoted
from app.store.alert_states import Alert

CENT = Decimal("0.01")


def title_of(alert: Alert) -> str:
    """A few words, without a full stop."""
    if alert.state == "resolved":
        return f"{_TITLES[alert.kind](alert.figures, _who(alert))}: over"
    return _TITLES[alert.kind](alert.figures, _who(alert))


def detail_of(alert: Alert) -> str:
    """One or two sentences."""
    detail = _DETAILS[alert.kind](alert.figures)
    if alert.state == "resolved" and alert.reason:
        return f"{_REASONS.get(alert.reason, alert.reason)} It was: {detail}"
    return detail


def _who(alert: Alert) -> str:
    """The key or the team, by name."""
    if alert.key_id is not None:
        return quoted(alert.key_name or alert.key_id)
    return quoted(alert.team_name or alert.team_id or "all teams")


def _budget_title(figures: Mapping[str, Any], who: str) -> str:
    percent = figures["threshold_percent"]
    narrowed = [quoted(str(figures[name])) for name in ("model", "tag_value", "tag_name") if figures[name]][:1]
    of_what = f"{who}, {narrowed[0]}" if narrowed else who
    reached = f"is at {percent}%"
    if percent >= EXHAUSTED_PERCENT:
        reached = "is used up" if figures["spent_percent"] >= percent else "refuses requests"
    return f"The budget of {of_what} {reached}"


def _budget_detail(figures: Mapping[str, Any]) -> str:
    told = f"{dollars(figures['spent_usd'])} of {dollars(figures['maximum_usd'])} is spent"
    window = figures["window"]
    told += " in total." if window == "total" else f" this {window} ({figures['time_zone']})."
    if figures["spent_percent"] >= EXHAUSTED_PERCENT:
        told += " Requests are counted, not refused." if figures["mode"] == "observe" else " Requests are refused."
    elif figures["refused_15_minutes"]:
        told += f" {figures['refused_15_minutes']} requests of the last quarter of an hour wanted more than is left."
    return told


def _velocity_title(_figures: Mapping[str, Any], who: str) -> str:
    return f"{who} spends far more than usual"


def _velocity_detail(figures: Mapping[str, Any]) -> str:
    told = f"{dollars(figures['spent_10_minutes_usd'])} in the last ten minutes;"
    if Decimal(figures["busiest_10_minutes_usd"]) > 0:
        return f"{told} the busiest ten of the week before cost {dollars(figures['busiest_10_minutes_usd'])}."
    return f"{told} nothing in the week before."


def _unpriced_title(figures: Mapping[str, Any], _who: str) -> str:
    return f"{quoted(figures['model'])} has no price"


def _unpriced_detail(figures: Mapping[str, Any]) -> str:
    number = figures["requests"]
    upstream = quoted(figures["upstream"])
    what = "1 request" if number == 1 else f"{number} requests"
    return f"{what} to {upstream} in the last 24 hours cost nobody knows what. Set a price, and reprice."


def _upstream_title(figures: Mapping[str, Any], _who: str) -> str:
    reached = "cannot be reached" if figures["cause"] == "unreachable" else "fails"
    return f"{quoted(figures['upstream'])} {reached}"


def _upstream_detail(figures: Mapping[str, Any]) -> str:
    if figures["cause"] == "unreachable":
        return f"No connection to it could be made since {_moment(figures['since'])}."
    failed, requests = figures["failed_10_minutes"], figures["requests_10_minutes"]
    return f"{failed} of {requests} requests of the last ten minutes had no answer but an error of its own."


def _expiry_title(figures: Mapping[str, Any], who: str) -> str:
    days = figures["days_left"]
    when = "within a day" if days < 1 else "in 1 day" if days == 1 else f"in {days} days"
    return f"The key {who} stops working {when}"


def _expiry_detail(figures: Mapping[str, Any]) -> str:
    why = "It expires" if figures["cause"] == "key" else "The last of its secrets ends"
    return f"{why} on {_moment(figures['expires_at'])}."


_TITLES: dict[str, Callable[[Mapping[str, Any], str], str]] = {
    "budget.threshold": _budget_title,
    "spend.velocity": _velocity_title,
    "model.unpriced": _unpriced_title,
    "upstream.down": _upstream_title,
    "key.expiring": _expiry_title,
}

_DETAILS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "budget.threshold": _budget_detail,
    "spend.velocity": _velocity_detail,
    "model.unpriced": _unpriced_detail,
    "upstream.down": _upstream_detail,
    "key.expiring": _expiry_detail,
}

_REASONS = {
    "back_to_normal": "It is back to normal.",
    "window_ended": "Its window has ended, or the budget is gone.",
    "priced": "None of its requests is without a price any more.",
    "expired": "The key does not work any more.",
    "extended_or_revoked": "The key was given more time, or was revoked.",
    "rule_changed": "The rule was switched off or changed.",
}


def reason_of(alert: Alert, now_iso: str) -> str:
    """Why an alert is over, in one word."""
    if alert.kind == "budget.threshold":
        window_to = alert.figures["window_to"]
        return "window_ended" if window_to is not None and window_to <= now_iso else "back_to_normal"
    if alert.kind == "model.unpriced":
        return "priced"
    if alert.kind == "key.expiring":
        return "expired" if alert.figures["expires_at"] <= now_iso else "extended_or_revoked"
    return "back_to_normal"


def dollars(usd: str) -> str:
    """``$1,234.50``; below ten cents all that there is."""
    amount = Decimal(usd)
    if abs(amount) < Decimal("0.1"):
        return f"${usd}"
    return f"${amount.quantize(CENT, ROUND_HALF_UP):,}"


def _moment(iso: str) -> str:
    return datetime.fromisoformat(iso).strftime("%d %b %Y, %H:%M UTC")
