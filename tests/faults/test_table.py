"""The table of faults: for each fault of each part what a client is told, what is counted, logged and written.

Left out, and why:

- *Upstream*: half of many calls answered with 503 (``e2e/test_upstream_faults`` has the budget of retries; here is one call);
  throttling after a 429, and health by which targets are chosen, which are not built yet.
- *SQL* away for more than an hour: keys stay valid for as long as the process runs, there is no age at which they end.
- *Client* retries are not told apart by ``x-stainless-retry-count``, which passes and is not recorded.
- *Redis* restart with its data kept, failover, cluster: what follows is the same as after a loss, since it is another
  run of the server; ``chaos`` restarts servers with every kind of persistence, ``contract/redis`` fails over.
- *SQL*: admin writes, since there is no control plane yet; deadlock, serialization failure and poisoned rows, which
  ``contract/ledger`` makes row by row; an older schema, which is brought up at the start (``contract/store``).
- *Disk* mounted read-only: a kernel refuses that under open files; the journal's own tests give it every error of a
  write.
- *Clock* of the store, which no process can set by itself; of a gateway that is alone, whose memory is the store; the
  log, which tells the machine's time, as every other log of it does.
- *Client* retries with an Idempotency-Key: there is no replay yet.
- *Own worker*: a loop that is blocked from inside (``unit/telemetry``); a memory limit, which is not built; SIGTERM
  (``test_lifecycle``, ``test_rolling_restart``); a pause that outlasts the lease (``chaos`` freezes for twenty seconds).
"""

from __future__ import annotations

import sqlite3

import pytest

from tests.fakes.gateway import RunningGateway
from tests.faults.table.check import check
from tests.faults.table.clocks import CLOCK
from tests.faults.table.others import CLIENT, DISK, WORKER
from tests.faults.table.redis import REDIS
from tests.faults.table.rows import Row, down_and_up
from tests.faults.table.sql import BOTH_AWAY, SQL
from tests.faults.table.upstream import NAMES, UPSTREAM
from tests.faults.table.worlds import opened_worlds

ROWS = (*UPSTREAM, *NAMES, *CLIENT, *REDIS, *SQL, *BOTH_AWAY, *CLOCK, *DISK, *WORKER)


@pytest.fixture(scope="module")
def worlds(tmp_path_factory):
    with opened_worlds(lambda: tmp_path_factory.mktemp("world")) as worlds:
        yield worlds


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_a_fault(row, worlds):
    check(row, worlds[row.world])


class ToldWorld:
    """Nothing happens in it; at each look it tells the next of these."""

    def __init__(self, *told: list[str]) -> None:
        self.told = iter(told)

    def metrics(self) -> dict[str, float]:
        return {}

    def position(self) -> int:
        return 0

    def check_health(self, failing: tuple[str, ...]) -> None:
        pass

    def recover(self) -> None:
        pass

    def told_since(self, position: int) -> list[str]:
        return next(self.told)


def test_what_a_busy_machine_tells_once_is_no_fault_and_what_the_fault_tells_again_is():
    row = Row("SQL", "down", "shared", told=down_and_up("ledger"))
    right, late = list(row.told), [*down_and_up("cache"), *row.told]
    check(row, ToldWorld(right))
    check(row, ToldWorld(late, right))
    for wrong in ([late, late], [right[:1]], [[*right, "worker_died"]], [[*right, *right]]):
        with pytest.raises(AssertionError):
            check(row, ToldWorld(*wrong))


def test_a_newer_schema_is_refused_with_a_sentence(tmp_path):
    with RunningGateway(tmp_path) as gateway:
        assert gateway.stop() == 0
        with sqlite3.connect(gateway.data_dir / "headgate.db") as database:
            database.execute("UPDATE alembic_version SET version_num = '9999'")
        database.close()
        refused = gateway.command("serve", "--port", "0", check=False)
        assert (refused.returncode, refused.stdout) == (1, "")
        (sentence,) = [line for line in refused.stderr.splitlines() if not line.startswith("{")]
        assert sentence.startswith("headgate: The database is at schema 9999, this Headgate knows schemas up to ")
        assert "restore a backup" in sentence


def test_every_ledger_is_proved_after_all_of_it(worlds):
    """Run last."""
    for world in worlds.values():
        world.recover()
        proof = world.proof()
        assert proof["ok"], proof
