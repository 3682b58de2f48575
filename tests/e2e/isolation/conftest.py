"""Two teams with every family, one gateway, one upstream that knows nothing of teams."""

from __future__ import annotations

import secrets
from typing import Any

import httpx
import pytest

from app.edge.endpoints import FAMILIES as NAMES
from app.edge.table import FAMILIES
from tests.fakes.anything import Anything
from tests.fakes.gateway import RunningGateway

CONFIG = """
upstreams:
  provider: {{base_url: "{base_url}"}}
models:
  - {{match: "*", upstream: provider}}
server: {{drain_delay_s: 0}}
"""
CREATORS = {
    endpoint.creates: endpoint
    for family in reversed(FAMILIES)
    for endpoint in reversed(family.endpoints)
    if endpoint.creates
}
"""By kind, an endpoint that makes one."""


class Team:
    """One team's client, and what it has made."""

    def __init__(self, gateway: RunningGateway, upstream: Anything, name: str) -> None:
        team = gateway.json("teams", "create", "--name", name)["id"]
        key = gateway.json("keys", "create", "--team", team, "--name", "k", "--endpoints", ",".join(NAMES))["key"]
        self.client = httpx.Client(base_url=gateway.base_url, headers={"authorization": f"Bearer {key}"}, timeout=30)
        self.key = key
        self._upstream = upstream
        self._made: dict[str, str] = {}

    def make(self, kind: str) -> str:
        """An object of its own."""
        if kind == "item":
            return self._listed("/responses/{response}", "msg_", "output")
        if kind == "model":
            return self._listed("/fine_tuning/jobs/{job}", "ft:gpt-4o:acme::", "fine_tuned_model")
        endpoint = CREATORS[kind]
        path = self.fill(endpoint.path)
        if "json" in endpoint.body:
            body = {"model": "gpt-4o", "input": "hi", "messages": [], "prompt": "a", "store": True}
            if kind == "batch":
                body = {"input_file_id": self.make("file"), "endpoint": "/v1/responses", "completion_window": "24h"}
            answer = self.client.post(path, json=body)
        else:
            data = {"purpose": "user_data"}
            answer = self.client.post(path, files={"file": ("a.txt", b"a")}, data=data)
        assert answer.status_code == 200, (kind, answer.text)
        return str(answer.json()["id"])

    def _listed(self, path: str, prefix: str, member: str) -> str:
        """What an answer about something of its own makes known as its own."""
        name = f"{prefix}{secrets.token_hex(8)}"
        self._upstream.more = {member: [{"id": name}] if member == "output" else name}
        try:
            assert self.client.get(self.fill(path)).status_code == 200
        finally:
            self._upstream.more = {}
        return name

    def forget_made(self) -> None:
        """What was made for paths so far may be gone."""
        self._made.clear()

    def fill(self, path: str, **given: str) -> str:
        """A path with objects of its own in it, but for those ``given``."""
        parts = []
        for part in path.split("/"):
            if part.startswith("{"):
                kind = part[1:-1]
                if kind not in given and kind not in self._made:
                    self._made[kind] = self.make(kind)
                parts.append(given[kind] if kind in given else self._made[kind])
            else:
                parts.append("sub_1" if part.startswith("<") else part)
        return "/".join(parts)


class World:
    """Two teams behind one gateway."""

    def __init__(self, gateway: RunningGateway, upstream: Anything) -> None:
        self.gateway = gateway
        self.upstream = upstream
        self.mine = Team(gateway, upstream, "mine")
        self.theirs = Team(gateway, upstream, "theirs")

    def close(self) -> None:
        self.mine.client.close()
        self.theirs.client.close()


def unknown_like(object_id: str) -> str:
    """An id of the same form that nobody has."""
    return object_id[:-8] + secrets.token_hex(4)


def told(answer: httpx.Response, object_id: str) -> tuple[int, dict[str, str], str]:
    """All that a client can see of an answer, without what differs between any two."""
    own = {"date", "x-request-id", "x-headgate-request-id"}
    headers = {name: value for name, value in answer.headers.items() if name not in own}
    return answer.status_code, headers, answer.text.replace(object_id, "ID")


def put(value: Any, place: str, object_id: str) -> Any:
    """``value`` with the id in its place."""
    if isinstance(value, dict):
        return {name: put(member, place, object_id) for name, member in value.items()}
    if isinstance(value, list):
        return [put(member, place, object_id) for member in value]
    return object_id if value == place else value


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    with Anything() as upstream:
        config = CONFIG.format(base_url=upstream.base_url)
        with RunningGateway(tmp_path_factory.mktemp("isolation"), config) as gateway:
            world = World(gateway, upstream)
            yield world
            world.close()


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    """Clients of two teams, with the simulator behind the gateway."""
    with RunningGateway(tmp_path_factory.mktemp("simulated")) as gateway:
        other = gateway.json("teams", "create", "--name", "theirs")["id"]
        keys = [gateway.key, gateway.json("keys", "create", "--team", other, "--name", "k")["key"]]
        clients = [
            httpx.Client(base_url=gateway.base_url, headers={"authorization": f"Bearer {key}"}, timeout=30)
            for key in keys
        ]
        yield clients
        for client in clients:
            client.close()
