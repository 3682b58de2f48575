"""A gateway as its users meet it, in both of its forms: embedded (memory and SQLite) and shared (Redis and
PostgreSQL). Behind it is an upstream that uses and costs what a request asks it to.

An output token of the model ``paid`` costs a tenth of a cent, its input nothing; ``free`` costs nothing, and
what has no name here has no price.
"""

from __future__ import annotations

import json
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import httpx
from typer.testing import CliRunner

from app.cli.commands import app
from tests.fakes.fleet import Stores, wait_for
from tests.fakes.gateway import RunningGateway
from tests.fakes.people import Key, People, url_of
from tests.fakes.upstream import PlayedUpstream, SeenRequest, Step, whole

EMBEDDED, SHARED = "embedded", "shared"
FORMS = (EMBEDDED, SHARED)
TOKEN_USD = 0.001
TOKEN_NANOUSD = 1_000_000
PRICES = """
prices:
  - {model: "paid*", input_per_mtok_usd: 0, output_per_mtok_usd: 1000}
  - {model: "free", input_per_mtok_usd: 0, output_per_mtok_usd: 0}
"""
ASK_S_MAX = 30.0
AT_ONCE_MAX = 8


def config_of(base_url: str, limited: Mapping[str, str], extra: str) -> str:
    """``limited``: further upstreams, each of which has the models of its name, and their limits."""
    upstreams = [f'  {name}: {{base_url: "{base_url}", limits: {limits}}}' for name, limits in limited.items()]
    models = [f"  - {{match: {name}, upstream: {name}}}" for name in limited]
    return "\n".join(
        [
            "upstreams:",
            f'  u0: {{base_url: "{base_url}", api_key: sk-canary}}',
            *upstreams,
            "models:",
            *models,
            '  - {match: "*", upstream: u0}',
            "server: {drain_delay_s: 0}",
            PRICES,
            extra,
        ]
    )


class Gates:
    """Answers that wait until they are let go, by name."""

    def __init__(self) -> None:
        self._open: defaultdict[str, threading.Event] = defaultdict(threading.Event)

    def open(self, name: str) -> None:
        self._open[name].set()

    def is_open(self, name: str) -> bool:
        return self._open[name].is_set()


class Door:
    """``ask`` as a client does; ``people`` are made behind its back."""

    def __init__(self, gateway: RunningGateway, upstream: PlayedUpstream, gates: Gates) -> None:
        self.gateway = gateway
        self.upstream = upstream
        self.people = People(url_of(gateway))
        self._gates = gates
        self._pool = ThreadPoolExecutor(AT_ONCE_MAX)
        self._holds = 0

    @property
    def base_url(self) -> str:
        return self.gateway.base_url

    def ask(
        self,
        key: Key,
        *,
        model: str = "paid",
        use: tuple[int, int] = (1, 1),
        most: int | None = 1,
        tags: str | None = None,
        hold: str = "",
        status: int = 200,
        **body: Any,
    ) -> httpx.Response:
        """A request that uses ``use`` (input and output tokens) and says that it needs ``most`` of output."""
        told = {"use": list(use), "hold": hold, "status": status}
        full = {"model": model, "input": "hi", "metadata": told, **body}
        if most is not None:
            full["max_output_tokens"] = most
        headers = key.headers if tags is None else {**key.headers, "x-headgate-tags": tags}
        return httpx.post(f"{self.base_url}/responses", json=full, headers=headers, timeout=ASK_S_MAX)

    @contextmanager
    def running(self, key: Key, **ask: Any) -> Iterator[Future[httpx.Response]]:
        """A request that runs for as long as this does; what it will have been answered."""
        self._holds += 1
        name = f"hold-{self._holds}"
        before = len(self.upstream.requests)
        answer = self._pool.submit(self.ask, key, hold=name, **ask)
        try:
            wait_for(lambda: len(self.upstream.requests) > before or answer.done())
            yield answer
        finally:
            self._gates.open(name)
            wait([answer], ASK_S_MAX)

    def command(self, *arguments: str) -> str:
        """What a command prints; it runs in this process, which starts faster than one of its own."""
        names = {name: value for name, value in self.gateway.environment.items() if name.startswith("HEADGATE_")}
        done = CliRunner().invoke(app, list(arguments), env={**names, "HEADGATE_DATA_DIR": str(self.gateway.data_dir)})
        assert done.exit_code == 0, done.output
        return done.stdout

    def json(self, *arguments: str) -> Any:
        return json.loads(self.command(*arguments, "--json"))

    def settled(self) -> None:
        """Wait until all that was answered is in the ledger."""
        wait_for(lambda: not self.gateway.metrics()["headgate_journal_records"])

    def limits(self, key: Key) -> list[dict[str, Any]]:
        """What ``headgate limits list`` shows of a key and its team."""
        self.settled()
        shown = self.json("limits", "list")
        team = self.people.name_of_team(key.team_id)
        return [row for row in shown if row["team"] == team]

    @contextmanager
    def twin(self, folder: Path) -> Iterator[Door]:
        """A further gateway on the same stores, with the same configuration."""
        shared = {name: self.gateway.environment[name] for name in ("HEADGATE_DATABASE_URL", "HEADGATE_REDIS_URL")}
        with RunningGateway(folder, self.gateway.config.read_text(), **shared) as gateway:
            twin = Door(gateway, self.upstream, self._gates)
            try:
                yield twin
            finally:
                twin.close()

    def close(self) -> None:
        self._pool.shutdown()


def play_with(gates: Gates) -> Callable[[SeenRequest], Iterator[Step]]:
    """What the upstream does with a request: it waits, and uses what it is told to."""

    def play(seen: SeenRequest) -> Iterator[Step]:
        if not seen.body:
            yield from whole(b'{"object":"list","data":[]}')
            return
        body = json.loads(seen.body)
        told = body.get("metadata") or {}
        while told.get("hold") and not gates.is_open(told["hold"]):
            yield 0.01
        if told.get("status", 200) != 200:
            head = f"HTTP/1.1 {told['status']} X\r\ncontent-type: application/json\r\n"
            yield from whole(b'{"error":{"message":"no","type":"t","param":null,"code":"x"}}', head)
            return
        used, made = told.get("use", (1, 1))
        usage = {"input_tokens": used, "output_tokens": made, "total_tokens": used + made}
        answer = {"id": "resp_1", "object": "response", "model": body["model"], "status": "completed", "usage": usage}
        yield from whole(json.dumps(answer).encode())

    return play


@contextmanager
def opened_door(
    folder: Path, form: str, extra: str = "", limited: Mapping[str, str] = MappingProxyType({})
) -> Iterator[Door]:
    gates = Gates()
    stores = Stores() if form == SHARED else None
    environment: dict[str, str] = {}
    if stores is not None:
        stores.start()
        environment = stores.new_environment()
    try:
        with (
            PlayedUpstream(play_with(gates)) as upstream,
            RunningGateway(folder, config_of(upstream.base_url, limited, extra), **environment) as gateway,
        ):
            door = Door(gateway, upstream, gates)
            try:
                yield door
            finally:
                door.close()
    finally:
        if stores is not None:
            stores.close()


def error_of(answer: httpx.Response) -> dict[str, Any]:
    assert set(answer.json()) == {"error"}
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error


def outcome(answer: httpx.Response) -> tuple[int, str | None]:
    """The status, and the code of an error."""
    return answer.status_code, None if answer.status_code == 200 else error_of(answer)["code"]
