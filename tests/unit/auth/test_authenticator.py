"""The change feed: it survives whatever the ledger throws, and a late reader brings nothing back."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest

from app.auth import authenticator as module
from app.auth.authenticator import Authenticator
from app.auth.keys import mint
from app.core.clock import SystemClock
from app.core.errors import InvalidAPIKey
from app.store.cache import CacheClear
from app.store.changes import Changes
from app.store.rows import KeyRow, SecretRow, TeamRow

MINTED = mint()
SECRET = SecretRow(MINTED.id, MINTED.id, MINTED.digest, 0, None, None)


def key(*, revoked: bool, changed: int, endpoints: tuple[str, ...] | None = None) -> KeyRow:
    return KeyRow(MINTED.id, "t1", "k", (), None, endpoints, "shadow", None, 5 if revoked else None, 0, changed)


class Feed:
    """Stands for the ledger: its change, its rows, and how long they take to be read."""

    def __init__(self) -> None:
        self.change = 1
        self.revoked = False
        self.secret_revoked = False
        self.of_key: tuple[str, ...] | None = None
        self.of_team: tuple[str, ...] | None = None
        self.cleared: list[CacheClear] = []
        self.failure: Exception | None = None
        self.delays = [0.0]

    @asynccontextmanager
    async def read(self):
        yield None

    async def current_change(self, _):
        if self.failure is not None:
            raise self.failure
        return self.change

    async def rows_since(self, _, since):
        secret = SecretRow(MINTED.id, MINTED.id, MINTED.digest, 0, None, 5) if self.secret_revoked else SECRET
        cleared = [clear for clear in self.cleared if clear.change > since]
        team = TeamRow("t1", "team", (), 0, 1, self.of_team)
        one = key(revoked=self.revoked, changed=self.change, endpoints=self.of_key)
        seen = Changes(self.change, [team], [one], [secret], cleared)
        await asyncio.sleep(self.delays.pop(0) if self.delays else 0)
        return seen


@pytest.fixture
def feed(monkeypatch):
    feed = Feed()
    monkeypatch.setattr(module, "current_change", feed.current_change)
    monkeypatch.setattr(module, "rows_since", feed.rows_since)
    monkeypatch.setattr(module, "POLL_INTERVAL_S", 0.01)
    return feed


async def test_the_feed_goes_on_after_any_failure(feed):
    states = []
    one = Authenticator(feed, SystemClock(), on_state=lambda up, reason: states.append((up, reason)))
    await one.start()
    try:
        assert (await one.authenticate(MINTED.text, "")).key_id == MINTED.id
        feed.failure = KeyError("anything")
        await asyncio.sleep(0.05)
        assert states == [(False, "KeyError")]
        feed.failure, feed.revoked, feed.change = None, True, 2
        await asyncio.sleep(0.05)
        assert states[-1] == (True, "")
        with pytest.raises(InvalidAPIKey):
            await one.authenticate(MINTED.text, "")
    finally:
        await one.close()


async def test_a_late_reader_does_not_bring_a_revoked_key_back(feed):
    one = Authenticator(feed, SystemClock(), on_state=lambda *_: None)
    feed.delays = [0.05, 0.0]
    late = asyncio.ensure_future(one._follow())
    await asyncio.sleep(0.01)
    feed.revoked, feed.change = True, 2
    await one._follow()
    await late
    await one._follow()
    with pytest.raises(InvalidAPIKey):
        await one.authenticate(MINTED.text, "")


class Request:
    revoked = False

    def revoke(self) -> None:
        self.revoked = True


async def test_a_revoked_key_lets_what_runs_end_and_a_revoked_secret_does_not(feed):
    one = Authenticator(feed, SystemClock(), on_state=lambda *_: None)
    await one._follow()
    request = Request()
    assert one.running.enter((await one.authenticate(MINTED.text, "")).secret_id, request)
    feed.revoked, feed.change = True, 2
    await one._follow()
    with pytest.raises(InvalidAPIKey):
        await one.authenticate(MINTED.text, "")
    assert not request.revoked
    feed.secret_revoked, feed.change = True, 3
    await one._follow()
    assert request.revoked
    assert not one.running.enter(MINTED.id, Request()), "one that was admitted before and is not under way yet"


async def test_clearings_of_the_cache_are_told_with_the_number_that_is_reached(feed):
    told = []
    one = Authenticator(
        feed,
        SystemClock(),
        on_state=lambda *_: None,
        on_cache_clears=lambda *each: told.append((list(each[0]), each[1])),
    )
    first, second = CacheClear("", "m", 1, 0), CacheClear("t1", "", 3, 0)
    feed.cleared = [first]
    await one._follow()
    await one._follow()
    assert told == [([first], 1)], "nothing is told twice"
    feed.change = 2
    await one._follow()
    assert told[1:] == [([], 2)], "the number alone, too"
    feed.cleared.append(second)
    feed.change = 3
    await one._follow()
    assert told[2:] == [([second], 3)]


async def test_a_clearing_that_could_not_be_taken_in_comes_again(feed):
    told = []

    def take(clears, change):
        told.append(change)
        if len(told) == 1:
            raise RuntimeError

    one = Authenticator(feed, SystemClock(), on_state=lambda *_: None, on_cache_clears=take)
    with pytest.raises(RuntimeError):
        await one._follow()
    await one._follow()
    assert told == [1, 1]


async def test_a_principal_has_its_keys_mode_of_the_cache(feed):
    one = Authenticator(feed, SystemClock(), on_state=lambda *_: None)
    await one._follow()
    assert (await one.authenticate(MINTED.text, "")).cache == "shadow"


@pytest.mark.parametrize(
    ("of_key", "of_team", "families"),
    [
        (None, None, None),
        (None, ("files",), ("files",)),
        (("responses",), ("files",), ("responses",)),
        (("responses",), ("*",), ("responses",)),
        ((), ("files",), ()),
        (("*",), None, ("*",)),
    ],
)
async def test_a_principal_has_its_keys_families_else_its_teams(feed, of_key, of_team, families):
    feed.of_key, feed.of_team = of_key, of_team
    one = Authenticator(feed, SystemClock(), on_state=lambda *_: None)
    await one._follow()
    assert (await one.authenticate(MINTED.text, "")).endpoints == families


async def test_a_burst_of_a_new_key_is_looked_up_once(feed, monkeypatch):
    looked = []

    async def find_secret(_, secret_id):
        looked.append(secret_id)
        await asyncio.sleep(0.02)
        return SECRET

    async def within(_seconds, work):
        return await work

    monkeypatch.setattr(module, "find_secret", find_secret)
    feed.within = within
    one = Authenticator(feed, SystemClock(), on_state=lambda *_: None)
    asked = [asyncio.create_task(one.authenticate(MINTED.text, "10.0.0.1")) for _ in range(300)]
    await asyncio.sleep(0.01)
    asked[0].cancel()
    found = await asyncio.gather(*asked, return_exceptions=True)
    assert isinstance(found[0], asyncio.CancelledError)
    assert {principal.secret_id for principal in found[1:]} == {MINTED.id}
    assert looked == [MINTED.id]
    assert not one._throttle._failures, "and nobody was wrong"
