"""Faults that users report of gateways, by the name they are reported under: each must be impossible here."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack

import httpx
import pytest
from openai import OpenAI

from app.accounting.accounts import Shared
from app.core.calendar import FOREVER_MS
from app.core.clock import SystemClock
from app.core.ids import new_request_id
from app.core.money import usd_text
from app.core.records import BudgetWindow
from app.limits.limiter import Claim, Grant, Limit, MoneyWindow, Refusal
from app.limits.redis import RedisHot
from app.store.batch import write_batch
from app.store.database import Database
from app.store.migrate import upgrade
from app.store.redis import RedisClient
from tests.contract.store.samples import entry_of, record_of
from tests.e2e.doors import EMBEDDED, TOKEN_NANOUSD, Door, opened_door
from tests.e2e.test_replay import completed, created, event
from tests.fakes.gateway import RunningGateway
from tests.fakes.people import Key, People, rule
from tests.fakes.postgres import shared_server
from tests.fakes.upstream import JSON_HEAD, STREAM_HEAD, PlayedUpstream, chunked, config_for, whole
from tests.fakes.valkey import ValkeyServer

USAGE = {"input_tokens": 11, "output_tokens": 7, "total_tokens": 18}
OK = json.dumps({"id": "resp_1", "model": "gpt-4o", "status": "completed", "usage": USAGE}).encode()
DELTA = event("response.output_text.delta", sequence_number=1, delta="Hello, and a good deal more than that.")
HEAD = STREAM_HEAD.encode() + b"transfer-encoding: chunked\r\n\r\n"
PACE_S = 0.05


def piece(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def answered(**more) -> bytes:
    return json.dumps({**json.loads(OK), **more}).encode()


def error(status: int) -> list:
    body = b'{"error":{"message":"no","type":"t","param":null,"code":"x"}}'
    return whole(body, f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\n")


def failed(**more) -> bytes:
    return completed("response.failed", error={"code": "server_error", "message": "Sorry."}, **more)


PLAYS = {
    "stream": chunked([created(), DELTA, completed()]),
    "long": [HEAD + piece(created()), *[PACE_S, piece(DELTA)] * 12, piece(completed()) + b"0\r\n\r\n"],
    "lingering": [HEAD + piece(created()) + piece(DELTA) + piece(completed()), 1.0, b"0\r\n\r\n"],
    "slow json": [2.5, *whole(OK)],
    "failed with usage": chunked([created(), DELTA, failed()]),
    "failed without usage": chunked([created(), DELTA, failed(usage=None)]),
    "silence": ["hang"],
    "500": error(500),
    "502": error(502),
    "529": error(529),
    "lost": ["reset"],
    "lost in the body": [JSON_HEAD.encode() + b"content-length: 500\r\n\r\n{", "close"],
    "closing": [*whole(OK), "close"],
    "no usage": whole(answered(usage=None)),
    "another tier": whole(answered(model="gpt-5", service_tier="flex")),
    "another model": whole(answered(model="gpt-4o-mini")),
    "cache writes": whole(
        answered(model="gpt-5.6", usage={**USAGE, "input_tokens_details": {"cache_write_tokens": 4}})
    ),
    "incomplete": chunked([created(), DELTA, completed("response.incomplete", status="incomplete")]),
    "nameless": whole(answered(model="no-such-model")),
}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    def play(seen):
        return PLAYS[json.loads(seen.body)["user"]]

    timeouts = {"timeouts": "{connect_s: 5, first_byte_s: 4, idle_s: 5}"}
    with (
        PlayedUpstream(play) as upstream,
        RunningGateway(tmp_path_factory.mktemp("known"), config_for(upstream.base_url, **timeouts)) as gateway,
    ):
        gateway.upstream = upstream
        yield gateway


def body_of(play: str, **more) -> dict:
    return {"model": "gpt-4o", "input": "hi", "user": play} | more


def ask(gateway: RunningGateway, play: str, key: str | None = None, **more) -> httpx.Response:
    headers = {"authorization": f"Bearer {key or gateway.key}"}
    return httpx.post(f"{gateway.base_url}/responses", json=body_of(play, **more), headers=headers, timeout=60)


def records_of(gateway: RunningGateway, play: str, count: int) -> list[dict]:
    deadline = time.monotonic() + 30
    while True:
        found = [record for record in gateway.records() if record["end_user"] == play]
        if len(found) >= count or time.monotonic() > deadline:
            assert len(found) == count
            return found
        time.sleep(0.05)


def kinds(record: dict) -> list[str]:
    return [entry["kind"] for entry in record["entries"]]


# -- what was streamed ------------------------------------------------------------------------


def test_a_streamed_responses_call_without_a_row(gateway):
    with OpenAI(base_url=gateway.base_url, api_key=gateway.key, max_retries=0) as client:
        assert list(client.responses.create(**body_of("stream"), stream=True))[-1].type == "response.completed"
    (record,) = records_of(gateway, "stream", 1)
    assert (record["outcome"], kinds(record)) == ("completed", ["charge"])
    assert (record["entries"][0]["input_tokens"], record["entries"][0]["output_tokens"]) == (11, 7)


def test_a_disconnect_that_is_free(gateway):
    """The provider bills what it produced, whoever listened: the stream is drained, and charged by its usage."""
    with httpx.stream(
        "POST", f"{gateway.base_url}/responses", json=body_of("long", stream=True), headers=gateway.headers
    ) as answer:
        next(answer.iter_raw())
    (record,) = records_of(gateway, "long", 1)
    assert (record["outcome"], kinds(record)) == ("disconnected", ["charge"])
    assert record["entries"][0]["output_tokens"] == 7
    assert record["entries"][0]["cost_nanousd"] > 0


def test_a_disconnect_right_after_the_last_event_that_counts_as_one(gateway):
    """SDKs close the connection on ``response.completed``, before the body's own end."""
    with OpenAI(base_url=gateway.base_url, api_key=gateway.key, max_retries=0) as client:
        for _ in range(5):
            with client.responses.create(**body_of("lingering"), stream=True) as stream:
                assert next(each for each in stream if each.type == "response.completed")
                stream.response.close()
    records = records_of(gateway, "lingering", 5)
    assert {(record["outcome"], *kinds(record)) for record in records} == {("completed", "charge")}


