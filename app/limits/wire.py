"""How the hot state's commands travel to Redis: the keys and arguments of their scripts, and what those answer.

``hg:{TAG}:epoch`` is a tag's epoch, ``:due`` says which reservation is due when, ``:r:<request id>`` is a
reservation, ``:l:<counter>`` a window or the leases of a limit, ``:b:<budget id>:<start_ms>`` a budget. The
first braces decide the slot in a cluster: a tag has none of its own, whatever text of clients follows it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, cast

from app.core.records import BudgetWindow
from app.limits.gauges import lifetime_ms
from app.limits.hot import (
    TOMBSTONE_MS,
    Answer,
    Beat,
    Beaten,
    Cold,
    Confirm,
    Confirmed,
    Counted,
    Done,
    Due,
    FindDue,
    Granted,
    Known,
    Look,
    Lost,
    NotDue,
    OpenTag,
    OutOfWindow,
    Peek,
    Refused,
    Reserve,
    Restore,
    Seed,
    Settle,
    StandIn,
    TakeOver,
    Void,
    Voided,
)
from app.limits.limiter import Claim, Limit, countable
from app.limits.tag import BUDGET_KEPT_MS
from app.store.redis import GAP, Argument, Form, Script

Words: TypeAlias = tuple[list[str], list[Argument]]
"""Keys and arguments."""

Packed: TypeAlias = tuple[str, bytes]
"""A key, and the whole command as it goes over the wire."""

PLANS_MAX = 8192
VOID_HEAD, RESTORE_HEAD, EACH = 4, 7, 2
KINDS = {"requests": "w", "tokens": "w", "concurrency": "l", "money": "m"}


class Plan:
    """What all claims on the same limits of a tag have in common: keys and arguments with gaps, and where those are.

    Every request is reserved and settled: those two are packed here, but for their gaps.
    """

    __slots__ = (
        "keys",
        "leases",
        "limits",
        "money",
        "prefix",
        "reserve",
        "restore",
        "settle",
        "tokens_at",
        "told",
        "void",
    )

    def __init__(self, tag: str, limits: tuple[Limit, ...], reserve: Script, settle: Script) -> None:
        self.limits = limits
        self.prefix = prefix = f"hg:{{{tag}}}:"
        self.keys = [f"{prefix}epoch", f"{prefix}due", ""]
        self.leases: list[str] = []
        self.money: list[tuple[int, Limit]] = []
        self.tokens_at: list[int] = []
        self.told: list[Limit] = []
        """The limits with gaps, in order: those of tokens and of money."""
        self.void: list[Argument] = []
        self.restore: list[Argument] = []
        reserved: list[Argument | None] = [GAP, GAP, GAP, GAP, str(lifetime_ms(limits)), GAP, GAP, GAP]
        settled: list[Argument | None] = [GAP] * 10
        for index, limit in enumerate(limits):
            self._add(index, limit)
            reserved += _reserved_of(limit)
            settled += (KINDS[limit.kind], GAP if limit.kind == "tokens" else "0")
        keys: list[str | None] = [key or GAP for key in self.keys]
        self.reserve = Form(reserve, keys, reserved)
        self.settle = Form(settle, keys, settled)

    def _add(self, index: int, limit: Limit) -> None:
        kind = KINDS[limit.kind]
        key = f"{self.prefix}l:{limit.counter}"
        if limit.kind == "money":
            self.money.append((index, limit))
            # Which window it is, each claim says.
            key = ""
        elif limit.kind == "concurrency":
            self.leases.append(key)
        elif limit.kind == "tokens":
            self.tokens_at.append(index)
        if limit.kind in {"tokens", "money"}:
            self.told.append(limit)
        self.keys.append(key)
        self.void += (kind, "-1" if limit.kind == "requests" else "0")
        self.restore += (kind, "0")

    def keys_of(self, claim: Claim) -> list[str]:
        """The epoch, what is due, the reservation, and what is counted of each limit."""
        keys = self.keys.copy()
        keys[2] = f"{self.prefix}r:{claim.request_id}"
        if self.money:
            for (index, _), window in zip(self.money, claim.money, strict=True):
                keys[3 + index] = budget_key(self.prefix, window.budget)
        return keys

    def changing_keys_of(self, claim: Claim) -> list[bytes]:
        """Those that fill the gaps: the reservation, and the window of each budget."""
        keys = [f"{self.prefix}r:{claim.request_id}".encode()]
        if self.money:
            keys += [budget_key(self.prefix, window.budget).encode() for window in claim.money]
        return keys


def _reserved_of(limit: Limit) -> tuple[Argument | None, ...]:
    mode = "o" if limit.mode == "observe" else "e"
    if limit.kind == "money":
        return "m", mode, GAP, limit.maximum, GAP, GAP
    amount = GAP if limit.kind == "tokens" else "1"
    return KINDS[limit.kind], mode, amount, limit.maximum, limit.slot_ms, ""


def budget_key(prefix: str, budget: BudgetWindow) -> str:
    return f"{prefix}b:{budget.budget_id}:{budget.start_ms}"


class Wire:
    """Writes commands. ``stamp(token, tag)`` completes a token, ``now()`` is the time, or '' for the server's.

    ``reserve`` and ``settle`` are the scripts of those two commands.
    """

    def __init__(
        self, stamp: Callable[[str, str], str], now: Callable[[], Argument], reserve: Script, settle: Script
    ) -> None:
        self._stamp = stamp
        self._now = now
        self._reserve = reserve
        self._settle = settle
        self._plans: dict[tuple[object, ...], Plan] = {}

    def __repr__(self) -> str:
        return f"Wire(plans={len(self._plans)})"

    def plan_of(self, claim: Claim) -> Plan:
        # Limits are compared by identity: a plan keeps its own alive, so that no other takes their place.
        identity = (claim.tag, *map(id, claim.limits))
        plan = self._plans.get(identity)
        if plan is None:
            if len(self._plans) >= PLANS_MAX:
                del self._plans[next(iter(self._plans))]
            plan = self._plans[identity] = Plan(claim.tag, claim.limits, self._reserve, self._settle)
        return plan

    # -- claims ---------------------------------------------------------------------------------

    def reserve(self, command: Reserve) -> Packed:
        claim = command.claim
        plan = self.plan_of(claim)
        words = self._begun(command, plan, claim.opening)
        windows = iter(claim.money)
        for limit in plan.told:
            words.append(b"%d" % claim.amount_of(limit))
            if limit.kind == "money":
                window = next(windows)
                words += (b"%d" % window.budget.start_ms, b"%d" % window.end_ms)
        return plan.keys[0], plan.reserve.fill(words)

    def settle(self, command: Settle) -> Packed:
        claim, outcome = command.claim, command.outcome
        plan = self.plan_of(claim)
        words = self._begun(command, plan, command.opening)
        words += (b"%d" % outcome.rank, b"%d" % outcome.nanousd, outcome.record)
        if plan.tokens_at:
            difference = b"%d" % (countable(outcome.tokens) - countable(claim.tokens))
            words += [difference] * len(plan.tokens_at)
        return plan.keys[0], plan.settle.fill(words)

    def _begun(self, command: Reserve | Settle, plan: Plan, opening: bytes) -> list[bytes]:
        """The first gaps of both forms: keys, and what every claim tells of itself."""
        claim = command.claim
        return [
            *plan.changing_keys_of(claim),
            str(self._now()).encode(),
            self._stamp(command.token, claim.tag).encode(),
            claim.request_id.encode(),
            b"%d" % command.lease_ms,
            claim.owner.encode(),
            opening,
            b"%d" % claim.bound_nanousd,
        ]

    def void(self, command: Void) -> Words:
        claim = command.claim
        plan = self.plan_of(claim)
        args: list[Argument] = [self._now(), TOMBSTONE_MS, claim.request_id, BUDGET_KEPT_MS, *plan.void]
        for index in plan.tokens_at:
            args[VOID_HEAD + EACH * index + 1] = -countable(claim.tokens)
        return plan.keys_of(claim), args

    def restore(self, command: Restore) -> Words:
        claim = command.claim
        plan = self.plan_of(claim)
        args: list[Argument] = [
            self._now(),
            self._stamp(command.token, claim.tag),
            claim.request_id,
            command.lease_ms,
            claim.owner,
            claim.opening,
            claim.bound_nanousd,
            *plan.restore,
        ]
        for index, limit in plan.money:
            args[RESTORE_HEAD + EACH * index + 1] = claim.amount_of(limit)
        return plan.keys_of(claim), args

    def beat(self, command: Beat) -> Words:
        prefix, keys = self._epoch_and_due(command.tag)
        keys += (f"{prefix}r:{seen.claim.request_id}" for seen in command.running)
        args: list[Argument] = [
            self._now(),
            self._stamp(command.token, command.tag),
            command.lease_ms,
            command.done_lease_ms,
            len(command.running),
        ]
        place = _Places(keys)
        for seen in command.running:
            leases = self.plan_of(seen.claim).leases
            args += (seen.claim.request_id, f"{seen.output_tokens} {seen.lower_nanousd}", len(leases))
            args += map(place, leases)
        args += command.done
        return keys, args

    # -- reapers --------------------------------------------------------------------------------

    def find_due(self, command: FindDue) -> Words:
        _, keys = self._epoch_and_due(command.tag)
        return keys, [self._now(), self._stamp(command.token, command.tag), command.at_most]

    def look(self, command: Look) -> Words:
        return [f"hg:{{{command.tag}}}:r:{command.request_id}"], [self._now()]

    def peek(self, command: Peek) -> Words:
        args: list[Argument] = [self._now()]
        for limit in command.limits:
            args += (KINDS[limit.kind], limit.slot_ms)
        return [f"hg:{{{command.tag}}}:l:{limit.counter}" for limit in command.limits], args

    def take_over(self, command: TakeOver) -> Words:
        prefix, keys = self._epoch_and_due(command.tag)
        keys.append(f"{prefix}r:{command.request_id}")
        keys += (budget_key(prefix, budget) for budget in command.budgets)
        return keys, [self._now(), self._stamp(command.token, command.tag), command.request_id, command.hold_ms]

    # -- what SQL knows -------------------------------------------------------------------------

    def confirm(self, command: Confirm) -> Words:
        prefix, keys = self._epoch_and_due(command.tag)
        keys += (f"{prefix}r:{request.request_id}" for request in command.requests)
        args: list[Argument] = [
            self._now(),
            self._stamp(command.token, command.tag),
            TOMBSTONE_MS,
            BUDGET_KEPT_MS,
            len(command.requests),
        ]
        place = _Places(keys)
        for request in command.requests:
            budgets = [place(budget_key(prefix, budget)) for budget in request.budgets]
            args += (request.request_id, request.rank, request.nanousd, len(budgets), *budgets)
        for value in command.values:
            args += (place(budget_key(prefix, value.budget)), value.spent_nanousd, value.version)
        return keys, args

    def seed(self, command: Seed) -> Words:
        prefix = f"hg:{{{command.tag}}}:"
        args: list[Argument] = [self._stamp(command.token, command.tag), BUDGET_KEPT_MS]
        for value in command.values:
            args += (value.spent_nanousd, value.version)
        return [f"{prefix}epoch", *(budget_key(prefix, value.budget) for value in command.values)], args

    def stand_in(self, command: StandIn) -> Words:
        prefix = f"hg:{{{command.tag}}}:"
        token = self._stamp(command.token, command.tag)
        keys = [f"{prefix}epoch", budget_key(prefix, command.budget)]
        return keys, [token, BUDGET_KEPT_MS, command.process_id, command.nanousd]

    def open_tag(self, command: OpenTag) -> Words:
        return [f"hg:{{{command.tag}}}:epoch"], [self._stamp(command.token, command.tag)]

    def _epoch_and_due(self, tag: str) -> tuple[str, list[str]]:
        prefix = f"hg:{{{tag}}}:"
        return prefix, [f"{prefix}epoch", f"{prefix}due"]


class _Places:
    """Where in ``keys`` a key stands, counted from one; it is added where it is not there yet."""

    def __init__(self, keys: list[str]) -> None:
        self._keys = keys
        self._places: dict[str, int] = {}

    def __call__(self, key: str) -> int:
        place = self._places.get(key)
        if place is None:
            self._keys.append(key)
            place = self._places[key] = len(self._keys)
        return place


# -- answers ------------------------------------------------------------------------------------


def read_answer(reply: Sequence[Any], command: object) -> Answer:
    """What a script said to ``command``."""
    answer: Answer = _READERS[reply[0]](reply, command)
    return answer


def _standings(numbers: Sequence[int]) -> tuple[tuple[int, int], ...]:
    each = iter(numbers)
    return tuple(zip(each, each, strict=True))


def _granted(reply: Sequence[Any], command: object) -> Answer:
    end = 2 + 2 * len(cast("Reserve", command).claim.limits)
    observed = tuple(place - 1 for place in reply[end:]) if len(reply) > end else ()
    return Granted(reply[1], _standings(reply[2:end]), observed)


def _refused(reply: Sequence[Any], _command: object) -> Answer:
    _, place, retry_after_ms, is_held, *numbers = reply
    return Refused(place - 1, None if retry_after_ms < 0 else retry_after_ms, _standings(numbers), bool(is_held))


def _known(reply: Sequence[Any], _command: object) -> Answer:
    _, state, epoch, rank, nanousd, owner, opening, record, seen = reply
    output_tokens, lower_nanousd = seen.split()
    return Known(
        state="open" if state == b"open" else "done",
        epoch=int(epoch),
        rank=int(rank),
        owner=owner.decode(),
        opening=opening,
        record=record,
        nanousd=int(nanousd),
        output_tokens=int(output_tokens),
        lower_nanousd=int(lower_nanousd),
    )


def _ids(reply: Sequence[Any]) -> tuple[str, ...]:
    return tuple(request_id.decode() for request_id in reply[1:])


_CHANGED, _UNCHANGED = Done(), Done(changed=False)

_READERS: tuple[Callable[[Sequence[Any], object], Answer], ...] = (
    _granted,
    _refused,
    lambda reply, _: Cold(tuple(place - 1 for place in reply[1:])),
    lambda reply, _: OutOfWindow(reply[1]),
    lambda _reply, _: Voided(),
    lambda reply, _: Lost(None if reply[1] is None else reply[1].decode()),
    lambda reply, _: _CHANGED if reply[1] else _UNCHANGED,
    lambda reply, _: Beaten(_ids(reply)),
    lambda reply, _: Due(_ids(reply)),
    lambda _reply, _: NotDue(),
    _known,
    lambda reply, _: Confirmed(_ids(reply)),
    lambda reply, _: Counted(_standings(reply[1:])),
)
"""In the order of the numbers in ``scripts/shared/prelude.lua``."""
