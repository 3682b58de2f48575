"""The live feed of one real gateway: what is shown, to whom, and for how long."""

from __future__ import annotations

import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import httpx
import pytest

from app.core.money import usd_text
from tests.e2e.live.screen import LIVE, OWN, Screen, until
from tests.fakes.gateway import RunningGateway
from tests.fakes.people import People, url_of

CONFIG = """
upstreams:
  simulator: {kind: simulator}
  nowhere: {base_url: "http://127.0.0.1:9/v1", api_key: sk-canary-upstream}
models:
  - {match: "nowhere", upstream: nowhere}
  - {match: "*", upstream: simulator}
prices:
  - {model: "sim-*", input_per_mtok_usd: 2, output_per_mtok_usd: 8}
cache: {mode: deterministic}
server: {drain_delay_s: 3}
"""
ADMIN_TOKEN = "hg-admin-environment-of-the-tests"
SEEN_S_MAX = 1.0
REVOKED_S_MAX = 8.0
SECRET_PROMPT = "the canary sings at midnight"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    with RunningGateway(tmp_path_factory.mktemp("live"), CONFIG) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def people(gateway) -> People:
    return People(url_of(gateway))


def admin(gateway: RunningGateway) -> dict[str, str]:
    return {"authorization": f"Bearer {gateway.first_run['admin_token']}"}


def token(gateway: RunningGateway, role: str, team_id: str | None = None) -> dict:
    body = {"name": f"{role}-{time.monotonic_ns()}", "role": role, **({"team_id": team_id} if team_id else {})}
    answer = httpx.post(f"{gateway.url}/admin/api/v1/tokens", json=body, headers=admin(gateway))
    assert answer.status_code in {200, 201}, answer.text
    return answer.json()


def bearer(text: str) -> dict[str, str]:
    return {"authorization": f"Bearer {text}"}


def body_of(text: str, *, stream: bool = True, **more) -> dict:
    return {"model": "sim-large", "input": text, "stream": stream, **more}


class Asked:
    """A stream that is being read, until it ends or its client leaves."""

    def __init__(self, gateway: RunningGateway, key: dict[str, str], directives: str, **more) -> None:
        self.request_id = ""
        self._leaves = threading.Event()
        self._begun = threading.Event()
        body = body_of(f"[[sim: {directives}]] {SECRET_PROMPT}", **more)
        self._thread = threading.Thread(target=self._run, args=(f"{gateway.base_url}/responses", body, key))
        self._thread.start()

    def _run(self, url: str, body: dict, key: dict[str, str]) -> None:
        with httpx.stream("POST", url, json=body, headers=key, timeout=30) as answer:
            self.request_id = answer.headers["x-headgate-request-id"]
            self._begun.set()
            for _ in answer.iter_bytes():
                if self._leaves.is_set():
                    return

    def wait(self) -> None:
        assert self._begun.wait(30)

    def leave(self) -> None:
        self._leaves.set()
        self._thread.join(10)

    def end(self) -> None:
        self._thread.join(30)


@pytest.mark.quiet
def test_a_request_is_seen_to_wait_to_stream_and_to_end_with_its_cost(gateway):
    with Screen(gateway.port, admin(gateway)) as screen:
        assert screen.headers["content-type"].startswith("text/event-stream")
        assert screen.headers["cache-control"] == "no-store"
        asked = Asked(gateway, gateway.headers, "first_ms=900 tokens=60 pace_ms=40")
        assert until(lambda: screen.in_flight) < SEEN_S_MAX + 0.5
        (flight,) = screen.in_flight.values()
        assert (flight["state"], flight["model"], flight["upstream"]) == ("waiting", "sim-large", "simulator")
        assert (flight["team"]["name"], flight["key"]["name"], flight["stream"]) == ("default", "default", True)
        assert flight["worker"].endswith("/0")
        until(lambda: flight["state"] == "streaming" and flight["output_tokens"] > 0)
        until(lambda: screen.count["in_flight"] == 1)
        asked.end()
        assert until(lambda: asked.request_id in screen.finished) < SEEN_S_MAX
        row = screen.finished[asked.request_id]
        assert (row["outcome"], row["status"], row["output_tokens"]) == ("completed", 200, 60)
        assert float(row["cost_usd"]) > 60 * 8e-6
        assert row["first_byte_ms"] >= 800
        assert row["took_ms"] > row["first_byte_ms"]
        until(lambda: screen.count["in_flight"] == 0)
        assert screen.in_flight == {}
        until(lambda: any(one["request_id"] == asked.request_id for one in gateway.records()))
        record = next(one for one in gateway.records() if one["request_id"] == asked.request_id)
        (entry,) = record["entries"]
        assert (row["input_tokens"], row["output_tokens"]) == (entry["input_tokens"], entry["output_tokens"])
        assert row["cost_usd"] == usd_text(entry["cost_nanousd"])
        assert row["response_id"] == record["response_id"]


