"""A batch may run no more than its key could send: each line of its file is read before it is made."""

from __future__ import annotations

import json

import httpx
import pytest

from tests.e2e.isolation.conftest import told, unknown_like
from tests.fakes.gateway import RunningGateway

CREATE = {"endpoint": "/v1/responses", "completion_window": "24h"}


@pytest.fixture(scope="module")
def teams(tmp_path_factory):
    """Clients of two teams with files and batches, and the simulator behind the gateway."""
    with RunningGateway(tmp_path_factory.mktemp("batches")) as gateway:
        clients = []
        for name in ("mine", "theirs"):
            team = gateway.json("teams", "create", "--name", name, "--endpoints", "files,batches,responses,embeddings")
            key = gateway.json("keys", "create", "--team", team["id"], "--name", "k", "--models", "sim-*")["key"]
            headers = {"authorization": f"Bearer {key}"}
            clients.append(httpx.Client(base_url=gateway.base_url, headers=headers, timeout=30))
        yield clients
        for client in clients:
            client.close()


def upload(client: httpx.Client, *bodies: dict, url: str = "/v1/responses", text: str | None = None) -> str:
    lines = [
        json.dumps({"custom_id": str(number), "method": "POST", "url": url, "body": {"model": "sim-large", **body}})
        for number, body in enumerate(bodies)
    ]
    sent = {"file": ("batch.jsonl", "\n".join(lines) if text is None else text)}
    answer = client.post("/files", data={"purpose": "batch"}, files=sent)
    assert answer.status_code == 200, answer.text
    return answer.json()["id"]


def start(client: httpx.Client, file_id: str) -> httpx.Response:
    return client.post("/batches", json={**CREATE, "input_file_id": file_id})


def test_a_batch_of_ones_own(teams):
    mine, _ = teams
    own = mine.post("/responses", json={"model": "sim-large", "input": "hi"}).json()["id"]
    made = start(mine, upload(mine, {"input": "a"}, {"input": "b", "previous_response_id": own}))
    assert made.status_code == 200, made.text
    assert [row["id"] for row in mine.get("/batches").json()["data"]] == [made.json()["id"]]


def test_lines_may_not_name_what_is_another_teams(teams):
    mine, theirs = teams
    foreign = mine.post("/responses", json={"model": "sim-large", "input": "hi"}).json()["id"]
    answers = []
    for object_id in (foreign, unknown_like(foreign)):
        file_id = upload(theirs, *[{"input": "a"}] * 700, {"input": "b", "previous_response_id": object_id})
        answers.append(told(start(theirs, file_id), file_id))
    assert answers[0] == answers[1]
    assert (answers[0][0], json.loads(answers[0][2])["error"]["param"]) == (404, "input_file_id")
    file_id = upload(theirs, {"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "file-1"}]}]})
    assert start(theirs, file_id).status_code == 404


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("nonsense", 400),
        ('{"custom_id":"1","method":"POST","url":"/v1/responses"}', 400),
        ('{"custom_id":"1","method":"POST","url":"/v1/files","body":{}}', 400),
        ('{"custom_id":"1","method":"DELETE","url":"/v1/responses","body":{}}', 400),
        ('{"custom_id":"1","method":"POST","url":"/v1/responses","body":{"model":"sim-large","model":"x"}}', 400),
        ('{"custom_id":"1","method":"POST","url":"/v1/responses","body":{"model":"gpt-4o"}}', 403),
        ('{"custom_id":"1","method":"POST","url":"/v1/chat/completions","body":{"model":"sim-large"}}', 403),
    ],
)
def test_lines_that_the_key_could_not_send(teams, text, status):
    mine, _ = teams
    answer = start(mine, upload(mine, text=text))
    assert answer.status_code == status, answer.text


def test_a_batch_needs_its_file(teams):
    mine, theirs = teams
    assert mine.post("/batches", json=CREATE).status_code == 400
    file_id = upload(mine, {"input": "a"})
    assert start(theirs, file_id).status_code == 404


def test_a_line_is_the_same_to_every_reader(teams):
    """A server that takes names in any case would run the second body."""
    mine, _ = teams
    other = {"model": "sim-large", "input": "a", "previous_response_id": "resp_1"}
    line = {"custom_id": "1", "method": "POST", "url": "/v1/responses", "body": {"model": "sim-large", "input": "a"}}
    for text in ({**line, "Body": other}, {**line, "body": {"model": "sim-large", "Model": "gpt-5", "input": "a"}}):
        made = start(mine, upload(mine, text=json.dumps(text)))
        assert made.status_code == 400, made.text
