"""Gateways under a little of everything, scraped by a real Prometheus: one embedded (memory and SQLite), and one of two
workers (Redis and PostgreSQL).
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.fakes.fleet import Fleet, Stores, wait_for
from tests.fakes.gateway import RunningGateway
from tests.fakes.people import Key, People, rule, url_of
from tests.fakes.prometheus import PrometheusServer
from tests.monitoring.shipped import CONFIGURATION, PROMETHEUS

TOKEN = "a-token-for-metrics"
SCRAPE_S = 1
ASK_S_MAX = 30.0
CONFIG = """
upstreams:
  sim: {kind: simulator}
  gone: {base_url: "http://127.0.0.1:9/v1", api_key: none}
models:
  - {match: "gone-*", upstream: gone}
  - {name: spare, targets: [{upstream: gone, model: a}, {upstream: sim, model: sim-mini, priority: 1}]}
  - {match: "kept-*", upstream: sim, cache: {mode: all}}
  - {match: "shadow-*", upstream: sim, cache: {mode: shadow}}
  - {match: "*", upstream: sim}
prices:
  - {model: "kept-*", input_per_mtok_usd: 2, output_per_mtok_usd: 8}
  - {model: "shadow-*", input_per_mtok_usd: 2, output_per_mtok_usd: 8}
