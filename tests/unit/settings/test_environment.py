"""What the environment says, and what does not go together."""

from __future__ import annotations

import pytest

from app.settings import ConfigurationError, Environment


@pytest.fixture(autouse=True)
def _bare(monkeypatch):
    for name in ("HEADGATE_WORKERS", "HEADGATE_REDIS_URL", "HEADGATE_DATABASE_URL", "HEADGATE_BALLAST_BYTES"):
        monkeypatch.delenv(name, raising=False)


def test_one_worker_is_the_default_and_needs_nothing():
    environment = Environment.read({})
    assert (environment.workers, environment.ballast_bytes) == (1, 64 * 2**20)
    environment.check_workers()


def test_a_flag_goes_over_the_variable(monkeypatch):
    monkeypatch.setenv("HEADGATE_WORKERS", "3")
    assert Environment.read().workers == 3
    assert Environment.read(workers=2).workers == 2
    assert Environment.read(workers=None).workers == 3


@pytest.mark.parametrize(
    ("redis", "database", "named"),
    [
        (None, None, ["HEADGATE_REDIS_URL", "HEADGATE_DATABASE_URL", "each worker for itself"]),
        ("redis://localhost", None, ["HEADGATE_DATABASE_URL", "SQLite"]),
        (None, "postgresql://localhost/x", ["HEADGATE_REDIS_URL"]),
    ],
)
def test_several_workers_are_refused_without_what_they_share(redis, database, named):
    environment = Environment.read({}, workers=4, redis_url=redis, database_url=database)
    with pytest.raises(ConfigurationError) as refused:
        environment.check_workers()
    assert str(refused.value).startswith("4 workers need ")
    assert all(name in str(refused.value) for name in named)
    assert ("HEADGATE_REDIS_URL" in str(refused.value)) == (redis is None)


def test_several_workers_with_both_are_fine():
    Environment.read({}, workers=4, redis_url="redis://x", database_url="postgresql://localhost/x").check_workers()


@pytest.mark.parametrize("value", ["0", "65", "many"])
def test_a_number_of_workers_that_makes_no_sense_is_refused(monkeypatch, value):
    monkeypatch.setenv("HEADGATE_WORKERS", value)
    with pytest.raises(ConfigurationError, match="HEADGATE_WORKERS"):
        Environment.read()


def test_a_ballast_that_would_save_nobody_is_refused(monkeypatch):
    monkeypatch.setenv("HEADGATE_BALLAST_BYTES", "1000")
    with pytest.raises(ConfigurationError, match="HEADGATE_BALLAST_BYTES"):
        Environment.read()
