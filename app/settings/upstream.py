"""One upstream in the configuration file: where it is, how it is called, and when it is left alone."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self, TypeAlias
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, SecretStr, field_validator, model_validator

from app.core.identity import LimitMode, LimitPolicy
from app.settings.section import Count, Number, Seconds, Section
from app.settings.transport import OptionalProxy, TLSSettings, address_of

UPSTREAM_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}\Z")
DEPLOYMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}\Z")
HEADER_NAME = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]{1,64}\Z")
# Never forwarded, whatever the file says: they carry the client's secrets or frame the message.
NEVER_FORWARDED = frozenset(
    "authorization cookie host connection content-length transfer-encoding te trailer upgrade expect "
    "proxy-authorization proxy-connection keep-alive api-key x-api-key accept-encoding content-encoding "
    "x-client-request-id".split()
)


ObjectId: TypeAlias = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:-]{0,255}$")]


OPENAI_HOST = "api.openai.com"


class Timeouts(Section):
    connect_s: Seconds = 5
    first_byte_s: Seconds = 600
    idle_s: Seconds = 600


class UpstreamLimits(Section):
    """What an upstream can bear, whoever asks. Where these cannot be counted, requests go on under a local
    share (``protective``), unless they are to be refused (``strict``).
    """

    requests_per_minute: Count | None = None
    tokens_per_minute: Count | None = None
    concurrency: Count | None = None
    policy: LimitPolicy = "protective"
    mode: LimitMode = "enforce"


class BreakerSettings(Section):
    """When an upstream that fails is left alone, and for how long.

    It is after so many ``failures`` in a row, or once ``failed_percent`` of at least ``calls_min`` calls within
    ``window_s`` have failed. After ``open_s`` so many ``probes`` at a time find out whether it is well again.
    """

    failures: Count = 5
    failed_percent: Annotated[float, Number, Field(gt=0, le=100)] = 50
    calls_min: Count = 20
    window_s: Seconds = 30
    open_s: Seconds = 5
    probes: Count = 1


def _never_open(value: object) -> object:
    """YAML reads a bare ``off`` as False."""
    return None if value is False or value == "off" else value


OptionalBreaker = Annotated[BreakerSettings | None, BeforeValidator(_never_open)]


def _as_asked(value: object) -> object:
    return "off" if value is False else value


ChatStreamUsage = Annotated[Literal["off", "inject"], BeforeValidator(_as_asked)]


class UpstreamSettings(Section):
    """One upstream. Without a key an upstream of kind ``openai`` that is api.openai.com is off."""

    kind: Literal["openai", "azure", "simulator"] = "openai"
    base_url: str | None = None
    api_key: SecretStr | None = None
    api_keys: tuple[SecretStr, ...] = ()
    api_version: Annotated[str, Field(pattern=r"^[A-Za-z0-9.-]{1,64}$")] | None = None
    deployments: bool | dict[str, str] = False
    responses: Literal["native", "none"] = "native"
    websocket: Literal["native", "none"] | None = None
    state: Literal["upstream", "gateway"] = "upstream"
    state_ttl_days: Annotated[int, Number, Field(ge=1, le=3650)] = 30
    chat_stream_usage: ChatStreamUsage = "off"
    breaker: OptionalBreaker = BreakerSettings()
    tls: TLSSettings | None = None
    proxy: OptionalProxy = None
    timeouts: Timeouts = Timeouts()
    limits: UpstreamLimits = UpstreamLimits()
    connections_max: Count = 1000
    keepalive_timeout_s: Seconds = 4
    forward_headers: tuple[str, ...] = ()
    organization: str | None = None
    project: str | None = None
    shared_objects: Annotated[tuple[ObjectId, ...], Field(max_length=10_000)] = ()

    @field_validator("base_url")
    @classmethod
    def _base_url_is_plain(cls, value: str | None) -> str | None:
        if value is None:
            return None
        parts = address_of(value)
        if parts is None or parts.scheme not in {"http", "https"}:
            raise ValueError("expected an http:// or https:// URL, with a host and a port that there can be")
        if parts.username or parts.password:
            raise ValueError("credentials in a URL are not allowed; use api_key")
        if parts.query or parts.fragment:
            raise ValueError("expected a URL without query and fragment")
        return value.rstrip("/")

    @field_validator("api_key", "api_keys", "organization", "project")
    @classmethod
    def _credentials_fit_into_a_header(cls, value: Any) -> Any:
        for each in value if isinstance(value, tuple) else (value,):
            # White space around a key is cut off; of a file there is a line break at its end.
            text = each.get_secret_value().strip() if isinstance(each, SecretStr) else each or ""
            if not text.isascii() or not text.isprintable():
                raise ValueError("expected printable ASCII, which fits into a header")
        return value

    @field_validator("forward_headers")
    @classmethod
    def _headers_may_be_forwarded(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        names = tuple(name.lower() for name in value)
        for name in names:
            if not HEADER_NAME.match(name):
                raise ValueError(f"not a header name: {name!r}")
            if name in NEVER_FORWARDED or name.startswith(("x-headgate-", "x-forwarded-", "sec-")):
                raise ValueError(f"{name} is never forwarded")
        return names

    @field_validator("deployments")
    @classmethod
    def _deployments_have_names(cls, value: bool | dict[str, str]) -> bool | dict[str, str]:  # noqa: FBT001 - as it is
        if isinstance(value, dict) and not all(DEPLOYMENT.match(name) for name in value.values()):
            raise ValueError("expected names of deployments: letters, digits, '_', '.' and '-'")
        return value

    @model_validator(mode="after")
    def _kind_and_url_agree(self) -> Self:
        if self.kind != "simulator" and self.base_url is None:
            raise ValueError("expected base_url (only kind: simulator needs none)")
        if self.kind == "simulator":
            if self.base_url is not None:
                raise ValueError("kind: simulator is built in and takes no base_url")
            if self.proxy is not None:
                raise ValueError("kind: simulator is built in and takes no proxy")
        if self.api_key is not None and self.api_keys:
            raise ValueError("expected api_key or api_keys, not both")
        if self.tls is not None and not (self.base_url or "").startswith("https://"):
            raise ValueError("tls needs a base_url with https://")
        return self

    @model_validator(mode="after")
    def _state_has_a_way(self) -> Self:
        if self.state == "upstream":
            if "state_ttl_days" in self.model_fields_set:
                raise ValueError("state_ttl_days belongs to state: gateway")
            return self
        if self.responses != "native":
            raise ValueError("state: gateway needs responses: native")
        if self.websocket == "native":
            raise ValueError("state: gateway has no WebSockets: what they leave behind stays at the upstream")
        return self

    @model_validator(mode="after")
    def _azure_is_whole(self) -> Self:
        if self.kind != "azure":
            if self.api_version is not None or self.deployments:
                raise ValueError("api_version and deployments belong to kind: azure")
            return self
        if urlsplit(self.base_url or "").path:
            raise ValueError("expected a base_url without a path (kind: azure adds /openai/v1 or /openai/deployments)")
        if self.deployments and self.api_version is None:
            raise ValueError("expected api_version: deployments cannot be called without")
        return self

    @property
    def keys(self) -> tuple[str, ...]:
        """The credentials, in the order given; empty where there are none."""
        secrets = self.api_keys or ((self.api_key,) if self.api_key is not None else ())
        return tuple(text for secret in secrets if (text := secret.get_secret_value().strip()))

    @property
    def has_sockets(self) -> bool:
        """Whether it has WebSockets: where nothing is said, OpenAI itself and the simulator do."""
        if self.state == "gateway":
            return False
        if self.websocket is not None:
            return self.websocket == "native"
        host = urlsplit(self.base_url or "").hostname
        return self.responses == "native" and (self.kind == "simulator" or host == OPENAI_HOST)

    @property
    def is_off(self) -> bool:
        """A key was named and is empty (an environment variable that is not set): it cannot be used."""
        return (self.api_key is not None or bool(self.api_keys)) and not self.keys
