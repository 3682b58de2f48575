"""How an upstream is reached: whose certificates are believed, what is shown to it, and through which proxy."""

from __future__ import annotations

import hashlib
import re
import ssl
from ipaddress import IPv6Address
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import SplitResult, urlsplit

from pydantic import BeforeValidator, PrivateAttr, SecretStr, field_validator, model_validator

from app.settings.section import Section

HOST = re.compile(r"[A-Za-z0-9_.-]{1,253}\Z")


def address_of(url: str) -> SplitResult | None:
    """The parts of a URL by which something can be called: None where its host or port is none, or where it would not
    stand in the first line of a request as it is.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
        is_host = HOST.match(host) is not None or (":" in host and IPv6Address(host) is not None)
    except ValueError:
        # Python's own words repeat the part that is wrong.
        return None
    is_plain = url.isascii() and url.isprintable() and " " not in url
    return parts if is_host and is_plain and port != 0 else None


class TLSSettings(Section):
    """The files are read when the configuration is. ``verify`` can be said, and cannot be taken back: whoever has a
    server with a certificate of its own names it as ``ca_file``, which is then believed instead of the system's.
    """

    ca_file: Path | None = None
    client_cert_file: Path | None = None
    client_key_file: Path | None = None
    verify: Literal[True] = True
    # Other content under the same names is another configuration, so that a reload takes it.
    _digest: bytes = PrivateAttr(default=b"")

    @model_validator(mode="after")
    def _files_can_be_used(self) -> Self:
        if self.client_key_file is not None and self.client_cert_file is None:
            raise ValueError("expected client_cert_file with client_key_file")
        digest = hashlib.sha256()
        for name in ("ca_file", "client_cert_file", "client_key_file"):
            path: Path | None = getattr(self, name)
            if path is not None:
                digest.update(_content(name, path))
        self._digest = digest.digest()
        self.context()
        return self

    def context(self) -> ssl.SSLContext:
        """For a client. Raises ValueError, which says which file is at fault and never what is in it."""
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
        except (OSError, ssl.SSLError):
            raise ValueError(f"ca_file: {self.ca_file} has no certificate in PEM format") from None
        if self.client_cert_file is not None:
            try:
                # A password is given so that OpenSSL never asks the terminal for one.
                context.load_cert_chain(self.client_cert_file, self.client_key_file, password="")
            except (OSError, ssl.SSLError):
                raise ValueError(
                    "client_cert_file and client_key_file are no certificate and its key, in PEM format and without a"
                    " password"
                ) from None
        return context


def _content(name: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"{name}: {path} cannot be read ({error.strerror})") from None


class ProxySettings(Section):
    """An HTTP proxy: the one at ``url``, or the one that the environment names for the upstream's address."""

    url: str | None = None
    environment: bool = False
    user: str | None = None
    password: SecretStr | None = None

    @field_validator("url")
    @classmethod
    def _url_is_plain(cls, value: str | None) -> str | None:
        if value is None:
            return None
        parts = address_of(value)
        if parts is None or parts.scheme != "http" or parts.path.strip("/") or parts.query or parts.fragment:
            raise ValueError("expected http://HOST:PORT or environment")
        if parts.username or parts.password:
            raise ValueError("credentials in a URL are not allowed; use user and password")
        return value.rstrip("/")

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if (self.url is None) != self.environment:
            raise ValueError("expected either a url or environment")
        if (self.user is None) != (self.password is None) or (self.user is not None and self.environment):
            raise ValueError("expected user and password together, beside a url")
        if self.user is not None and ":" in self.user:
            raise ValueError("expected a user without a colon")
        return self


def _of_a_text(value: object) -> object:
    """``proxy: http://…`` is short for ``proxy: {url: http://…}``; so is ``proxy: environment``."""
    if value == "environment":
        return {"environment": True}
    return {"url": value} if isinstance(value, str) else value


OptionalProxy = Annotated[ProxySettings | None, BeforeValidator(_of_a_text)]
