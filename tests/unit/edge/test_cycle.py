"""One request and its answer, on a connection that only records."""

from __future__ import annotations

import asyncio
import logging

import pytest

from app.core.errors import NotFound, render
from app.core.exchange import Connection as ClientConnection
from app.edge.cycle import Cycle
from app.edge.protocol import ServerLimits, parse_head


class Transport:
    def __init__(self) -> None:
        self.writes: list[bytes] = []
        self.pending = 0

    def write(self, data: bytes) -> None:
        self.writes.append(data)

    def get_write_buffer_size(self) -> int:
        return self.pending


class Flow:
    def __init__(self) -> None:
        self.write_paused = False
        self.event = asyncio.Event()

    async def drain(self) -> None:
        await self.event.wait()


class Connection:
    def __init__(self) -> None:
        self.transport = Transport()
        self.flow = Flow()
        self.answers: list[Cycle] = []
        self.cuts: list[bool] = []
        self.small_rest = True

    def default_block(self, *, has_date: bool) -> bytes:
        return b"" if has_date else b"date: now\r\n"

    def rest_is_small(self, *, expects_continue: bool) -> bool:
        return self.small_rest and not expects_continue

    def want_body(self) -> None:
        pass

    def answered(self, cycle: Cycle) -> None:
        self.answers.append(cycle)

    def cut(self, *, reset: bool) -> None:
        self.cuts.append(reset)


def begin(line: bytes = b"GET / HTTP/1.1", *, has_body: bool = False, headers: bytes = b"") -> tuple[Cycle, Connection]:
    connection = Connection()
    head = parse_head(line + b"\r\nHost: t\r\n" + headers + b"\r\n", ServerLimits())
    return Cycle(connection, head, has_body=has_body), connection


def test_it_is_what_the_pipeline_takes_for_a_connection():
    cycle, _ = begin()
    connection: ClientConnection = cycle
    assert connection is cycle


def test_a_whole_answer_is_one_write():
    cycle, connection = begin()
    cycle.respond(200, [(b"x-a", b"1")], b"body")
    assert connection.transport.writes == [b"HTTP/1.1 200 OK\r\ndate: now\r\nx-a: 1\r\ncontent-length: 4\r\n\r\nbody"]
    assert connection.answers == [cycle]
    assert cycle.response_complete


def test_a_rendered_error_has_one_length():
    cycle, connection = begin()
    cycle.respond(*render(NotFound(), "id"))
    (written,) = connection.transport.writes
    assert written.count(b"content-length") == 1
    assert written.startswith(b"HTTP/1.1 404 Not Found\r\n")


def test_a_large_body_is_not_copied():
    cycle, connection = begin()
    body = b"x" * 100_000
    cycle.respond(200, [], body)
    assert connection.transport.writes[1] is body


def test_a_stream_is_one_chunk_for_each_write():
    cycle, connection = begin()
    cycle.start(200, [], b"one")
    cycle.write(b"")
    cycle.write(b"two")
    cycle.finish(b"three")
    assert connection.transport.writes == [
        b"HTTP/1.1 200 OK\r\ndate: now\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n",
        b"3\r\ntwo\r\n",
        b"5\r\nthree\r\n0\r\n\r\n",
    ]
    assert cycle.bytes_written == sum(map(len, connection.transport.writes))


