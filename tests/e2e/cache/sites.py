"""A gateway with a cache, in both of its forms: embedded (memory and SQLite) and shared (Redis and PostgreSQL).

Behind it are the simulator, whose log says what was called, and an upstream that plays bytes (models ``played…``).
Models that begin otherwise have a cache of their own kind; see ``CONFIG``.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, Self

import uvloop
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection
from typer.testing import CliRunner

from app.auth.keys import mint
from app.cli.commands import app
from app.core.identity import LimitRule
from app.simulator.app import Simulator
from app.simulator.log import Served, ServedLog
from app.simulator.server import running_simulator
from app.store.keys import create_key
from app.store.tables import entries, records
from app.store.teams import create_team
from tests.e2e.cache import wire
from tests.e2e.cache.wire import CHAT, RESPONSES, Told
from tests.e2e.doors import SHARED
from tests.e2e.test_reload import reload
from tests.fakes.fleet import Stores
from tests.fakes.gateway import RunningGateway
from tests.fakes.people import Key, People, now_ms, url_of
from tests.fakes.upstream import PlayedUpstream, SeenRequest, Step, whole

EVERY = "*"
CONFIG = """
upstreams:
  # Faults are called for here, and no upstream is to be left alone for them.
  sim: {{base_url: "{simulator}", breaker: off}}
  played: {{base_url: "{played}", breaker: off}}
models:
  - {{match: "played*", upstream: played}}
  - {{match: "off-*", upstream: sim, cache: off}}
  - {{match: "all-*", upstream: sim, cache: {{mode: all}}}}
  - {{match: "own-*", upstream: sim, cache: {{scope: key}}}}
  - {{match: "global-*", upstream: sim, cache: {{mode: all, scope: global}}}}
  - {{match: "brief-*", upstream: sim, cache: {{ttl_s: 1}}}}
  - {{match: "shadow-*", upstream: sim, cache: {{mode: shadow}}}}
  - {{match: "*", upstream: sim}}
prices:
  - {{model: "*", input_per_mtok_usd: 2, cached_per_mtok_usd: 0.5, output_per_mtok_usd: 8}}
server: {{drain_delay_s: 0}}
"""
ALL_PLAYED = """
upstreams:
  played: {{base_url: "{played}"}}
models:
  - {{match: "*", upstream: played}}
prices:
  - {{model: "*", input_per_mtok_usd: 2, cached_per_mtok_usd: 0.5, output_per_mtok_usd: 8}}
server: {{drain_delay_s: 0}}
"""
INPUT_NANOUSD, CACHED_NANOUSD, OUTPUT_NANOUSD = 2_000, 500, 8_000
SOON_S_MAX = 30.0
KNOWN_OR_LATE = ((400, "invalid_request"), (503, "ledger_unavailable"))
"""What an empty request is answered: nothing was asked for."""
KEYS_AT_ONCE = 30
_words = itertools.count(1)


def cost_nanousd(served: Served) -> int:
    """What a call costs, by what the simulator says that it used."""
    usage = served.usage
    plain = usage.input_tokens - usage.cached_tokens
    return plain * INPUT_NANOUSD + usage.cached_tokens * CACHED_NANOUSD + usage.output_tokens * OUTPUT_NANOUSD


def word() -> str:
    """One that no other request has."""
    return f"word{next(_words):05}"


def body_of(text: str, *, path: str = RESPONSES, model: str = "sim-large", **more: Any) -> dict[str, Any]:
    """A request whose answer may be kept, unless ``more`` says otherwise."""
    if path == CHAT:
        return {"model": model, "messages": [{"role": "user", "content": text}], "temperature": 0, **more}
    return {"model": model, "input": text, "temperature": 0, "store": False, **more}


def soon(holds: Callable[[], Any]) -> None:
    """Wait until it holds; it does within a moment."""
    deadline = time.monotonic() + SOON_S_MAX
    while not holds():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.01)


def metrics_at(port: int) -> dict[str, float]:
    """Every sample by its name and labels."""
    connection = HTTPConnection("127.0.0.1", port, timeout=SOON_S_MAX)
    try:
        connection.request("GET", "/metrics")
        lines = connection.getresponse().read().decode().splitlines()
    finally:
        connection.close()
    samples = [line.rpartition(" ") for line in lines if not line.startswith("#")]
    return {name: float(value) for name, _, value in samples}


class SimulatedUpstream:
    """The simulator on a thread of its own."""

    def __init__(self) -> None:
        self.log = ServedLog()
        self.base_url = ""
        # As the simulator has it on its own; asyncio's would leave Nagle's algorithm on.
        self._loop = uvloop.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._serve())
        finally:
            self._loop.close()

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        async with running_simulator(Simulator(log=self.log), port=0) as at:
            self.base_url = f"{at.base_url.rstrip('/').removesuffix('/v1')}/v1"
            self._ready.set()
            await self._stop.wait()


class Crowd(People):
    """People who come many at once: a transaction for each takes longer than most tests."""

    def keys(self, count: int) -> list[Key]:
        """New keys, each of a team of its own."""

        async def work(connection: AsyncConnection) -> list[Key]:
            made = []
            for _ in range(count):
                number, minted = next(self._numbers), mint()
                team = await create_team(connection, name=f"team-{number}", now_ms=now_ms())
                row = await create_key(
                    connection,
                    team_id=team.id,
                    name=f"key-{number}",
                    secret_id=minted.id,
                    digest=minted.digest,
                    now_ms=now_ms(),
                )
                made.append(Key(row.id, team.id, minted.text))
            return made

        return self._change(work)

    def entries_of(self, key_id: str) -> list[dict[str, Any]]:
        """The entries of a key's records, in the order of its requests."""
        asked = select(entries).join(records, records.c.request_id == entries.c.request_id)
        return self._read(asked.where(records.c.key_id == key_id).order_by(entries.c.attempt_id))


