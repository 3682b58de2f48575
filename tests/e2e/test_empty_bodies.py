"""POSTs that have nothing to say: SDKs declare JSON and send no body with a cancel."""

from __future__ import annotations

import httpx
import pytest

from tests.fakes.anything import Anything
from tests.fakes.gateway import RunningGateway

CONFIG = """
upstreams:
  provider: {{base_url: "{base_url}"}}
models: [{{match: "*", upstream: provider}}]
server: {{drain_delay_s: 0}}
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    with (
        Anything() as upstream,
        RunningGateway(tmp_path_factory.mktemp("empty"), CONFIG.format(base_url=upstream.base_url)) as gateway,
        httpx.Client(base_url=gateway.base_url, headers=gateway.headers, timeout=30) as client,
    ):
        yield upstream, client


@pytest.mark.parametrize("headers", [{}, {"content-type": "application/json"}], ids=["bare", "declared"])
def test_a_cancel_without_a_body_passes_and_its_length_is_told(world, headers):
    """Servers may answer 411 to a POST that says nothing of its length."""
    upstream, client = world
    made = client.post("/responses", json={"model": "gpt-4o", "input": "hi"}).json()["id"]
    answer = client.post(f"/responses/{made}/cancel", headers=headers)
    assert answer.status_code == 200, answer.text
    assert upstream.asked[-1] == ("POST", f"/v1/responses/{made}/cancel")
    assert upstream.lengths[-1] == "0"


def test_a_call_that_costs_needs_a_body(world):
    upstream, client = world
    before = len(upstream.asked)
    answer = client.post("/responses", headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "invalid_json"
    assert len(upstream.asked) == before
