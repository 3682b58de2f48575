"""A real gateway with teams, keys, people and calls, for the views that look after them."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import httpx

from tests.e2e.admin.people import Admin
from tests.fakes.gateway import RunningGateway

CONFIG = """
upstreams:
  simulator: {kind: simulator}
models:
  - {match: "*", upstream: simulator}
prices:
  - {model: "priced", input_per_mtok_usd: 4, output_per_mtok_usd: 20, effective_from: 2026-01-01}
alerts:
  targets:
    - {name: nowhere, webhook: {url: "http://127.0.0.1:9/hook", secret: "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz"}}
server: {drain_delay_s: 0}
"""
BAD = """<img src=x onerror="window.owned=1">"""
WAIT_S = 30


class Company:
    """Teams ``red`` and one whose name is markup; in each a key that was used; people of every role."""

    def __init__(self, folder: Path, config: str = CONFIG) -> None:
        self.gateway = RunningGateway(folder, config)
        self.teams: dict[str, dict[str, Any]] = {}
        self.keys: dict[str, dict[str, Any]] = {}
        self.credentials: dict[str, str] = {}
        """What each role signs in with; ``key`` is the secret of the key ``red bot``."""

    def __enter__(self) -> Self:
        self.gateway.start()
        self.admin = Admin(self.gateway)
        try:
            self._furnish()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _furnish(self) -> None:
        for name in ("red", BAD):
            self.teams[name] = self.admin.ask("POST", "/teams", json={"name": name})
            self.keys[name] = self.make_key(name, f"{name} bot", requests_per_minute=600)
        self.credentials = {"admin": self.gateway.first_run["admin_token"], "key": self.keys["red"]["key"]}
        for role in ("viewer", "lead"):
            more = {"team_id": self.teams["red"]["id"]} if role == "lead" else {}
            token = self.admin.ask("POST", "/tokens", json={"name": f"{role} of tests", "role": role, **more})
            self.credentials[role] = token["token"]
        for name in ("red", BAD):
            for model in ("priced", "without-a-price"):
                self.call(self.keys[name]["key"], model, tags="service=chat,env=prod")
        self.wait(lambda: self.admin.ask("GET", "/usage?by=model")["total"]["requests"] == len(self.keys) * 2)

    def __exit__(self, *_: object) -> None:
        self.admin.close()
        self.gateway.stop()

    def make_key(self, team: str, name: str, **members: Any) -> dict[str, Any]:
        return self.admin.ask("POST", "/keys", json={"team_id": self.teams[team]["id"], "name": name, **members})

    def call(self, key: str, model: str = "priced", *, tags: str = "", text: str = "Hello", expected: int = 200) -> str:
        """One call; its request id."""
        headers = {"authorization": f"Bearer {key}"} | ({"x-headgate-tags": tags} if tags else {})
        body = {"model": model, "input": text}
        answer = httpx.post(f"{self.gateway.base_url}/responses", json=body, headers=headers, timeout=30)
        assert answer.status_code == expected, answer.text
        return answer.headers["x-headgate-request-id"]

    def wait(self, is_so: Callable[[], bool]) -> None:
        deadline = time.monotonic() + WAIT_S
        while not is_so():
            assert time.monotonic() < deadline
            time.sleep(0.1)

    def record(self, request_id: str) -> dict[str, Any]:
        """A record, once the ledger has it."""
        self.wait(lambda: self.admin.get(f"/records/{request_id}").is_success)
        return self.admin.ask("GET", f"/records/{request_id}")
