"""Rows of the disk, of clients, and of the gateway's own processes."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil

from tests.e2e.test_disk import fill
from tests.fakes.fleet import Fleet, wait_for
from tests.faults.table.rows import Ask, Gets, Row, degraded, down_and_up
from tests.faults.table.worlds import World

UNWRITTEN = Gets(503, "ledger_unavailable", {"retry-after": "[1-5]"})
CHARGED = Gets(200, kinds=("charge",))
STOPPED_S = 3.0


# -- the disk ---------------------------------------------------------------------------------


@contextmanager
def full_disk(world: World) -> Iterator[None]:
    filler = fill(world.parts["disk"])
    wait_for(lambda: world.client.get("/readyz").status_code == 503)
    yield
    filler.unlink()


@contextmanager
def until_a_sync_fails(world: World) -> Iterator[None]:
    """It heals by itself, after so many."""
    wait_for(lambda: world.ask(Ask(), world.new_user()).status == 503, 20)
    yield


DISK = (
    Row(
        "disk",
        "full",
        "small disk",
        ((Ask(), UNWRITTEN), (Ask(stream=True), UNWRITTEN)),
        full_disk,
        running=((Ask(play="held"), CHARGED), (Ask(play="held stream", stream=True), CHARGED)),
        counts={'headgate_refused_total{code="ledger_unavailable"}': 2},
        gauges=degraded("journal"),
        told=down_and_up("journal"),
        failing=("journal",),
    ),
    Row(
        "disk",
        "EIO when it is to be synced",
        "failing syncs",
        ((Ask(), UNWRITTEN),),
        until_a_sync_fails,
        running=((Ask(play="held"), CHARGED),),
        then=((Ask(), CHARGED),),
        gauges=degraded("journal"),
        told=down_and_up("journal"),
        failing=("journal",),
    ),
)


# -- clients ----------------------------------------------------------------------------------


@contextmanager
def cancelling(world: World) -> Iterator[None]:
    """Another policy, from a changed file."""
    before = world.gateway.config.read_text()
    for text in (before + "stream: {on_disconnect: cancel}\n", before):
        reloads = world.metrics().get('headgate_configuration_reloads_total{result="reloaded"}', 0)
        world.gateway.config.write_text(text)
        world.gateway.process.send_signal(signal.SIGHUP)
        wait_for(
            lambda reloads=reloads: (
                world.metrics().get('headgate_configuration_reloads_total{result="reloaded"}', 0) > reloads
            )
        )
        if text != before:
            yield


def left(phase: str) -> dict[str, float]:
    return {f'headgate_disconnects_total{{phase="{phase}"}}': 1}


def refused(fault: str, how: str, status: int, code: str) -> Row:
    """What is refused before anything is admitted."""
    counted = {f'headgate_refused_total{{code="{code}"}}': 1}
    return Row("client", fault, "embedded", ((Ask(how=how), Gets(status, code, within_s=10)),), counts=counted)


CLIENT = (
    Row(
        "client",
        "gone while it waits",
        "embedded",
        ((Ask(play="slow", how="leaves while it waits"), Gets(None, kinds=("charge",))),),
        counts=left("waiting"),
    ),
    Row(
        "client",
        "gone mid-stream, policy drain",
        "embedded",
        ((Ask(play="long stream", stream=True, how="leaves mid-stream"), Gets(None, kinds=("charge",))),),
        counts=left("stream"),
    ),
    Row(
        "client",
        "gone mid-stream, policy cancel",
        "embedded",
        ((Ask(play="long stream", stream=True, how="leaves mid-stream"), Gets(None, kinds=("estimate",))),),
        cancelling,
        counts=left("stream"),
    ),
    Row(
        "client",
        "gone in the middle of its body",
        "embedded",
        ((Ask(how="leaves in its body"), Gets(None)),),
        counts=left("request"),
    ),
    Row(
        "client",
        "a slow reader",
        "embedded",
        ((Ask(play="large stream", stream=True, how="reads nothing"), Gets(None, kinds=("estimate",))),),
        counts=left("stream"),
    ),
    Row(
        "client",
        "a retry after a lost answer is metered again",
        "embedded",
        (
            (Ask(play="slow", how="leaves while it waits"), Gets(None, kinds=("charge",))),
            (Ask(), CHARGED),
        ),
    ),
    refused("garbage (no JSON)", "sends no JSON", 400, "invalid_json"),
    refused("garbage (no HTTP)", "sends no HTTP", 400, "invalid_request"),
    refused("another type", "sends another type", 415, "unsupported_media_type"),
    refused("a large body", "sends a large body", 413, "body_too_large"),
    refused("a large head", "sends a large head", 431, "headers_too_large"),
    refused("a long target", "sends a long target", 414, "uri_too_long"),
    refused("half a head", "sends half a head", 408, "request_timeout"),
    refused("half a body", "sends half a body", 408, "request_timeout"),
)


# -- workers ----------------------------------------------------------------------------------


@contextmanager
def killed_worker(world: World) -> Iterator[None]:
    """That which serves a request: the others go on, and it is brought back."""
    gateway = world.gateway
    assert isinstance(gateway, Fleet)

    def that_serve() -> list[int]:
        return [pid for pid in gateway.workers.values() if _serves(pid, gateway.port)]

    # Connections of clients that have their answer may be open for a moment yet.
    wait_for(lambda: len(that_serve()) == 1)
    (victim,) = that_serve()
    before = len(gateway.lines("worker_started"))
    os.kill(victim, signal.SIGKILL)
    yield
    wait_for(lambda: len(gateway.lines("worker_started")) > before)


def _serves(pid: int, port: int) -> bool:
    """Whether it has a connection to the upstream: one that runs, since idle ones are closed by then."""
    connections = psutil.Process(pid).net_connections("tcp")
    return any(each.status == psutil.CONN_ESTABLISHED and each.laddr.port == port for each in connections)


@contextmanager
def stopped(world: World) -> Iterator[None]:
    process = world.gateway.process
    assert process is not None
    process.send_signal(signal.SIGSTOP)
    time.sleep(STOPPED_S)
    process.send_signal(signal.SIGCONT)
    yield


WORKER = (
    Row(
        "own worker",
        "kill -9",
        "fleet",
        ((Ask(), CHARGED), (Ask(), CHARGED)),
        killed_worker,
        running=((Ask(play="held"), Gets(None, kinds=("estimate",))),),
        counts={"headgate_worker_restarts_total": 1},
        told=("worker_died", "journal_recovered"),
    ),
    Row(
        "own worker",
        "its event loop stands still (SIGSTOP 3 s)",
        "shared",
        ((Ask("running"), CHARGED), (Ask("strict"), CHARGED)),
        stopped,
        running=((Ask("running", play="held"), CHARGED), (Ask("running", play="held stream", stream=True), CHARGED)),
        told=None,
    ),
)
