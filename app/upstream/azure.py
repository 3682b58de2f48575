"""Azure OpenAI's addresses: the v1 surface, or a deployment named in the path, with the version of the API."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote

from app.settings import UpstreamSettings

V1 = b"/openai/v1"
OF_DEPLOYMENTS = b"/openai/deployments/"
REST = b"/openai"
DEPLOYED = (
    *("/chat/completions", "/completions", "/embeddings"),
    *("/images/generations", "/images/edits"),
    *("/audio/speech", "/audio/transcriptions", "/audio/translations"),
)
"""What a deployment serves under its own path; all else has one path for the whole resource."""
BY_BASE_MODEL = "/fine_tuning/"
"""What begins so names the model that is trained, which is no deployment."""
VERSION = b"api-version"


class AzureAddresses:
    """Of one resource. A model that the map does not name is deployed under its own name."""

    def __init__(self, settings: UpstreamSettings) -> None:
        self._by_deployment = bool(settings.deployments)
        self._names: Mapping[str, str] = settings.deployments if isinstance(settings.deployments, dict) else {}
        self._version = b"" if settings.api_version is None else b"%s=%s" % (VERSION, settings.api_version.encode())

    def __repr__(self) -> str:
        return f"AzureAddresses(by_deployment={self._by_deployment}, names={len(self._names)})"

    def model_in_body(self, path: str, model: str) -> str:
        """What a body for ``path`` calls ``model``: where no path names the deployment, its name stands there."""
        if path in DEPLOYED or path.startswith(BY_BASE_MODEL):
            return model
        return self._names.get(model, model)

    def target(self, path: str, query: bytes, model: str) -> bytes:
        """The path and query for ``path`` of the OpenAI API; a version that a client names gives way to ours."""
        if not self._by_deployment:
            base = V1
        elif path in DEPLOYED:
            base = OF_DEPLOYMENTS + quote(self._names.get(model, model), safe="").encode()
        else:
            base = REST
        pairs = [pair for pair in query.split(b"&") if pair and pair.partition(b"=")[0] != VERSION]
        if self._version:
            pairs.append(self._version)
        asked = base + path.encode()
        return b"%s?%s" % (asked, b"&".join(pairs)) if pairs else asked
