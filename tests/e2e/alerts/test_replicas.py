"""Two gateways on one PostgreSQL and one Redis: one of them tells, and when it is gone the other goes on."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.e2e.admin.people import Admin
from tests.e2e.alerts.hooks import OK, PRICED, Hook, alerting
from tests.fakes.fleet import Stores, wait_for
from tests.fakes.gateway import RunningGateway

TAKEN_OVER_S_MAX = 60.0
LOOKS_S = 35.0
"""Two looks of each."""
EXPIRIES_S_MAX = 90.0
"""Every fourth look is one at the keys."""


class Pair:
    def __init__(self, folder, stores: Stores, hook: Hook) -> None:
        environment = stores.new_environment()
        config = PRICED + alerting({"ops": hook.url})
        self.gateways = [RunningGateway(folder / name, config, **environment).start() for name in ("first", "second")]

    def close(self) -> None:
        for gateway in self.gateways:
            if gateway.process is not None and gateway.process.poll() is None:
                gateway.stop()

    @property
    def on_duty(self) -> list[RunningGateway]:
        """Whoever counts what fires."""
        return [
            gateway
            for gateway in self.gateways
            if gateway.process.poll() is None
            and sum(value for name, value in gateway.metrics().items() if name.startswith("headgate_alerts_firing{"))
        ]


@pytest.fixture(scope="module")
def stores() -> Iterator[Stores]:
    stores = Stores()
    stores.start()
    yield stores
    stores.close()


@pytest.fixture
def hook() -> Iterator[Hook]:
    with Hook(OK) as hook:
        yield hook


@pytest.fixture
def pair(tmp_path, stores, hook) -> Iterator[Pair]:
    pair = Pair(tmp_path, stores, hook)
    yield pair
    pair.close()


def expiring(pair: Pair, name: str, days: int) -> None:
    """A key that ends so soon, made at the first gateway that runs."""
    gateway = next(each for each in pair.gateways if each.process.poll() is None)
    with Admin(_first_run_of(pair, gateway)) as admin:
        team = admin.team(name)
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + days * 86_400 - 3600))
        admin.key(team, name, expires_at=at)


class _Known(RunningGateway):
    """A gateway whose admin token another's first run has made."""

    def __init__(self, gateway: RunningGateway, made_by: RunningGateway) -> None:
        self.__dict__.update(gateway.__dict__)
        self._made_by = made_by

    @property
    def first_run(self) -> dict[str, str]:
        return self._made_by.first_run


def _first_run_of(pair: Pair, gateway: RunningGateway) -> RunningGateway:
    return _Known(gateway, pair.gateways[0])


def names(hook: Hook) -> list[str]:
    return [event["data"]["key"]["name"] for event in hook.events("key.expiring")]


def test_one_of_two_tells_and_when_it_ends_in_order_the_other_goes_on(pair, hook):
    expiring(pair, "one", 1)
    wait_for(lambda: names(hook), EXPIRIES_S_MAX)
    (on_duty,) = wait_for(lambda: pair.on_duty)
    on_duty.stop()
    expiring(pair, "two", 1)
    # Keys are looked at once a minute, and the other one may have done so just before there was a second.
    wait_for(lambda: len(names(hook)) == 2, TAKEN_OVER_S_MAX + EXPIRIES_S_MAX)
    assert names(hook) == ["one", "two"]
    (other,) = wait_for(lambda: pair.on_duty)
    assert other is not on_duty


@pytest.mark.long
def test_one_that_is_killed_is_followed_within_a_minute_and_nothing_is_told_twice(pair, hook):
    expiring(pair, "one", 1)
    wait_for(lambda: names(hook), EXPIRIES_S_MAX)
    time.sleep(LOOKS_S)
    assert names(hook) == ["one"]
    (on_duty,) = pair.on_duty
    on_duty.kill()
    killed_s = time.monotonic()
    wait_for(lambda: [each for each in pair.on_duty if each is not on_duty], TAKEN_OVER_S_MAX)
    took_s = time.monotonic() - killed_s
    print(f"the other one took over after {took_s:.1f} s")
    assert took_s < TAKEN_OVER_S_MAX
    expiring(pair, "two", 1)
    wait_for(lambda: len(names(hook)) == 2, EXPIRIES_S_MAX)
    time.sleep(LOOKS_S)
    assert names(hook) == ["one", "two"]