server: {drain_delay_s: 0}
"""
BILLED = ("requests", "cost_usd", "input_tokens", "cached_tokens", "output_tokens", "reasoning_tokens", "saved_usd")
ENDINGS = (
    "error=503",
    "error=429",
    "error=400",
    "error=401",
    "cut=head",
    "cut_after=3",
    "usage=missing",
    "usage=negative",
    "fail_after=2",
)


class Clients:
    """Those of one gateway: two teams, and keys that their limits stop."""

    def __init__(self, gateway: RunningGateway) -> None:
        self.gateway = gateway
        people = People(url_of(gateway))
        self._search, self._support = people.key(), people.key()
        self._slow = people.key(rule("requests", 1, "minute"), team_id=self._search.team_id)
        self._poor = people.key(rule("money", 1, "month"), team_id=self._support.team_id)
        self._observed = people.key(rule("requests", 1, "hour", mode="observe"))
        self._rounds = 0

    def ask(self, key: Key, model: str, text: str, path: str = "responses", **more: Any) -> httpx.Response:
        body = {"model": model, ("messages" if path == "chat/completions" else "input"): text, **more}
        if path == "chat/completions":
            body["messages"] = [{"role": "user", "content": text}]
        return httpx.post(f"{self.gateway.base_url}/{path}", json=body, headers=key.headers, timeout=ASK_S_MAX)

    def leave(self, key: Key) -> None:
        """Begin a stream, and go away in its middle."""
        body = {"model": "sim-mini", "input": "[[sim: tokens=40 pace_ms=20]] a story", "stream": True}
        with httpx.stream("POST", f"{self.gateway.base_url}/responses", json=body, headers=key.headers) as answer:
            next(answer.iter_bytes())

    def play(self) -> None:
        """A round of everything, of which the figures are no matter."""
        self._rounds += 1
        for number in range(4):
            for key in (self._search, self._support):
                self.ask(key, "sim-mini", f"hello {number}", stream=number % 2 == 0)
        self.ask(self._search, "sim-embedding", "hello", "embeddings")
        self.ask(self._search, "sim-reasoning", "hello", "chat/completions")
        for model in ("kept-a", "shadow-a"):
            for _ in range(3):
                self.ask(self._search, model, f"round {self._rounds}", temperature=0)
        with ThreadPoolExecutor(2) as two:
            joined = f"[[sim: first_ms=300]] together {self._rounds}"
            list(two.map(lambda _: self.ask(self._search, "kept-b", joined, temperature=0), range(2)))
        for ending in ENDINGS:
            for stream in (False, True):
                self._ask_for(f"[[sim: {ending}]] hello", stream=stream)
        self.ask(self._search, "sim-mini", f"[[sim: error=503 times=1 tag={self._rounds}]] once more")
        self.ask(self._support, "gone-a", "hello")
        self.ask(self._support, "spare", "hello")
        self.ask(self._support, "mystery", "hello")
        for key in (self._slow, self._poor, self._observed):
            for _ in range(3):
                self.ask(key, "sim-mini", "hello", max_output_tokens=16)
        wrong = Key("", "", "sk-hg-nobody")
        self.ask(wrong, "sim-mini", "hello")
        httpx.get(f"{self.gateway.base_url}/models", headers=self._search.headers)
        self.leave(self._support)

    def _ask_for(self, text: str, *, stream: bool) -> None:
        try:
            self.ask(self._support, "sim-mini", text, stream=stream)
        except httpx.TransportError:
            assert "cut" in text, text

    @property
    def instance(self) -> str:
        """What Prometheus calls the gateway."""
        return f"127.0.0.1:{self.gateway.port}"

    def settled(self) -> None:
        """Wait until all that was asked is in the ledger."""
        wait_for(lambda: self.page()["headgate_journal_records"] == self.page()["headgate_in_flight"] == 0, 60)

    def page(self) -> dict[str, float]:
        lines = [line.rpartition(" ") for line in self.text().splitlines() if not line.startswith("#")]
        return {name: float(value) for name, _, value in lines}

    def families(self) -> set[str]:
        """The metrics on its page, as their types are told; a histogram is one."""
        return set(re.findall(r"^# TYPE (\S+)", self.text(), re.MULTILINE))

    def text(self) -> str:
        headers = {"authorization": f"Bearer {TOKEN}"}
        return httpx.get(f"{self.gateway.url}/metrics", headers=headers).raise_for_status().text

    def billed(self) -> dict[str, Decimal]:
        """The sums of ``headgate usage``."""
        rows = self.gateway.usage()
        return {name: sum((Decimal(row[name] or 0) for row in rows), Decimal(0)) for name in BILLED}


class World:
    """``clients``: those of each gateway."""

    def __init__(self, clients: tuple[Clients, ...], prometheus: PrometheusServer) -> None:
        self.clients = clients
        self.prometheus = prometheus

    def sum_of(self, clients: Clients, metric: str) -> float:
        return self.prometheus.value(f'sum({metric}{{instance="{clients.instance}"}})')

    def wait_for_scrapes(self, count: int = 2) -> None:
        """Wait until each target was scraped that often, and the rules were evaluated on it."""
        began_s = time.time()
        wait_for(lambda: self._scraped_since(began_s) >= count and self._evaluated_since(began_s + count), 30)

    def _scraped_since(self, began_s: float) -> float:
        counted = f"min(count_over_time(up[{max(1, round(time.time() - began_s))}s]))"
        return next((value for _, value in self.prometheus.query(counted)), 0)

    def _evaluated_since(self, began_s: float) -> bool:
        groups = self.prometheus.read("rules")["groups"]
        return all(_seconds(group["lastEvaluation"]) > began_s for group in groups)


def _seconds(stamp: str) -> float:
    # Nanoseconds are more than Python reads.
    return yaml.safe_load(f"{stamp[:19].replace('T', ' ')}Z").timestamp()


def configuration(folder: Path, targets: list[str]) -> str:
    """The shipped one, for these targets, in a hurry."""
    shipped = yaml.safe_load(CONFIGURATION.read_text())
    shipped["global"] |= {
        "scrape_interval": f"{SCRAPE_S}s",
        "scrape_timeout": f"{SCRAPE_S}s",
        "evaluation_interval": f"{SCRAPE_S}s",
    }
    shipped["rule_files"] = [str(PROMETHEUS / pattern) for pattern in shipped["rule_files"]]
    (scrape,) = shipped["scrape_configs"]
    token = folder / "metrics_token"
    token.write_text(TOKEN)
    scrape["authorization"]["credentials_file"] = str(token)
    scrape["static_configs"] = [{"targets": targets}]
    return yaml.safe_dump(shipped)


@contextmanager
def opened_world(folder: Path, *, whole: bool) -> Iterator[World]:
    """Two rounds in both forms, or one in the embedded alone."""
    with ExitStack() as stack:
        # Only beyond loopback is the token asked for.
        token = {"HEADGATE_METRICS_TOKEN": TOKEN}
        gateways = [RunningGateway(folder / "embedded", CONFIG, "--host", "0.0.0.0", **token)]
        if whole:
            stores = Stores()
            stores.start()
            stack.callback(stores.close)
            gateways.append(Fleet(folder / "fleet", stores, 2, CONFIG))
        clients = tuple(Clients(stack.enter_context(gateway)) for gateway in gateways)
        text = configuration(folder, [each.instance for each in clients])
        world = World(clients, stack.enter_context(PrometheusServer(folder / "prometheus", text)))
        world.wait_for_scrapes(1)
        for _ in range(2 if whole else 1):
            with ThreadPoolExecutor(len(clients)) as at_once:
                list(at_once.map(Clients.play, clients))
            world.wait_for_scrapes()
        for each in clients:
            each.settled()
        world.wait_for_scrapes(1)
        yield world
