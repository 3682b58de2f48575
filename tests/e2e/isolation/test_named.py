"""What an answer names: the team's if the upstream made it, and nobody's claim if the client brought it."""

from __future__ import annotations

import json
import secrets
from contextlib import contextmanager

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from tests.e2e.isolation.conftest import CONFIG, told, unknown_like
from tests.fakes.anything import Anything
from tests.fakes.gateway import RunningGateway

RESPONSE = {"model": "gpt-4o", "input": "hi"}


@contextmanager
def answering(upstream: Anything, **more: object):
    """Every answer has ``more`` beside its id."""
    upstream.more = more
    try:
        yield
    finally:
        upstream.more = {}


def refers_to(item: str) -> dict:
    return {"model": "gpt-4o", "input": [{"type": "item_reference", "id": item}]}


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_an_item_that_a_client_brought_is_not_made_its_own_by_an_echo(world, method):
    """Nobody has been told of the item: it is the input of another team's response."""
    theirs, item = world.theirs.client, f"msg_{secrets.token_hex(8)}"
    path = world.theirs.fill("/conversations/{conversation}/items")
    brought = {"items": [{"type": "message", "role": "user", "content": "x", "id": item}]}
    inputs = world.theirs.fill("/responses/{response}/input_items")
    with answering(world.upstream, data=[{"id": item}]):
        assert theirs.request(method, path, json=brought if method == "POST" else None).status_code == 200
        assert theirs.get(inputs).status_code == 200
    with answering(world.upstream, output=[{"id": item}]):
        compact = {"model": "gpt-4o", "input": brought["items"]}
        assert theirs.post("/responses/compact", json=compact).status_code == 200
    assert theirs.post("/responses", json=refers_to(item)).status_code == 404


def test_an_item_that_the_server_of_a_tool_names_is_nobodys(world):
    """The server is the client's own: what it says of its tools would give the client what others brought."""
    theirs, item = world.theirs.client, f"msg_{secrets.token_hex(8)}"
    tools = [{"name": "f", "input_schema": {}, "annotations": {"x_id": item}}]
    with answering(world.upstream, output=[{"type": "mcp_list_tools", "id": "mcpl_1", "tools": tools}]):
        assert theirs.get(world.theirs.fill("/responses/{response}")).status_code == 200
    assert theirs.post("/responses", json=refers_to(item)).status_code == 404


def test_what_was_made_for_an_answer_that_is_not_stored_is_the_teams(world):
    container, file = f"cntr_{secrets.token_hex(8)}", f"cfile_{secrets.token_hex(8)}"
    cited = {"type": "container_file_citation", "container_id": container, "file_id": file}
    text = {"type": "output_text", "text": "x", "annotations": [cited]}
    message = {"type": "message", "id": f"msg_{secrets.token_hex(8)}", "role": "assistant", "content": [text]}
    with answering(world.upstream, output=[message]):
        assert world.mine.client.post("/responses", json={**RESPONSE, "store": False}).status_code == 200
    replayed = {"model": "gpt-4o", "input": [message, {"role": "user", "content": "and?"}], "store": False}
    assert world.mine.client.post("/responses", json=replayed).status_code == 200
    assert world.theirs.client.post("/responses", json=replayed).status_code == 404
    assert world.mine.client.post("/responses", json=refers_to(message["id"])).status_code == 404


def test_an_approval_answers_what_is_told_beside_it(world):
    asked = {"type": "mcp_approval_request", "id": "mcpr_1", "name": "x", "arguments": "{}", "server_label": "s"}
    answer = {"type": "mcp_approval_response", "approval_request_id": "mcpr_1", "approve": True}
    whole = {"model": "gpt-4o", "input": [asked, answer], "store": False}
    assert world.mine.client.post("/responses", json=whole).status_code == 200
    assert world.mine.client.post("/responses", json={**whole, "input": [answer]}).status_code == 404


def test_an_approval_that_is_listed_makes_nothing_the_teams(world):
    """The client has brought the request for it, under whatever id."""
    theirs, item = world.theirs.client, f"msg_{secrets.token_hex(8)}"
    asked = {"type": "mcp_approval_request", "id": item, "name": "x", "arguments": "{}", "server_label": "s"}
    answer = {"type": "mcp_approval_response", "approval_request_id": item, "approve": True}
    assert theirs.post("/responses", json={"model": "gpt-4o", "input": [asked, answer]}).status_code == 200
    with answering(world.upstream, data=[answer]):
        assert theirs.get(world.theirs.fill("/responses/{response}/input_items")).status_code == 200
    assert theirs.post("/responses", json=refers_to(item)).status_code == 404


