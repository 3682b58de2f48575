"""Whom alerts are told, in the configuration file: secrets come from elsewhere, and are never shown."""

from __future__ import annotations

from base64 import b64encode

import pytest

from app.settings import AlertSettings, ConfigurationError, load_configuration
from app.settings.file import PACKAGED

SECRET = "whsec_" + b64encode(b"s" * 24).decode()
HOOK = f"alerts:\n  targets:\n    - {{name: ops, webhook: {{url: '%s', secret: {SECRET}}}}}\n"
URL = "https://hooks.example.com/services/T0/B0/canary"


def load(tmp_path, text, environ=None):
    path = tmp_path / "headgate.yaml"
    path.write_text(text)
    return load_configuration(path, environ or {}).alerts


def test_nobody_is_told_unless_the_file_says_so():
    assert load_configuration(PACKAGED, {}).alerts == AlertSettings()


def test_a_webhook_and_an_address(tmp_path):
    text = f"""
alerts:
  targets:
    - {{name: ops, webhook: {{url: "${{URL}}", secret: "${{SECRET}}"}}}}
    - {{name: both, webhook: {{url: "http://10.0.0.7:8080/hook?a=b", secrets: ["${{SECRET}}", {SECRET}]}}}}
    - {{name: finance, email: {{to: [finance@example.com, "o'neil+x@example.co"]}}}}
  smtp: {{host: mail.example.com, port: 465, encryption: tls, sender: gate@example.com, user: u, password: "${{PASSWORD}}"}}
"""
    read = load(tmp_path, text, {"URL": URL, "SECRET": SECRET, "PASSWORD": "canary"})
    ops, both, finance = read.targets
    assert ops.webhook.keys == (b"s" * 24,)
    assert ops.webhook.host == "hooks.example.com"
    assert ops.webhook.url.get_secret_value() == URL
    assert len(both.webhook.keys) == 2
    assert finance.email.to == ("finance@example.com", "o'neil+x@example.co")
    assert (read.smtp.port, read.smtp.password.get_secret_value()) == (465, "canary")
    assert read.find("both") is both
    assert read.find("x") is None
    for shown in (repr(read), str(read)):
        assert "canary" not in shown
        assert SECRET not in shown


def test_secrets_may_stand_in_files_of_their_own(tmp_path):
    (tmp_path / "secret").write_text(f"{SECRET}\n")
    text = (HOOK % URL).replace(SECRET, f"file:{tmp_path / 'secret'}")
    assert load(tmp_path, text).targets[0].webhook.keys == (b"s" * 24,)


def test_a_configuration_with_other_targets_is_another_one(tmp_path):
    assert load(tmp_path, HOOK % URL) == load(tmp_path, HOOK % URL)
    assert load(tmp_path, HOOK % URL) != load(tmp_path, HOOK % f"{URL}2")


@pytest.mark.parametrize(
    ("text", "part"),
    [
        (HOOK % "ftp://example.com/", "expected an http:// or https:// URL"),
        (HOOK % "https://", "expected an http:// or https:// URL"),
        (HOOK % "https://user:canary@example.com/", "credentials in a URL are not allowed"),
        (HOOK % "https://canary@example.com/", "credentials in a URL are not allowed"),
        (HOOK % "https://example.com/#canary", "without fragment"),
        (HOOK % "https://example.com/a canary", "printable ASCII"),
        (HOOK % "https://exämple.com/canary", "printable ASCII"),
        (HOOK % "https://example.com:99999/canary", "expected an http:// or https:// URL"),
        (HOOK % "https://example.com:canary/", "expected an http:// or https:// URL"),
        (HOOK % "https://[canary/", "expected an http:// or https:// URL"),
        ((HOOK % URL).replace(SECRET, "canary"), "expected whsec_ and 24 to 64 bytes in base64"),
        ((HOOK % URL).replace(SECRET, SECRET.removeprefix("whsec_")), "expected whsec_"),
        ((HOOK % URL).replace(SECRET, "whsec_" + b64encode(b"s" * 23).decode()), "expected whsec_"),
        ((HOOK % URL).replace(SECRET, "whsec_" + b64encode(b"s" * 65).decode()), "expected whsec_"),
        ((HOOK % URL).replace(SECRET, "''"), "expected whsec_"),
        ((HOOK % URL).replace(f", secret: {SECRET}", ""), "expected either secret or secrets"),
        ((HOOK % URL).replace(f"secret: {SECRET}", "secrets: []"), "expected either secret or secrets"),
        ((HOOK % URL).replace("name: ops", "name: 'a b'"), "pattern"),
        ("alerts: {targets: [{name: ops}]}", "expected either webhook or email"),
        ("alerts: {targets: [{name: a, email: {to: [a@b.c]}}]}", "needs smtp"),
        ("alerts: {targets: [{name: a, email: {to: []}}], smtp: {host: h, sender: a@b.c}}", "at least 1 item"),
        (
            "alerts: {targets: [{name: a, email: {to: ['A <a@b.c>']}}], smtp: {host: h, sender: a@b.c}}",
            "e-mail address",
        ),
        ('alerts: {targets: [{name: a, email: {to: ["a@b.c\\nBcc: x@y.z"]}}]}', "e-mail address"),
        ("alerts: {smtp: {host: 'a b', sender: a@b.c}}", "name or address of a host"),
        ("alerts: {smtp: {host: h, sender: nobody}}", "e-mail address"),
        ("alerts: {smtp: {host: h, sender: a@b.c, user: u}}", "user and password together"),
        ("alerts: {smtp: {host: h, sender: a@b.c, user: u, password: canary, encryption: none}}", "needs encryption"),
        ("alerts: {smtp: {host: h, sender: a@b.c, port: 0}}", "greater than or equal to 1"),
        ("alerts: {smtp: {host: h, sender: a@b.c, encryption: ssl}}", "'starttls', 'tls' or 'none'"),
        ("alerts: {rules: []}", "no such key"),
    ],
)
def test_what_cannot_be_sent_to_is_refused_and_no_secret_is_repeated(tmp_path, text, part):
    with pytest.raises(ConfigurationError) as refused:
        load(tmp_path, text)
    assert "alerts" in str(refused.value)
    assert part in str(refused.value)
    assert "canary" not in str(refused.value)


def test_a_name_stands_once(tmp_path):
    text = HOOK % URL + f"    - {{name: ops, webhook: {{url: '{URL}', secret: {SECRET}}}}}\n"
    with pytest.raises(ConfigurationError, match="the target 'ops' stands twice"):
        load(tmp_path, text)
