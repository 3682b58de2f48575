"""Who is asking the control plane: an admin token as a bearer, or somebody who is signed in.

A sign-in gives a random cookie of which the ledger keeps the SHA-256. What was signed in with is looked at again
for every request, so that a token that is revoked closes its sessions. A request that changes something, and is
known by its cookie alone, also carries the session's CSRF token: another site can make a browser send the one, and
cannot read the other. Neither that nor a sign-in is taken from a page of another origin. Guesses are counted by
address.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping
from typing import Literal, TypeAlias

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection
from starlette.requests import HTTPConnection

from app.admin.origins import Origins
from app.auth.authenticator import Authenticator
from app.auth.keys import digest_of
from app.auth.throttle import FailureThrottle
from app.core.clock import Clock
from app.core.errors import Forbidden, InvalidAdminToken, InvalidAPIKey, TooManyFailedKeys
from app.core.identity import Principal
from app.core.ids import random_base62
from app.store.admin_tokens import AdminTokenRow, find_admin_token, find_admin_token_by_id, use_admin_token
from app.store.audit import Actor
from app.store.database import Database
from app.store.errors import NoSuchToken
from app.store.sessions import HolderKind, SessionRow, close_session, find_session, open_session, see_session

COOKIE = "headgate_session"
CSRF_HEADER = "x-headgate-csrf"
COOKIE_CHARS = 43
CSRF_CHARS = 32
SESSION_MS_MAX = 7 * 24 * 60 * 60 * 1000
IDLE_MS_MAX = 12 * 60 * 60 * 1000
SEEN_EVERY_MS = 60_000
FAILURES_PER_MINUTE = 20
CREDENTIAL_CHARS_MAX = 512
SAFE_METHODS = frozenset({"GET", "HEAD"})

Role: TypeAlias = Literal["admin", "viewer", "lead", "key"]
ENVIRONMENT = "environment"
"""The id of the token that stands in the environment."""


class Caller(msgspec.Struct, frozen=True):
    """Who asks. ``team_id`` is the one team of a lead, or of a key; None for those who see all teams."""

    kind: HolderKind
    id: str
    name: str
    role: Role
    team_id: str | None
    peer: str
    session: SessionRow | None = None

    @property
    def actor(self) -> Actor:
        """As the audit log names this person. A key changes nothing."""
        return Actor("sso" if self.kind == "sso" else "token", self.id, self.name, self.peer)

    def sees(self, team_id: str) -> bool:
        """Whether what belongs to the team is there for this person."""
        return self.team_id is None or self.team_id == team_id


class SignedIn(msgspec.Struct, frozen=True):
    """A new session: the cookie's value is told once."""

    cookie: str
    caller: Caller

    def __repr__(self) -> str:
        return f"SignedIn({self.caller!r})"