Play = Callable[[SeenRequest], Any]


class Site:
    """``ask`` as a client does; ``people`` are made behind its back; ``calls`` are what the simulator served."""

    def __init__(
        self,
        form: str,
        gateway: RunningGateway,
        simulator: SimulatedUpstream,
        played: PlayedUpstream,
        stores: Stores | None,
    ) -> None:
        self.form = form
        self.gateway = gateway
        self.simulator = simulator
        self.played = played
        self.stores = stores
        self.people = Crowd(url_of(gateway))
        self.gateways = [gateway]
        self._spare_keys: list[Key] = []

    @property
    def port(self) -> int:
        return self.gateway.port

    def key(self, *rules: LimitRule, **more: Any) -> Key:
        """A new key that every gateway knows already: of those that are new only a few are looked up in a second."""
        if rules or more:
            made = self.people.key(*rules, **more)
            self._make_known(made)
            return made
        if not self._spare_keys:
            self._spare_keys = self.people.keys(KEYS_AT_ONCE)
            self._make_known(self._spare_keys[-1])
        return self._spare_keys.pop()

    def _make_known(self, key: Key) -> None:
        """Whoever looks one up takes in all that is new."""
        for gateway in self.gateways:

            def is_known(port: int = gateway.port) -> bool:
                told = asyncio.run(wire.ask(port, key.text, {}))
                # A busy machine may look it up for longer than a request waits.
                assert (told.status, told.code) in KNOWN_OR_LATE
                return told.status == 400

            soon(is_known)

    # -- requests -------------------------------------------------------------------------------

    def ask(
        self,
        key: Key,
        text: str = "",
        *,
        path: str = RESPONSES,
        headers: Mapping[str, str] | None = None,
        body: dict[str, Any] | None = None,
        **more: Any,
    ) -> Told:
        """The answer to a request with ``body``, else one that ``body_of`` makes."""
        full = body_of(text, path=path, **more) if body is None else body
        lines = [f"{name}: {value}" for name, value in (headers or {}).items()]
        return asyncio.run(wire.ask(self.port, key.text, full, path=path, headers=lines))

    def ask_at_once(self, *asked: tuple[Key, dict[str, Any]], path: str = RESPONSES) -> list[Told]:
        async def work() -> list[Told]:
            return await asyncio.gather(*(wire.ask(self.port, key.text, body, path=path) for key, body in asked))

        return asyncio.run(work())

    def serves(self, name: str, play: Play) -> None:
        """The upstream that plays bytes answers requests for the model ``name`` so."""
        self.played.play.plays[name] = play  # type: ignore[attr-defined] # a Playbill

    # -- what came of them ----------------------------------------------------------------------

    @contextmanager
    def calls(self) -> Iterator[list[Served]]:
        """What the simulator served for as long as this did; filled at its end."""
        before = self.simulator.log.last_number
        found: list[Served] = []
        yield found
        found += self.simulator.log.find(since=before)

    async def called(self, since: int, count: int = 1) -> None:
        """Wait until the simulator has had so many calls after the one with this number."""
        async with asyncio.timeout(SOON_S_MAX):
            while self.simulator.log.last_number < since + count:
                await asyncio.sleep(0.01)

    def is_own(self, told: Told) -> bool:
        """Whether the answer is of a call that was made for this very request."""
        served = self.simulator.log.find(wanted_id=f"{told.request_id}.1")
        return [one.response_id for one in served] == [told.id]

    def records(self, key: Key, count: int) -> list[dict[str, Any]]:
        """All records of the key, of which there have to be ``count``, in the order of its requests."""
        found: list[dict[str, Any]] = []

        def are_there() -> bool:
            nonlocal found
            self.settled()
            found = self.people.records_of(key.id)
            return len(found) >= count

        soon(are_there)
        assert len(found) == count
        return found

    def bill(self, key: Key, count: int) -> list[dict[str, Any]]:
        """The same records, each with what its one entry says as well."""
        found = self.records(key, count)
        lines = self.people.entries_of(key.id)
        assert [line["request_id"] for line in lines] == [row["request_id"] for row in found], "an entry each"
        return [{**line, **row} for line, row in zip(lines, found, strict=True)]

    def settled(self) -> None:
        """Wait until all that was answered is in the ledger."""
        soon(lambda: not self.metrics()["headgate_journal_records"])

    def metrics(self) -> Counter[str]:
        """Of this gateway and its twins together."""
        told: Counter[str] = Counter()
        for gateway in self.gateways:
            told.update(metrics_at(gateway.port))
        return told

    def in_flight(self) -> float:
        """Of this gateway."""
        return metrics_at(self.port)["headgate_in_flight"]

    def command(self, *arguments: str) -> str:
        """What a command prints; it runs in this process, which starts faster than one of its own."""
        names = {name: value for name, value in self.gateway.environment.items() if name.startswith("HEADGATE_")}
        done = CliRunner().invoke(app, list(arguments), env={**names, "HEADGATE_DATA_DIR": str(self.gateway.data_dir)})
        assert done.exit_code == 0, done.output
        return done.stdout

    def json(self, *arguments: str) -> Any:
        return json.loads(self.command(*arguments, "--json"))

    def check_ledger(self) -> None:
        self.settled()
        assert self.json("check", "--ledger")["ok"]

    @contextmanager
    def twin(self, folder: Path) -> Iterator[Site]:
        """A further gateway on the same stores and upstreams, with the same configuration."""
        names = ("HEADGATE_DATABASE_URL", "HEADGATE_REDIS_URL", "HEADGATE_CACHE_REDIS_URL")
        shared = {name: value for name, value in self.gateway.environment.items() if name in names}
        with RunningGateway(folder, self.gateway.config.read_text(), **shared) as gateway:
            self.gateways.append(gateway)
            yield Site(self.form, gateway, self.simulator, self.played, self.stores)


