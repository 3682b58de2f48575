"""Gets a message to a target, whatever kind it is of."""

from __future__ import annotations

from collections.abc import Callable

from app.alerts.email import EmailSender
from app.alerts.webhook import Sent, WebhookSender
from app.settings import AlertSettings, AlertTarget


class TargetSender:
    """The ways to targets of either kind; ``settings`` are those in force."""

    def __init__(
        self, settings: Callable[[], AlertSettings], webhooks: WebhookSender, emails: EmailSender | None = None
    ) -> None:
        self._settings = settings
        self._webhooks = webhooks
        self._emails = EmailSender() if emails is None else emails

    def __repr__(self) -> str:
        return f"TargetSender({self._webhooks!r}, {self._emails!r})"

    async def send(self, target: AlertTarget, message_id: str, body: bytes, now_s: int) -> Sent:
        """Tries once, in a bounded time, and raises nothing."""
        if target.webhook is not None:
            return await self._webhooks.send(target.webhook, message_id, body, now_s)
        smtp = self._settings().smtp
        if target.email is None or smtp is None:
            return Sent(0, is_taken=False, error="the configuration has no smtp any more")
        return await self._emails.send(target.email, smtp, message_id, body)

    async def close(self) -> None:
        await self._webhooks.close()
        self._emails.close()
