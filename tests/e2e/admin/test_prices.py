"""Prices that are set: one for a model, an upstream, a tier and a day."""

from __future__ import annotations

PRICE = {"model": "once", "input_per_mtok_usd": "1.0", "output_per_mtok_usd": "2", "effective_from": "2026-01-01"}


def prices(admin, model: str = "once") -> dict[str, str]:
    rows = admin.ask("GET", "/prices?limit=200")["data"]
    return {row["id"]: row["input_per_mtok_usd"] for row in rows if row["model"] == model and row["id"]}


def test_two_prices_of_one_day_are_not_both_set(admin):
    first = admin.ask("POST", "/prices", 201, json=PRICE)
    other = {**PRICE, "input_per_mtok_usd": "5"}
    assert admin.code("POST", "/prices", json=other) == (409, "already_exists")
    assert prices(admin) == {first["id"]: "1.0"}
    # The same in other digits is the same, and there already.
    again = admin.ask("POST", "/prices", 201, json={**PRICE, "input_per_mtok_usd": "1.00", "replace": True})
    assert again["id"] == first["id"]
    assert prices(admin) == {first["id"]: "1.0"}
    for place in (
        {"tier": "priority"},
        {"upstream": "simulator"},
        {"effective_from": "2026-01-02"},
        {"model": "once*"},
    ):
        made = admin.ask("POST", "/prices", 201, json={**other, **place})
        admin.ask("DELETE", f"/prices/{made['id']}", 204)
    second = admin.ask("POST", "/prices", 201, json={**other, "replace": True})
    assert prices(admin) == {second["id"]: "5"}
    changes = admin.ask("GET", "/audit", params={"object_kind": "price", "limit": 2})["data"]
    assert {(each["action"], each["object"]["id"]) for each in changes} == {
        ("price.create", second["id"]),
        ("price.delete", first["id"]),
    }
    admin.ask("DELETE", f"/prices/{second['id']}", 204)
    assert prices(admin) == {}
    assert admin.ask("POST", "/prices", 201, json=other)["id"] not in {first["id"], second["id"]}