class Playbill:
    """What is played for which model, ``EVERY`` for those without a play of their own."""

    def __init__(self) -> None:
        self.plays: dict[str, Play] = {EVERY: lambda _seen: whole(b"{}")}

    def __call__(self, seen: SeenRequest) -> Iterator[Step]:
        if not seen.body:
            yield from whole(b'{"object":"list","data":[]}')
            return
        model = json.loads(seen.body)["model"]
        yield from (self.plays.get(model) or self.plays[EVERY])(seen)


@contextmanager
def opened_site(folder: Path, form: str, extra: str = "", config: str = CONFIG, **environment: str) -> Iterator[Site]:
    """``extra``: more of the configuration file."""
    stores = Stores() if form == SHARED else None
    if stores is not None:
        stores.start()
        environment = {**stores.new_environment(), **environment}
    try:
        with SimulatedUpstream() as simulator, PlayedUpstream(Playbill()) as played:
            told = config.format(simulator=simulator.base_url, played=played.base_url) + extra
            with RunningGateway(folder, told, **environment) as gateway:
                yield Site(form, gateway, simulator, played, stores)
    finally:
        if stores is not None:
            stores.close()


@contextmanager
def told_in_the_file(sites: Sequence[Site], cache: str) -> Iterator[None]:
    """Their files have ``cache`` for as long as this lasts."""
    before = sites[0].gateway.config.read_text()
    try:
        for site in sites:
            reload(site.gateway, f"{before}cache: {cache}\n")
            assert last_reload(site) == "configuration_reloaded"
        yield
    finally:
        for site in sites:
            reload(site.gateway, before)


def last_reload(site: Site) -> str:
    return [line["event"] for line in site.gateway.log() if line["event"].startswith("configuration_re")][-1]
