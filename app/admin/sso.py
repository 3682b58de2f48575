"""Signing in through a provider of OpenID Connect: the authorization code flow with PKCE, state and nonce.

What a sign-in has to remember stands in a cookie of the browser that began it, for ten minutes: whoever brings back a
code to another browser finds no such cookie there. The provider's answers are fetched with a time limit, its keys are
kept for an hour and fetched once more where a token names one that is not among them.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import secrets
import time
from typing import Any
from urllib.parse import urlencode

import httpx
import msgspec
from starlette.requests import HTTPConnection

from app.admin.access import Caller
from app.core.errors import Forbidden, GatewayError
from app.settings import SSOSettings

try:
    from authlib.integrations.base_client.errors import OAuthError  # type: ignore[import-untyped] # it has none
    from authlib.integrations.httpx_client import AsyncOAuth2Client  # type: ignore[import-untyped] # as above
    from joserfc import jwt
    from joserfc.errors import JoseError
    from joserfc.jwk import KeySet
except ImportError:  # the extra ``sso`` is not installed
    AsyncOAuth2Client = None

try:
    # Authlib takes it where it is there.
    import httpx2 as client_library
except ImportError:
    client_library = httpx  # type: ignore[misc] # the same names in both

STATE_COOKIE = "headgate_sso"
STATE_S_MAX = 600
PROVIDER_S_MAX = 10.0
KEPT_S = 3600.0
ANSWER_BYTES_MAX = 1024 * 1024
CLOCK_SKEW_S = 60
ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
"""Signatures by a key that only the provider has; "none" and shared secrets are not among them."""
CALLBACK = "/admin/api/v1/sso/callback"


class ProviderFailed(GatewayError):
    """The provider gave no answer that can be used: its text is for whoever signs in."""

    status = 502
    type = "server_error"
    code = "upstream_invalid_response"
    default_message = "The sign-in provider gave no answer that can be used; try again."


class Began(msgspec.Struct, frozen=True):
    """What a sign-in that has begun remembers."""

    state: str
    nonce: str
    verifier: str


class _Provider(msgspec.Struct):
    """What the provider says of itself, as of a moment."""

    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    issuer: str
    keys: Any = None
    read_s: float = 0.0


def is_installed() -> bool:
    """Whether the extra is there."""
    return AsyncOAuth2Client is not None


class SSO:
    """Signs people in by one provider's word."""

    def __init__(self, settings: SSOSettings) -> None:
        self._settings = settings
        self._provider: _Provider | None = None
        self._lock = asyncio.Lock()
        self.callback_url = f"{settings.public_url}{CALLBACK}"

    def __repr__(self) -> str:
        return f"SSO(issuer={self._settings.issuer!r})"

    @property
    def settings(self) -> SSOSettings:
        return self._settings

    async def begin(self) -> tuple[str, Began]:
        """Where to send the browser, and what it has to remember. Raises ProviderFailed."""
        provider = await self._known()
        began = Began(secrets.token_urlsafe(32), secrets.token_urlsafe(32), secrets.token_urlsafe(48))
        challenge = base64.urlsafe_b64encode(hashlib.sha256(began.verifier.encode()).digest()).decode().rstrip("=")
        query = {
            "response_type": "code",
            "client_id": self._settings.client_id,
            "redirect_uri": self.callback_url,
            "scope": " ".join(self._settings.scopes),
            "state": began.state,
            "nonce": began.nonce,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        joint = "&" if "?" in provider.authorization_endpoint else "?"
        return f"{provider.authorization_endpoint}{joint}{urlencode(query)}", began

    async def finish(self, began: Began | None, *, state: str, code: str) -> dict[str, Any]:
        """The claims of whoever comes back with ``code``. Raises Forbidden, ProviderFailed."""
        if began is None or not hmac.compare_digest(began.state.encode(), state.encode()):
            raise Forbidden("This sign-in was not begun in this browser, or took longer than ten minutes: begin again.")
        provider = await self._known()
        try:
            async with asyncio.timeout(PROVIDER_S_MAX), self._client() as client:
                token = await client.fetch_token(
                    provider.token_endpoint, code=code, code_verifier=began.verifier, grant_type="authorization_code"
                )
        except (OAuthError, client_library.HTTPError, TimeoutError, ValueError) as error:
            raise ProviderFailed from error
        id_token = token.get("id_token")
        if not isinstance(id_token, str):
            raise ProviderFailed
        return await self._claims(provider, id_token, began.nonce)

    def caller(self, claims: dict[str, Any], teams: dict[str, str], peer: str) -> Caller:
        """Whoever the claims are of, with the role that they give; ``teams`` are ids by name. Raises Forbidden."""
        given = claims.get(self._settings.claim)
        listed = given if isinstance(given, list) else [given]
        values = {each for each in listed if isinstance(each, str)}
        subject = str(claims["sub"])
        # An address of which the provider does not say that it is verified may be anybody's.
        address = claims.get("email") if claims.get("email_verified") is True else None
        name = str(address or claims.get("preferred_username") or claims.get("name") or subject)[:100]
        if values.intersection(self._settings.admins):
            return Caller("sso", subject, name, "admin", None, peer)
        if values.intersection(self._settings.viewers):
            return Caller("sso", subject, name, "viewer", None, peer)
        for group, team in self._settings.leads.items():
            if group in values and team in teams:
                return Caller("sso", subject, name, "lead", teams[team], peer)
        raise Forbidden("You are known, and have no role here: an administrator gives one by your groups.")

    # -- the provider -------------------------------------------------------------------------

    def _client(self) -> Any:
        return AsyncOAuth2Client(
            client_id=self._settings.client_id,
            client_secret=self._settings.client_secret.get_secret_value(),
            redirect_uri=self.callback_url,
            timeout=PROVIDER_S_MAX,
            follow_redirects=False,
            trust_env=False,
        )

    async def _known(self, *, anew: bool = False) -> _Provider:
        async with self._lock:
            known = self._provider
            if known is not None and not anew and time.monotonic() - known.read_s < KEPT_S:
                return known
            self._provider = await self._read()
            return self._provider

    async def _read(self) -> _Provider:
        try:
            async with (
                asyncio.timeout(PROVIDER_S_MAX),
                httpx.AsyncClient(timeout=PROVIDER_S_MAX, follow_redirects=False, trust_env=False) as client,
            ):
                document = await _fetched(client, f"{self._settings.issuer}/.well-known/openid-configuration")
                provider = msgspec.convert(document, _Provider)
                provider.keys = KeySet.import_key_set(await _fetched(client, provider.jwks_uri))
        except (httpx.HTTPError, TimeoutError, ValueError, msgspec.MsgspecError, JoseError) as error:
            raise ProviderFailed from error
        if provider.issuer.rstrip("/") != self._settings.issuer:
            raise ProviderFailed("The sign-in provider says that it is another one than the configuration names.")
        provider.read_s = time.monotonic()
        return provider

    async def _claims(self, provider: _Provider, id_token: str, nonce: str) -> dict[str, Any]:
        try:
            claims = _verified(id_token, provider)
        except (JoseError, ValueError):
            # It may be signed with a key that is newer than what is kept.
            provider = await self._known(anew=True)
            try:
                claims = _verified(id_token, provider)
            except (JoseError, ValueError) as error:
                raise ProviderFailed("The sign-in provider's word could not be verified.") from error
        audience = claims.get("aud")
        named = audience if isinstance(audience, list) else [audience]
        is_for_us = self._settings.client_id in named and claims.get("azp", self._settings.client_id) == (
            self._settings.client_id
        )
        now_s = time.time()
        expires, issued = claims.get("exp"), claims.get("iat")
        in_time = (
            isinstance(expires, int | float)
            and isinstance(issued, int | float)
            and expires + CLOCK_SKEW_S > now_s
            and issued - CLOCK_SKEW_S <= now_s
        )
        same = claims.get("iss") == provider.issuer and hmac.compare_digest(
            str(claims.get("nonce", "")).encode(), nonce.encode()
        )
        if not (is_for_us and in_time and same and claims.get("sub")):
            raise ProviderFailed("The sign-in provider's word is not for this sign-in.")
        return claims


async def _fetched(client: httpx.AsyncClient, url: str) -> Any:
    answer = await client.get(url)
    answer.raise_for_status()
    if len(answer.content) > ANSWER_BYTES_MAX:
        raise ValueError("the answer is too long")
    return answer.json()


def _verified(id_token: str, provider: _Provider) -> dict[str, Any]:
    claims: dict[str, Any] = jwt.decode(id_token, provider.keys, algorithms=ALGORITHMS).claims
    return claims


def remembered(request: HTTPConnection) -> Began | None:
    """What the browser remembers of the sign-in that it began."""
    cookie = request.cookies.get(STATE_COOKIE, "")
    parts = cookie.split(".")
    return Began(*parts) if len(parts) == 3 and all(parts) else None


def cookie_of(began: Began) -> str:
    """What the browser is given to remember."""
    return f"{began.state}.{began.nonce}.{began.verifier}"