def test_sound_of_a_chat_is_its_teams(world):
    audio = f"audio_{secrets.token_hex(8)}"
    said = {"role": "assistant", "audio": {"id": audio, "data": "", "transcript": "x"}}
    chat = {"model": "gpt-4o-audio-preview", "messages": [{"role": "user", "content": "hi"}]}
    with answering(world.upstream, choices=[{"index": 0, "message": said, "finish_reason": "stop"}]):
        assert world.mine.client.post("/chat/completions", json=chat).status_code == 200
    again = {**chat, "messages": [*chat["messages"], {"role": "assistant", "audio": {"id": audio}}]}
    assert world.mine.client.post("/chat/completions", json=again).status_code == 200
    assert world.theirs.client.post("/chat/completions", json=again).status_code == 404


def test_the_thread_of_a_run_is_the_teams(world):
    thread = f"thread_{secrets.token_hex(8)}"
    with answering(world.upstream, thread_id=thread):
        run = {"assistant_id": world.mine.make("assistant")}
        assert world.mine.client.post("/threads/runs", json=run).status_code == 200
    assert world.mine.client.get(f"/threads/{thread}").status_code == 200
    assert world.theirs.client.get(f"/threads/{thread}").status_code == 404


def test_what_a_streamed_run_has_made_is_the_teams(world):
    thread, run = f"thread_{secrets.token_hex(8)}", f"run_{secrets.token_hex(8)}"
    assistant = world.mine.make("assistant")
    world.upstream.events = [
        {"id": thread, "object": "thread"},
        {"id": run, "object": "thread.run", "thread_id": thread, "usage": None},
        {"id": run, "object": "thread.run", "thread_id": thread, "usage": {"prompt_tokens": 1, "completion_tokens": 2}},
    ]
    try:
        streamed = world.mine.client.post("/threads/runs", json={"assistant_id": assistant, "stream": True})
    finally:
        world.upstream.events = []
    assert streamed.status_code == 200
    for path in (f"/threads/{thread}", f"/threads/{thread}/messages?run_id={run}"):
        assert world.mine.client.get(path).status_code == 200
        assert world.theirs.client.get(path).status_code == 404


def test_a_file_that_a_batch_made_is_in_the_list_of_files(world):
    file, batch = f"file-{secrets.token_hex(8)}", world.mine.make("batch")
    with answering(world.upstream, output_file_id=file):
        assert world.mine.client.get(f"/batches/{batch}").status_code == 200
    assert world.mine.client.get(f"/files/{file}").status_code == 200
    assert file in [row["id"] for row in world.mine.client.get("/files").json()["data"]]
    assert file not in [row["id"] for row in world.theirs.client.get("/files").json()["data"]]


# -- fine-tuned models ------------------------------------------------------------------------------


def test_a_fine_tuned_model_is_its_teams(world):
    model = world.mine.make("model")
    body = {"model": model, "input": "hi"}
    assert world.mine.client.post("/responses", json=body).status_code == 200
    before = len(world.upstream.asked)
    answers = []
    for name in (model, unknown_like(model)):
        for path, asked in (
            ("/responses", {"model": name, "input": "hi"}),
            ("/chat/completions", {"model": name, "messages": []}),
            ("/moderations", {"model": name, "input": "hi"}),
            ("/evals", {"data_source_config": {}, "testing_criteria": [{"type": "score_model", "model": name}]}),
        ):
            answers.append(told(world.theirs.client.post(path, json=asked), name))
    assert answers[:4] == answers[4:]
    assert {status for status, _, _ in answers} == {404}
    assert len(world.upstream.asked) == before


def test_models_of_others_are_not_listed(tmp_path):
    with Anything() as upstream:
        config = CONFIG.format(base_url=upstream.base_url).replace(
            "models:", 'models:\n  - {match: "ft:gpt-4o:given:*", upstream: provider}'
        )
        with RunningGateway(tmp_path, config) as gateway:
            mine = gateway.json(
                "keys", "create", "--team", "default", "--name", "k", "--endpoints", "fine_tuning,models"
            )
            named = gateway.json("keys", "create", "--team", "default", "--name", "n", "--models", "ft:gpt-4o:theirs:*")
            own = {"authorization": f"Bearer {mine['key']}"}
            body = {"model": "gpt-4o", "training_file": ""}
            job = httpx.post(f"{gateway.base_url}/fine_tuning/jobs", json=body, headers=own).json()["id"]
            upstream.more = {"fine_tuned_model": "ft:gpt-4o:acme::1"}
            httpx.get(f"{gateway.base_url}/fine_tuning/jobs/{job}", headers=own).raise_for_status()
            every = ["gpt-4o", "ft:gpt-4o:acme::1", "ft:gpt-4o:theirs::2", "ft:gpt-4o:given::3"]
            upstream.more = {"data": [{"id": name} for name in every]}

            def listed(key: str) -> list[str]:
                headers = {"authorization": f"Bearer {key}"}
                answer = httpx.get(f"{gateway.base_url}/models", headers=headers).raise_for_status()
                return [row["id"] for row in answer.json()["data"]]

            assert listed(mine["key"]) == ["gpt-4o", "ft:gpt-4o:acme::1", "ft:gpt-4o:given::3"]
            assert listed(named["key"]) == ["ft:gpt-4o:theirs::2"]
            one = httpx.get(f"{gateway.base_url}/models/ft:gpt-4o:theirs::2", headers=own)
            assert (one.status_code, one.json()["error"]["code"]) == (404, "model_not_found")