def test_whatever_way_out_a_request_takes_it_is_not_in_flight_any_more(gateway):
    with Screen(gateway.port, admin(gateway)) as screen:
        key = gateway.headers
        left = Asked(gateway, key, "tokens=60 pace_ms=50")
        left.wait()
        left.leave()
        for directives in ("error=500", "error=429", "cut=head", "html", "cut_after=3", "fail_after=2"):
            httpx.post(
                f"{gateway.base_url}/responses", json=body_of(f"[[sim: {directives}]] x", stream=False), headers=key
            )
        httpx.post(f"{gateway.base_url}/responses", json=body_of("x") | {"model": "nowhere"}, headers=key)
        refused = httpx.post(f"{gateway.base_url}/responses", json={"model": 7}, headers=key)
        assert refused.status_code == 400
        # Hits: a stream, a whole answer; and those that join a call in flight.
        for stream in (True, False):
            same = body_of("[[sim: tokens=5]] the same", stream=stream, temperature=0, store=False)
            for _ in range(2):
                assert httpx.post(f"{gateway.base_url}/responses", json=same, headers=key).status_code == 200
        until(lambda: left.request_id in screen.finished and not screen.in_flight)
        joint = body_of("[[sim: first_ms=2500 tokens=5]] joint", temperature=0, store=False)
        with ThreadPoolExecutor(3) as pool:
            answers = [
                pool.submit(httpx.post, f"{gateway.base_url}/responses", json=joint, headers=key) for _ in range(3)
            ]
            until(lambda: screen.count.get("in_flight") == 3)
            caches = sorted(answer.result().headers["x-headgate-cache"] for answer in answers)
        assert caches == ["joined", "joined", "miss"]
        until(lambda: screen.count.get("in_flight") == 0 and not screen.in_flight)
        assert screen.finished[left.request_id]["outcome"] == "disconnected"
        assert refused.headers["x-headgate-request-id"] not in screen.finished
        assert {row["cache"] for row in screen.finished.values()} >= {"hit", "miss", "joined", "bypass"}
        assert screen.dropped == 0
    assert gateway.metrics()["headgate_in_flight"] == 0


def test_a_burst_is_at_most_fifty_events_a_second_and_its_count_is_true(gateway):
    with Screen(gateway.port, admin(gateway)) as screen:
        until(lambda: screen.count)
        known = set(screen.finished)
        body = body_of("[[sim: tokens=1]] x", stream=False)

        def ask(count: int) -> int:
            done = 0
            with httpx.Client(timeout=30) as client:
                for _ in range(count):
                    done += client.post(f"{gateway.base_url}/responses", json=body, headers=gateway.headers).is_success
            return done

        began_s = time.monotonic()
        with ThreadPoolExecutor(8) as pool:
            asked = sum(pool.map(ask, [125] * 8))
        took_s = time.monotonic() - began_s
        assert asked == 1000
        until(lambda: len(set(screen.finished) - known) + screen.dropped == asked)
        assert screen.dropped > 0
        assert screen.busiest_rate() <= 50
        until(lambda: screen.count["in_flight"] == 0 and not screen.in_flight)
        print(f"{asked / took_s:.0f} requests a second, {screen.dropped} not shown one by one")


def test_nothing_of_what_is_said_reaches_the_feed(gateway):
    with Screen(gateway.port, admin(gateway)) as screen:
        asked = Asked(gateway, gateway.headers, "tokens=30 pace_ms=20")
        asked.end()
        until(lambda: asked.request_id in screen.finished)
        assert SECRET_PROMPT not in screen.text
        assert gateway.key not in screen.text
        assert "sk-canary" not in screen.text


def test_a_lead_sees_its_team_and_a_key_itself(gateway, people):
    mine, theirs = people.key(), people.key()
    colleague = people.key(team_id=mine.team_id)
    lead = bearer(token(gateway, "lead", mine.team_id)["token"])
    with (
        Screen(gateway.port, lead) as of_lead,
        Screen(gateway.port, mine.headers, OWN) as own,
        Screen(gateway.port, bearer(token(gateway, "viewer")["token"])) as of_viewer,
        Screen(gateway.port, admin(gateway), team=theirs.team_id) as of_team,
    ):
        asked = [Asked(gateway, key.headers, "tokens=40 pace_ms=40") for key in (mine, colleague, theirs)]
        for one in asked:
            one.wait()
        ids = [one.request_id for one in asked]
        until(lambda: set(ids) <= set(of_viewer.in_flight))
        until(lambda: set(of_lead.in_flight) == set(ids[:2]) and set(own.in_flight) == {ids[0]})
        until(lambda: set(of_team.in_flight) == {ids[2]})
        until(lambda: (of_lead.count["in_flight"], own.count["in_flight"], of_team.count["in_flight"]) == (2, 1, 1))
        assert own.in_flight[ids[0]]["worker"] is None
        for one in asked:
            one.end()
        until(lambda: set(ids[:2]) <= set(of_lead.finished) and ids[0] in own.finished and ids[2] in of_team.finished)
        assert set(own.finished) == {ids[0]}
        for foreign in (colleague.id, theirs.id, theirs.team_id, ids[1], ids[2]):
            assert foreign not in own.text
        for foreign in (theirs.id, theirs.team_id, ids[2]):
            assert foreign not in of_lead.text
    assert Screen(gateway.port, lead, team=theirs.team_id).status == 404
    assert Screen(gateway.port, mine.headers).status == 401
    assert Screen(gateway.port, admin(gateway), OWN).status == 401
    assert Screen(gateway.port, {}).status == 401


