"""The audit log: what is in it, how it is asked for, and as a file."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime, timedelta

import pytest


@pytest.fixture(scope="module")
def key(admin):
    """One that was made, changed and revoked."""
    made = admin.key(admin.team("audited"), "=bot")
    admin.ask("PATCH", f"/keys/{made['id']}", json={"owner": "ann"})
    admin.ask("POST", f"/keys/{made['id']}/revoke", json={"name": "=bot"})
    return made


@pytest.fixture(scope="module")
def today(key):
    """The day on which that was, and not the one on which the tests were collected."""
    return datetime.now(UTC).date()


def exported(admin, **asked) -> list[dict]:
    answer = admin.get("/audit/export", params={"format": "jsonl", **asked})
    assert answer.status_code == 200, answer.text
    return [json.loads(line) for line in answer.text.splitlines()]


def test_a_file_has_what_the_list_has(admin, key, today):
    for asked in (
        {"object_id": key["id"]},
        {"object_id": key["id"], "action": "key.update"},
        {"object_kind": "team"},
        {"actor": "nobody"},
        {"from": str(today), "to": str(today), "object_id": key["id"]},
        {"range": "yesterday"},
    ):
        assert exported(admin, **asked) == admin.ask("GET", "/audit", params={"limit": 200, **asked})["data"], asked
    assert exported(admin, actor="nobody") == exported(admin, range="yesterday") == []
    assert len(exported(admin)) > len(exported(admin, object_id=key["id"])) == 3


def test_a_file_is_a_table_unless_another_kind_is_asked_for(admin, key):
    for asked in ({}, {"format": "csv"}):
        answer = admin.get("/audit/export", params={"object_id": key["id"], **asked})
        assert answer.headers["content-type"].startswith("text/csv")
        assert answer.headers["content-disposition"] == 'attachment; filename="headgate-audit.csv"'
        rows = list(csv.DictReader(io.StringIO(answer.text)))
        assert [row["action"] for row in rows] == ["key.revoke", "key.update", "key.create"]
        assert {row["object"] for row in rows} == {"'=bot"}
        assert json.loads(rows[1]["after"]) == {"owner": "ann"}
        assert rows[1]["actor"] == "first-run"
    empty = admin.get("/audit/export", params={"actor": "nobody"}).text.splitlines()
    assert len(empty) == 1
    assert admin.code("GET", "/audit/export?format=xml") == (400, "invalid_request")
    assert admin.get("/audit/export?format=jsonl").headers["content-type"] == "application/jsonl"


def test_days_are_days_of_a_zone_as_everywhere(admin, key, today):
    yesterday, tomorrow = today - timedelta(days=1), today + timedelta(days=1)

    def found(**asked) -> int:
        return len(admin.ask("GET", "/audit", params={"object_id": key["id"], **asked})["data"])

    assert found(**{"from": str(today)}) == 3
    assert found(**{"from": str(yesterday), "to": str(today)}) == 3
    assert found(to=str(today)) == 3
    assert found(to=str(yesterday)) == 0
    assert found(**{"from": str(tomorrow), "to": str(tomorrow)}) == 0
    assert found(**{"from": f"{today}T00:00:00Z"}) == 3
    assert found(**{"from": str(yesterday), "tz": "Asia/Tokyo"}) == 3
    for wrong in ({"from": "2026-02-30"}, {"to": "soon"}, {"tz": "Mars"}, {"range": "ever"}):
        assert admin.code("GET", "/audit", params=wrong) == (400, "invalid_request"), wrong


def test_what_changes_nothing_is_not_written_down(gateway, admin, key):
    token = admin.ask("POST", "/tokens", json={"name": "once", "role": "viewer"})
    team = admin.team("unchanged", requests_per_minute=5)
    limit = team["limits"][0]
    rule = admin.ask("POST", "/alerts", json={"kind": "model.unpriced"})
    admin.ask("DELETE", f"/tokens/{token['id']}")
    command = ("--team", "audited", "--name", "by-command")
    made = json.loads(gateway.command("keys", "create", *command, "--json").stdout)
    gateway.command("keys", "revoke", made["id"], "--now")
    before = exported(admin)
    admin.ask("PATCH", f"/teams/{team['id']}", json={})
    admin.ask("PATCH", f"/teams/{team['id']}", json={"name": "unchanged", "requests_per_minute": 5})
    admin.ask("PATCH", f"/keys/{key['id']}", json={})
    admin.ask("POST", f"/keys/{key['id']}/revoke", json={"name": "=bot"})
    admin.ask("PATCH", f"/limits/{limit['id']}", json={"maximum": limit["maximum"]})
    admin.ask("PATCH", f"/alerts/{rule['id']}", json={})
    admin.ask("DELETE", f"/tokens/{token['id']}")
    gateway.command("tokens", "revoke", token["id"])
    gateway.command("keys", "revoke", made["id"], "--now")
    assert exported(admin) == before


def test_a_rotation_by_command_says_which_secrets_there_are(gateway, admin, key):
    made = json.loads(gateway.command("keys", "create", "--team", "audited", "--name", "turned", "--json").stdout)
    gateway.command("keys", "rotate", made["id"])
    (row,) = exported(admin, object_id=made["id"], action="key.rotate")
    assert (len(row["before"]["ends"]), len(row["after"]["ends"])) == (1, 2)


def test_a_reprice_is_noted_before_it_begins_with_what_was_asked(gateway, admin):
    asked = {"from": "2026-01-01T00:00:00Z", "to": "2026-02-01T00:00:00Z", "model": "m-*"}
    admin.ask("POST", "/prices/reprice", json=asked)
    assert exported(admin, action="price.reprice") == []
    admin.ask("POST", "/prices/reprice", json={**asked, "dry_run": False})
    gateway.command("reprice", "--from", "2026-01-01", "--to", "2026-01-31", "--model", "m-*")
    rows = exported(admin, action="price.reprice")
    assert [row["actor"]["kind"] for row in rows] == ["cli", "cli", "token", "token"]
    assert [row["after"]["state"] for row in rows] == ["ended", "started"] * 2
    for row in rows:
        assert row["object"] == {"kind": "price", "id": "", "name": "m-*"}
        assert row["after"]["from"] == "2026-01-01T00:00:00.000Z"
        assert row["after"]["to"] == "2026-02-01T00:00:00.000Z"
    assert rows[0]["after"]["attempts"] == rows[2]["after"]["attempts"] == 0