class Access:
    """Knows who asks. ``peer_of`` tells the address of a request, behind trusted proxies too."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        authenticator: Authenticator,
        *,
        peer_of: Callable[[HTTPConnection], str],
        is_trusted_proxy: Callable[[str], bool],
        origins: Origins,
        admin_token: str | None,
    ) -> None:
        self._database = database
        self._clock = clock
        self._authenticator = authenticator
        self._peer_of = peer_of
        self._origins = origins
        self._throttle = FailureThrottle(clock, per_minute=FAILURES_PER_MINUTE, is_trusted_proxy=is_trusted_proxy)
        self._environment_digest = None if admin_token is None else digest_of(admin_token)
        self._seen: dict[str, int] = {}

    def __repr__(self) -> str:
        return f"Access(throttle={self._throttle!r})"

    async def caller(self, request: HTTPConnection) -> Caller:
        """Who asks the control plane. Raises InvalidAdminToken, Forbidden (a CSRF token that is wrong),
        TooManyFailedKeys, StoreError.
        """
        peer = self._peer_of(request)
        credential = _bearer(request.headers)
        if credential is not None:
            return await self._of_token(credential, peer)
        session = await self._session(request)
        if session is None:
            raise InvalidAdminToken
        caller = await self._of_session(session, peer)
        if caller is None:
            raise InvalidAdminToken
        return caller

    async def principal(self, request: HTTPConnection) -> Principal:
        """The gateway key of ``/me``: as SDKs send it, or of whoever is signed in with one.

        Raises InvalidAPIKey, TooManyFailedKeys, Forbidden, StoreError.
        """
        credential = key_of(request.headers)
        if credential is not None:
            return await self._authenticator.authenticate(credential, self._peer_of(request))
        session = await self._session(request)
        principal = None
        if session is not None and session.kind == "key":
            principal = self._authenticator.of_secret(session.holder_id)
        if principal is None:
            raise InvalidAPIKey
        return principal

    async def sign_in(self, credential: str, request: HTTPConnection) -> SignedIn:
        """A session for an admin token or a gateway key. Raises InvalidAdminToken, TooManyFailedKeys."""
        peer = self._peer_of(request)
        # Another site may not sign anybody in.
        self._origins.require_own(request)
        self._refuse_guessers(peer)
        if not credential.isascii():
            # No key and no token is written so; half a surrogate pair has no digest either.
            credential = ""
        try:
            principal = await self._authenticator.authenticate(credential, "")
        except InvalidAPIKey:
            caller = await self._of_token(credential, peer)
        else:
            caller = Caller("key", principal.secret_id, principal.key_name, "key", principal.team_id, peer)
        return await self.open(caller, request)

    def peer(self, request: HTTPConnection) -> str:
        """The address that a request comes from."""
        return self._peer_of(request)

    async def open(self, caller: Caller, request: HTTPConnection, *, lasts_ms: int = SESSION_MS_MAX) -> SignedIn:
        """A session for whoever has proved to be ``caller``; one that the browser had before is over."""
        now_ms = self._clock.now_ms()
        cookie = random_base62(COOKIE_CHARS)
        session = SessionRow(
            digest=digest_of(cookie),
            kind=caller.kind,
            holder_id=caller.id,
            name=caller.name,
            role=caller.role,
            team_id=caller.team_id,
            csrf=random_base62(CSRF_CHARS),
            created_at_ms=now_ms,
            seen_at_ms=now_ms,
            expires_at_ms=now_ms + lasts_ms,
        )
        async with self._database.transaction() as connection:
            if (before := request.cookies.get(COOKIE)) is not None:
                await close_session(connection, digest_of(before))
            await open_session(connection, session)
        return SignedIn(cookie, msgspec.structs.replace(caller, session=session))

    async def signed_in(self, request: HTTPConnection) -> Caller:
        """Who is signed in, also with a gateway key. Raises InvalidAdminToken."""
        if _bearer(request.headers) is not None:
            return await self.caller(request)
        session = await self._session(request)
        if session is None:
            raise InvalidAdminToken
        peer = self._peer_of(request)
        if session.kind == "key":
            principal = self._authenticator.of_secret(session.holder_id)
            if principal is None:
                raise InvalidAdminToken
            return Caller("key", session.holder_id, principal.key_name, "key", principal.team_id, peer, session)
        caller = await self._of_session(session, peer)
        if caller is None:
            raise InvalidAdminToken
        return caller

    async def sign_out(self, request: HTTPConnection) -> None:
        """The browser's session is over, if it has one."""
        if (cookie := request.cookies.get(COOKIE)) is not None:
            async with self._database.transaction() as connection:
                await close_session(connection, digest_of(cookie))

    # -- tokens -------------------------------------------------------------------------------

    async def _of_token(self, credential: str, peer: str) -> Caller:
        self._refuse_guessers(peer)
        digest = digest_of(credential[:CREDENTIAL_CHARS_MAX])
        if self._environment_digest is not None and hmac.compare_digest(digest, self._environment_digest):
            return Caller("token", ENVIRONMENT, "HEADGATE_ADMIN_TOKEN", "admin", None, peer)
        async with self._database.read() as connection:
            token = await find_admin_token(connection, digest)
        now_ms = self._clock.now_ms()
        if token is None or not token.is_live(now_ms):
            if self._throttle.failed(peer):
                raise TooManyFailedKeys(retry_after_ms=self._throttle.over_in_ms)
            raise InvalidAdminToken
        await self._note_use(token.id, now_ms)
        return _of_row(token, peer)

    def _refuse_guessers(self, peer: str) -> None:
        if self._throttle.is_over(peer):
            raise TooManyFailedKeys(retry_after_ms=self._throttle.over_in_ms)

    async def _note_use(self, token_id: str, now_ms: int) -> None:
        """Once a minute is enough for people."""
        if now_ms - self._seen.get(token_id, 0) < SEEN_EVERY_MS:
            return
        self._seen[token_id] = now_ms
        async with self._database.transaction() as connection:
            await use_admin_token(connection, token_id, now_ms=now_ms)

    # -- sessions -----------------------------------------------------------------------------

    async def _session(self, request: HTTPConnection) -> SessionRow | None:
        """The session of a request's cookie. Raises Forbidden where its CSRF token is not there or wrong, or another
        site's page sends it.
        """
        cookie = request.cookies.get(COOKIE)
        if cookie is None or len(cookie) != COOKIE_CHARS:
            return None
        digest = digest_of(cookie)
        async with self._database.read() as connection:
            session = await find_session(connection, digest)
        now_ms = self._clock.now_ms()
        if session is None or session.expires_at_ms <= now_ms or session.seen_at_ms + IDLE_MS_MAX <= now_ms:
            return None
        if request.scope.get("method", "GET") not in SAFE_METHODS:
            self._origins.require_own(request)
            given = request.headers.get(CSRF_HEADER, "")
            if not hmac.compare_digest(given.encode(), session.csrf.encode()):
                raise Forbidden(f"The header {CSRF_HEADER} is missing or wrong: reload the page.")
        if now_ms - session.seen_at_ms >= SEEN_EVERY_MS:
            async with self._database.transaction() as connection:
                await see_session(connection, digest, now_ms=now_ms)
        return session

    async def _of_session(self, session: SessionRow, peer: str) -> Caller | None:
        """Whoever is signed in, as of now; None for a key, and where what was signed in with has ended."""
        if session.kind == "key":
            return None
        if session.kind == "sso":
            return msgspec.convert(
                {
                    "kind": "sso",
                    "id": session.holder_id,
                    "name": session.name,
                    "role": session.role,
                    "team_id": session.team_id,
                    "peer": peer,
                    "session": session,
                },
                Caller,
            )
        if session.holder_id == ENVIRONMENT:
            if self._environment_digest is None:
                return None
            return Caller("token", ENVIRONMENT, "HEADGATE_ADMIN_TOKEN", "admin", None, peer, session)
        async with self._database.read() as connection:
            token = await _living(connection, session.holder_id, self._clock.now_ms())
        return None if token is None else msgspec.structs.replace(_of_row(token, peer), session=session)


async def _living(connection: AsyncConnection, token_id: str, now_ms: int) -> AdminTokenRow | None:
    try:
        token = await find_admin_token_by_id(connection, token_id)
    except NoSuchToken:
        return None
    return token if token.is_live(now_ms) else None


def _of_row(token: AdminTokenRow, peer: str) -> Caller:
    return Caller("token", token.id, token.name, token.role, token.team_id, peer)


def _bearer(headers: Mapping[str, str]) -> str | None:
    """What stands in ``authorization``; "" where that is no bearer: then nobody, whatever the cookie says."""
    value = headers.get("authorization")
    if value is None:
        return None
    scheme, _, token = value.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def key_of(headers: Mapping[str, str]) -> str | None:
    """A gateway key as SDKs send it."""
    bearer = _bearer(headers)
    return bearer if bearer is not None else headers.get("x-api-key") or headers.get("api-key")
