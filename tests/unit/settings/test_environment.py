"""What the environment says, and what does not go together."""

from __future__ import annotations

import pytest

from app.settings import ConfigurationError, Environment


@pytest.fixture(autouse=True)
def _bare(monkeypatch):
    for name in ("WORKERS", "REDIS_URL", "CACHE_REDIS_URL", "DATABASE_URL", "BALLAST_BYTES"):
        monkeypatch.delenv(f"HEADGATE_{name}", raising=False)


def test_one_worker_is_the_default_and_needs_nothing():
    environment = Environment.read({})
    assert (environment.workers, environment.ballast_bytes) == (1, 64 * 2**20)
    environment.check_workers()


def test_a_token_that_is_empty_is_not_set(monkeypatch):
    """An empty one would open to everybody what it closes."""
    monkeypatch.setenv("HEADGATE_METRICS_TOKEN", "")
    monkeypatch.setenv("HEADGATE_ADMIN_TOKEN", "")
    environment = Environment.read()
    assert (environment.metrics, environment.admin) == (None, None)


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


def test_the_cache_is_where_the_limits_are_unless_it_has_a_redis_of_its_own(monkeypatch, tmp_path):
    assert Environment.read({}).cache_redis is None
    assert Environment.read({}, redis_url="redis://limits").cache_redis == "redis://limits"
    monkeypatch.setenv("HEADGATE_CACHE_REDIS_URL", "redis://:canary@cache")
    read = Environment.read(redis_url="redis://limits")
    assert (read.redis, read.cache_redis) == ("redis://limits", "redis://:canary@cache")
    assert "canary" not in repr(read)
    monkeypatch.setenv("HEADGATE_CACHE_REDIS_URL", "")
    assert Environment.read(redis_url="redis://limits").cache_redis == "redis://limits"
    (tmp_path / "url").write_text("redis://of-a-file\n")
    given = {"HEADGATE_CACHE_REDIS_URL_FILE": str(tmp_path / "url")}
    assert Environment.read(given, redis_url="redis://limits").cache_redis == "redis://of-a-file"
    with pytest.raises(ConfigurationError, match="HEADGATE_CACHE_REDIS_URL_FILE"):
        Environment.read({"HEADGATE_CACHE_REDIS_URL_FILE": str(tmp_path / "none")}, redis_url="redis://limits")


@pytest.mark.parametrize("redis", [None, ""])
def test_a_redis_for_the_cache_alone_is_refused_with_the_reason(redis):
    with pytest.raises(ConfigurationError, match=r"HEADGATE_REDIS_URL: without shared limits") as refused:
        Environment.read({}, cache_redis_url="redis://:canary@cache", redis_url=redis)
    assert "canary" not in str(refused.value)