def test_what_let_it_in_is_looked_at_again_and_again(gateway, people):
    made = token(gateway, "viewer")
    key = people.key()
    with httpx.Client(base_url=gateway.url) as browser:
        signed_in = browser.post("/admin/api/v1/session", json={"credential": token(gateway, "admin")["token"]})
        assert signed_in.status_code == 200
        cookie = {"cookie": f"headgate_session={browser.cookies['headgate_session']}"}
        with (
            Screen(gateway.port, bearer(made["token"])) as by_token,
            Screen(gateway.port, cookie) as by_session,
            Screen(gateway.port, key.headers, OWN) as by_key,
            Screen(gateway.port, admin(gateway)) as stays,
        ):
            until(lambda: all(screen.events for screen in (by_token, by_session, by_key, stays)))
            began_s = time.monotonic()
            httpx.delete(f"{gateway.url}/admin/api/v1/tokens/{made['id']}", headers=admin(gateway)).raise_for_status()
            csrf = {"x-headgate-csrf": signed_in.json()["csrf"]}
            assert browser.delete("/admin/api/v1/session", headers=csrf).status_code == 204
            _revoke(gateway, key.id)
            for screen in (by_token, by_session, by_key):
                assert screen.ended.wait(REVOKED_S_MAX + 5)
                assert screen.ended_s - began_s < REVOKED_S_MAX
            assert not stays.ended.is_set()


def _revoke(gateway: RunningGateway, key_id: str) -> None:
    url = f"{gateway.url}/admin/api/v1/keys/{key_id}"
    name = httpx.get(url, headers=admin(gateway)).json()["name"]
    body = {"name": name, "at_once": True}
    assert httpx.post(f"{url}/revoke", json=body, headers=admin(gateway)).is_success


def test_twenty_may_watch_and_who_leaves_makes_room(gateway):
    with ExitStack() as stack:
        screens = [stack.enter_context(Screen(gateway.port, admin(gateway))) for _ in range(20)]
        assert {screen.status for screen in screens} == {200}
        one_more = Screen(gateway.port, admin(gateway))
        assert one_more.status == 503
        assert int(one_more.headers["retry-after"]) > 0
        until(lambda: gateway.metrics()["headgate_live_viewers"] == 20)
        screens[0].leave()
        until(lambda: gateway.metrics()["headgate_live_viewers"] == 19)
        with Screen(gateway.port, admin(gateway)) as again:
            assert again.status == 200
    until(lambda: gateway.metrics()["headgate_live_viewers"] == 0)


@pytest.mark.quiet
def test_one_that_does_not_read_costs_the_others_nothing(gateway):
    deaf = socket.create_connection(("127.0.0.1", gateway.port))
    deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    head = f"GET {LIVE} HTTP/1.1\r\nhost: x\r\nauthorization: {admin(gateway)['authorization']}\r\n\r\n"
    deaf.sendall(head.encode())
    with deaf, Screen(gateway.port, admin(gateway)) as screen:
        for _ in range(5):
            asked = Asked(gateway, gateway.headers, "tokens=3")
            asked.end()
            assert until(lambda asked=asked: asked.request_id in screen.finished) < SEEN_S_MAX
    until(lambda: gateway.metrics()["headgate_live_viewers"] == 0)


def test_a_drain_ends_it_at_once(tmp_path):
    with (
        RunningGateway(tmp_path, CONFIG, HEADGATE_ADMIN_TOKEN=ADMIN_TOKEN) as gateway,
        Screen(gateway.port, bearer(ADMIN_TOKEN)) as screen,
    ):
        until(lambda: screen.events)
        began_s = time.monotonic()
        stopping = threading.Thread(target=gateway.stop)
        stopping.start()
        assert screen.ended.wait(30)
        assert screen.ended_s - began_s < 10
        stopping.join()
        assert gateway.process is not None
        assert gateway.process.returncode == 0
        assert not [line for line in gateway.log() if line["level"] == "error"]
