"""The hot state of one process, and the model of what the Lua scripts do: one suite of tests compares them.

Every command is one synchronous step, so nothing has to be locked.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from itertools import islice

from app.core.clock import Clock, SystemClock
from app.core.records import BudgetWindow
from app.limits.gauges import NEVER_MS, Gauge, Leases, SlidingWindow, lifetime_ms
from app.limits.hot import (
    TOMBSTONE_MS,
    Answer,
    Beat,
    Beaten,
    BudgetValue,
    Cold,
    Command,
    Confirm,
    Confirmed,
    Done,
    Due,
    FindDue,
    Granted,
    InSQL,
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
    number_of,
)
from app.limits.limiter import Claim, countable
from app.limits.tag import (
    BUDGET_KEPT_MS,
    Budget,
    Reservation,
    Tag,
    count_done,
    counts_of,
    decide,
    known_of,
    standings_of,
    uncount,
    unhold,
    windows_of,
)

SWEPT_AT_ONCE = 8


class MemoryHot:
    """The hot state in this process' memory."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._tags: dict[str, Tag] = {}
        self._forgets: list[tuple[int, str, str]] = []
        self._steps: dict[type, Callable[..., Answer]] = {
            Reserve: self._reserve,
            Settle: self._settle,
            Void: self._void,
            Restore: self._restore,
            Beat: self._beat,
            FindDue: self._find_due,
            Look: self._look,
            Peek: self._peek,
            TakeOver: self._take_over,
            Confirm: self._confirm,
            Seed: self._seed,
            StandIn: self._stand_in,
            OpenTag: self._open_tag,
        }

    def __repr__(self) -> str:
        held = sum(len(tag.reservations) for tag in self._tags.values())
        return f"MemoryHot(tags={len(self._tags)}, reservations={held})"

    def apply(self, command: Command) -> Answer:
        """Carry ``command`` out."""
        return self._steps[type(command)](command)

    def flush(self) -> None:
        """Lose everything, as a server does that is emptied."""
        self._tags.clear()
        self._forgets.clear()

    def windows(self) -> list[tuple[str, list[BudgetWindow]]]:
        """The windows of budgets that are counted under each tag."""
        return [(name, list(tag.budgets)) for name, tag in self._tags.items() if tag.budgets]

    # -- admission ------------------------------------------------------------------------------

    def _reserve(self, command: Reserve) -> Answer:
        claim, now_ms = command.claim, self._clock.now_ms()
        tag = self._open(claim.tag, command.token)
        if isinstance(tag, Lost):
            return tag
        epoch = number_of(command.token) if command.token else 0
        known = tag.find(claim.request_id, now_ms)
        if known is not None and known.is_over:
            return Voided()
        if known is not None and known.state == "open" and known.epoch != epoch:
            # Granted in an epoch that is over, and not sent yet: it has to fit into this one.
            known = None
        gauges = [tag.gauge(limit) for limit in claim.limits]
        amounts = [0 if known else claim.amount_of(limit) for limit in claim.limits]
        budgets = [tag.budget(window.budget, epoch) for window in claim.money]
        if known is None and budgets:
            if any(not window.budget.start_ms <= now_ms < window.end_ms for window in claim.money):
                return OutOfWindow(now_ms)
            at = [index for index, limit in enumerate(claim.limits) if limit.kind == "money"]
            cold = tuple(index for index, budget in zip(at, budgets, strict=True) if not budget.is_warm)
            if cold:
                return Cold(cold)
        refused, observed = decide(claim, gauges, budgets, amounts, now_ms)
        if refused is not None:
            index, wait_ms, is_held = refused
            wait = None if wait_ms == NEVER_MS else wait_ms
            return Refused(index, wait, standings_of(claim, gauges, budgets, now_ms), is_held)
        if known is None:
            known = self._take(tag, claim, gauges, budgets, amounts, epoch, now_ms, command.lease_ms)
        self._sweep(tag, now_ms)
        return Granted(known.admitted_at_ms, standings_of(claim, gauges, budgets, now_ms), observed)

    def _take(
        self,
        tag: Tag,
        claim: Claim,
        gauges: list[Gauge | None],
        budgets: list[Budget],
        amounts: list[int],
        epoch: int,
        now_ms: int,
        lease_ms: int,
    ) -> Reservation:
        slots: list[int] = []
        held: list[int] = []
        for gauge, amount in zip(gauges, amounts, strict=True):
            slot = 0
            if isinstance(gauge, SlidingWindow):
                slot = gauge.take(amount, now_ms)
            elif isinstance(gauge, Leases):
                gauge.prolong(claim.request_id, now_ms + lease_ms)
            else:
                held.append(amount)
            slots.append(slot)
        for budget, amount in zip(budgets, held, strict=True):
            budget.held += amount
            budget.touched_ms = now_ms
        reservation = tag.reservations[claim.request_id] = Reservation(
            state="open",
            epoch=epoch,
            owner=claim.owner,
            opening=claim.opening,
            bound_nanousd=claim.bound_nanousd,
            held=tuple(held),
            slots=tuple(slots),
            admitted_at_ms=now_ms,
        )
        if epoch:
            tag.due[claim.request_id] = now_ms + lease_ms
        else:
            self._forget_at(now_ms + lifetime_ms(claim.limits), claim.tag, claim.request_id, reservation)
        return reservation

    def _restore(self, command: Restore) -> Answer:
        claim, now_ms = command.claim, self._clock.now_ms()
        tag = self._open(claim.tag, command.token)
        if isinstance(tag, Lost):
            return tag
        epoch = number_of(command.token)
        known = tag.find(claim.request_id, now_ms)
        if known is not None and known.state == "void":
            # Its owner gave up waiting for a grant, and had it run all the same.
            known = None
        if known is not None and known.state != "open":
            return Done(changed=known.state == "done" and count_done(tag, known, windows_of(claim), epoch))
        self._prolong(tag, claim, now_ms + command.lease_ms)
        tag.due[claim.request_id] = now_ms + command.lease_ms
        if known is not None:
            known.opening = claim.opening
            if known.epoch == epoch:
                return Done(changed=False)
        held = tuple(claim.amount_of(limit) for limit in claim.limits if limit.kind == "money")
        for window, amount in zip(claim.money, held, strict=True):
            tag.budget(window.budget, epoch).held += amount
        if known is not None:
            known.epoch, known.held = epoch, held
        else:
            tag.reservations[claim.request_id] = Reservation(
                state="open",
                epoch=epoch,
                owner=claim.owner,
                opening=claim.opening,
                bound_nanousd=claim.bound_nanousd,
                held=held,
                admitted_at_ms=now_ms,
            )
        return Done()

    # -- the end of a call ----------------------------------------------------------------------

    def _settle(self, command: Settle) -> Answer:
        claim, outcome, now_ms = command.claim, command.outcome, self._clock.now_ms()
        tag = self._open(claim.tag, command.token)
        if isinstance(tag, Lost):
            return tag
        self._free(tag, claim)
        known = tag.find(claim.request_id, now_ms)
        if not command.token:
            if known is None or known.is_over:
                return Done(changed=False)
            self._correct(tag, claim, known.slots, tokens=outcome.tokens, requests=1)
            del tag.reservations[claim.request_id]
            return Done()
        epoch, windows, counted = number_of(command.token), windows_of(claim), outcome.nanousd
        if known is None or known.state == "void":
            known = tag.reservations[claim.request_id] = Reservation(
                "done", epoch, claim.owner, command.opening, bound_nanousd=claim.bound_nanousd
            )
        elif known.state == "open":
            self._correct(tag, claim, known.slots, tokens=outcome.tokens, requests=1)
            unhold(tag, known, windows)
        elif outcome.rank <= known.rank:
            count_done(tag, known, windows, epoch)
            return Done(changed=False)
        elif known.state == "done":
            uncount(tag, known, windows)
        else:
            counted = max(0, outcome.nanousd - known.nanousd)
            known.owner, known.opening, known.forget_at_ms = claim.owner, command.opening, 0
        known.state, known.epoch, known.rank = "done", epoch, outcome.rank
        known.record, known.nanousd, known.held = outcome.record, counted, ()
        for window in windows:
            tag.budget(window, epoch).unconfirmed += counted
        tag.due[claim.request_id] = now_ms + command.lease_ms
        return Done()

    def _void(self, command: Void) -> Answer:
        claim, now_ms = command.claim, self._clock.now_ms()
        tag = self._tags.setdefault(claim.tag, Tag())
        known = tag.find(claim.request_id, now_ms)
        if known is not None and known.state != "open":
            return Done(changed=False)
        self._free(tag, claim)
        if known is not None:
            self._correct(tag, claim, known.slots, tokens=0, requests=0)
            unhold(tag, known, windows_of(claim))
        self._bury(tag, claim.tag, claim.request_id, Reservation("void", 0), now_ms)
        return Done(changed=known is not None)

    # -- owners and reapers ---------------------------------------------------------------------

    def _beat(self, command: Beat) -> Answer:
        now_ms = self._clock.now_ms()
        tag = self._open(command.tag, command.token)
        if isinstance(tag, Lost):
            return tag
        epoch = number_of(command.token) if command.token else 0
        missing: list[str] = []
        for seen in command.running:
            request_id = seen.claim.request_id
            known = tag.find(request_id, now_ms)
            if known is None or known.state == "void" or (known.state == "open" and known.epoch != epoch):
                if command.token:
                    missing.append(request_id)
            elif known.state == "open":
                known.output_tokens, known.lower_nanousd = seen.output_tokens, seen.lower_nanousd
                if command.token:
                    tag.due[request_id] = now_ms + command.lease_ms
            self._prolong(tag, seen.claim, now_ms + command.lease_ms)
        for request_id in command.done:
            if request_id in tag.due:
                tag.due[request_id] = now_ms + command.done_lease_ms
        return Beaten(tuple(missing))

    def _find_due(self, command: FindDue) -> Answer:
        now_ms = self._clock.now_ms()
        tag = self._open(command.tag, command.token)
        if isinstance(tag, Lost):
            return tag
        late = sorted((at_ms, request_id) for request_id, at_ms in tag.due.items() if at_ms <= now_ms)
        return Due(tuple(request_id for _, request_id in late[: command.at_most]))

    def _look(self, command: Look) -> Answer:
        tag = self._tags.get(command.tag)
        known = tag.find(command.request_id, self._clock.now_ms()) if tag is not None else None
        return Done(changed=False) if known is None or known.is_over else known_of(known)

    def _peek(self, command: Peek) -> Answer:
        return counts_of(self._tags.get(command.tag), command.limits, self._clock.now_ms())

    def _take_over(self, command: TakeOver) -> Answer:
        now_ms = self._clock.now_ms()
        tag = self._open(command.tag, command.token)
        if isinstance(tag, Lost):
            return tag
        epoch = number_of(command.token)
        known = tag.find(command.request_id, now_ms)
        if known is None or known.is_over:
            tag.due.pop(command.request_id, None)
            return Done(changed=False)
        if tag.due.get(command.request_id, now_ms) > now_ms:
            return NotDue()
        tag.due[command.request_id] = now_ms + command.hold_ms
        if known.state == "open":
            unhold(tag, known, command.budgets)
            known.state, known.rank, known.record = "done", 1, b""
            known.nanousd, known.held, known.epoch = known.bound_nanousd, (), epoch
            for window in command.budgets:
                tag.budget(window, epoch).unconfirmed += known.nanousd
        else:
            count_done(tag, known, command.budgets, epoch)
        return known_of(known)

    # -- what SQL knows -------------------------------------------------------------------------

    def _confirm(self, command: Confirm) -> Answer:
        tag = self._open(command.tag, command.token)
        if isinstance(tag, Lost):
            return tag
        kept = tuple(each.request_id for each in command.requests if not self._confirm_one(tag, command.tag, each))
        self._assign(tag, command.values, number_of(command.token))
        return Confirmed(kept)

    def _confirm_one(self, tag: Tag, name: str, request: InSQL) -> bool:
        """Whether what was held of the request is gone now."""
        now_ms = self._clock.now_ms()
        known = tag.find(request.request_id, now_ms)
        if known is None or known.is_over:
            tag.due.pop(request.request_id, None)
            return True
        if known.state == "done":
            if request.rank < known.rank:
                return False
            uncount(tag, known, request.budgets)
        else:
            unhold(tag, known, request.budgets)
        gone = Reservation("gone", known.epoch, rank=request.rank, nanousd=request.nanousd)
        self._bury(tag, name, request.request_id, gone, now_ms)
        return True

    def _seed(self, command: Seed) -> Answer:
        tag = self._open(command.tag, command.token)
        if isinstance(tag, Lost):
            return tag
        return Done(changed=self._assign(tag, command.values, number_of(command.token)))

    def _assign(self, tag: Tag, values: tuple[BudgetValue, ...], epoch: int) -> bool:
        now_ms = self._clock.now_ms()
        news = [tag.budget(each.budget, epoch).assign(each.spent_nanousd, each.version, now_ms) for each in values]
        return any(news)

    def _stand_in(self, command: StandIn) -> Answer:
        tag = self._open(command.tag, command.token)
        if isinstance(tag, Lost):
            return tag
        budget = tag.budget(command.budget, number_of(command.token))
        before = budget.stand_ins.get(command.process_id)
        if before in {0, command.nanousd}:
            # Once ended it stays so in this epoch: what comes late was sent before.
            return Done(changed=False)
        budget.stand_ins[command.process_id], budget.touched_ms = command.nanousd, self._clock.now_ms()
        budget.held += command.nanousd - (before or 0)
        return Done()

    def _open_tag(self, command: OpenTag) -> Answer:
        tag = self._tags.setdefault(command.tag, Tag())
        if tag.token == command.token:
            return Done(changed=False)
        if tag.token is not None and number_of(tag.token) >= number_of(command.token):
            return Lost(tag.token)
        tag.token = command.token
        return Done()

    # -- pieces ---------------------------------------------------------------------------------

    def _open(self, name: str, token: str) -> Tag | Lost:
        """The tag, if it is of the epoch of ``token``; an empty token is not compared."""
        tag = self._tags.get(name)
        if not token:
            return self._tags.setdefault(name, Tag()) if tag is None else tag
        if tag is None or tag.token != token:
            return Lost(None if tag is None else tag.token)
        return tag

    def _prolong(self, tag: Tag, claim: Claim, until_ms: int) -> None:
        """The call's concurrency leases last until then."""
        for limit in claim.limits:
            if limit.kind == "concurrency" and isinstance(leases := tag.gauge(limit), Leases):
                leases.prolong(claim.request_id, until_ms)

    def _free(self, tag: Tag, claim: Claim) -> None:
        for limit in claim.limits:
            if isinstance(leases := tag.gauges.get(limit.counter), Leases):
                leases.free(claim.request_id)

    def _correct(self, tag: Tag, claim: Claim, slots: tuple[int, ...], *, tokens: int, requests: int) -> None:
        """What was counted at admission becomes what was used, in the slots of the admission."""
        # Restored after a loss it has no slots: windows begin afresh then.
        for limit, slot in zip(claim.limits, slots, strict=False):
            window = tag.gauges.get(limit.counter)
            if isinstance(window, SlidingWindow):
                used = countable(tokens) if limit.kind == "tokens" else requests
                window.correct(slot, used - claim.amount_of(limit))

    def _bury(self, tag: Tag, name: str, request_id: str, tombstone: Reservation, now_ms: int) -> None:
        tag.reservations[request_id] = tombstone
        tag.due.pop(request_id, None)
        self._forget_at(now_ms + TOMBSTONE_MS, name, request_id, tombstone)

    def _forget_at(self, at_ms: int, name: str, request_id: str, reservation: Reservation) -> None:
        reservation.forget_at_ms = at_ms
        heappush(self._forgets, (at_ms, name, request_id))

    def _sweep(self, tag: Tag, now_ms: int) -> None:
        """Forget reservations whose time is over, and a few gauges that say nothing; as many as can be added."""
        for _ in range(SWEPT_AT_ONCE):
            if not self._forgets or self._forgets[0][0] > now_ms:
                break
            _, name, request_id = heappop(self._forgets)
            if (other := self._tags.get(name)) is not None:
                other.find(request_id, now_ms)
        for counter in list(islice(tag.gauges, SWEPT_AT_ONCE)):
            gauge = tag.gauges.pop(counter)
            if not gauge.is_idle(now_ms):
                tag.gauges[counter] = gauge
        for window in list(islice(tag.budgets, SWEPT_AT_ONCE)):
            budget = tag.budgets.pop(window)
            if budget.unconfirmed or budget.held or now_ms - budget.touched_ms < BUDGET_KEPT_MS:
                tag.budgets[window] = budget
