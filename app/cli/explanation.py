"""What is known of one request, as a person reads it: aligned, money in dollars, times in UTC."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from app.cli.options import LAST_MOMENT_MS
from app.core.money import NANO_PER_USD, usd_text
from app.store.explanations import AttemptExplained, Names, RecordExplained, RefusalExplained, used
from app.store.records import EntryView, RecordView
from app.store.refusals import RefusalRow

INDENT = "  "
HEAD_WIDTH = 10
CENTS = 2
SHOWN_APART = frozenset({"limits", "reserved_nanousd"})
OF_THE_LIMIT = frozenset({"limit", "scope", "scope_id", "maximum", "needed", "retry_after_ms", "reset_ms"})
MOMENTS = frozenset({"at_ms", "until_ms", "start_ms", "end_ms", "reset_at_ms"})
"""Names in a decision that say when; any other that ends in ``_ms`` says how long."""


def explanation_text(explained: RecordExplained | RefusalExplained) -> str:
    """All of it, in lines."""
    lines = _refusal(explained) if isinstance(explained, RefusalExplained) else _record(explained)
    return "\n".join(lines)


def _record(explained: RecordExplained) -> Iterator[str]:
    record = explained.record
    yield from _heads(
        request=record.request_id,
        when=_when(record),
        who=_who(explained.names, record.team_id, record.key_id, _more_of(record)),
        asked=f"{record.endpoint}{', as a stream' if record.stream else ''}, model {record.model_requested}",
        answered=_answered(record),
        response=record.response_id,
    )
    decision = record.decision
    if explained.about_cache is not None:
        yield from ("", printable(explained.about_cache))
        if isinstance(decision.get("cache"), str):
            decision = {name: value for name, value in decision.items() if name != "cache"}
    yield from _decision(decision)
    yield from _bill(explained)
    yield from _reserved(record)
    for attempt in explained.attempts:
        if attempt.why_estimate is not None:
            corrected = "" if attempt.estimated else " Its exact outcome came later."
            yield from ("", f"Why an estimate: {attempt.why_estimate}{corrected}")


def _refusal(explained: RefusalExplained) -> Iterator[str]:
    row = explained.refusal
    yield from _heads(
        refused=row.request_id,
        when=moment(row.at_ms),
        who=_who(explained.names, row.team_id, row.key_id, {}),
        answer=f"{row.status} {row.code}",
    )
    yield from _refused_by(row)
    yield from _decision({name: value for name, value in row.decision.items() if name not in OF_THE_LIMIT})
    yield from ("", "Nothing was sent and nothing was charged.")


def _refused_by(row: RefusalRow) -> Iterator[str]:
    """Which limit stood in the way, how much it is, and until when."""
    told = row.decision
    if "limit" not in told:
        return
    of = " ".join(str(told[name]) for name in ("scope", "scope_id") if told.get(name))
    lines = [["limit", f"{told['limit']} of {of}" if of else str(told["limit"])]]
    if "maximum" in told:
        lines.append(["at most", _amount(str(told["limit"]), told["maximum"])])
    if "needed" in told:
        lines.append(["needed", _amount(str(told["limit"]), told["needed"])])
    if "retry_after_ms" in told:
        lines.append(["again", _again(row)])
    yield from ("", "Refused by")
    yield from _table(lines)


def _again(row: RefusalRow) -> str:
    """When it would have been worth another try."""
    told = row.decision
    wait_ms, reset_ms = told.get("retry_after_ms"), told.get("reset_ms")
    if isinstance(wait_ms, int):
        return f"after {duration(wait_ms)}, at {moment(row.at_ms + wait_ms)}"
    needed, maximum = told.get("needed"), told.get("maximum")
    if isinstance(needed, int) and isinstance(maximum, int) and needed > maximum:
        return "waiting does not help: the request alone is larger than the limit"
    # A budget in total has no next window, and its end no date.
    if isinstance(reset_ms, int) and 0 < reset_ms <= LAST_MOMENT_MS - row.at_ms:
        return f"when the next window begins, at {moment(row.at_ms + reset_ms)}"
    return "waiting does not help: the budget is spent"


def because(row: RefusalRow) -> str:
    """In a few words, for a line of a list: the limit that refused, else nothing."""
    return " ".join(str(row.decision[name]) for name in ("scope", "limit") if row.decision.get(name))


# -- head -------------------------------------------------------------------------------------


def _heads(**parts: str | None) -> Iterator[str]:
    for name, text in parts.items():
        if text:
            yield f"{name:<{HEAD_WIDTH}}{printable(text)}"


def _when(record: RecordView) -> str:
    text = moment(record.started_at_ms)
    if record.first_byte_at_ms is not None:
        text += f", first byte after {duration(record.first_byte_at_ms - record.started_at_ms)}"
    return f"{text}, ended after {duration(record.ended_at_ms - record.started_at_ms)}"


def _who(names: Names, team_id: str, key_id: str, more: Mapping[str, str]) -> str:
    parts = [f"team {_named(names.team, team_id)}", f"key {_named(names.key, key_id)}"]
    return ", ".join([*parts, *(f"{name} {text}" for name, text in more.items())])


def _named(name: str | None, its_id: str) -> str:
    return its_id if name is None else f"{name} ({its_id})"


def _more_of(record: RecordView) -> dict[str, str]:
    more = {}
    if record.secret_id != record.key_id:
        more["secret"] = record.secret_id
    if record.end_user:
        more["user"] = record.end_user
    if record.tags:
        more["tags"] = " ".join(f"{name}={value}" for name, value in record.tags.items())
    return more


def _answered(record: RecordView) -> str:
    served = record.model_served or record.model
    tier = f", tier {record.service_tier}" if record.service_tier else ""
    status = "no answer" if record.status is None else str(record.status)
    code = f", {record.error_code}" if record.error_code else ""
    return f"{record.upstream}, model {served}{tier}: {record.outcome} ({status}{code}), cache {record.cache}"


# -- decision ---------------------------------------------------------------------------------


def _decision(decision: Mapping[str, object]) -> Iterator[str]:
    limits = decision.get("limits")
    if isinstance(limits, list) and limits:
        yield from ("", "Limits, as they were checked")
        yield from _table([_limit(each) for each in limits], right=frozenset({2, 3}), head=LIMIT_HEAD)
    rest = [line for name, value in decision.items() if name not in SHOWN_APART for line in _told(name, value)]
    if rest:
        yield from ("", "Decided")
        yield from _table(rest)


LIMIT_HEAD = ("of", "limit", "at most", "left")


def _limit(told: object) -> list[str]:
    """One limit of a decision: ``[scope, name, maximum, left]``."""
    if not isinstance(told, list) or len(told) != len(LIMIT_HEAD):
        return [_value("", told)]
    scope, name, maximum, left = told
    return [str(scope), str(name), _amount(str(name), maximum), _amount(str(name), left)]


def _amount(limit: str, value: object) -> str:
    """A number by the limit that it belongs to: budgets are of money."""
    return _value("nanousd" if limit.startswith("budget") else "", value)


def _told(name: str, value: object) -> Iterator[list[str]]:
    """A member of a decision as lines of a name and a text; members of members have both names."""
    if isinstance(value, dict):
        for inner, each in value.items():
            yield from _told(f"{name}.{inner}", each)
    elif isinstance(value, list) and any(isinstance(each, list | dict) for each in value):
        for each in value:
            values = each.items() if isinstance(each, dict) else ((name, part) for part in _listed(each))
            yield [_unit_free(name), " ".join(_value(key, part) for key, part in values)]
    else:
        yield [_unit_free(name), _value(name, value)]


def _listed(value: object) -> list[object]:
    return value if isinstance(value, list) else [value]


def _unit_free(name: str) -> str:
    for unit in ("_nanousd", "_ms", "_s"):
        name = name.removesuffix(unit)
    return name.replace("_", " ")


def _value(name: str, value: object) -> str:
    """A value by the unit at the end of its name."""
    last = name.rpartition(".")[2]
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        if last.endswith("nanousd"):
            return money(value)
        if last in MOMENTS:
            return moment(value)
        return duration(value) if last.endswith("_ms") else f"{value:,}"
    if isinstance(value, list):
        return ", ".join(_value(name, each) for each in value)
    return str(value)


# -- bill -------------------------------------------------------------------------------------

BILL_HEAD = ("", "entry", "input", "cached", "output", "reasoning", "further", "cost", "price")
TOKENS = ("input_tokens", "cached_tokens", "output_tokens", "reasoning_tokens")


def _bill(explained: RecordExplained) -> Iterator[str]:
    record = explained.record
    lines = [line for number, attempt in enumerate(explained.attempts, 1) for line in _of_attempt(number, attempt)]
    if len(explained.attempts) > 1:
        entries = [entry for attempt in explained.attempts for entry in attempt.entries]
        lines.append(_Line("", "all", used(entries), record.cost_nanousd, ""))
    amounts = aligned_money([line.cost_nanousd for line in lines])
    yield from ("", "Bill")
    if lines:
        yield from _table(
            [
                [line.attempt, line.name, *_units(line.usage), amount, line.price]
                for line, amount in zip(lines, amounts, strict=True)
            ],
            right=frozenset({2, 3, 4, 5, 7}),
            head=BILL_HEAD,
        )
    else:
        yield f"{INDENT}Nothing was charged."
    if record.estimated and record.cost_lower_nanousd is not None and record.cost_upper_nanousd is not None:
        yield f"{INDENT}It cost between {money(record.cost_lower_nanousd)} and {money(record.cost_upper_nanousd)}."
    if record.saved_nanousd:
        yield f"{INDENT}The cache saved {money(record.saved_nanousd)}."
    if record.unpriced:
        yield f"{INDENT}It has no price: set one under `prices` in the configuration, then run `headgate reprice`."
    if record.unpriced and record.cost_nanousd is not None:
        yield f"{INDENT}What is known of its cost is counted until then."


class _Line(NamedTuple):
    """A line of the bill."""

    attempt: str
    name: str
    usage: dict[str, int]
    cost_nanousd: int | None
    price: str


def _of_attempt(number: int, attempt: AttemptExplained) -> Iterator[_Line]:
    """The entries of an attempt, and their sum where there are several."""
    for entry in attempt.entries:
        is_first = entry is attempt.entries[0]
        price = " ".join(part for part in (entry.price_source, entry.price_version) if part)
        if entry.kind == "adjust":
            price = f"{price} (written {moment(entry.created_at_ms)})".lstrip()
        yield _Line(str(number) if is_first else "", _name_of(entry), used([entry]), entry.cost_nanousd, price)
    if len(attempt.entries) > 1:
        yield _Line("", "together", attempt.usage, attempt.cost_nanousd, "")


def _name_of(entry: EntryView) -> str:
    if entry.kind != "adjust":
        return f"{entry.kind}, {entry.upstream} {entry.model}"
    return f"{entry.reason} {entry.number}" if entry.number else entry.reason


def _units(usage: Mapping[str, int]) -> list[str]:
    """The columns of tokens, and what else was used in words."""
    further = [f"{_words(name)} {units:,}" for name, units in usage.items() if name not in TOKENS]
    return [*(f"{usage[name]:,}" if name in usage else "" for name in TOKENS), ", ".join(further)]


def _words(name: str) -> str:
    return name.removesuffix("_tokens").replace("_", " ")


def _reserved(record: RecordView) -> Iterator[str]:
    """What was held of budgets beside what it came to."""
    reserved = record.decision.get("reserved_nanousd")
    if not isinstance(reserved, int):
        return
    actual = record.cost_nanousd
    yield from ("", "Money")
    lines = [
        ["held while it ran", money(reserved), ""],
        ["came to", "no price" if actual is None else money(actual), ""],
    ]
    if actual is not None and reserved:
        lines[1][2] = f"{100 * actual / reserved:.1f}% of it"
    yield from _table(lines, right=frozenset({1}))


# -- cells ------------------------------------------------------------------------------------


def _table(
    rows: Sequence[Sequence[str]], *, right: frozenset[int] = frozenset(), head: Sequence[str] = ()
) -> Iterator[str]:
    """Rows in columns, without those that are empty; the columns ``right`` are aligned there."""
    lines = [[printable(cell) for cell in row] for row in rows]
    kept = [index for index in range(max(map(len, lines))) if any(len(row) > index and row[index] for row in lines)]
    if head:
        lines.insert(0, list(head))
    widths = {index: max(len(row[index]) for row in lines if len(row) > index) for index in kept}
    for row in lines:
        cells = [
            row[index].rjust(widths[index]) if index in right else row[index].ljust(widths[index])
            for index in kept
            if len(row) > index
        ]
        yield (INDENT + "  ".join(cells)).rstrip()


def printable(text: str) -> str:
    """``text`` without what could steer a terminal."""
    return text if text.isprintable() else "".join(char if char.isprintable() else "�" for char in text)


def money(nanousd: int) -> str:
    """``$0.0017984``, with two digits behind the point at least."""
    return aligned_money([nanousd])[0]


def aligned_money(amounts: Sequence[int | None]) -> list[str]:
    """Amounts with as many digits behind the point as the longest needs, all exact."""
    decimals = max((len(usd_text(each).partition(".")[2]) for each in amounts if each is not None), default=0)
    return ["unpriced" if each is None else _dollars(each, max(decimals, CENTS)) for each in amounts]


def _dollars(nanousd: int, decimals: int) -> str:
    whole, rest = divmod(abs(nanousd), NANO_PER_USD)
    sign = "-" if nanousd < 0 else ""
    return f"{sign}${whole:,}.{f'{rest:09d}'[:decimals]}"


def moment(at_ms: int) -> str:
    """``2026-11-20 12:00:00.250 UTC``."""
    return datetime.fromtimestamp(at_ms / 1000, UTC).replace(tzinfo=None).isoformat(" ", "milliseconds") + " UTC"


def duration(milliseconds: int) -> str:
    """``250 ms``, ``1.5 s``, ``2 min 5 s``, ``3 h 20 min``."""
    if abs(milliseconds) < 1000:
        return f"{milliseconds} ms"
    seconds, rest_ms = divmod(milliseconds, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    if minutes:
        return f"{minutes} min {seconds} s"
    return f"{seconds}.{rest_ms:03d}".rstrip("0").rstrip(".") + " s"
