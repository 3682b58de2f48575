"""Messages arrive at least once each, under one id, whatever their receivers do; on both databases, over sockets."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import time
from base64 import b64encode
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from sqlalchemy import update

from app.alerts import courier as carrying
from app.alerts.webhook import Sent
from app.store.alert_deliveries import Delivery, new_delivery_id, queue_deliveries
from app.store.alert_rules import list_alert_blocks
from app.store.tables import alert_deliveries
from tests.contract.alerts.watching import CLOCK, Ledger, Process, webhook
from tests.fakes.upstream import PlayedUpstream, SeenRequest

OK = [b"HTTP/1.1 204 No Content\r\n\r\n"]
FAILED = [b"HTTP/1.1 500 No\r\ncontent-length: 8\r\n\r\nnot now\n"]
GONE = [b"HTTP/1.1 410 Gone\r\ncontent-length: 0\r\n\r\n"]


@pytest.fixture
async def ledger(database):
    return Ledger(database)


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    monkeypatch.setattr(carrying, "RETRY_S", (0.05, 0.1, 0.1))


class Receiver:
    """A webhook's other end, that plays ``answers`` in turn, the last one for ever."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.server = PlayedUpstream(self._play)
        self.server.__enter__()

    def _play(self, _seen: SeenRequest) -> Any:
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    @property
    def port(self) -> int:
        return self.server.port

    @property
    def seen(self) -> list[SeenRequest]:
        return self.server.requests

    def close(self) -> None:
        self.server.__exit__()


@pytest.fixture
def receiver():
    made: list[Receiver] = []

    def make(*answers: Any) -> Receiver:
        made.append(Receiver(*answers))
        return made[-1]

    yield make
    for each in made:
        each.close()


async def queue(ledger: Ledger, target: str = "ops", number: int = 1, **changes: Any) -> list[Delivery]:
    now_ms = CLOCK.now_ms()
    given: dict[str, Any] = {
        "type": "upstream.down",
        "rule_id": "r1",
        "alert_id": "a1",
        "target": target,
        "created_at_ms": now_ms,
        "next_at_ms": now_ms,
    }
    made = [
        Delivery(**{"id": new_delivery_id(), "body": f'{{"number":{each}}}', **given, **changes})
        for each in range(number)
    ]
    async with ledger.database.transaction() as connection:
        assert await queue_deliveries(connection, made) == number
    return made


async def until(holds: Callable[[], Any], timeout_s: float = 30) -> None:
    async with asyncio.timeout(timeout_s):
        while not (await holds()):
            await asyncio.sleep(0.02)


async def states(ledger: Ledger) -> list[str]:
    return [each.state for each in await ledger.deliveries()]


async def on_duty(database: Any, *targets: Any, **more: Any) -> Process:
    process = Process(database, *targets, **more)
    await process.look()
    process.courier.start()
    return process


async def test_one_that_failed_comes_again_with_its_id_and_a_new_signature(ledger, database, receiver):
    hook = receiver(FAILED, ["close"], OK)
    process = await on_duty(database, webhook("ops", hook.port))
    (queued,) = await queue(ledger)

    async def is_delivered() -> bool:
        return await states(ledger) == ["delivered"]

    await until(is_delivered)
    (done,) = await ledger.deliveries()
    assert [(each.number, each.status) for each in done.attempts] == [(1, 500), (2, None), (3, 204)]
    assert done.attempts[0].error == "HTTP 500: not now"
    assert (done.attempts[2].error, done.next_at_ms) == (None, None)
    assert {seen.headers["webhook-id"] for seen in hook.seen} == {queued.id}
    assert {seen.body for seen in hook.seen} == {queued.body.encode()}
    for seen in hook.seen:
        signed = f"{queued.id}.{seen.headers['webhook-timestamp']}.".encode() + seen.body
        mac = b64encode(hmac.new(b"k" * 32, signed, hashlib.sha256).digest()).decode()
        assert seen.headers["webhook-signature"] == f"v1,{mac}"
    page = process.metrics.render().decode()
    assert 'headgate_alert_deliveries_total{result="delivered",target="ops"} 1.0' in page
    assert 'headgate_alert_deliveries_total{result="retried",target="ops"} 2.0' in page
    await asyncio.sleep(0.3)
    assert len(hook.seen) == 3
    await process.close()


async def test_it_is_given_up_after_the_last_try(ledger, database, receiver):
    hook = receiver(FAILED)
    process = await on_duty(database, webhook("ops", hook.port))
    await queue(ledger)

    async def is_over() -> bool:
        return await states(ledger) == ["failed"]

    await until(is_over)
    assert len(hook.seen) == len(carrying.RETRY_S) + 1
    await asyncio.sleep(0.3)
    assert len(hook.seen) == len(carrying.RETRY_S) + 1
    await process.close()


async def test_gone_is_gone_for_that_rule(ledger, database, receiver):
    hook = receiver(GONE)
    process = await on_duty(database, webhook("ops", hook.port))
    await queue(ledger, number=3)
    await queue(ledger, rule_id="r2")

    async def are_over() -> bool:
        return "waiting" not in await states(ledger)

    await until(are_over)
    assert await states(ledger) == ["gone"] * 4
    assert len(hook.seen) == 2, "one of each rule was enough"
    async with database.read() as connection:
        blocks = {(block.rule_id, block.target): block.reason for block in await list_alert_blocks(connection)}
    assert blocks == {("r1", "ops"): "HTTP 410", ("r2", "ops"): "HTTP 410"}
    await process.close()


