"""Whom alerts are told: the part of the configuration file that has addresses and secrets."""

from __future__ import annotations

import re
from base64 import b64decode
from binascii import Error as NotBase64
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator

from app.settings.section import Number, Section

TARGETS_MAX = 50
ADDRESSES_MAX = 50
SECRETS_MAX = 4
SECRET_PREFIX = "whsec_"  # noqa: S105 - what a secret begins with
SECRET_BYTES = range(24, 65)
"""What the specification of standard webhooks asks for."""

ADDRESS = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9](?:[A-Za-z0-9.-]{0,188}[A-Za-z0-9])?\Z")
HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.:-]{0,251}[A-Za-z0-9])?\Z")


def _address(value: str) -> str:
    if not ADDRESS.match(value):
        raise ValueError("expected an e-mail address, without a name")
    return value


class WebhookTarget(Section):
    """Where messages are posted to, and with what they are signed: with several secrets by each of them, so
    that a receiver can go from one to the next.

    The URL is kept like a secret: with many services whoever has it may post. It may be a private address, since
    only who runs the gateway can write it here.
    """

    url: SecretStr
    secret: SecretStr | None = None
    secrets: Annotated[tuple[SecretStr, ...], Field(max_length=SECRETS_MAX)] = ()

    @field_validator("url")
    @classmethod
    def _url_is_plain(cls, value: SecretStr) -> SecretStr:
        text = value.get_secret_value().strip()
        try:
            parts = urlsplit(text)
            is_plain = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
        except ValueError:
            # Python's own words repeat the part that is wrong.
            is_plain = False
        if not is_plain:
            raise ValueError("expected an http:// or https:// URL")
        if not text.isascii() or not text.isprintable() or " " in text:
            raise ValueError("expected an http:// or https:// URL of printable ASCII")
        if parts.username is not None or parts.password is not None:
            raise ValueError("credentials in a URL are not allowed; messages are signed with secret")
        if parts.fragment:
            raise ValueError("expected a URL without fragment")
        return SecretStr(text)

    @field_validator("secret", "secrets")
    @classmethod
    def _secrets_are_keys(cls, value: SecretStr | tuple[SecretStr, ...] | None) -> object:
        for each in value if isinstance(value, tuple) else (value,):
            if each is not None:
                _key_of(each)
        return value

    @model_validator(mode="after")
    def _is_signed(self) -> Self:
        if (self.secret is None) == (not self.secrets):
            raise ValueError("expected either secret or secrets (new ones first)")
        return self

    @property
    def keys(self) -> tuple[bytes, ...]:
        """What messages are signed with."""
        secrets = self.secrets or ((self.secret,) if self.secret is not None else ())
        return tuple(_key_of(secret) for secret in secrets)

    @property
    def host(self) -> str:
        """All of the URL that people are shown."""
        return urlsplit(self.url.get_secret_value()).hostname or ""


def _key_of(secret: SecretStr) -> bytes:
    text = secret.get_secret_value().strip()
    try:
        key = b64decode(text.removeprefix(SECRET_PREFIX), validate=True)
    except (NotBase64, ValueError):
        key = b""
    if not text.startswith(SECRET_PREFIX) or len(key) not in SECRET_BYTES:
        raise ValueError(f"expected {SECRET_PREFIX} and 24 to 64 bytes in base64")
    return key


class EmailTarget(Section):
    to: Annotated[tuple[str, ...], Field(min_length=1, max_length=ADDRESSES_MAX)]

    @field_validator("to")
    @classmethod
    def _are_addresses(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(_address(each) for each in value)


class AlertTarget(Section):
    """Somebody who is told, by the name that rules use."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$")]
    webhook: WebhookTarget | None = None
    email: EmailTarget | None = None

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if (self.webhook is None) == (self.email is None):
            raise ValueError("expected either webhook or email")
        return self


class SMTPSettings(Section):
    """The server that takes e-mail. A password is never sent in clear."""

    host: str
    port: Annotated[int, Number, Field(ge=1, le=65_535)] = 587
    encryption: Literal["starttls", "tls", "none"] = "starttls"
    sender: str
    user: str | None = None
    password: SecretStr | None = None

    @field_validator("host")
    @classmethod
    def _is_a_host(cls, value: str) -> str:
        if not HOST.match(value):
            raise ValueError("expected the name or address of a host")
        return value

    @field_validator("sender")
    @classmethod
    def _is_an_address(cls, value: str) -> str:
        return _address(value)

    @model_validator(mode="after")
    def _login_is_whole_and_hidden(self) -> Self:
        if (self.user is None) != (self.password is None):
            raise ValueError("expected user and password together")
        if self.password is not None and self.encryption == "none":
            raise ValueError("a password needs encryption: starttls or tls")
        return self


class AlertSettings(Section):
    """Who can be told. Which alerts go to whom are rows, made in the console."""

    targets: Annotated[tuple[AlertTarget, ...], Field(max_length=TARGETS_MAX)] = ()
    smtp: SMTPSettings | None = None

    @model_validator(mode="after")
    def _targets_can_be_reached(self) -> Self:
        names = [target.name for target in self.targets]
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            raise ValueError(f"the target {min(twice)!r} stands twice")
        if self.smtp is None and any(target.email is not None for target in self.targets):
            raise ValueError("an email target needs smtp: {host, sender, …}")
        return self

    def find(self, name: str) -> AlertTarget | None:
        return next((target for target in self.targets if target.name == name), None)
