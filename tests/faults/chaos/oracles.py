"""What must be true after a run, whatever befell it: the ten oracles of the accounting design, by their numbers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

import msgspec

from app.core.identity import LimitRule
from tests.faults.chaos.clients import Told
from tests.faults.chaos.constants import PRICES, Prices
from tests.faults.chaos.people import Person
from tests.faults.chaos.rest import is_at_rest
from tests.faults.chaos.truth import Books, Held, Served

LEASE_S = 14.0
"""Who is silent for longer may lose its leases."""
ENDING_MS = 300
"""An upstream is told of a call that was given up so much later, at most."""
DECIDED_MS = 25_000
"""What came just before midnight may be admitted so much later, by a process that stood still."""
WINDOW_MS = 60_000
OWED_TOKENS = 1_000
"""What calls that ran at once may have used above what was reserved of a window of tokens."""

REFUSALS = {
    "rate_limit_exceeded",
    "insufficient_quota",
    "limits_unavailable",
    "ledger_unavailable",
    "overloaded",
    "draining",
}
"""Codes under which the gateway itself refuses, before anything is sent. Upstreams may use the first two, too."""
OWN_REFUSALS = REFUSALS - {"rate_limit_exceeded", "insufficient_quota"}


class Evidence(msgspec.Struct):
    """All that is known after a run. ``losses``: how often the hot state was lost; ``longest_silence_s`` of any
    gateway from the hot state; ``peaks``: the most that SQL ever had of a window; ``unsafe_lives``: of gateways
    that were lost with their disk while the hot state was away; ``days``: the first milliseconds of two days.
    """

    served: dict[str, Served]
    books: Books
    held: Held
    told: Sequence[Told]
    people: Sequence[Person]
    losses: int = 0
    longest_silence_s: float = 0.0
    may_lose_leases: bool = False
    peaks: dict[tuple[str, int], int] = {}
    unsafe_lives: set[str] = set()
    prices: Prices = PRICES
    days: tuple[int, int] = (0, 0)

    def is_excused(self, served: Served) -> bool:
        """Whether it went on while the hot state was away and only its host's disk knew of it, which is gone.
        Under a strict limit it could not have gone on.
        """
        loose = {f"{person.team}-{person.name}" for person in self.people if not person.is_strict}
        is_lost = served.attempt_id.rpartition(".")[0] not in self.books.records
        return is_lost and served.person in loose and served.life in self.unsafe_lives

    def rules(self) -> dict[str, tuple[LimitRule, str, bool]]:
        """By id: the rule, its owner, and whether that is a key."""
        found: dict[str, tuple[LimitRule, str, bool]] = {}
        times: dict[str, int] = defaultdict(int)
        for person in self.people:
            for rule in person.limits:
                times[rule.id] += 1
                found[rule.id] = (rule, person.key_id, True)
        for person in self.people:
            members = [each for each in self.people if each.team_id == person.team_id]
            for rule in person.limits:
                if all(rule in each.limits for each in members) and len(members) > 1:
                    found[rule.id] = (rule, person.team_id, False)
        return found


def judge(evidence: Evidence) -> list[str]:
    """Each broken oracle, by its number."""
    broken: list[str] = []
    for oracle in (_billed, _limits, _rollups, _at_rest, _windows, _concurrency, _unknown, _agreed, _own):
        broken += oracle(evidence)
    return broken


def _billed(evidence: Evidence) -> Iterable[str]:
    """1, 2, 3: what was billed has one row, which is exact or not below it."""
    for attempt_id, served in evidence.served.items():
        attempt = evidence.books.attempts.get(attempt_id)
        if served.times > 1:
            yield f"1: {attempt_id} reached the upstream {served.times} times"
        if attempt is None or len(attempt.primaries) != 1:
            if served.billed and not evidence.is_excused(served):
                rows = 0 if attempt is None else len(attempt.primaries)
                yield f"1: {attempt_id} is billed {served.nanousd} ({served.outcome}) and has {rows} rows"
            continue
        tokens = served.tokens if served.billed else (0, 0, 0)
        if attempt.is_exact:
            if attempt.tokens != tokens or attempt.nanousd != served.nanousd:
                yield (
                    f"2: {attempt_id} used {tokens} for {served.nanousd} ({served.outcome}), the ledger has"
                    f" {attempt.tokens} for {attempt.nanousd} ({attempt.kind}, {len(attempt.adjusts)} adjusts)"
                )
        elif attempt.nanousd < served.nanousd:
            yield f"3: {attempt_id} cost {served.nanousd} ({served.outcome}) and is estimated at {attempt.nanousd}"
        for adjust in attempt.adjusts:
            if attempt.kind != "estimate" and adjust["reason"] == "exact":
                yield f"3: {attempt_id} is a {attempt.kind} and was adjusted"


def _limits(evidence: Evidence) -> Iterable[str]:
    """4: no window of a hard budget above its limit, by the ledger at any time nor by the upstream."""
    books = evidence.books
    by_ledger: dict[tuple[str, int], int] = defaultdict(int)
    by_truth: dict[tuple[str, int], int] = defaultdict(int)
    for request_id, attempts in books.requests().items():
        record = books.records.get(request_id)
        for window in record["windows"] if record is not None else ():
            by_ledger[window] += sum(attempt.nanousd for attempt in attempts)
            for number in range(1, len(attempts) + 1):
                served = evidence.served.get(f"{request_id}.{number}")
                by_truth[window] += served.nanousd if served is not None else 0
    for rule_id, (rule, _, _) in evidence.rules().items():
        if rule.kind != "money" or rule.mode != "enforce" or rule.policy != "strict" or rule.bound != "maximum":
            continue
        for source, spent in (("ledger", by_ledger), ("upstream", by_truth), ("ledger's peak", evidence.peaks)):
            for (budget_id, start_ms), nanousd in spent.items():
                if budget_id == rule_id and nanousd > rule.maximum:
                    yield f"4: {rule.window} budget {rule_id}@{start_ms}: {nanousd} of {rule.maximum} by the {source}"
    for request_id, record in books.records.items():
        for budget_id, start_ms in record["windows"]:
            at_ms, midnight_ms = record["admitted_at_ms"], evidence.days[1]
            is_early = start_ms == midnight_ms and at_ms < midnight_ms - DECIDED_MS
            if is_early or (start_ms == evidence.days[0] and at_ms > midnight_ms):
                yield f"4: {request_id} came {at_ms - midnight_ms} ms after midnight and counts in {budget_id}@{start_ms}"
    for window, nanousd in by_ledger.items():
        row = books.budgets.get(window)
        if row is None or row["spent_nanousd"] - row["seeded_nanousd"] != nanousd:
            yield f"5: budget {window} has {row and row['spent_nanousd']}, its rows are {nanousd}"


def _rollups(evidence: Evidence) -> Iterable[str]:
    """5: sums are the sums of rows."""
    books = evidence.books
    rows: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    sums: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    for record in books.records.values():
        rows[record["key_id"]][0] += 1
    for attempt in books.attempts.values():
        row = rows[attempt.primaries[0]["key_id"]] if attempt.primaries else rows["none"]
        row[1] += attempt.nanousd
        row[2] += attempt.tokens[2]
        row[3] += not attempt.is_exact
    for rollup in books.rollups:
        row = sums[rollup["key_id"]]
        for at, name in enumerate(("requests", "cost_nanousd", "output_tokens", "estimated")):
            row[at] += rollup[name]
    for key_id in rows.keys() | sums.keys():
        if rows[key_id] != sums[key_id]:
            yield f"5: rollups of {key_id} are {sums[key_id]}, its rows {rows[key_id]}"
    requests = books.requests()
    for request_id, record in books.records.items():
        if len(requests.get(request_id, [])) != record["attempts"]:
            yield f"5: {request_id} says {record['attempts']} attempts"


def _at_rest(evidence: Evidence) -> Iterable[str]:
    """6: what Valkey confirmed is what SQL has, and nothing is held."""
    books, held = evidence.books, evidence.held
    for (tag, budget_id, start_ms), fields in held.budgets.items():
        if int(fields.get("e", 0)) != books.epoch:
            continue
        if not is_at_rest(fields):
            yield f"6: budget {budget_id}@{start_ms} of {tag} holds {fields}"
        row = books.budgets.get((budget_id, start_ms))
        spent = row["spent_nanousd"] if row is not None else 0
        if "v" in fields and int(fields["c"]) != spent:
            yield f"6: budget {budget_id}@{start_ms} confirmed {fields['c']}, in SQL {spent}"
    yield from (f"6: due in {tag} at rest: {ids[:3]}" for tag, ids in held.due.items())
    yield from (f"6: leases at rest in {key}: {ids[:3]}" for key, ids in held.leases.items())
    yield from (f"6: reservation at rest: {each[:150]}" for each in held.open_or_done[:3])
    if books.poison:
        yield f"6: {books.poison} rows were put aside as poison"


def _windows(evidence: Evidence) -> Iterable[str]:
    """7: no sixty seconds with more than the limit, but for what was forgotten with the hot state."""
    books = evidence.books
    width_ms = WINDOW_MS - 2_000 - int(evidence.longest_silence_s * 1000)
    for rule, owner_id, is_key in evidence.rules().values():
        if rule.kind not in {"requests", "tokens"} or rule.policy != "strict" or rule.mode != "enforce":
            continue
        counted: list[tuple[int, int]] = []
        for request_id, record in books.records.items():
            if record["key_id" if is_key else "team_id"] == owner_id:
                tokens = sum(
                    served.tokens[0] + served.tokens[2]
                    for number in range(1, record["attempts"] + 1)
                    if (served := evidence.served.get(f"{request_id}.{number}")) is not None and served.billed
                )
                counted.append((record["admitted_at_ms"], 1 if rule.kind == "requests" else tokens))
        most = _most_in(sorted(counted), width_ms)
        allowed = rule.maximum * (1 + evidence.losses) + (OWED_TOKENS if rule.kind == "tokens" else 0)
        if most > allowed:
            yield f"7: {most} {rule.kind} of {owner_id} in {width_ms} ms, {rule.maximum} allowed"


def _most_in(counted: Sequence[tuple[int, int]], width_ms: int) -> int:
    most = inside = first = 0
    for at_ms, amount in counted:
        inside += amount
        while counted[first][0] <= at_ms - width_ms:
            inside -= counted[first][1]
            first += 1
        most = max(most, inside)
    return most


def _concurrency(evidence: Evidence) -> Iterable[str]:
    """8: the upstream never saw more calls at once, unless leases could be lost."""
    if evidence.may_lose_leases:
        return
    books = evidence.books
    for rule, owner_id, is_key in evidence.rules().values():
        if rule.kind != "concurrency" or rule.policy != "strict":
            continue
        edges: list[tuple[int, int]] = []
        for attempt_id, served in evidence.served.items():
            record = books.records.get(attempt_id.rpartition(".")[0])
            if record is not None and record["key_id" if is_key else "team_id"] == owner_id:
                late_ms = ENDING_MS if served.outcome not in {"completed", "incomplete", "refused"} else 1
                edges += [(served.started_ms, 1), (max(served.started_ms, served.ended_ms - late_ms), -1)]
        most = running = 0
        for _, change in sorted(edges):
            running += change
            most = max(most, running)
        if most > rule.maximum:
            yield f"8: {most} calls of {owner_id} at once, {rule.maximum} allowed"


def _unknown(evidence: Evidence) -> Iterable[str]:
    """9: what the upstream knows nothing of is flagged."""
    for attempt_id, attempt in evidence.books.attempts.items():
        if attempt_id not in evidence.served and attempt.kind == "charge":
            yield f"9: {attempt_id} never reached the upstream and is charged"
        if attempt_id.rpartition(".")[0] not in evidence.books.records:
            yield f"9: {attempt_id} has no record"


def _agreed(evidence: Evidence) -> Iterable[str]:
    """10: what the client was told and what the ledger says agree."""
    requests, records = evidence.books.requests(), evidence.books.records
    for told in evidence.told:
        if not told.request_id or not told.whole:
            continue
        record, attempts = records.get(told.request_id), requests.get(told.request_id, [])
        served = evidence.served.get(f"{told.request_id}.1")
        was_sent = served is not None
        if served is not None and evidence.is_excused(served):
            continue
        # Its gateway was cut off, or died, before it could take the reservation back: an estimate that says so.
        is_phantom = record is not None and record["error_code"] == "gateway_lost" and not was_sent
        if told.status == 200:
            if record is None:
                yield f"10: {told.request_id} was answered and has no record"
                continue
            spent = sum(attempt.nanousd for attempt in attempts)
            if (
                told.usage is not None
                and attempts
                and attempts[-1].is_exact
                and spent != evidence.prices.of(told.usage)
            ):
                yield f"10: {told.request_id} was told {told.usage}, the ledger has {spent}"
        elif is_phantom:
            continue
        elif told.code in OWN_REFUSALS and (record is not None or was_sent):
            yield f"10: {told.request_id} was refused ({told.code}); record: {record is not None}, sent: {was_sent}"
        elif told.code in REFUSALS and (record is not None) != was_sent:
            yield f"10: {told.request_id} was told {told.code}; record: {record is not None}, sent: {was_sent}"


def _own(evidence: Evidence) -> Iterable[str]:
    """10: no request was given the answer to another."""
    for request_id, record in evidence.books.records.items():
        served = [evidence.served.get(f"{request_id}.{number}") for number in range(1, record["attempts"] + 1)]
        own = {each.response_id for each in served if each is not None}
        if record["response_id"] is not None and own and record["response_id"] not in own:
            yield f"10: {request_id} has the answer {record['response_id']}, its own are {own}"
