"""Random steps on both stores, compared with a model that remembers everything."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from app.cache.entry import Address, Entry, Look
from app.cache.memory import MemoryStore
from app.cache.redis import LEASE_MS, RedisStore
from app.store.redis import RedisClient
from tests.contract.cache.conftest import BYTES_MAX, Servers
from tests.contract.cache.harness import FORMS, Driver, TestClock, address, connected, entry
from tests.fakes.valkey import ValkeyServer

# Far apart, since on a server leases go on ageing while the test runs.
PAUSES_MS = (500, 1000, 60_000)
TTLS_MS = (0, 0, 60_000, 120_000)
SIZES = (1, 40, 5_000)
DERIVED = ("not asked", "none", "an entry")

numbers = st.sampled_from((1, 1, 1, 2))
forms = st.sampled_from(FORMS)
tokens = st.sampled_from(("", "a", "b"))
holders = st.sampled_from(("a", "b"))
ttls = st.sampled_from(TTLS_MS)
rarely = st.sampled_from((False, False, True))


class Model:
    """Entries and leases by address, also those that are over."""

    def __init__(self, clock: TestClock) -> None:
        self.clock = clock
        self.entries: dict[Address, Entry] = {}
        self.leases: dict[Address, tuple[str, int]] = {}

    def found(self, where: Address) -> Entry | None:
        kept = self.entries.get(where)
        return kept if kept is not None and kept.expires_at_ms > self.clock.now_ms() else None

    def holder(self, where: Address) -> str:
        token, ends_ms = self.leases.get(where, ("", 0))
        return token if ends_ms > self.clock.now_ms() else ""

    def look(self, where: Address, also: str, token: str, *, lease_only: bool) -> Look:
        for form in () if lease_only else (where.form, also):
            kept = self.found(Address(where.digest, form))
            if kept is not None:
                return Look(kept, form)
        if not token:
            return Look()
        holder = self.holder(where) or token
        if holder == token:
            self.leases[where] = (token, self.clock.now_ms() + LEASE_MS)
        return Look(holder=holder)

    def keep(self, where: Address, kept: Entry, token: str, derived: tuple[Address, Entry | None] | None) -> None:
        self.entries[where] = kept
        if derived is not None:
            other, told = derived
            self.entries.pop(other, None)
            if told is not None:
                self.entries[other] = told
        if token:
            self.release(where, token)

    def renew(self, where: Address, token: str) -> None:
        if self.holder(where) in {"", token}:
            self.leases[where] = (token, self.clock.now_ms() + LEASE_MS)

    def release(self, where: Address, token: str) -> None:
        if self.holder(where) == token:
            del self.leases[where]


class Steps(RuleBasedStateMachine):
    """``server`` is None for the store in memory."""

    server: ValkeyServer | None = None

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.clock = TestClock()
        self.client: RedisClient | None = None
        self.made = 0
        self.model = Model(self.clock)
        self.store: MemoryStore | RedisStore = MemoryStore(self.clock, BYTES_MAX)

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return self.runner.run(coroutine)

    @initialize()
    def connect(self) -> None:
        if self.server is not None:
            self.server.flush()
            self.store, self.client = self.run(connected(self.server, self.clock))
        self.driver = Driver(self.store, self.clock, self.server)

    @rule(number=numbers, form=forms, also=st.sampled_from(("", *FORMS)), token=tokens, lease_only=rarely)
    def look(self, number: int, form: str, also: str, token: str, lease_only: bool) -> None:
        where = address(number, form)
        found = self.run(self.store.look(where, also=also, token=token, lease_only=lease_only))
        assert found == self.model.look(where, also, token, lease_only=lease_only)

    @rule(number=numbers, form=forms, ttl=ttls, other=forms, derived=st.sampled_from(DERIVED), told=ttls, token=tokens)
    def keep(self, number: int, form: str, ttl: int, other: str, derived: str, told: int, token: str) -> None:
        where = address(number, form)
        second = None
        if derived != "not asked" and other != form:
            second = (address(number, other), self.entry(told) if derived == "an entry" else None)
        kept = self.entry(ttl)
        self.run(self.tell("keep", where, kept, token=token, derived=second))
        self.model.keep(where, kept, token, second)

    @rule(number=numbers, form=forms, ttl=ttls, token=holders, lease_only=rarely)
    def serve(self, number: int, form: str, ttl: int, token: str, lease_only: bool) -> None:
        """As a request does that finds nothing, and then as one that comes at the same time."""
        self.look(number, form, "", token, lease_only)
        self.keep(number, form, ttl, form, "not asked", 0, token)
        self.look(number, form, "", "b" if token == "a" else "a", lease_only)

    def entry(self, ttl_ms: int) -> Entry:
        self.made += 1
        body = b"%d" % self.made * SIZES[self.made % len(SIZES)]
        return entry(body, expires_at_ms=self.clock.now_ms() + ttl_ms)

    @rule(number=numbers, form=forms, token=holders)
    def renew(self, number: int, form: str, token: str) -> None:
        self.run(self.tell("renew", address(number, form), token))
        self.model.renew(address(number, form), token)

    @rule(number=numbers, form=forms, token=holders)
    def release(self, number: int, form: str, token: str) -> None:
        self.run(self.tell("release", address(number, form), token))
        self.model.release(address(number, form), token)

    @rule(pause=st.sampled_from(PAUSES_MS))
    def pause(self, pause: int) -> None:
        self.run(self.settled())
        self.driver.advance(pause)

    async def tell(self, name: str, *arguments: Any, **options: Any) -> None:
        """Within the loop, as the end of a request is, and nothing is waited for."""
        getattr(self.store, name)(*arguments, **options)

    async def settled(self) -> None:
        """What was sent has been carried out."""
        if self.client is not None:
            await self.client.command("", "PING")

    def teardown(self) -> None:
        if self.client is not None:
            self.run(self.store.close())
            self.run(self.client.close())
            assert (self.store.corrupt, self.store.lost) == (0, 0)
        self.runner.close()


@pytest.mark.parametrize("name", ["memory", "valkey", "redis-server"])
def test_every_answer_is_the_models(name: str, servers: Servers) -> None:
    class OnServer(Steps):
        server = None if name == "memory" else servers.get(name)

    run_state_machine_as_test(
        OnServer,
        settings=settings(
            max_examples=200 if name == "memory" else 60,
            stateful_step_count=50,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
