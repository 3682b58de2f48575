"""The live feed of several workers and replicas: whoever is asked shows all of them, and says where it cannot."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.e2e.live.screen import OWN, Screen, until
from tests.fakes.fleet import Fleet, Stores
from tests.fakes.gateway import SIMULATED, RunningGateway

SEEN_S_MAX = 1.0
STREAMS = 12
PROCESSES = 3
"""Two workers and their twin."""


@pytest.fixture(scope="module")
def stores():
    stores = Stores()
    stores.start()
    yield stores
    stores.close()


@pytest.fixture(scope="module")
def fleet(tmp_path_factory, stores):
    with Fleet(tmp_path_factory.mktemp("fleet"), stores) as fleet:
        yield fleet


@pytest.fixture(scope="module")
def twin(tmp_path_factory, fleet):
    """A replica on the same stores."""
    shared = {name: fleet.environment[name] for name in ("HEADGATE_DATABASE_URL", "HEADGATE_REDIS_URL")}
    with RunningGateway(tmp_path_factory.mktemp("twin"), SIMULATED, **shared) as gateway:
        yield gateway


def admin(fleet: Fleet) -> dict[str, str]:
    return {"authorization": f"Bearer {fleet.first_run['admin_token']}"}


def ask(gateway: RunningGateway, key: dict[str, str], text: str) -> httpx.Response:
    """On a connection of its own."""
    body = {"model": "sim-large", "input": text, "stream": True}
    return httpx.post(f"{gateway.base_url}/responses", json=body, headers=key, timeout=30)


def test_every_worker_is_seen_whichever_is_asked(fleet):
    with Screen(fleet.port, admin(fleet)) as screen, ThreadPoolExecutor(STREAMS) as pool:
        until(lambda: screen.count.get("processes", 0) >= fleet.size)
        asked = [pool.submit(ask, fleet, fleet.headers, "[[sim: tokens=60 pace_ms=60]] x") for _ in range(STREAMS)]
        until(lambda: len(screen.in_flight) == STREAMS)
        workers = {row["worker"].rpartition("/")[2] for row in screen.in_flight.values()}
        assert workers == {"0", "1"}
        until(lambda: screen.count["in_flight"] == STREAMS)
        assert screen.count["degraded"] is False
        ids = {one.result().headers["x-headgate-request-id"] for one in asked}
        until(lambda: ids <= set(screen.finished))
        until(lambda: screen.count["in_flight"] == 0 and not screen.in_flight)
        assert screen.dropped == 0


@pytest.mark.quiet
def test_a_request_through_one_replica_is_seen_at_the_other_within_a_second(fleet, twin):
    with Screen(twin.port, admin(fleet)) as screen, Screen(twin.port, fleet.headers, OWN) as own:
        until(lambda: screen.count.get("processes") == PROCESSES)
        for _ in range(3):
            known = set(screen.in_flight)
            asking = threading.Thread(target=ask, args=(fleet, fleet.headers, "[[sim: tokens=40 pace_ms=50]] x"))
            asking.start()
            assert until(lambda known=known: set(screen.in_flight) - known) < SEEN_S_MAX + 0.2
            asking.join()
        until(lambda: not screen.in_flight and not own.in_flight and screen.count["in_flight"] == 0)
        until(lambda: len(own.finished) >= 3)


def test_a_burst_through_both_is_bounded_and_its_count_is_true(fleet, twin):
    with Screen(twin.port, admin(fleet)) as screen:
        until(lambda: screen.count.get("processes") == PROCESSES)
        known = set(screen.finished)
        body = {"model": "sim-large", "input": "[[sim: tokens=1]] x"}

        def burst(gateway: RunningGateway) -> int:
            with httpx.Client(timeout=30) as client:
                url = f"{gateway.base_url}/responses"
                return sum(client.post(url, json=body, headers=fleet.headers).is_success for _ in range(100))

        with ThreadPoolExecutor(8) as pool:
            asked = sum(pool.map(burst, [fleet, twin] * 4))
        assert asked == 800
        until(
            lambda: len(set(screen.finished) - known) + screen.dropped == asked,
            tell=lambda: (len(set(screen.finished) - known), screen.dropped, [name for _, name in screen.events]),
        )
        assert screen.busiest_rate() <= 50
        until(lambda: screen.count["in_flight"] == 0 and not screen.in_flight)


def test_without_redis_the_own_process_is_shown_and_that_is_said_and_requests_go_on(fleet, twin, stores):
    try:
        with Screen(twin.port, admin(fleet)) as screen:
            until(lambda: screen.count.get("degraded") is False)
            stores.valkey.kill()
            until(lambda: screen.count["degraded"] is True)
            took_s = []
            for _ in range(10):
                began_s = time.monotonic()
                answer = ask(twin, fleet.headers, "[[sim: tokens=1]] x")
                took_s.append(time.monotonic() - began_s)
                assert answer.status_code == 200
                request_id = answer.headers["x-headgate-request-id"]
                until(lambda request_id=request_id: request_id in screen.finished)
            assert sorted(took_s)[5] < 2
            stores.valkey.start()
            until(lambda: screen.count["degraded"] is False)
            request_id = ask(fleet, fleet.headers, "[[sim: tokens=1]] x").headers["x-headgate-request-id"]
            until(lambda: request_id in screen.finished)
            until(lambda: screen.count["in_flight"] == 0 and not screen.in_flight)
    finally:
        stores.valkey.restore()
