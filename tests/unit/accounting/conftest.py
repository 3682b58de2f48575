"""A ledger on SQLite, fresh for every test that asks for one."""

from __future__ import annotations

import pytest

from app.store.database import Database
from tests.contract.store.databases import fresh_url


@pytest.fixture
async def ledger(tmp_path):
    database = await Database.open(await fresh_url("sqlite", tmp_path))
    yield database
    await database.close()
