from __future__ import annotations

import asyncio
import signal
import socket
import stat
import subprocess
import sys

import pytest
import uvloop

from app.simulator.app import Simulator
from app.simulator.log import ServedLog
from app.simulator.server import running_simulator
from tests.unit.simulator.wire_client import Connection

BODY = {"model": "sim-mini", "input": "2+2"}


async def ask(address, body=BODY):
    connection = await Connection.open(address)
    try:
        await connection.send("/v1/responses", body)
        return await connection.read()
    finally:
        await connection.close()


async def two_servers(tmp_path) -> None:
    """One on a unix socket and one on TCP, in one loop; both stop, and what runs is cut."""
    uds = tmp_path / "simulator.sock"
    one, two = Simulator(), Simulator()
    stalled = BODY | {"input": "[[sim: stall_after=2]]", "stream": True}
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    async with running_simulator(one, uds=uds) as at_uds, running_simulator(two, port=0) as at_tcp:
        assert at_uds.uds == str(uds)
        assert stat.S_IMODE(uds.stat().st_mode) == 0o600
        assert (await ask(str(uds))).json()["status"] == "completed"
        assert (await ask((at_tcp.host, at_tcp.port))).json()["status"] == "completed"
        assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
        for steering in ("cut_after=3", "cut_after=3 cut_how=reset", "cut=head"):
            reply = await ask(str(uds), BODY | {"input": f"[[sim: {steering}]]", "stream": True})
            assert not reply.whole
        waiting = await Connection.open(str(uds))
        await waiting.send("/v1/responses", stalled)
        assert (await waiting.read_head()).status == 200
    assert not uds.exists()
    await waiting.close()
    assert [entry.outcome for entry in one.log][-1] == "cut"
    assert {entry.billed for entry in one.log} == {True}
    with pytest.raises(ConnectionRefusedError):
        await Connection.open((at_tcp.host, at_tcp.port))


@pytest.mark.parametrize("factory", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_two_servers_share_a_loop_and_stop(tmp_path, factory, monkeypatch):
    monkeypatch.setattr("app.simulator.server.STOP_S_MAX", 0.2)
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(two_servers(tmp_path))


async def test_a_socket_left_behind_is_replaced(tmp_path):
    uds = tmp_path / "simulator.sock"
    old = socket.socket(socket.AF_UNIX)
    old.bind(str(uds))
    old.close()
    async with running_simulator(Simulator(), uds=uds):
        assert (await ask(str(uds))).status == 200


async def test_an_address_in_use_is_an_error_for_the_caller():
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OSError):
        async with running_simulator(Simulator(), port=taken.getsockname()[1]):
            pass


async def test_a_body_that_fails_leaves_no_server():
    with pytest.raises(ZeroDivisionError):
        async with running_simulator(Simulator(), port=0) as at:
            raise ZeroDivisionError
    with pytest.raises(ConnectionRefusedError):
        await Connection.open((at.host, at.port))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_the_program_runs_until_it_is_signalled(number):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    code = f"from app.simulator.server import run_simulator; run_simulator('127.0.0.1', {port})"
    process = subprocess.Popen([sys.executable, "-W", "error", "-c", code], stderr=subprocess.PIPE)
    try:
        for _ in range(500):
            try:
                reply = await ask(("127.0.0.1", port))
                break
            except ConnectionRefusedError:
                await asyncio.sleep(0.02)
        assert reply.status == 200
        process.send_signal(number)
        _, printed = process.communicate(timeout=10)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0
    assert printed == b""


def test_a_simulator_says_what_it_holds():
    text = repr(Simulator(log=ServedLog(entries_max=5)))
    assert "entries=0/5" in text
    assert "responses=0" in text
