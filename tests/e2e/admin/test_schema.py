"""Generated requests over the whole OpenAPI document: none makes the gateway fail, and every answer is as it says."""

from __future__ import annotations

import os

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.config import SchemathesisConfig
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.e2e.admin.people import Admin
from tests.fakes.gateway import RunningGateway

CHECKS = [
    schemathesis.checks.not_a_server_error,
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
]
EXAMPLES = int(os.environ.get("HEADGATE_SCHEMA_EXAMPLES", "8"))


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    with RunningGateway(tmp_path_factory.mktemp("schema")) as gateway, Admin(gateway) as admin:
        yield gateway, admin


@pytest.fixture(scope="module")
def document(site):
    gateway, _ = site
    return httpx.get(f"{gateway.url}/admin/api/openapi.json").json()


@pytest.fixture(scope="module")
def schema(document):
    return schemathesis.openapi.from_dict(document, config=SchemathesisConfig())


def ask_at_random(operation, url: str, headers: dict[str, str]) -> list[str]:
    """Sends what the document allows; returns the requests that made the gateway fail."""
    failures = []

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy())
    def ask(case):
        response = case.call(base_url=url, headers=headers, timeout=30)
        if response.status_code >= 500:
            failures.append(f"{case.method} {response.request.url} {response.status_code} {case.body!r}")
        else:
            case.validate_response(response, checks=CHECKS)

    ask()
    return failures


def test_generated_requests_never_make_it_fail(site, schema):
    gateway, admin = site
    credentials = {"/admin": admin.headers["authorization"], "/me": f"Bearer {gateway.key}"}
    failures = []
    asked = set()
    for result in schema.get_all_operations():
        operation = result.ok()
        if operation.path.endswith("/live"):
            # It goes on until somebody leaves.
            continue
        plane = "/me" if operation.path.startswith("/me") else "/admin"
        failures += ask_at_random(operation, gateway.url, {"authorization": credentials[plane]})
        asked.add(operation.path)
    assert asked >= {"/me", "/me/limits", "/me/usage", "/me/records"}
    assert not failures, "\n".join(failures[:20])
    assert httpx.get(f"{gateway.url}/readyz").status_code == 200
