"""Azure's two forms, and upstreams without ``/v1/responses``: what they are sent, and what clients are told."""

from __future__ import annotations

import json

import httpx
import pytest

from tests.fakes.gateway import RunningGateway
from tests.fakes.upstream import PlayedUpstream, whole

CHAT = {
    "id": "c",
    "model": "gpt-4o-2024-08-06",
    "choices": [{"message": {"content": "x"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18},
}
KEY = "0123456789abcdef0123456789abcdef"


def play(seen):
    if "refuse" in seen.target or b"refuse" in seen.body:
        body = json.dumps({"error": {"message": f"no {KEY}", "type": "t", "param": None, "code": "x"}}).encode()
        return whole(body, "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\n")
    return whole(json.dumps(CHAT).encode())


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    with PlayedUpstream(play) as upstream:
        root = upstream.base_url.removesuffix("/v1")
        config = f"""
upstreams:
  v1: {{kind: azure, base_url: "{root}", api_key: {KEY}}}
  older:
    kind: azure
    base_url: "{root}"
    api_key: {KEY}
    api_version: "2024-10-21"
    deployments: {{gpt-4o: our-gpt-4o}}
  bare: {{base_url: "{upstream.base_url}", responses: none}}
models:
  - {{name: new, upstream: v1, model: our-gpt-4o}}
  - {{name: gpt-4o, upstream: older}}
  - {{name: both, targets: [{{upstream: bare, model: m}}, {{upstream: v1, model: m, priority: 1}}]}}
  - {{match: "*", upstream: bare}}
server: {{drain_delay_s: 0}}
"""
        with RunningGateway(tmp_path_factory.mktemp("kinds"), config) as gateway:
            gateway.upstream = upstream
            yield gateway


def ask(site, path: str, model: str, **more) -> httpx.Response:
    body = {"model": model, "messages": [], "input": "hi", **more}
    return httpx.post(f"{site.base_url}{path}", json=body, headers=site.headers)


def test_the_v1_surface(site):
    assert ask(site, "/chat/completions", "new").status_code == 200
    seen = site.upstream.requests[-1]
    assert seen.target == "/openai/v1/chat/completions"
    assert seen.headers["api-key"] == KEY
    assert "authorization" not in seen.headers
    assert json.loads(seen.body)["model"] == "our-gpt-4o"


def test_the_form_with_deployments(site):
    answer = ask(site, "/chat/completions?api-version=1999-01-01&beta=true", "gpt-4o")
    assert answer.status_code == 200
    seen = site.upstream.requests[-1]
    assert seen.target == "/openai/deployments/our-gpt-4o/chat/completions?beta=true&api-version=2024-10-21"
    assert json.loads(seen.body)["model"] == "gpt-4o", "the body is the client's"
    record = site.records(wait_for=2)[-1]
    assert (record["model"], record["upstream"]) == ("gpt-4o", "older")
    assert record["entries"][0]["kind"] == "charge"


@pytest.mark.parametrize("path", ["/responses", "/responses/input_tokens"])
def test_what_has_one_path_for_all_deployments_names_its_own_in_the_body(site, path):
    body = b'{ "input":"\\u00e9", "model" : "gpt-4o" , "temperature":0.50}'
    headers = {**site.headers, "content-type": "application/json", "x-headgate-cache": "off"}
    told = len(site.records())
    assert httpx.post(f"{site.base_url}{path}", content=body, headers=headers).status_code == 200
    seen = site.upstream.requests[-1]
    assert seen.target == f"/openai{path}?api-version=2024-10-21"
    assert seen.body == body.replace(b"gpt-4o", b"our-gpt-4o")
    if path == "/responses":
        record = site.records(wait_for=told + 1)[-1]
        assert (record["endpoint"], record["model"]) == ("responses", "gpt-4o"), "it keeps its name, and its price"


def test_its_key_is_nowhere(site):
    told = ask(site, "/chat/completions", "new", user="refuse")
    assert told.status_code == 400
    assert KEY not in told.text
    assert KEY not in site.log_path.read_text()


@pytest.mark.parametrize("path", ["/responses", "/responses/compact", "/responses/input_tokens"])
def test_without_responses_a_client_is_told_what_there_is(site, path):
    before = len(site.upstream.requests)
    told = ask(site, path, "some")
    error = told.json()["error"]
    assert (told.status_code, error["code"], error["param"]) == (404, "model_not_found", "model")
    assert error["message"] == "The upstream of 'some' has no /v1/responses. Use /v1/chat/completions."
    assert len(site.upstream.requests) == before
    assert ask(site, "/chat/completions", "some").status_code == 200


def test_of_several_targets_those_that_have_them_are_called(site):
    answer = ask(site, "/responses", "both")
    assert answer.headers["x-headgate-upstream"] == "v1"
    assert "x-headgate-fallback" not in answer.headers, "it was the first that could"
    assert site.upstream.requests[-1].target == "/openai/v1/responses"
