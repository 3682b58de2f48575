"""Signing in to the console through a provider of OpenID Connect."""

from __future__ import annotations

from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator

from app.settings.section import Section

Member = Annotated[str, Field(min_length=1, max_length=256)]
Members = Annotated[tuple[Member, ...], Field(max_length=100)]


def _plain_url(value: str) -> str:
    try:
        parts = urlsplit(value)
        is_plain = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_plain = False
    if not is_plain or parts.username is not None or parts.query or parts.fragment:
        raise ValueError("expected an http:// or https:// URL without credentials, query or fragment")
    return value.rstrip("/")


class SSOSettings(Section):
    """Who vouches for people, and what they may here.

    ``public_url`` is where browsers reach this gateway: the provider sends them back to it. ``claim`` names the
    claim (text or a list of texts, usually groups) that roles are given by: the first of ``admins``, ``viewers`` and
    ``leads`` (members of a team, by a group's name to the team's) that holds one of a person's values counts. Who is
    in none of them may not sign in.
    """

    issuer: str
    client_id: Member
    client_secret: SecretStr
    public_url: str
    scopes: tuple[Member, ...] = ("openid", "email", "profile")
    claim: Member = "groups"
    admins: Members = ()
    viewers: Members = ()
    leads: Annotated[dict[Member, Member], Field(max_length=1000)] = Field(default_factory=dict)

    @field_validator("issuer", "public_url")
    @classmethod
    def _urls_are_plain(cls, value: str) -> str:
        return _plain_url(value)

    @model_validator(mode="after")
    def _somebody_may(self) -> Self:
        if not (self.admins or self.viewers or self.leads):
            raise ValueError("expected admins, viewers or leads: nobody could sign in")
        if "openid" not in self.scopes:
            raise ValueError("expected openid among scopes")
        return self
