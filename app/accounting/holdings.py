"""What one process holds: every call that it has admitted and whose rows are not confirmed yet."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType

import msgspec

from app.core.records import BudgetWindow
from app.limits.hot import Seen
from app.limits.limiter import Claim, Outcome


class Progress(msgspec.Struct, frozen=True):
    """What has been seen of a running call: its output, and what that has cost at least."""

    output_tokens: int = 0
    lower_nanousd: int = 0


NO_PROGRESS = Progress()
NO_AMOUNTS: Mapping[BudgetWindow, int] = MappingProxyType({})


def _nothing_seen() -> Progress:
    return NO_PROGRESS


class Holding:
    """One call. ``outcome`` is None while it runs; ``is_stored``: the hot state may know of it;
    ``is_told``: it has the outcome; ``beats`` counts the heartbeats since it was admitted or settled.
    """

    __slots__ = ("amounts", "beats", "claim", "is_admitted", "is_stored", "is_told", "outcome", "progress")

    def __init__(self, claim: Claim) -> None:
        self.claim = claim
        self.is_admitted = False
        self.is_stored = False
        self.is_told = False
        self.outcome: Outcome | None = None
        self.progress: Callable[[], Progress] = _nothing_seen
        self.beats = 0
        self.amounts: Mapping[BudgetWindow, int] = NO_AMOUNTS

    def __repr__(self) -> str:
        state = "running" if self.outcome is None else "done"
        return f"Holding({self.claim.request_id!r}, {state}, stored={self.is_stored}, told={self.is_told})"

    @property
    def seen(self) -> Seen:
        progress = self.progress()
        return Seen(self.claim, progress.output_tokens, progress.lower_nanousd)


class Holdings:
    """All of a process' holdings, and what they take of each budget: never less than what others must assume
    if this process falls silent.
    """

    def __init__(self) -> None:
        self._by_id: dict[str, Holding] = {}
        self._taken: dict[BudgetWindow, int] = {}

    def __repr__(self) -> str:
        return f"Holdings({len(self._by_id)})"

    def __len__(self) -> int:
        return len(self._by_id)

    def __contains__(self, request_id: object) -> bool:
        return request_id in self._by_id

    def get(self, request_id: str) -> Holding | None:
        return self._by_id.get(request_id)

    def admitted(self) -> list[Holding]:
        """Those that are under way, or wait for SQL."""
        return [holding for holding in self._by_id.values() if holding.is_admitted]

    def taken(self, budget: BudgetWindow) -> int:
        """What all of them take of ``budget``, in nano-dollars."""
        return self._taken.get(budget, 0)

    def by_budget(self) -> dict[tuple[str, BudgetWindow], int]:
        """What they take of each budget of each team."""
        return {
            (holding.claim.tag, budget): self._taken[budget]
            for holding in self._by_id.values()
            for budget in holding.amounts
        }

    def add(self, claim: Claim) -> Holding:
        """A call that is about to be asked for."""
        holding = self._by_id[claim.request_id] = Holding(claim)
        self.claim_again(holding, claim)
        return holding

    def claim_again(self, holding: Holding, claim: Claim) -> None:
        """It is asked for as ``claim`` now, perhaps in other windows."""
        holding.claim = claim
        if not claim.money and not holding.amounts:
            return
        money = (limit for limit in claim.limits if limit.kind == "money")
        self._take(
            holding,
            ((window.budget, claim.amount_of(limit)) for window, limit in zip(claim.money, money, strict=True)),
        )

    def settle(self, holding: Holding, outcome: Outcome) -> None:
        """The call has ended and costs what its outcome says."""
        holding.outcome = outcome
        holding.is_told = False
        holding.beats = 0
        if holding.claim.money:
            self._take(holding, [(window.budget, outcome.nanousd) for window in holding.claim.money])

    def lighten(self, holding: Holding) -> None:
        """Forget what only others would need to write its row; it is where they would look for it."""
        holding.claim = msgspec.structs.replace(holding.claim, opening=b"")
        if holding.outcome is not None:
            holding.outcome = msgspec.structs.replace(holding.outcome, record=b"")

    def remove(self, request_id: str) -> None:
        """It was never admitted, or SQL has it and the hot state knows that."""
        holding = self._by_id.pop(request_id, None)
        if holding is not None and holding.amounts:
            self._take(holding, ())

    def _take(self, holding: Holding, amounts: Iterable[tuple[BudgetWindow, int]]) -> None:
        taken = self._taken
        for budget, amount in holding.amounts.items():
            left = taken[budget] - amount
            if left:
                taken[budget] = left
            else:
                del taken[budget]
        holding.amounts = {budget: amount for budget, amount in amounts if amount}
        for budget, amount in holding.amounts.items():
            taken[budget] = taken.get(budget, 0) + amount
