"""A real mail server on a socket of its own: what it is sent, and how it refuses."""

from __future__ import annotations

import email
import shutil
import ssl
import subprocess
from collections.abc import Callable
from email import policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any, Self

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword

OPENSSL = shutil.which("openssl")


class Letter:
    """What came, with the envelope it came in."""

    def __init__(self, sender: str, to: list[str], content: bytes) -> None:
        self.sender = sender
        self.to = to
        self.message = email.message_from_bytes(content, EmailMessage, policy=policy.default)  # type: ignore[arg-type]

    @property
    def text(self) -> str:
        return self.message.get_content()


class Handler:
    def __init__(self, answer: Callable[[], str], refused: frozenset[str]) -> None:
        self._answer = answer
        self._refused = refused
        self.letters: list[Letter] = []

    async def handle_RCPT(self, _server: Any, _session: Any, envelope: Any, address: str, _options: Any) -> str:  # noqa: N802 - aiosmtpd's name
        if address in self._refused:
            return "550 nobody of that name"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:  # noqa: N802 - as above
        answer = self._answer()
        if answer.startswith("250"):
            self.letters.append(Letter(envelope.mail_from, list(envelope.rcpt_tos), envelope.content))
        return answer


class _Controller(Controller):
    def __init__(self, handler: Handler, options: dict[str, Any], tls: ssl.SSLContext | None) -> None:
        self._options = options
        super().__init__(handler, hostname="127.0.0.1", port=0, ssl_context=tls)

    def factory(self) -> SMTP:
        return SMTP(self.handler, **self._options)

    def _trigger_server(self) -> None:
        # The system chose it.
        self.port = self.server.sockets[0].getsockname()[1]
        super()._trigger_server()


class MailServer:
    """``encryption`` as the configuration names it; ``answers`` to whole messages, in turn, the last for ever."""

    def __init__(
        self,
        encryption: str = "none",
        tls: ssl.SSLContext | None = None,
        *,
        login: tuple[str, str] | None = None,
        answers: tuple[str, ...] = ("250 OK",),
        refused: frozenset[str] = frozenset(),
    ) -> None:
        left = list(answers)
        self.handler = Handler(lambda: left.pop(0) if len(left) > 1 else left[0], refused)
        options: dict[str, Any] = {"hostname": "mail.test"}
        if encryption == "starttls":
            options |= {"tls_context": tls, "require_starttls": True}
        if login is not None:
            options |= {
                "authenticator": self._authenticate,
                "auth_required": True,
                "auth_require_tls": encryption == "starttls",
            }
        self._login = login
        self.logins: list[tuple[str, str]] = []
        self._controller = _Controller(self.handler, options, tls if encryption == "tls" else None)

    def _authenticate(self, _server: Any, _session: Any, _envelope: Any, _mechanism: str, data: Any) -> AuthResult:
        assert isinstance(data, LoginPassword)
        given = data.login.decode(), data.password.decode()
        self.logins.append(given)
        return AuthResult(success=given == self._login, handled=False)

    def __enter__(self) -> Self:
        self._controller.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._controller.stop()

    @property
    def port(self) -> int:
        return self._controller.port

    @property
    def letters(self) -> list[Letter]:
        return self.handler.letters


def certificate(folder: Path, name: str = "localhost") -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """TLS for a server of that name, and for clients that trust it. It needs the openssl binary."""
    arguments = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    arguments += ["-keyout", "mail.key", "-out", "mail.pem", "-subj", f"/CN={name}"]
    arguments += ["-addext", f"subjectAltName=DNS:{name}"]
    subprocess.run([OPENSSL or "openssl", *arguments], cwd=folder, check=True, capture_output=True)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(folder / "mail.pem", folder / "mail.key")
    return server, ssl.create_default_context(cafile=folder / "mail.pem")
