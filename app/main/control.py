"""The control plane of a gateway: what it works with, taken from the parts that serve."""

from __future__ import annotations

from fastapi import FastAPI
from starlette.requests import HTTPConnection

from app.accounting.accounts import Shared
from app.accounting.alone import Alone
from app.admin.access import Access
from app.admin.app import create_control_plane
from app.admin.origins import Origins
from app.admin.sso import SSO, is_installed
from app.admin.wire import Tools
from app.alerts.courier import Courier
from app.edge.endpoints import FAMILIES, ON_BY_DEFAULT
from app.edge.peers import Peers
from app.main.switch import Switch
from app.settings import Configuration, ConfigurationError, Environment
from app.store.database import Database
from app.telemetry.live import LiveFeed


def control_plane(
    environment: Environment,
    switch: Switch,
    *,
    database: Database,
    peers: Peers,
    accounts: Shared | Alone,
    live: LiveFeed,
    alerts: Courier,
) -> FastAPI:
    """Its application. Raises ConfigurationError."""

    def peer_of(request: HTTPConnection) -> str:
        return peers.address(request.scope.get("client"), request.headers.raw)

    def is_by_proxy(request: HTTPConnection) -> bool:
        client = request.scope.get("client")
        return client is not None and peers.is_trusted(client[0])

    def is_secure(request: HTTPConnection) -> bool:
        if request.url.scheme == "https":
            return True
        return request.headers.get("x-forwarded-proto", "") == "https" and is_by_proxy(request)

    parts = switch.parts
    sso = _sso(parts.configuration)
    tools = Tools(
        database=database,
        clock=parts.desk.clock,
        log=parts.desk.log,
        metrics=parts.desk.metrics,
        access=Access(
            database,
            parts.desk.clock,
            parts.authenticator,
            peer_of=peer_of,
            is_trusted_proxy=peers.is_trusted,
            origins=Origins(
                is_by_proxy=is_by_proxy,
                is_secure=is_secure,
                public_url=None if sso is None else sso.settings.public_url,
            ),
            admin_token=environment.admin,
        ),
        authenticator=parts.authenticator,
        in_force=lambda: switch.in_force,
        is_secure=is_secure,
        families=FAMILIES,
        default_families=ON_BY_DEFAULT,
        peek=accounts.peek,
        live=live,
        alerts=alerts,
        sso=sso,
    )
    return create_control_plane(tools, host=environment.host, metrics_token=environment.metrics)


def _sso(configuration: Configuration) -> SSO | None:
    """As it stands in the file at the start; another provider needs another start."""
    if configuration.sso is None:
        return None
    if not is_installed():
        raise ConfigurationError("sso: needs the extra: pip install 'headgate[sso]'")
    return SSO(configuration.sso)
