"""What costs at the provider and is on no bill here passes no hard budget of money."""

from __future__ import annotations

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from tests.fakes.gateway import RunningGateway

FAMILIES = "batches,evals,files,fine_tuning,realtime,responses"
STARTS = [("/batches", {"input_file_id": "file-1"}), ("/fine_tuning/jobs", {}), ("/evals/eval_1/runs", {})]


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    with RunningGateway(tmp_path_factory.mktemp("unbilled")) as gateway:
        yield gateway


def key_of(gateway: RunningGateway, name: str, endpoints: str, *more: str) -> dict[str, str]:
    made = gateway.json("keys", "create", "--team", "default", "--name", name, "--endpoints", endpoints, *more)
    return {"authorization": f"Bearer {made['key']}"}


def test_a_budget_is_not_passed_by(gateway):
    budget = ("--budget-usd", "5", "--budget-window", "day")
    bound, free = key_of(gateway, "bound", FAMILIES, *budget), key_of(gateway, "free", FAMILIES)
    for path, body in STARTS:
        answer = httpx.post(f"{gateway.base_url}{path}", json=body, headers=bound)
        assert (answer.status_code, answer.json()["error"]["code"]) == (402, "unpriced_model"), path
        assert httpx.post(f"{gateway.base_url}{path}", json=body, headers=free).status_code != 402
    url = f"ws://127.0.0.1:{gateway.port}/v1/realtime?model=sim-large"
    with pytest.raises(InvalidStatus) as refused:
        connect(url, additional_headers=bound)
    assert refused.value.response.status_code == 402
    # What is on the bill goes on.
    body = {"model": "sim-large", "input": "hi", "max_output_tokens": 20}
    assert httpx.post(f"{gateway.base_url}/responses", json=body, headers=bound).status_code == 200
    assert httpx.get(f"{gateway.base_url}/batches", headers=bound).status_code == 200


def test_what_is_in_no_table(gateway):
    bound = key_of(gateway, "all bound", "*", "--budget-usd", "5", "--budget-window", "day")
    answer = httpx.post(f"{gateway.base_url}/something/new", json={}, headers=bound)
    assert (answer.status_code, answer.json()["error"]["code"]) == (402, "unpriced_model")
    free = key_of(gateway, "all free", "*")
    assert httpx.post(f"{gateway.base_url}/something/new", json={}, headers=free).status_code == 404
    for path in ("/organization/usage", "/projects", "/Organization/x", "/x/%2e%2e/y", "/x//y", "/x%2fy"):
        raw = httpx.URL(gateway.url).copy_with(raw_path=f"/v1{path}".encode())
        told = httpx.get(raw, headers=free).json()["error"]
        assert (told["code"], told["message"]) == ("not_found", "There is no such endpoint."), path
