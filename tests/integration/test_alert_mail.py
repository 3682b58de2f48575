"""Alerts as e-mail, against a real mail server on a socket."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from typing import Any

import pytest
from pydantic import SecretStr

from app.alerts.email import EmailSender
from app.alerts.events import alert_body, trial_delivery
from app.settings import EmailTarget, SMTPSettings
from tests.fakes.mail import OPENSSL, MailServer, certificate
from tests.unit.alerts.samples import NOW_MS
from tests.unit.alerts.test_words import alert

MESSAGE_ID = "msg_2KWPBgLlAfxdpx2AI54pPJ8"
TWO = EmailTarget(to=("finance@example.com", "ops@example.com"))
BODY = alert_body(alert("budget.threshold"), NOW_MS).encode()

# The server does not count TLS from the first byte on as TLS.
pytestmark = pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS:UserWarning")
needs_openssl = pytest.mark.skipif(OPENSSL is None, reason="the openssl binary, which makes certificates, is not here")


def smtp_of(server: Any, encryption: str = "none", host: str = "127.0.0.1", **more: Any) -> SMTPSettings:
    port = server if isinstance(server, int) else server.port
    return SMTPSettings(host=host, port=port, encryption=encryption, sender="gate@example.com", **more)


@pytest.fixture
def sender():
    sender = EmailSender(timeout_s=3, step_s=1)
    yield sender
    sender.close()


async def test_an_alert_is_a_letter_that_says_what_the_webhook_says(sender):
    with MailServer() as server:
        sent = await sender.send(TWO, smtp_of(server), MESSAGE_ID, BODY)
        assert (sent.is_taken, sent.error, sent.status) == (True, None, None)
        (letter,) = server.letters
    assert (letter.sender, letter.to) == ("gate@example.com", list(TWO.to))
    assert letter.message["Subject"] == "[Headgate] The budget of search is at 95%"
    assert letter.message["Message-ID"] == f"<{MESSAGE_ID}@example.com>"
    assert letter.message["Auto-Submitted"] == "auto-generated"
    assert letter.message["To"] == "finance@example.com, ops@example.com"
    assert letter.message.get_content_type() == "text/plain"
    lines = letter.text.splitlines()
    assert lines[0] == "$4,750.50 of $5,000.00 is spent this month (Europe/Berlin)."
    assert {"state: firing", "rule: Rule", "team: search", "spent_usd: 4750.5", "kind: budget.threshold"} <= set(lines)


async def test_a_test_is_a_letter_too(sender):
    with MailServer() as server:
        body = trial_delivery("finance", NOW_MS).body.encode()
        assert (await sender.send(TWO, smtp_of(server), MESSAGE_ID, body)).is_taken
        assert server.letters[0].message["Subject"] == "[Headgate] A test from Headgate"


async def test_names_of_people_cannot_make_headers(sender):
    evil = "Zoë 💸\r\nBcc: victim@example.com\r\n\r\n<script>"
    body = alert_body(alert("key.expiring", key_name=evil, team_name=evil), NOW_MS).encode()
    with MailServer() as server:
        assert (await sender.send(TWO, smtp_of(server), MESSAGE_ID, body)).is_taken
        (letter,) = server.letters
    assert letter.to == list(TWO.to)
    assert letter.message["Bcc"] is None
    assert "Zoë 💸" in letter.message["Subject"]
    assert not any(line.startswith("Bcc:") for line in letter.text.splitlines())


@needs_openssl
@pytest.mark.parametrize("encryption", ["starttls", "tls"])
async def test_over_tls_with_a_login(tmp_path, encryption):
    server_tls, client_tls = certificate(tmp_path)
    login = {"user": "gate", "password": SecretStr("canary-password")}
    sender = EmailSender(timeout_s=5, step_s=2, tls=client_tls)
    with MailServer(encryption, server_tls, login=("gate", "canary-password")) as server:
        sent = await sender.send(TWO, smtp_of(server, encryption, "localhost", **login), MESSAGE_ID, BODY)
        assert (sent.is_taken, sent.error) == (True, None)
        assert server.logins == [("gate", "canary-password")]
        wrong = {**login, "password": SecretStr("canary-wrong")}
        sent = await sender.send(TWO, smtp_of(server, encryption, "localhost", **wrong), MESSAGE_ID, BODY)
        assert (sent.is_taken, sent.status, sent.error) == (False, 535, "the login was refused")
        assert len(server.letters) == 1
    sender.close()


@needs_openssl
@pytest.mark.parametrize("encryption", ["starttls", "tls"])
async def test_who_cannot_show_whom_it_is_gets_neither_letter_nor_password(tmp_path, encryption, sender):
    server_tls, client_tls = certificate(tmp_path)
    login = {"user": "gate", "password": SecretStr("canary-password")}
    with MailServer(encryption, server_tls, login=("gate", "canary-password")) as server:
        # Nobody trusts its certificate; and where somebody does, it has another name.
        sent = await sender.send(TWO, smtp_of(server, encryption, "localhost", **login), MESSAGE_ID, BODY)
        assert not sent.is_taken
        trusting = EmailSender(timeout_s=5, step_s=2, tls=client_tls)
        sent = await trusting.send(TWO, smtp_of(server, encryption, "127.0.0.1", **login), MESSAGE_ID, BODY)
        assert not sent.is_taken
        trusting.close()
        assert (server.logins, server.letters) == ([], [])


async def test_a_server_without_starttls_gets_no_letter(sender):
    with MailServer() as server:
        sent = await sender.send(TWO, smtp_of(server, "starttls"), MESSAGE_ID, BODY)
        assert (sent.is_taken, server.letters) == (False, [])
        assert sent.error == "STARTTLS extension not supported by server."


async def test_one_address_that_is_refused_keeps_nothing_from_the_others(sender):
    with MailServer(refused=frozenset({"ops@example.com"})) as server:
        sent = await sender.send(TWO, smtp_of(server), MESSAGE_ID, BODY)
        assert (sent.is_taken, sent.error) == (True, "not taken for 1 of 2 addresses")
        assert [letter.to for letter in server.letters] == [["finance@example.com"]]


async def test_all_that_are_refused_are_a_failure_with_its_reason(sender):
    with MailServer(refused=frozenset(TWO.to)) as server:
        sent = await sender.send(TWO, smtp_of(server), MESSAGE_ID, BODY)
    assert (sent.is_taken, sent.status, sent.error) == (False, 550, "no address was taken: nobody of that name")


async def test_a_server_that_is_busy_is_tried_again(sender):
    with MailServer(answers=("451 try later", "250 OK")) as server:
        first = await sender.send(TWO, smtp_of(server), MESSAGE_ID, BODY)
        second = await sender.send(TWO, smtp_of(server), MESSAGE_ID, BODY)
        assert (first.is_taken, first.status, first.error, first.is_gone) == (False, 451, "try later", False)
        assert second.is_taken
        assert len(server.letters) == 1


async def test_nobody_there_and_one_that_says_nothing(sender):
    sent = await sender.send(TWO, smtp_of(1), MESSAGE_ID, BODY)
    assert not sent.is_taken
    assert sent.error.startswith("no connection")
    with socket.create_server(("127.0.0.1", 0)) as mute:
        begun_s = time.monotonic()
        sent = await sender.send(TWO, smtp_of(mute.getsockname()[1]), MESSAGE_ID, BODY)
        assert (sent.is_taken, sent.error) == (False, "no answer in time")
        assert time.monotonic() - begun_s < 20


async def test_a_server_that_answers_a_letter_at_a_time_is_given_up(sender):
    """Each piece comes in time, all of them never do."""
    stop = threading.Event()

    def drip(listening: socket.socket) -> None:
        connection, _ = listening.accept()
        with connection:
            while not stop.wait(0.2):
                try:
                    connection.sendall(b"2")
                except OSError:
                    return

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=drip, args=(listening,))
        thread.start()
        begun_s = time.monotonic()
        sent = await sender.send(TWO, smtp_of(listening.getsockname()[1]), MESSAGE_ID, BODY)
        took_s = time.monotonic() - begun_s
        stop.set()
        await asyncio.to_thread(thread.join)
    assert (sent.is_taken, sent.error) == (False, "no answer within 3 s")
    assert took_s < 20