@pytest.mark.parametrize(
    ("line", "status", "headers", "head_has", "body"),
    [
        (b"GET / HTTP/1.0", 200, [], b"connection: close", b"data"),
        (b"GET / HTTP/1.1", 200, [(b"content-length", b"4")], b"content-length: 4", b"data"),
        (
            b"GET / HTTP/1.1",
            200,
            [(b"transfer-encoding", b"gzip, chunked")],
            b"transfer-encoding: chunked",
            b"4\r\ndata\r\n0\r\n\r\n",
        ),
        (b"HEAD / HTTP/1.1", 200, [(b"content-length", b"99")], b"content-length: 99", b""),
        (b"HEAD / HTTP/1.1", 200, [], b"date: now", b""),
        (b"GET / HTTP/1.1", 204, [], b"204 No Content", b""),
        (b"GET / HTTP/1.1", 304, [(b"content-length", b"99")], b"content-length: 99", b""),
        (b"GET / HTTP/1.1", 999, [], b"HTTP/1.1 999 ", b"4\r\ndata\r\n0\r\n\r\n"),
        (b"GET / HTTP/1.1", 200, [(b"date", b"then"), (b"content-length", b"4")], b"date: then", b"data"),
    ],
)
def test_how_a_body_is_delimited(line, status, headers, head_has, body):
    cycle, connection = begin(line)
    cycle.start(status, headers)
    cycle.write(b"data")
    cycle.finish()
    head, _, rest = b"".join(connection.transport.writes).partition(b"\r\n\r\n")
    assert head_has in head
    assert rest == body
    assert head.count(b"date") == 1
    assert head.count(b"content-length") + head.count(b"transfer-encoding") <= 1
    assert connection.answers == [cycle]


def test_close_is_said_once():
    cycle, connection = begin(headers=b"Connection: close\r\n")
    cycle.respond(200, [(b"connection", b"close")], b"")
    assert connection.transport.writes[0].count(b"connection: close") == 1
    assert not cycle.keep_alive


@pytest.mark.parametrize("waiting", [False, True])
def test_an_unread_rest_that_cannot_be_read_away_closes(waiting):
    cycle, connection = begin(
        b"POST / HTTP/1.1", has_body=True, headers=b"Expect: 100-continue\r\n" if waiting else b""
    )
    connection.small_rest = waiting
    cycle.respond(401, [], b"")
    assert b"connection: close" in connection.transport.writes[0]


@pytest.mark.parametrize("header", [(b"x", b"a\r\nb: c"), (b"x", b"a\n"), (b"x\r", b"a"), (b"date", b"\r\n")])
def test_a_line_break_in_a_header_is_never_written(header):
    cycle, connection = begin()
    with pytest.raises(ValueError, match="line break"):
        cycle.respond(200, [header], b"")
    assert connection.transport.writes == []
    cycle.respond(500, [], b"")
    assert len(connection.answers) == 1


@pytest.mark.parametrize("written", [b"123", b"12345"])
def test_a_body_of_another_length_than_declared_is_cut(written):
    cycle, connection = begin()
    cycle.start(200, [(b"content-length", b"4")])
    with pytest.raises(RuntimeError):
        cycle.finish(written)
    assert connection.cuts == [False]
    assert connection.answers == []


def test_an_answer_has_one_start_and_one_end():
    cycle, _ = begin()
    for call in (lambda: cycle.write(b"x"), cycle.finish):
        with pytest.raises(RuntimeError):
            call()
    cycle.start(200, [])
    with pytest.raises(RuntimeError):
        cycle.respond(200, [])
    cycle.finish()
    for call in (lambda: cycle.write(b"x"), cycle.finish, lambda: cycle.start(200, [])):
        with pytest.raises(RuntimeError):
            call()


def test_after_the_client_has_gone_all_calls_do_nothing():
    cycle, connection = begin()
    cycle.lost()
    cycle.start(200, [])
    cycle.write(b"x")
    cycle.finish()
    cycle.finish()
    assert connection.transport.writes == []


def test_a_disconnect_is_told_once():
    cycle, _ = begin()
    told: list[int] = []
    cycle.on_disconnect(lambda: told.append(1))
    cycle.lost()
    cycle.lost()
    assert told == [1]
    assert cycle.disconnected
    cycle.on_disconnect(lambda: told.append(2))
    assert told == [1, 2]


def test_a_disconnect_after_the_end_is_not_told():
    cycle, _ = begin()
    told: list[int] = []
    cycle.on_disconnect(lambda: told.append(1))
    cycle.respond(200, [])
    cycle.lost()
    assert told == []


