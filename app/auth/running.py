"""The requests under way by the secret that they came with, so that a revoked secret can cut them off."""

from __future__ import annotations

from typing import Protocol


class Revocable(Protocol):
    """A request under way."""

    def revoke(self) -> None:
        """Its secret is revoked: it is to end now."""


class Running:
    """Told by the change feed which secrets are revoked, and by each request when it begins and ends."""

    def __init__(self) -> None:
        self._requests: dict[str, set[Revocable]] = {}
        self._revoked: set[str] = set()

    def __repr__(self) -> str:
        return f"Running(requests={sum(map(len, self._requests.values()))}, revoked={len(self._revoked)})"

    def enter(self, secret_id: str, request: Revocable) -> bool:
        """``request`` runs until it leaves; False, and it must not run, where its secret was revoked meanwhile."""
        if secret_id in self._revoked:
            return False
        requests = self._requests.get(secret_id)
        if requests is None:
            self._requests[secret_id] = {request}
        else:
            requests.add(request)
        return True

    def leave(self, secret_id: str, request: Revocable) -> None:
        """``request`` has ended; one that is not there is no fault."""
        requests = self._requests.get(secret_id)
        if requests is not None:
            requests.discard(request)
            if not requests:
                del self._requests[secret_id]

    def revoke(self, secret_id: str) -> None:
        """Ends what runs with the secret, once and for all."""
        self._revoked.add(secret_id)
        for request in tuple(self._requests.get(secret_id, ())):
            request.revoke()
