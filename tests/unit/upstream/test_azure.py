"""Azure OpenAI's addresses."""

from __future__ import annotations

import pytest

from app.settings import UpstreamSettings
from app.upstream.azure import AzureAddresses
from app.upstream.pool import UpstreamPool

MAP = {"gpt-4o": "our-gpt4o"}


@pytest.mark.parametrize(
    ("settings", "path", "query", "model", "target"),
    [
        ({}, "/chat/completions", b"", "m", b"/openai/v1/chat/completions"),
        ({}, "/responses", b"a=b", "m", b"/openai/v1/responses?a=b"),
        ({"api_version": "preview"}, "/responses", b"", "m", b"/openai/v1/responses?api-version=preview"),
        (
            {"api_version": "2024-10-21", "deployments": True},
            "/chat/completions",
            b"a=b&api-version=1999&c=d&",
            "gpt-4o",
            b"/openai/deployments/gpt-4o/chat/completions?a=b&c=d&api-version=2024-10-21",
        ),
        (
            {"api_version": "2024-10-21", "deployments": MAP},
            "/embeddings",
            b"",
            "gpt-4o",
            b"/openai/deployments/our-gpt4o/embeddings?api-version=2024-10-21",
        ),
        (
            {"api_version": "2024-10-21", "deployments": MAP},
            "/chat/completions",
            b"",
            "../x y?",
            b"/openai/deployments/..%2Fx%20y%3F/chat/completions?api-version=2024-10-21",
        ),
        (
            {"api_version": "2025-04-01-preview", "deployments": True},
            "/responses",
            b"",
            "m",
            b"/openai/responses?api-version=2025-04-01-preview",
        ),
        ({"api_version": "v", "deployments": True}, "/models", b"", "", b"/openai/models?api-version=v"),
    ],
)
def test_targets(settings, path, query, model, target):
    whole = UpstreamSettings(kind="azure", base_url="https://n.openai.azure.com", **settings)
    assert AzureAddresses(whole).target(path, query, model) == target


@pytest.mark.parametrize(
    ("deployments", "path", "named"),
    [
        (MAP, "/responses", "our-gpt4o"),
        (MAP, "/responses/input_tokens", "our-gpt4o"),
        (MAP, "/assistants", "our-gpt4o"),
        (MAP, "/chat/completions", "gpt-4o"),
        (MAP, "/fine_tuning/jobs", "gpt-4o"),
        (True, "/responses", "gpt-4o"),
    ],
)
def test_where_no_path_names_the_deployment_the_body_does(deployments, path, named):
    whole = UpstreamSettings(
        kind="azure", base_url="https://n.openai.azure.com", api_version="v", deployments=deployments
    )
    assert AzureAddresses(whole).model_in_body(path, "gpt-4o") == named


async def test_only_azure_is_shown_the_key_its_own_way():
    shown = {}
    for kind in ("azure", "openai"):
        pool = UpstreamPool("u", UpstreamSettings(kind=kind, base_url="http://127.0.0.1:1", api_keys=("a", "b")))
        shown[kind] = [next(pool._turns) for _ in range(3)]
        await pool.close()
    assert shown == {
        "azure": [(b"api-key", b"a"), (b"api-key", b"b"), (b"api-key", b"a")],
        "openai": [(b"authorization", b"Bearer a"), (b"authorization", b"Bearer b"), (b"authorization", b"Bearer a")],
    }