def test_an_abort_is_told_when_the_connection_is_lost():
    cycle, connection = begin(b"GET / HTTP/1.0")
    told: list[int] = []
    cycle.on_disconnect(lambda: told.append(1))
    cycle.start(200, [])
    cycle.abort()
    assert (connection.cuts, told, cycle.disconnected) == ([True], [], True)
    cycle.lost()
    assert told == [1]


async def test_drained_waits_for_the_client_as_long_as_it_reads():
    cycle, connection = begin()
    assert await cycle.drained(0.01)
    connection.flow.write_paused = True
    connection.transport.pending = 100

    async def reads() -> None:
        for pending in (80, 60, 40):
            await asyncio.sleep(0.04)
            connection.transport.pending = pending

    task = asyncio.create_task(reads())
    started = asyncio.get_running_loop().time()
    assert not await cycle.drained(0.05)
    assert asyncio.get_running_loop().time() - started > 0.12
    await task
    connection.flow.write_paused = False
    connection.flow.event.set()
    assert await cycle.drained(0.05)
    cycle.lost()
    assert not await cycle.drained(0.05)


async def test_receive_gives_the_body_then_the_disconnect():
    cycle, connection = begin(b"POST / HTTP/1.1", has_body=True, headers=b"Expect: 100-continue\r\n")
    waiting = asyncio.create_task(cycle.receive())
    await asyncio.sleep(0)
    assert connection.transport.writes == [b"HTTP/1.1 100 Continue\r\n\r\n"]
    assert not cycle.body_arrived([b"a", b"b"], done=False)
    assert await waiting == {"type": "http.request", "body": b"ab", "more_body": True}
    assert cycle.body_arrived([b"x" * 70_000], done=False)
    cycle.body_arrived([b""], done=True)
    assert (await cycle.receive())["more_body"] is False
    both = [asyncio.create_task(cycle.receive()) for _ in range(2)]
    await asyncio.sleep(0)
    cycle.lost()
    assert await asyncio.gather(*both) == [{"type": "http.disconnect"}] * 2


async def test_a_request_without_a_body_has_one_empty_part():
    cycle, _ = begin()
    assert await cycle.receive() == {"type": "http.request", "body": b"", "more_body": False}


async def test_a_body_that_ends_in_a_disconnect_is_discarded():
    cycle, _ = begin(b"POST / HTTP/1.1", has_body=True)
    cycle.body_arrived([b"half"], done=False)
    cycle.lost()
    assert await cycle.receive() == {"type": "http.disconnect"}


async def test_a_failure_is_logged_without_its_message(caplog):
    cycle, connection = begin()
    cycle.request_id = "the-id"
    cycle.route = "/v1/responses"

    async def app(scope, receive, send):
        raise ValueError("sk-secret")

    with caplog.at_level(logging.ERROR, "headgate.edge"):
        await cycle.run(app, {"type": "http"})
    assert "ValueError" in caplog.text
    assert "the-id" in caplog.text
    assert "/v1/responses" in caplog.text
    assert "sk-secret" not in caplog.text
    assert b"internal_error" in connection.transport.writes[0]
    assert b"x-headgate-request-id: the-id" in connection.transport.writes[0]


async def test_a_cancelled_application_answers_that_it_is_draining():
    cycle, connection = begin()

    async def app(scope, receive, send):
        await asyncio.sleep(10)

    task = asyncio.create_task(cycle.run(app, {"type": "http"}))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert b"draining" in connection.transport.writes[0]


async def test_unknown_asgi_messages_are_refused():
    cycle, _ = begin()
    with pytest.raises(RuntimeError):
        await cycle.send({"type": "http.response.trailers"})
    with pytest.raises(RuntimeError):
        await cycle.send({"type": "http.response.body", "body": b"x"})
