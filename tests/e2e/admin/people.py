"""Those who look after a gateway: each with a client of the admin API."""

from __future__ import annotations

from typing import Any, Self

import httpx

from tests.fakes.gateway import RunningGateway

API = "/admin/api/v1"


class Person(httpx.Client):
    """Somebody with an admin token, or with nothing."""

    def __init__(self, gateway: RunningGateway, token: str | None = None) -> None:
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        super().__init__(base_url=f"{gateway.url}{API}", headers=headers, timeout=30)
        self.gateway = gateway

    def ask(self, method: str, path: str, expected: int | None = None, **options: Any) -> Any:
        """The JSON of an answer whose status must be the expected one (any success, where none is named)."""
        answer = self.request(method, path, **options)
        good = answer.is_success if expected is None else answer.status_code == expected
        assert good, (method, path, answer.status_code, answer.text)
        return answer.json() if answer.content else None

    def code(self, method: str, path: str, **options: Any) -> tuple[int, str]:
        """Status and code of a refusal."""
        answer = self.request(method, path, **options)
        assert answer.headers["content-type"] == "application/json", answer.text
        return answer.status_code, answer.json()["error"]["code"]


class Admin(Person):
    """The administrator of the first run."""

    def __init__(self, gateway: RunningGateway) -> None:
        super().__init__(gateway, gateway.first_run["admin_token"])

    def team(self, name: str, **members: Any) -> dict[str, Any]:
        return self.ask("POST", "/teams", json={"name": name, **members})

    def key(self, team: dict[str, Any], name: str, **members: Any) -> dict[str, Any]:
        return self.ask("POST", "/keys", json={"team_id": team["id"], "name": name, **members})

    def person(self, name: str, role: str, team: dict[str, Any] | None = None) -> Person:
        made = self.ask(
            "POST", "/tokens", json={"name": name, "role": role, "team_id": None if team is None else team["id"]}
        )
        return Person(self.gateway, made["token"])


class Browser(Person):
    """Somebody who signs in: known by a cookie."""

    csrf = ""

    @classmethod
    def signed_in(cls, gateway: RunningGateway, credential: str) -> Self:
        """Somebody who has signed in with an admin token or a key."""
        browser = cls(gateway)
        answer = httpx.post(f"{gateway.url}{API}/session", json={"credential": credential})
        assert answer.is_success, answer.text
        browser.cookies.update(answer.cookies)
        browser.csrf = answer.json()["csrf"]
        return browser

    @property
    def csrf_headers(self) -> dict[str, str]:
        return {"x-headgate-csrf": self.csrf}
