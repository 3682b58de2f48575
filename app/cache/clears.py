"""What was cleared: entries that were begun before it are not answers any more."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from app.cache.entry import Entry
from app.core.patterns import compile_pattern
from app.store.cache import CacheClear


class Clears:
    """The clearings that the ledger tells of, and the number of its last change that is known here.

    An entry bears the number that was known when its call began: a clearing with a higher one takes it away,
    also if it was kept after the clearing.
    """

    def __init__(self) -> None:
        self.change = 0
        self._all = 0
        self._narrow: dict[tuple[str, str], tuple[int, re.Pattern[str] | None]] = {}

    def __repr__(self) -> str:
        return f"Clears(change={self.change}, narrow={len(self._narrow)})"

    def take(self, clears: Sequence[CacheClear], change: int) -> None:
        """``clears`` are new; all up to the number ``change`` are known now."""
        for clear in clears:
            if not clear.team_id and not clear.model:
                self._all = max(self._all, clear.change)
            else:
                pattern = compile_pattern(clear.model) if clear.model else None
                known, _ = self._narrow.get((clear.team_id, clear.model), (0, None))
                self._narrow[clear.team_id, clear.model] = (max(known, clear.change), pattern)
        for key in [key for key, (number, _) in self._narrow.items() if number <= self._all]:
            del self._narrow[key]
        self.change = max(self.change, change)

    def takes(self, entry: Entry) -> bool:
        """Whether the entry is not to be used any more."""
        return self.take_call(entry.change, entry.team_id, (entry.model_requested, entry.model))

    def take_call(self, change: int, team_id: str, models: Iterable[str]) -> bool:
        """Whether an answer is not to be used whose call began when ``change`` was the last change known."""
        if change < self._all:
            return True
        for (of_team, _), (number, pattern) in self._narrow.items():
            if (
                change < number
                and of_team in {"", team_id}
                and (pattern is None or any(pattern.fullmatch(name) for name in models))
            ):
                return True
        return False
