"""How often a call may be repeated: a share of all calls, so that retries never become the load."""

from __future__ import annotations

SHARE = 0.1
BALANCE_MAX = 10.0


class RetryBudget:
    """Each call earns a tenth of a retry; a retry spends one."""

    def __init__(self) -> None:
        self._balance = 3.0

    def __repr__(self) -> str:
        return f"RetryBudget(balance={self._balance:.1f})"

    def earn(self) -> None:
        """A first call was made."""
        self._balance = min(self._balance + SHARE, BALANCE_MAX)

    def spend(self) -> bool:
        """Whether one more call may be made."""
        if self._balance < 1:
            return False
        self._balance -= 1
        return True