def test_a_model_deep_within_is_one_that_the_key_may_use(world):
    gateway = world.gateway
    key = gateway.json(
        "keys", "create", "--team", "mine", "--name", "narrow", "--endpoints", "evals", "--models", "gpt-4o"
    )["key"]
    headers = {"authorization": f"Bearer {key}"}
    for model, status in (("gpt-4o", 200), ("o3", 403)):
        body = {"data_source_config": {}, "testing_criteria": [{"type": "score_model", "model": model}]}
        assert httpx.post(f"{gateway.base_url}/evals", json=body, headers=headers).status_code == status, model


# -- what is not named in a body -------------------------------------------------------------------


def test_an_idempotency_key_stands_for_one_teams_call(world):
    before = len(world.upstream.idempotency_keys)
    for team in (world.mine, world.mine, world.theirs):
        sent = {"file": ("a.txt", b"a")}
        headers = {"idempotency-key": "same"}
        assert team.client.post("/files", data={"purpose": "x"}, files=sent, headers=headers).status_code == 200
    first, again, other_teams = world.upstream.idempotency_keys[before:]
    assert first == again != other_teams
    assert "same" not in (first, other_teams)


def test_a_realtime_session_names_a_model_and_nothing_else(world):
    url = f"ws://127.0.0.1:{world.gateway.port}/v1/realtime"
    for query in ("call_id=rtc_1", "model=gpt-realtime&call_id=rtc_1", "model=a&model=b", ""):
        with pytest.raises(InvalidStatus) as refused:
            connect(f"{url}?{query}", additional_headers={"authorization": f"Bearer {world.theirs.key}"})
        assert refused.value.response.status_code == 400, query


def test_a_batch_has_one_input_file(world):
    """Of two members with one name another parser might take the other one."""
    own, foreign = world.theirs.make("file"), world.mine.make("file")
    for text in (
        f'{{"input_file_id":"{own}","input_file_id":"{foreign}","endpoint":"/v1/responses"}}',
        f'{{"input_file_id":"{own}","\\u0069nput_file_id":"{foreign}","endpoint":"/v1/responses"}}',
    ):
        answer = world.theirs.client.post("/batches", content=text, headers={"content-type": "application/json"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "ambiguous_json")
    decoy = {"input_file_id": own, "endpoint": "/v1/responses", "nested": {"input_file_id": foreign}}
    assert world.theirs.client.post("/batches", json=decoy).status_code == 404


def test_shared_objects_are_every_teams_to_use_and_nobodys_to_change(tmp_path):
    with Anything() as upstream:
        config = CONFIG.format(base_url=upstream.base_url).replace('/v1"}', '/v1", shared_objects: [vs_1, file-1]}')
        with RunningGateway(tmp_path, config) as gateway:
            made = gateway.json(
                "keys", "create", "--team", "default", "--name", "k", "--endpoints", "vector_stores,files,responses"
            )
            client = httpx.Client(
                base_url=gateway.base_url, headers={"authorization": f"Bearer {made['key']}"}, timeout=30
            )
            with client:
                search = {
                    "model": "gpt-4o",
                    "input": "a",
                    "tools": [{"type": "file_search", "vector_store_ids": ["vs_1"]}],
                }
                assert client.post("/responses", json=search).status_code == 200
                assert client.get("/vector_stores/vs_1").status_code == 200
                assert client.post("/vector_stores/vs_1/search", json={"query": "a"}).status_code == 200
                assert client.get("/files/file-1/content").status_code == 200
                # Not either where an answer has named one.
                with answering(upstream, output=[{"id": "ci_1", "container_id": "vs_1"}]):
                    assert client.post("/responses", json={**search, "store": False}).status_code == 200
                for method, path in (
                    ("DELETE", "/vector_stores/vs_1"),
                    ("POST", "/vector_stores/vs_1"),
                    ("POST", "/vector_stores/vs_1/files"),
                    ("DELETE", "/files/file-1"),
                ):
                    body = None if method == "DELETE" else {"file_id": "file-1"}
                    assert client.request(method, path, json=body).status_code == 404, path


def test_a_list_whose_upstream_fails_says_so(world):
    """Several objects are asked for at once, and several fail."""
    for _ in range(3):
        world.theirs.make("upload")
        world.theirs.make("vector_store")
    world.upstream.broken = True
    try:
        answer = world.theirs.client.get("/vector_stores")
    finally:
        world.upstream.broken = False
    assert (answer.status_code, json.loads(answer.text)["error"]["code"]) == (502, "upstream_invalid_response")