async def test_a_slow_target_holds_up_nobody_else(ledger, database, receiver):
    slow, quick = receiver(["hang"]), receiver(OK)
    process = await on_duty(database, webhook("slow", slow.port), webhook("quick", quick.port), timeout_s=60)
    await queue(ledger, "slow", 2)
    await queue(ledger, "quick", 3)
    begun_s = time.monotonic()

    async def has_all() -> bool:
        return (await states(ledger)).count("delivered") == 3

    await until(has_all)
    assert time.monotonic() - begun_s < 30
    assert len(slow.seen) <= 1, "one after the other"
    await process.close()


async def test_a_target_that_the_file_no_longer_names_is_given_up(ledger, database):
    process = await on_duty(database)
    await queue(ledger)

    async def is_over() -> bool:
        return await states(ledger) == ["failed"]

    await until(is_over)
    (done,) = await ledger.deliveries()
    assert done.attempts[0].error == "the configuration has no such target any more"
    await process.close()


async def test_a_reload_sends_to_where_the_file_says_now(ledger, database, receiver):
    before, after = receiver(FAILED), receiver(OK)
    process = await on_duty(database, webhook("ops", before.port))
    await queue(ledger)

    async def was_tried() -> bool:
        return bool(before.seen)

    await until(was_tried)
    process.settings = Process(database, webhook("ops", after.port)).settings

    async def is_delivered() -> bool:
        return await states(ledger) == ["delivered"]

    await until(is_delivered)
    assert len(after.seen) == 1
    await process.close()


async def test_what_is_too_old_is_not_sent(ledger, database, receiver):
    hook = receiver(OK)
    process = await on_duty(database, webhook("ops", hook.port))
    await queue(ledger, created_at_ms=CLOCK.now_ms() - carrying.GIVE_UP_MS - 1000)

    async def is_over() -> bool:
        return await states(ledger) == ["failed"]

    await until(is_over)
    assert hook.seen == []
    await process.close()


async def test_whoever_dies_between_sending_and_writing_it_down_leaves_it_to_the_next(
    ledger, database, receiver, monkeypatch
):
    hook = receiver(OK)
    first = await on_duty(database, webhook("ops", hook.port))

    async def dies(*_: Any) -> None:
        raise asyncio.CancelledError

    monkeypatch.setattr(carrying, "note_try", dies)
    (queued,) = await queue(ledger)

    async def was_sent() -> bool:
        return bool(hook.seen)

    await until(was_sent)
    await first.close()
    monkeypatch.undo()
    second = await on_duty(database, webhook("ops", hook.port))
    await asyncio.sleep(0.2)
    assert len(hook.seen) == 1, "it may still be under way"
    async with database.transaction() as connection:
        await connection.execute(update(alert_deliveries).values(next_at_ms=1))

    async def is_delivered() -> bool:
        return await states(ledger) == ["delivered"]

    await until(is_delivered)
    assert [seen.headers["webhook-id"] for seen in hook.seen] == [queued.id] * 2
    assert (await ledger.deliveries())[0].attempts[0].number == 2
    await second.close()


async def test_only_who_is_on_duty_sends_and_two_that_think_so_send_once(ledger, database, receiver):
    hook = receiver(OK)
    first, idle = await on_duty(database, webhook("ops", hook.port)), Process(database, webhook("ops", hook.port))
    idle.courier.start()
    await ledger.end_lease()
    second = await on_duty(database, webhook("ops", hook.port))
    assert (first.watch.is_on_duty(), second.watch.is_on_duty(), idle.watch.is_on_duty()) == (True, True, False)
    queued = await queue(ledger, number=10)

    async def are_delivered() -> bool:
        return await states(ledger) == ["delivered"] * 10

    await until(are_delivered)
    assert sorted(seen.headers["webhook-id"] for seen in hook.seen) == sorted(each.id for each in queued)
    for process in (first, second, idle):
        await process.close()


@pytest.mark.parametrize(
    ("answer", "state", "status"), [(OK, "delivered", 204), (FAILED, "failed", 500), (GONE, "gone", 410)]
)
async def test_a_test_is_sent_now_once_by_anybody_and_is_in_the_log(ledger, database, receiver, answer, state, status):
    hook = receiver(answer)
    process = Process(database, webhook("ops", hook.port))
    done = await process.courier.test(process.settings.targets[0])
    assert [(each.id, each.state) for each in await ledger.deliveries()] == [(done.id, state)]
    assert [each.status for each in done.attempts] == [status]
    assert msgspec.json.decode(hook.seen[0].body)["type"] == "alert.test"
    async with database.read() as connection:
        assert await list_alert_blocks(connection) == [], "a test is of no rule"
    await process.close()


def test_the_waits_grow_with_some_jitter_and_a_receiver_may_ask_for_more(monkeypatch):
    monkeypatch.undo()
    assert carrying.RETRY_S == (5, 300, 1800, 7200, 18_000, 36_000)
    failed = Sent(1, is_taken=False, status=500)
    for tries, wait_s in enumerate(carrying.RETRY_S, 1):
        waits = {carrying.retry_in_ms(tries, failed) for _ in range(50)}
        assert len(waits) > 10
        assert all(wait_s * 1000 <= wait <= wait_s * 1200 for wait in waits)
    assert carrying.retry_in_ms(7, failed) is None
    assert carrying.retry_in_ms(1, Sent(1, is_taken=False, status=503, retry_after_s=120)) == 120_000
    assert sum(carrying.RETRY_S) * 1.2 * 1000 < carrying.GIVE_UP_MS