def test_a_client_that_leaves_before_the_answer_and_is_billed_a_guess(gateway):
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{gateway.base_url}/responses", json=body_of("slow json"), headers=gateway.headers, timeout=1)
    (record,) = records_of(gateway, "slow json", 1)
    assert (record["outcome"], kinds(record)) == ("disconnected", ["charge"])
    assert record["entries"][0]["output_tokens"] == 7


@pytest.mark.parametrize(("play", "kind"), [("failed with usage", "charge"), ("failed without usage", "estimate")])
def test_a_response_that_failed_half_way_and_is_free(gateway, play, kind):
    assert failed(**({} if kind == "charge" else {"usage": None})) in ask(gateway, play, stream=True).content
    (record,) = records_of(gateway, play, 1)
    assert (record["outcome"], record["error_code"], kinds(record)) == ("failed", "server_error", [kind])
    assert record["entries"][0]["output_tokens"] >= 7
    assert record["entries"][0]["cost_nanousd"] > 0


def test_usage_that_is_only_taken_from_completed(gateway):
    assert b"response.incomplete" in ask(gateway, "incomplete", stream=True).content
    (record,) = records_of(gateway, "incomplete", 1)
    assert (record["outcome"], kinds(record), record["entries"][0]["output_tokens"]) == ("incomplete", ["charge"], 7)


@pytest.mark.parametrize("bound", ["drain_s_max: 0.3", "drain_usd_max: 0.0001"])
def test_a_drain_that_runs_up_a_bill(tmp_path, bound):
    steps = [HEAD + piece(created()), *[PACE_S, piece(DELTA)] * 400]
    with (
        PlayedUpstream(lambda _: steps) as upstream,
        RunningGateway(tmp_path, config_for(upstream.base_url, extra=f"stream: {{{bound}}}\n")) as gateway,
    ):
        began_s = time.monotonic()
        with httpx.stream(
            "POST", f"{gateway.base_url}/responses", json=body_of("x", stream=True), headers=gateway.headers
        ) as answer:
            next(answer.iter_raw())
        (record,) = gateway.records(wait_for=1)
        assert time.monotonic() - began_s < 15
        assert (record["outcome"], record["error_code"], kinds(record)) == (
            "disconnected",
            "drain_over",
            ["estimate"],
        )
        entry = record["entries"][0]
        assert 0 < entry["cost_lower_nanousd"] <= entry["cost_nanousd"] <= entry["cost_upper_nanousd"]
        deadline = time.monotonic() + 30
        while not upstream.lost and time.monotonic() < deadline:
            time.sleep(0.05)
        assert upstream.lost == 1, "the upstream was not told"


