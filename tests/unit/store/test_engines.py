from __future__ import annotations

from pathlib import Path

import pytest

from app.store import engines
from app.store.engines import PostgresAddress, SQLiteAddress, check_sqlite_version, parse_url
from app.store.errors import DatabaseUnavailable, DatabaseURLInvalid


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:///headgate.db", "headgate.db"),
        ("sqlite:///data/headgate.db", "data/headgate.db"),
        ("sqlite:////var/lib/headgate.db", "/var/lib/headgate.db"),
        ("sqlite:///with space?and#more.db", "with space?and#more.db"),
    ],
)
def test_a_sqlite_url_is_a_path(url, path):
    address = parse_url(url)
    assert address == SQLiteAddress(Path(path))
    assert str(address) == f"sqlite:///{path}"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://db/ledger", "postgresql://db/ledger"),
        ("postgres://u:p%40ss@db:5433/ledger?sslmode=require", "postgresql://db:5433/ledger"),
        ("postgresql://u@/ledger?host=/run/postgresql", "postgresql:///run/postgresql/ledger"),
        ("postgresql://u:p@one:1,two:2/ledger", "postgresql://one:1,two:2/ledger"),
        ("postgresql://u:p@[::1]:5432/ledger", "postgresql://[::1]:5432/ledger"),
    ],
)
def test_a_postgresql_url_is_shown_without_its_credentials(url, shown):
    address = parse_url(url)
    assert isinstance(address, PostgresAddress)
    assert (address.dsn, str(address), repr(address)) == (url, shown, f"PostgresAddress({shown!r})")


@pytest.mark.parametrize("url", ["sqlite://x.db", "sqlite:///", "sqlite:x", "sqlite:///:memory:", "", "postgresql:db"])
def test_other_urls_are_refused(url):
    with pytest.raises(DatabaseURLInvalid):
        parse_url(url)


def test_a_sqlite_that_is_too_old_is_refused(monkeypatch):
    monkeypatch.setattr(engines.sqlite3, "sqlite_version_info", (3, 36, 0))
    with pytest.raises(DatabaseUnavailable, match=r"needs 3\.37"):
        check_sqlite_version()
