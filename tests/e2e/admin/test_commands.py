"""Commands work on the ledger itself, and are in the audit log as everybody is."""

from __future__ import annotations

import getpass
import json

from tests.e2e.admin.people import Person


def test_an_admin_token_is_made_used_and_revoked_by_commands(gateway, admin):
    made = json.loads(gateway.command("tokens", "create", "--name", "ops", "--role", "viewer", "--json").stdout)
    with Person(gateway, made["token"]) as viewer:
        assert viewer.ask("GET", "/session")["role"] == "viewer"
        listed = json.loads(gateway.command("tokens", "list", "--format", "json").stdout)
        assert {row["name"]: row["state"] for row in listed}["ops"] == "active"
        assert made["token"] not in json.dumps(listed)
        gateway.command("tokens", "revoke", made["id"])
        assert viewer.code("GET", "/session") == (401, "invalid_admin_token")
    refused = gateway.command("tokens", "create", "--name", "x", "--role", "lead", check=False)
    assert refused.returncode == 2
    lead = json.loads(
        gateway.command("tokens", "create", "--name", "lead", "--role", "lead", "--team", "default", "--json").stdout
    )
    with Person(gateway, lead["token"]) as person:
        assert person.ask("GET", "/session")["team"]["name"] == "default"


def test_what_commands_change_is_in_the_audit_log(gateway, admin):
    gateway.command("teams", "create", "--name", "by-command")
    key = json.loads(gateway.command("keys", "create", "--team", "by-command", "--name", "bot", "--json").stdout)
    gateway.command("keys", "update", key["id"], "--name", "bot2")
    gateway.command("keys", "rotate", key["id"])
    gateway.command("keys", "revoke", key["id"])
    limit = json.loads(
        gateway.command(
            "limits", "add", "--team", "by-command", "--requests", "5", "--window", "minute", "--json"
        ).stdout
    )
    gateway.command("limits", "update", limit["id"], "--requests", "6")
    gateway.command("limits", "remove", limit["id"])
    changes = admin.ask("GET", "/audit", params={"limit": 8})["data"]
    assert [change["action"] for change in reversed(changes)] == [
        "team.create",
        "key.create",
        "key.update",
        "key.rotate",
        "key.revoke",
        "limit.create",
        "limit.update",
        "limit.delete",
    ]
    assert {(change["actor"]["kind"], change["actor"]["name"]) for change in changes} == {("cli", getpass.getuser())}
    update = next(change for change in changes if change["action"] == "key.update")
    assert (update["before"], update["after"]) == ({"name": "bot"}, {"name": "bot2"})
    assert key["key"] not in admin.get("/audit").text
