"""The signature, by the vector that the authors of standard webhooks publish; and what comes back over a socket."""

from __future__ import annotations

import hashlib
import hmac
import time
from base64 import b64decode, b64encode
from typing import Any

import pytest
from pydantic import SecretStr

from app.alerts.webhook import ERROR_CHARS_MAX, WebhookSender, headers_of, signature_of
from app.settings import WebhookTarget
from tests.fakes.upstream import PlayedUpstream

# libraries/javascript/src/webhook.test.ts of github.com/standard-webhooks/standard-webhooks, "sign function works".
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
MESSAGE_ID = "msg_p5jXN8AQM9LWM0D4loKWxJek"
TIMESTAMP_S = 1_614_265_330
PAYLOAD = b'{"test": 2432232314}'
SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="

OTHER = "whsec_" + b64encode(b"o" * 32).decode()
BODY = b'{"type":"alert.test"}'


def target_of(url: str, **secrets: Any) -> WebhookTarget:
    return WebhookTarget(url=SecretStr(url), **(secrets or {"secret": SecretStr(SECRET)}))


def test_the_published_vector():
    target = target_of("http://hook/")
    assert signature_of(target.keys[0], MESSAGE_ID, TIMESTAMP_S, PAYLOAD) == SIGNATURE
    assert headers_of(target.keys, MESSAGE_ID, TIMESTAMP_S, PAYLOAD).items() >= {
        ("webhook-id", MESSAGE_ID),
        ("webhook-timestamp", "1614265330"),
        ("webhook-signature", SIGNATURE),
        ("content-type", "application/json"),
    }


def test_while_a_secret_is_changed_both_sign():
    target = target_of("http://hook/", secrets=(SecretStr(OTHER), SecretStr(SECRET)))
    signatures = headers_of(target.keys, MESSAGE_ID, TIMESTAMP_S, PAYLOAD)["webhook-signature"].split(" ")
    assert len(signatures) == 2
    assert signatures[1] == SIGNATURE


@pytest.mark.parametrize("change", ["id", "time", "body", "key"])
def test_a_signature_is_of_everything(change):
    key = b64decode(SECRET.removeprefix("whsec_"))
    given = {"key": key, "id": MESSAGE_ID, "time": TIMESTAMP_S, "body": PAYLOAD}
    other = {"key": b"x" * 24, "id": "msg_x", "time": TIMESTAMP_S + 1, "body": PAYLOAD + b" "}
    given[change] = other[change]
    assert signature_of(given["key"], given["id"], given["time"], given["body"]) != SIGNATURE


@pytest.fixture
async def sender():
    sender = WebhookSender(timeout_s=30)
    yield sender
    await sender.close()


@pytest.fixture
async def hasty():
    sender = WebhookSender(timeout_s=0.5)
    yield sender
    await sender.close()


def head(status: str, *lines: str) -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status}", *lines, "", ""]).encode()


async def sent_to(sender: WebhookSender, steps: list[Any]) -> tuple[Any, list[Any]]:
    with PlayedUpstream(lambda _seen: steps) as hook:
        target = target_of(f"http://127.0.0.1:{hook.port}/hooks/a-secret-path?token=a-secret")
        sent = await sender.send(target, MESSAGE_ID, BODY, int(time.time()))
        return sent, hook.requests


async def test_what_arrives_can_be_checked_by_whoever_has_the_secret(sender):
    sent, (seen,) = await sent_to(sender, [head("204 No Content")])
    assert (sent.status, sent.error, sent.is_taken, sent.is_gone) == (204, None, True, False)
    assert (seen.method, seen.target, seen.body) == ("POST", "/hooks/a-secret-path?token=a-secret", BODY)
    signed = f"{seen.headers['webhook-id']}.{seen.headers['webhook-timestamp']}.".encode() + seen.body
    mac = hmac.new(b64decode(SECRET.removeprefix("whsec_")), signed, hashlib.sha256).digest()
    assert seen.headers["webhook-signature"] == f"v1,{b64encode(mac).decode()}"
    assert abs(int(seen.headers["webhook-timestamp"]) - time.time()) < 60
    assert "authorization" not in seen.headers


@pytest.mark.parametrize("status", ["200 OK", "201 Created", "299 Odd"])
async def test_any_2xx_is_taken(sender, status):
    sent, _ = await sent_to(sender, [head(status, "content-length: 2"), b"ok"])
    assert sent.is_taken


@pytest.mark.parametrize(
    ("status", "is_gone"),
    [("301 Moved", False), ("307 Temporary", False), ("400 Bad", False), ("410 Gone", True), ("500 No", False)],
)
async def test_anything_else_is_not_and_no_redirect_is_followed(sender, status, is_gone):
    sent, requests = await sent_to(
        sender, [head(status, "location: http://127.0.0.1:1/", "content-length: 9"), b"try\r\nlate"]
    )
    assert (sent.is_taken, sent.is_gone, sent.status) == (False, is_gone, int(status[:3]))
    assert sent.error == f"HTTP {status[:3]}: try late"
    assert len(requests) == 1


async def test_of_a_body_no_more_than_200_characters_are_kept_however_long_it_is(sender):
    endless = [
        head("500 No", "transfer-encoding: chunked"),
        *[b"400\r\n" + b"x\x00\xff\n" * 256 + b"\r\n"] * 500,
        "hang",
    ]
    sent, _ = await sent_to(sender, endless)
    assert len(sent.error) <= ERROR_CHARS_MAX
    assert sent.error.isprintable()
    assert sent.took_ms < 20_000


@pytest.mark.parametrize(
    ("steps", "status"),
    [
        (["hang"], None),
        ([head("200 OK", "content-length: 2")[:20], "hang"], None),
        ([head("500 No", "content-length: 2"), "hang"], 500),
    ],
)
async def test_a_slow_one_is_given_up(hasty, steps, status):
    begun_s = time.monotonic()
    sent, _ = await sent_to(hasty, steps)
    assert time.monotonic() - begun_s < 20
    assert (sent.is_taken, sent.status) == (False, status)
    assert sent.error == ("HTTP 500" if status else "no answer within 0.5 s") or "no answer" in sent.error


@pytest.mark.parametrize("steps", [["close"], ["reset"], [b"SMTP\r\n\r\n"], [b"\x00" * 100]])
async def test_what_is_no_answer_is_a_failure_with_words(sender, steps):
    sent, _ = await sent_to(sender, steps)
    assert not sent.is_taken
    assert sent.status is None
    assert sent.error


async def test_nobody_there(sender):
    sent = await sender.send(target_of("http://127.0.0.1:1/a-secret"), MESSAGE_ID, BODY, 1)
    assert not sent.is_taken
    assert "connection" in sent.error
    assert "a-secret" not in sent.error


async def test_a_receiver_that_is_busy_may_say_until_when(sender):
    for status, value, expected in [
        ("503 Busy", "120", 120),
        ("429 Slow", "999999999999", 3600),
        ("503 Busy", "-5", 0),
        ("503 Busy", "soon", 0),
        ("400 Bad", "120", 0),
    ]:
        sent, _ = await sent_to(sender, [head(status, f"retry-after: {value}", "content-length: 0")])
        assert sent.retry_after_s == expected


async def test_proxies_of_the_environment_are_not_used(monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    sender = WebhookSender(timeout_s=30)
    sent, requests = await sent_to(sender, [head("200 OK", "content-length: 0")])
    await sender.close()
    assert sent.is_taken
    assert len(requests) == 1
