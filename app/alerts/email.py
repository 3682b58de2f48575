"""Sends a message as e-mail: plain text, by a thread, since the standard library's client blocks."""

from __future__ import annotations

import asyncio
import platform
import smtplib
import ssl
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from email import policy
from email.message import EmailMessage
from email.utils import format_datetime
from typing import Any

import msgspec

from app.alerts.webhook import ERROR_CHARS_MAX, Sent
from app.core.errors import quoted
from app.settings import EmailTarget, SMTPSettings

STEP_S_MAX = 5.0
TIMEOUT_S = 12.0
THREADS_MAX = 4
SUBJECT_CHARS_MAX = 200


class EmailSender:
    """A connection for each message: there are few, and long pauses in between."""

    def __init__(
        self, *, timeout_s: float = TIMEOUT_S, step_s: float = STEP_S_MAX, tls: ssl.SSLContext | None = None
    ) -> None:
        """``step_s`` is for each of the server's answers, ``timeout_s`` for all of them. ``tls`` says whom to trust."""
        self._timeout_s = timeout_s
        self._step_s = step_s
        self._tls = tls or ssl.create_default_context()
        # Threads of its own: those that the gateway shares must not wait for a mail server.
        self._threads = ThreadPoolExecutor(THREADS_MAX, thread_name_prefix="headgate-mail")

    def __repr__(self) -> str:
        return f"EmailSender(timeout_s={self._timeout_s})"

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def send(self, target: EmailTarget, smtp: SMTPSettings, message_id: str, body: bytes) -> Sent:
        """Tries once. Nothing is raised: whatever goes wrong is in what is returned."""
        begun_s = time.monotonic()
        message = message_of(target, smtp, message_id, body)
        status, error = None, None
        try:
            async with asyncio.timeout(self._timeout_s):
                work = asyncio.get_running_loop().run_in_executor(self._threads, self._deliver, smtp, message)
                refused = await work
        except TimeoutError:
            error = f"no answer within {self._timeout_s:g} s"
        except (smtplib.SMTPException, OSError, ValueError) as failure:
            status, error = _reason(failure)
        else:
            if refused:
                # The others have it, and would get it again.
                error = f"not taken for {len(refused)} of {len(target.to)} addresses"
        took_ms = round((time.monotonic() - begun_s) * 1000)
        is_taken = error is None or (status is None and error.startswith("not taken for"))
        return Sent(took_ms, is_taken, status, None if error is None else error[:ERROR_CHARS_MAX])

    def _deliver(self, smtp: SMTPSettings, message: EmailMessage) -> dict[str, tuple[int, bytes]]:
        """In a thread; the addresses that were refused, where others were not."""
        name = platform.node() or "localhost"
        opened: smtplib.SMTP
        if smtp.encryption == "tls":
            opened = smtplib.SMTP_SSL(
                smtp.host, smtp.port, local_hostname=name, timeout=self._step_s, context=self._tls
            )
        else:
            opened = smtplib.SMTP(smtp.host, smtp.port, local_hostname=name, timeout=self._step_s)
        with opened as server:
            if smtp.encryption == "starttls":
                server.starttls(context=self._tls)
            if smtp.user is not None and smtp.password is not None:
                server.login(smtp.user, smtp.password.get_secret_value())
            return server.send_message(message)


def message_of(target: EmailTarget, smtp: SMTPSettings, message_id: str, body: bytes) -> EmailMessage:
    """The e-mail of a message. Its names come from people: in a header they are one line."""
    event = msgspec.json.decode(body, type=dict[str, Any])
    data: Mapping[str, Any] = event["data"]
    message = EmailMessage(policy=policy.SMTP)
    message["Subject"] = quoted(f"[Headgate] {data['title']}")[:SUBJECT_CHARS_MAX]
    message["From"] = smtp.sender
    message["To"] = ", ".join(target.to)
    message["Date"] = format_datetime(datetime.now(UTC))
    message["Message-ID"] = f"<{message_id}@{smtp.sender.rpartition('@')[2]}>"
    # So that no holiday notice comes back.
    message["Auto-Submitted"] = "auto-generated"
    message.set_content("\n".join(_lines(event["type"], event["timestamp"], data)) + "\n")
    return message


def _lines(kind: str, timestamp: str, data: Mapping[str, Any]) -> list[str]:
    lines = [data["detail"], "", f"kind: {kind}", f"at: {timestamp}"]
    for name in ("state", "severity", "rule", "team", "key", "fired_at", "resolved_at"):
        value = data.get(name)
        if value is not None:
            lines.append(f"{name}: {value['name'] if isinstance(value, dict) else value}")
    figures = data.get("figures") or {}
    lines += ["", *(f"{name}: {value}" for name, value in figures.items() if value is not None)] if figures else []
    return [quoted(line) for line in lines]


def _reason(failure: Exception) -> tuple[int | None, str]:
    """A code of SMTP where there is one, and words. Of a login only the code: the rest is between two servers."""
    if isinstance(failure, smtplib.SMTPAuthenticationError):
        return failure.smtp_code, "the login was refused"
    if isinstance(failure, smtplib.SMTPRecipientsRefused):
        code, words = next(iter(failure.recipients.values()))
        return code, quoted(f"no address was taken: {_text(words)}")
    if isinstance(failure, smtplib.SMTPResponseException):
        return failure.smtp_code, quoted(_text(failure.smtp_error))
    if isinstance(failure, TimeoutError) or "timed out" in str(failure):
        return None, "no answer in time"
    if isinstance(failure, smtplib.SMTPServerDisconnected):
        return None, "the connection broke before there was an answer"
    if isinstance(failure, smtplib.SMTPNotSupportedError):
        # The library's own words.
        return None, quoted(str(failure))
    if isinstance(failure, OSError):
        return None, quoted(f"no connection: {failure.strerror or type(failure).__name__}")
    return None, type(failure).__name__


def _text(words: bytes | str) -> str:
    text = words.decode("utf-8", "replace") if isinstance(words, bytes) else words
    return " ".join(text.split())
