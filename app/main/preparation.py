"""What a supervisor does once for all its workers, before any of them starts."""

from __future__ import annotations

from pathlib import Path

from app.core.clock import SystemClock
from app.main.first_run import FirstRun, make_first_run
from app.settings import Environment
from app.store.database import Database
from app.store.migrate import upgrade

METRICS = "metrics"


async def prepare(environment: Environment, base_url: str) -> FirstRun | None:
    """The schema, and on an empty ledger the first run. Raises StoreError. The data dir is held by the caller."""
    database = await Database.open(environment.database)
    try:
        await upgrade(database)
        return await make_first_run(database, environment.data_dir.absolute(), base_url, SystemClock().now_ms())
    finally:
        await database.close()


def empty_metrics_dir(data_dir: Path) -> Path:
    """A folder for the workers' counters, which begin with this supervisor. OSError."""
    folder = data_dir / METRICS
    folder.mkdir(mode=0o700, exist_ok=True)
    for path in folder.iterdir():
        path.unlink()
    return folder