# -- billed twice, or for nothing -------------------------------------------------------------


def test_each_poll_of_a_response_that_is_billed(gateway):
    began_ms, before = time.time_ns() // 1_000_000, len(gateway.upstream.requests)
    polls = (("GET", "/responses/resp_unknown"), ("GET", "/responses"), ("POST", "/responses/resp_unknown/cancel"))
    for method, path in polls:
        polled = httpx.request(method, f"{gateway.base_url}{path}", headers=gateway.headers)
        assert polled.status_code in {404, 405}
    time.sleep(0.5)
    # Records of earlier calls may still come in.
    assert [record for record in gateway.records() if record["admitted_at_ms"] >= began_ms] == []
    assert len(gateway.upstream.requests) == before


@pytest.mark.parametrize(
    ("play", "status"),
    [("500", 500), ("502", 502), ("529", 529), ("silence", 504), ("lost", 502), ("lost in the body", 502)],
)
def test_a_retry_that_is_billed_twice(gateway, play, status):
    """What may have been billed is neither repeated here nor worth repeating to the SDK."""
    before = len(gateway.upstream.requests)
    with OpenAI(base_url=gateway.base_url, api_key=gateway.key) as client:
        answer = None
        try:
            client.responses.create(**body_of(play))
        except Exception as caught:
            answer = caught.response
    assert answer.status_code == status
    assert answer.headers["x-should-retry"] == "false"
    assert len(gateway.upstream.requests) == before + 1
    (record,) = records_of(gateway, play, 1)
    assert (record["attempts"], kinds(record)) == (1, ["estimate"])


def test_a_connection_that_was_closed_meanwhile_and_counts_as_an_attempt(gateway):
    """The upstream closes each connection after its answer; the next request finds out before it writes anything."""
    for _ in range(10):
        assert ask(gateway, "closing").status_code == 200
        time.sleep(0.02)
    records = records_of(gateway, "closing", 10)
    assert {(record["attempts"], *kinds(record)) for record in records} == {(1, "charge")}
    seen = [request for request in gateway.upstream.requests if b"closing" in request.body]
    assert [request.headers["x-client-request-id"] for request in seen] == [
        record["entries"][0]["attempt_id"] for record in records
    ]


