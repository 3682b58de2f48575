"""Two gateways on one Redis and one PostgreSQL: what one has seen being made is as much its team's at the other."""

from __future__ import annotations

import json
from collections.abc import Iterator

import httpx
import pytest

from tests.e2e.isolation.conftest import told, unknown_like
from tests.e2e.isolation.test_time import P_LEAST, TRIES, mann_whitney_p, samples
from tests.e2e.test_background import simulator
from tests.fakes.fleet import Stores
from tests.fakes.gateway import RunningGateway

CONFIG = """
upstreams:
  provider: {{base_url: "{base_url}"}}
models:
  - {{match: "*", upstream: provider}}
server: {{drain_delay_s: 0}}
"""
BODY = {"model": "sim-large", "input": "hi"}


class Pair:
    """By team, a client of each gateway."""

    def __init__(self, gateways: list[RunningGateway]) -> None:
        self.clients: dict[str, list[httpx.Client]] = {}
        for name in ("mine", "theirs"):
            team = gateways[0].json("teams", "create", "--name", name, "--endpoints", "responses,files")["id"]
            key = gateways[0].json("keys", "create", "--team", team, "--name", "k")["key"]
            headers = {"authorization": f"Bearer {key}"}
            self.clients[name] = [httpx.Client(base_url=g.base_url, headers=headers, timeout=30) for g in gateways]

    def close(self) -> None:
        for clients in self.clients.values():
            for client in clients:
                client.close()


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    folder, stores = tmp_path_factory.mktemp("replicas"), Stores()
    stores.start()
    try:
        shared = stores.new_environment()
        with simulator() as base_url:
            config = CONFIG.format(base_url=base_url)
            first = RunningGateway(folder / "first", config, **shared)
            second = RunningGateway(folder / "second", config, **shared)
            with first, second:
                pair = Pair([first, second])
                yield pair
                pair.close()
    finally:
        stores.close()


def begun(client: httpx.Client, path: str, body: dict) -> Iterator[str]:
    """The id of a stream's first event, while the stream goes on."""
    with client.stream("POST", path, json=body) as answer:
        lines = answer.iter_lines()
        first = next(json.loads(line[6:]) for line in lines if line.startswith("data: "))
        yield first["response"]["id"]
        assert list(lines)


def test_an_id_is_known_at_the_other_gateway_at_once_and_to_its_team_only(pair):
    (here, there), theirs = pair.clients["mine"], pair.clients["theirs"]
    for _ in range(10):
        for response_id in begun(here, "/responses", {**BODY, "stream": True}):
            chained = {**BODY, "previous_response_id": response_id}
            # Passed upstream, which may not know it before it has ended.
            assert there.get(f"/responses/{response_id}").headers["x-headgate-upstream"] == "provider"
            for client in theirs:
                unknown = unknown_like(response_id)
                refused = client.post("/responses", json=chained)
                of_unknown = client.post("/responses", json={**chained, "previous_response_id": unknown})
                assert told(refused, response_id) == told(of_unknown, unknown)
                assert refused.status_code == 404
        assert there.post("/responses", json=chained).status_code == 200


def test_items_are_known_at_the_other_gateway(pair):
    (here, there), theirs = pair.clients["mine"], pair.clients["theirs"]
    item = here.post("/responses", json=BODY).json()["output"][-1]["id"]
    body = {**BODY, "input": [{"type": "item_reference", "id": item}, {"role": "user", "content": "a"}]}
    assert here.post("/responses", json=body).status_code == 200
    assert there.post("/responses", json=body).status_code == 200
    assert [client.post("/responses", json=body).status_code for client in theirs] == [404, 404]


class World:
    """What ``samples`` asks for: an object of mine."""

    def __init__(self, client: httpx.Client) -> None:
        self.mine = self
        self._client = client

    def make(self, _kind: str) -> str:
        return self._client.post("/responses", json=BODY).json()["id"]


@pytest.mark.quiet
def test_foreign_and_unknown_take_equally_long(pair):
    """What the first gateway has seen, Redis and the ledger know, and the second has not heard of."""
    there = pair.clients["theirs"][1]
    found = []
    for _ in range(TRIES):
        ask = samples(
            World(pair.clients["mine"][0]),
            lambda object_id: there.post("/responses", json={**BODY, "previous_response_id": object_id}),
            "response",
        )
        found.append(mann_whitney_p(*ask))
        if found[-1] > P_LEAST:
            return
    pytest.fail(f"p = {found}")
