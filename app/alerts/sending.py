"""Gets a message to a target, whatever kind it is of."""

from __future__ import annotations

from app.alerts.webhook import TIMEOUT_S, Sent, WebhookSender
from app.settings import AlertTarget


class TargetSender:
    """Webhooks are all there is."""

    def __init__(self, *, timeout_s: float = TIMEOUT_S) -> None:
        self._webhooks = WebhookSender(timeout_s=timeout_s)

    def __repr__(self) -> str:
        return f"TargetSender({self._webhooks!r})"

    async def send(self, target: AlertTarget, message_id: str, body: bytes, now_s: int) -> Sent:
        """Tries once, in a bounded time, and raises nothing."""
        if target.webhook is not None:
            return await self._webhooks.send(target.webhook, message_id, body, now_s)
        return Sent(0, error="e-mail is not sent")

    async def close(self) -> None:
        await self._webhooks.close()
