"""When the file is read again, and what is said of it."""

from __future__ import annotations

import asyncio
import json
import os

import pytest
from prometheus_client import CollectorRegistry, Counter

from app.cli import reloading
from app.cli.reloading import Reloader
from app.settings import ConfigurationError, ConfigurationFile
from app.telemetry.logs import LogWriter


@pytest.fixture
async def watched(tmp_path, monkeypatch):
    """A reloader that runs; ``put`` is what it has put in force, ``lines`` what it has said."""
    monkeypatch.setattr(reloading, "LOOK_INTERVAL_S", 0.01)
    path = tmp_path / "headgate.yaml"
    path.write_text("models: []\n")
    descriptor = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT)
    log = LogWriter(descriptor)

    class Watched:
        refuse: Exception | None = None
        file = ConfigurationFile(path)
        put: list[bytes]
        reloads = Counter("reloads", "…", ("result",), registry=CollectorRegistry())

        def __init__(self):
            self.put = []

        async def put_in_force(self, raw, configuration):
            if self.refuse is not None:
                raise self.refuse
            self.put.append(raw)
            self.configuration = configuration

        def lines(self):
            log._flush()
            return [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]

        async def told(self, count):
            async with asyncio.timeout(30):
                while len(self.lines()) < count:
                    await asyncio.sleep(0.005)
            return self.lines()[-1]

    it = Watched()
    it.file.read()
    it.reloader = Reloader(it.file, it.put_in_force, log, it.reloads)
    running = asyncio.create_task(it.reloader.run())
    yield it
    running.cancel()
    os.close(descriptor)


async def test_nothing_happens_to_a_file_that_stays_the_same(watched):
    await asyncio.sleep(0.1)
    assert (watched.put, watched.lines()) == ([], [])


async def test_a_change_is_seen_and_put_in_force_once(watched):
    watched.file.path.write_text("upstreams: {u: {base_url: 'http://x', api_key: ''}}\n")
    line = await watched.told(1)
    assert (line["event"], line["level"], line["upstreams_off"]) == ("configuration_reloaded", "info", ["u"])
    await asyncio.sleep(0.1)
    assert len(watched.put) == 1 and "u" in watched.configuration.upstreams
    assert watched.reloads.labels("reloaded")._value.get() == 1


async def test_whoever_asks_has_it_read_again_even_unchanged(watched):
    watched.reloader.ask()
    await watched.told(1)
    assert watched.put == [b"models: []\n"]


async def test_a_wrong_file_is_refused_once_and_the_next_one_is_looked_at(watched):
    watched.file.path.write_text("modles: []\n")
    line = await watched.told(1)
    assert (line["event"], line["level"]) == ("configuration_refused", "error")
    assert "headgate.yaml:1: modles: there is no such key" in line["reason"]
    await asyncio.sleep(0.1)
    assert len(watched.lines()) == 1 and watched.put == []
    watched.file.path.write_text("models: []  # mended\n")
    assert (await watched.told(2))["event"] == "configuration_reloaded"
    assert watched.reloads.labels("refused")._value.get() == 1


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ConfigurationError("worker 1: no"), "worker 1: no"),
        (OSError(98, "Address already in use"), "OSError while it was put in force"),
        (ZeroDivisionError("a secret"), "ZeroDivisionError while it was put in force"),
    ],
)
async def test_what_cannot_be_put_in_force_is_refused_and_quotes_nothing(watched, error, reason):
    watched.refuse = error
    watched.reloader.ask()
    line = await watched.told(1)
    assert (line["event"], line["reason"]) == ("configuration_refused", reason)


async def test_a_file_that_is_gone_is_refused_only_if_asked_for(watched):
    watched.file.path.unlink()
    await asyncio.sleep(0.1)
    assert watched.lines() == []
    watched.reloader.ask()
    assert "No such file" in (await watched.told(1))["reason"]