def test_a_call_that_was_never_sent_and_is_billed(tmp_path):
    """An upstream that does not speak TLS where it should, and one whose name nobody knows."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        def no_tls() -> None:
            for _ in range(2):
                connection, _ = listener.accept()
                connection.recv(1000)
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                connection.close()

        thread = threading.Thread(target=no_tls, daemon=True)
        thread.start()
        urls = (f"https://127.0.0.1:{port}/v1", "http://no-such-upstream.invalid/v1")
        config = config_for(*urls).replace("models:", "models:\n  - {match: 'nameless', upstream: u1}")
        with RunningGateway(tmp_path, config) as gateway:
            for model in ("gpt-4o", "nameless"):
                answer = ask(gateway, "x", model=model)
                assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_unreachable")
            for record in gateway.records(wait_for=2):
                assert set(kinds(record)) == {"void"}
                assert sum(entry["cost_nanousd"] for entry in record["entries"]) == 0
        thread.join(30)


# -- by the wrong price -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("play", "asked", "nanousd"),
    [
        ("another tier", {"model": "gpt-5", "service_tier": "priority"}, 11 * 625 + 7 * 5000),
        ("another model", {"model": "gpt-4o"}, 11 * 150 + 7 * 600),
        ("cache writes", {"model": "gpt-5.6"}, 7 * 4000 + 4 * 5000 + 7 * 20_000),
    ],
)
def test_the_requested_tier_or_model_that_is_billed_and_cache_writes_that_are_dropped(gateway, play, asked, nanousd):
    assert ask(gateway, play, **asked).headers["x-headgate-cost-usd"] == usd_text(nanousd)
    (record,) = records_of(gateway, play, 1)
    assert (kinds(record), record["entries"][0]["cost_nanousd"]) == (["charge"], nanousd)


def test_an_unknown_model_that_is_free(gateway):
    """Nobody knows what it cost: that is said, and it is not zero."""
    unpriced = "headgate_unpriced_requests_total"
    before = sum(value for name, value in gateway.metrics().items() if name.startswith(unpriced))
    assert "x-headgate-cost-usd" not in ask(gateway, "nameless", model="no-such-model").headers
    (record,) = records_of(gateway, "nameless", 1)
    entry = record["entries"][0]
    assert (entry["kind"], entry["cost_nanousd"], entry["price_source"]) == ("charge", None, None)
    assert (entry["input_tokens"], entry["output_tokens"]) == (11, 7)
    assert sum(value for name, value in gateway.metrics().items() if name.startswith(unpriced)) == before + 1


def test_a_full_refund_where_usage_is_missing(gateway):
    assert ask(gateway, "no usage").status_code == 200
    (record,) = records_of(gateway, "no usage", 1)
    entry = record["entries"][0]
    assert entry["kind"] == "estimate"
    assert 0 < entry["cost_nanousd"] <= entry["cost_upper_nanousd"]


# -- budgets ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def door(tmp_path_factory):
    with opened_door(tmp_path_factory.mktemp("door"), EMBEDDED) as door:
        yield door


def spends(door: Door, key: Key, tokens: int, **more) -> int:
    return door.ask(key, use=(1, tokens), most=tokens, **more).status_code


def test_a_reservation_that_pins_a_budget_at_100_percent(door):
    """Calls without a maximum are held at all that there is; what they did not use is free when they end."""
    key = door.people.key(rule("money", 131_100 * TOKEN_NANOUSD, "total"))
    for _ in range(5):
        assert door.ask(key, most=None, use=(1, 1)).status_code == 200
    assert [spends(door, key, tokens) for tokens in (131_000, 96, 95)] == [200, 429, 200]


def test_a_budget_that_is_reset_by_the_rotation_of_its_key(door):
    key = door.people.key(rule("money", 10 * TOKEN_NANOUSD, "total"))
    assert spends(door, key, 10) == 200
    rotated = door.people.rotate(key)
    assert [spends(door, each, 1) for each in (key, rotated)] == [429, 429]


def test_a_free_model_that_a_spent_budget_blocks(door):
    key = door.people.key(rule("money", 10 * TOKEN_NANOUSD, "total"))
    assert [spends(door, key, 10), spends(door, key, 1)] == [200, 429]
    assert spends(door, key, 1000, model="free") == 200


REPLICAS = 8


async def test_a_budget_that_each_replica_seeds_by_increment():
    """All of them find it cold at the same moment, after a start and after a flush: what SQL says counts once."""
    url = await shared_server().create_database()
    database = await Database.open(url)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(shared_server().drop_database, url)
        stack.push_async_callback(database.close)
        await upgrade(database)
        server = stack.enter_context(ValkeyServer())
        key = await asyncio.to_thread(People(url).key, rule("money", 1000, "total"))
        spent = new_request_id(1)
        record = record_of(spent, team_id=key.team_id, key_id=key.id, entries=(entry_of(spent, cost_nanousd=600),))
        await write_batch(database, [record])
        replicas = [await replica(stack, server, database, f"replica-{number}") for number in range(REPLICAS)]
        limit = Limit(
            scope="key",
            scope_id=key.id,
            name="total",
            kind="money",
            maximum=1000,
            counter=key.limits[0],
            window="total",
        )
        window = BudgetWindow(key.limits[0], 0)

        def claim(nanousd: int) -> Claim:
            money = (MoneyWindow(window, FOREVER_MS),)
            return Claim(new_request_id(2), key.team_id, (limit,), 0, nanousd, nanousd, money)

        for _ in range(2):
            claims = [claim(50) for _ in replicas]
            decided = await asyncio.gather(*map(admit, replicas, claims))
            assert [type(each) for each in decided] == [Grant] * REPLICAS, "600 and eight times 50 are 1,000"
            told = await admit(replicas[0], claim(1))
            assert isinstance(told, Refusal) and told.is_held
            assert server.execute("HGET", f"hg:{{{key.team_id}}}:b:{key.limits[0]}:0", "c") == b"600"
            for each, asking in zip(replicas, claims, strict=True):
                each.void(asking)
            await lost(server, replicas)


async def replica(stack: AsyncExitStack, server: ValkeyServer, database: Database, name: str) -> Shared:
    client = RedisClient(server.url, timeout_s=20)
    await client.start()
    stack.push_async_callback(client.close)
    shared = Shared(name, RedisHot(client), database, SystemClock(), node="host", slot=0, on_state=lambda *_: None)
    await shared.start()
    stack.push_async_callback(shared.close)
    return shared


async def admit(shared: Shared, claim: Claim) -> Grant | Refusal:
    return await shared.admit(claim, lambda _: claim)


async def lost(server: ValkeyServer, replicas: list[Shared]) -> None:
    """Valkey forgets everything; until all of them have noticed and are open again."""
    server.flush()
    async with asyncio.timeout(60):
        for is_open in (False, True):
            while any(each.is_open is not is_open for each in replicas):
                await asyncio.sleep(0.02)


# -- limits -----------------------------------------------------------------------------------


def test_a_concurrency_counter_that_leaks_on_timeouts(gateway):
    made = gateway.json("keys", "create", "--team", "default", "--name", "three", "--concurrency", "3")

    def give_up(number: int) -> None:
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(
                f"{gateway.base_url}/responses",
                json=body_of("long" if number % 2 else "silence", stream=bool(number % 2), metadata={"leak": "x"}),
                headers={"authorization": f"Bearer {made['key']}"},
                timeout=httpx.Timeout(5, read=0.02),
            ).raise_for_status()

    for _ in range(2):
        with ThreadPoolExecutor(3) as pool:
            list(pool.map(give_up, range(3)))
        deadline = time.monotonic() + 30
        while gateway.metrics()["headgate_in_flight"] and time.monotonic() < deadline:
            time.sleep(0.05)
    with ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(lambda _: ask(gateway, "slow json", made["key"], metadata={"leak": "y"}), range(3)))
    assert [answer.status_code for answer in answers] == [200] * 3


@pytest.mark.parametrize("limit", ["tokens-per-minute", "concurrency"])
def test_a_429_without_retry_after(simulated, limit):
    maximum = "3000" if limit == "tokens-per-minute" else "1"
    made = simulated.json("keys", "create", "--team", "default", "--name", f"l-{limit}", f"--{limit}", maximum)
    headers = {"authorization": f"Bearer {made['key']}"}
    body = {"model": "sim-large", "input": "[[sim: first_ms=3000]] hi", "max_output_tokens": 2000}
    with ThreadPoolExecutor(2) as pool:
        answers = list(
            pool.map(lambda _: httpx.post(f"{simulated.base_url}/responses", json=body, headers=headers), range(2))
        )
    answers.sort(key=lambda answer: answer.status_code)
    assert [answer.status_code for answer in answers] == [200, 429]
    refused = answers[1]
    assert refused.json()["error"]["code"] == "rate_limit_exceeded"
    assert 0 < int(refused.headers["retry-after-ms"]) <= 61_000
    assert 0 < int(refused.headers["retry-after"]) <= 61


def test_a_drained_stream_that_no_longer_counts_as_concurrent(gateway):
    made = gateway.json("keys", "create", "--team", "default", "--name", "single", "--concurrency", "1")
    headers = {"authorization": f"Bearer {made['key']}"}
    with httpx.stream(
        "POST", f"{gateway.base_url}/responses", json=body_of("long", stream=True), headers=headers
    ) as answer:
        next(answer.iter_raw())
    assert ask(gateway, "drained", made["key"]).json()["error"]["code"] == "rate_limit_exceeded"
    deadline = time.monotonic() + 30
    while gateway.metrics()["headgate_in_flight"] and time.monotonic() < deadline:
        time.sleep(0.05)
    assert ask(gateway, "slow json", made["key"]).status_code == 200


def test_nothing_is_left_over(gateway):
    """Run last."""
    assert gateway.metrics()["headgate_in_flight"] == 0
    assert gateway.check_ledger()["ok"]
