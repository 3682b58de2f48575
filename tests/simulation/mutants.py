"""The core with one rule broken at a time: each must be found by the oracle that is named for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import msgspec

from app.accounting.epochs import Epochs
from app.accounting.steps import EpochView, OpenEpoch, Steps, TakeLead
from app.core.records import Entry
from app.limits.hot import Answer, Confirm, Done, InSQL, OpenTag, Settle, TakeOver
from app.limits.memory import MemoryHot
from app.limits.tag import Budget
from tests.simulation.ledger import SimLedger


class Mutant(msgspec.Struct, frozen=True):
    """``patches`` are (where, name, what stands there instead); one of ``oracles`` must find it."""

    name: str
    oracles: tuple[str, ...]
    patches: tuple[tuple[Any, str, Any], ...]

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The world with the rule broken."""
        running = [patch.object(where, name, instead) for where, name, instead in self.patches]
        for each in running:
            each.start()
        try:
            yield
        finally:
            for each in running:
                each.stop()


_take_over = MemoryHot._take_over
_settle = MemoryHot._settle
_confirm = MemoryHot._confirm
_open_tag = MemoryHot._open_tag
_assign = Budget.assign


def _reaper_releases(self: MemoryHot, command: TakeOver) -> Answer:
    """What has expired is let go of, as if it had cost nothing."""
    taken = _take_over(self, command)
    if isinstance(taken, Done):
        return taken
    tag = self._tags[command.tag]
    known = tag.reservations.pop(command.request_id, None)
    tag.due.pop(command.request_id, None)
    if known is not None and known.state == "done":
        for window in command.budgets:
            tag.budget(window, known.epoch).unconfirmed -= known.nanousd
    return Done(changed=False)


def _settle_forgets(self: MemoryHot, command: Settle) -> Answer:
    """The outcome is not kept with the reservation: settling removes it."""
    told = _settle(self, command)
    tag = self._tags.get(command.claim.tag)
    known = tag.reservations.get(command.claim.request_id) if tag is not None else None
    if tag is not None and known is not None and known.state == "done":
        del tag.reservations[command.claim.request_id]
        tag.due.pop(command.claim.request_id, None)
        for window in command.claim.money:
            tag.budget(window.budget, known.epoch).unconfirmed -= known.nanousd
    return told


def _rebuild_deletes(self: MemoryHot, command: OpenTag) -> Answer:
    """A new epoch begins with nothing, reservations included."""
    before = self._tags.get(command.tag)
    had_token = before is not None and before.token is not None
    told = _open_tag(self, command)
    if had_token and isinstance(told, Done) and told.changed:
        tag = self._tags[command.tag]
        tag.reservations.clear()
        tag.due.clear()
    return told


def _key_with_kind(self: SimLedger, entry: Entry) -> str:
    """An estimate does not keep a charge out, nor the other way round."""
    return f"{entry.attempt_id}/{entry.kind}"


def _confirm_without_rank(self: MemoryHot, command: Confirm) -> Answer:
    """Whatever SQL has counts as the last word."""
    requests = tuple(InSQL(each.request_id, 99, each.nanousd, each.budgets) for each in command.requests)
    return _confirm(self, msgspec.structs.replace(command, requests=requests))


def _settle_again(self: MemoryHot, command: Settle) -> Answer:
    """A repeated settlement counts once more."""
    tag = self._tags.get(command.claim.tag)
    known = tag.reservations.get(command.claim.request_id) if tag is not None else None
    if tag is not None and known is not None and known.state == "done" and tag.token == command.token:
        for window in command.claim.money:
            tag.budget(window.budget, known.epoch).unconfirmed += command.outcome.nanousd
    return _settle(self, command)


def _assign_without_version(self: Budget, spent: int, version: int, now_ms: int) -> bool:
    """Whoever comes last assigns, however old what it read is."""
    self.touched_ms = now_ms
    self.is_warm, self.version, self.confirmed = True, version, spent
    return True


def _add_instead_of_assign(self: Budget, spent: int, version: int, now_ms: int) -> bool:
    """Seeds are added to what is there: every replica that seeds counts the spend once more."""
    self.touched_ms = now_ms
    is_new = not self.is_warm or version > self.version
    self.is_warm, self.version = True, max(version, self.version)
    self.confirmed += spent
    return is_new


def _no_stand_ins(self: Epochs, view: EpochView) -> Steps[EpochView]:
    """The leader opens the epoch without holding what silent processes declared."""
    if view.leader != self.process_id and view.leader_left_ms > 0:
        return view
    view = yield TakeLead(view.number, self.process_id, 2500)
    if view.leader != self.process_id or view.is_open:
        return view
    return (yield OpenEpoch(view.number, self.process_id))


MUTANTS = (
    Mutant("the reaper releases instead of charging", ("1", "3"), ((MemoryHot, "_take_over", _reaper_releases),)),
    Mutant("the outcome is not kept with the reservation", ("1",), ((MemoryHot, "_settle", _settle_forgets),)),
    Mutant("a rebuild deletes reservations", ("1",), ((MemoryHot, "_open_tag", _rebuild_deletes),)),
    Mutant("entries are keyed by kind", ("1",), ((SimLedger, "key_of", _key_with_kind),)),
    Mutant("confirm without rank", ("2", "6"), ((MemoryHot, "_confirm", _confirm_without_rank),)),
    Mutant("settlement is not idempotent", ("6",), ((MemoryHot, "_settle", _settle_again),)),
    Mutant("no warm-up", ("4",), ((Epochs, "_lead", _no_stand_ins),)),
    Mutant("values are assigned without a version", ("4", "6"), ((Budget, "assign", _assign_without_version),)),
    Mutant("seeds are added", ("6",), ((Budget, "assign", _add_instead_of_assign),)),
)
