"""The views beside usage, at several moments of the year: each figure is what the requests come to."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from app.core.clock import QUARTER_MS
from tests.e2e.admin.tie_out.books import (
    BERLIN,
    LORD_HOWE,
    MOMENTS,
    MOMENTS_AND_ZONES,
    NEW_YEAR,
    costs_by,
    midnight_ms,
    nano,
)
from tests.fakes.fleet import wait_for
from tests.fakes.traffic import zone_of

HOUR_MS = 4 * QUARTER_MS
TOP = 10
SHOWN = ("team", "model", "key", "tag.project")


def facts_in(books, start_ms, end_ms, lets=lambda _fact: True):
    return [fact for fact in books.traffic.facts if start_ms <= fact.quarter_ms < end_ms and lets(fact)]


def total_of(facts, name):
    return sum(fact.sums[name] for fact in facts)


def today_in(books, zone):
    return datetime.fromtimestamp(books.now_ms / 1000, zone_of(zone)).date()


# -- overview ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("moment", "zone"), MOMENTS_AND_ZONES)
def test_overview(books, moment, zone):
    books.at(moment)
    today = today_in(books, zone)
    for show in SHOWN:
        check_overview(books, books.ask("/overview", {"tz": zone, "show": show}), show, zone, today)
    team_ids = (books.traffic.people[0].team_id, books.traffic.people[6].team_id)
    for only in (team_ids[:1], team_ids):
        answer = books.ask("/overview", {"tz": zone, "team": ",".join(only)})
        check_overview(books, answer, "team", zone, today, lambda fact, only=only: fact.team_id in only)


def check_overview(books, answer, show, zone, today, lets=lambda _fact: True):
    facts = facts_in(books, midnight_ms(today.replace(day=1), zone), books.end_ms, lets)
    month = answer["month"]
    assert nano(month["spent_usd"]) == total_of(facts, "cost_nanousd")
    assert nano(month["estimated_usd"]) == total_of(facts, "estimated_nanousd")
    assert month["unpriced"] == total_of(facts, "unpriced")
    assert answer["requests"] == {name: total_of(facts, name) for name in ("requests", "failed")}
    assert nano(answer["saved"]["saved_usd"]) == total_of(facts, "saved_nanousd")
    assert nano(answer["today"]["spent_usd"]) == costs_by(facts, day_in(zone)).get(today.isoformat(), 0)
    check_days(answer["days"], facts, show, zone)
    of_members = costs_by(facts, lambda fact: fact.member_of(show, zone))
    assert {each["id"]: nano(each["cost_usd"]) for each in answer["legend"] if nano(each["cost_usd"])} == of_members
    check_top(answer["top_keys"], facts, "key", "id")
    check_top(answer["top_models"], facts, "model", "name")
    check_service(books, answer["service"], lets)
    check_attention(answer["attention"], total_of(facts, "unpriced"))


def day_in(zone):
    return lambda fact: fact.member_of("day", zone)


def check_days(days, facts, show, zone):
    assert {each["day"]: nano(each["cost_usd"]) for each in days if nano(each["cost_usd"])} == costs_by(
        facts, day_in(zone)
    )
    parts = {(each["day"], member): nano(cost) for each in days for member, cost in each["parts"].items()}
    assert {place: cost for place, cost in parts.items() if cost} == costs_by(
        facts, lambda fact: (fact.member_of("day", zone), fact.member_of(show, zone))
    )
    for each in days:
        here = [fact for fact in facts if fact.member_of("day", zone) == each["day"]]
        assert each["unpriced"] == total_of(here, "unpriced")


def check_top(rows, facts, member, name):
    """Those of the largest cost, each with all of its own."""
    costs = [nano(row["cost_usd"]) for row in rows]
    of_all = {each.member_of(member, "UTC"): 0 for each in facts} | costs_by(
        facts, lambda fact: fact.member_of(member, "UTC")
    )
    assert costs == sorted(of_all.values(), reverse=True)[:TOP]
    for row in rows:
        own = [fact for fact in facts if fact.member_of(member, "UTC") == row[name]]
        assert nano(row["cost_usd"]) == total_of(own, "cost_nanousd")
        assert row["requests"] == total_of(own, "requests")
        assert row["tokens"] == total_of(own, "input_tokens") + total_of(own, "output_tokens")
        assert row["unpriced"] == total_of(own, "unpriced")


def check_attention(items, unpriced):
    titles = [item["title"] for item in items if "no price" in item["title"]]
    wanted = "1 request has no price" if unpriced == 1 else f"{unpriced} requests have no price"
    assert titles == ([wanted] if unpriced else [])


# -- service and upstreams --------------------------------------------------------------------


def check_service(books, answer, lets=lambda _fact: True, hours=24):
    assert len(answer["series"]) == hours
    last_ms = books.now_ms - books.now_ms % HOUR_MS
    for place, step in enumerate(answer["series"]):
        start_ms = last_ms - (hours - 1 - place) * HOUR_MS
        assert step["requests"] == total_of(facts_in(books, start_ms, start_ms + HOUR_MS, lets), "requests")
    for upstream in answer["upstreams"]:
        for place, step in enumerate(upstream["series"]):
            start_ms = last_ms - (hours - 1 - place) * HOUR_MS
            here = facts_in(books, start_ms, start_ms + HOUR_MS, lets)
            own = [fact for fact in here if fact.upstream == upstream["name"]]
            assert step["requests"] == total_of(own, "requests")


@pytest.mark.parametrize("moment", MOMENTS)
def test_service(books, moment):
    books.at(moment)
    team_id = books.person.team_id
    for hours in (1, 24, 48):
        check_service(books, books.ask("/service", {"hours": str(hours)}), hours=hours)
        own = books.ask("/service", {"hours": str(hours), "team": team_id})
        check_service(books, own, lambda fact: fact.team_id == team_id, hours)


@pytest.mark.parametrize("moment", MOMENTS)
def test_upstreams(books, moment):
    books.at(moment)
    last_ms = books.now_ms - books.now_ms % HOUR_MS
    for upstream in books.ask("/upstreams")["data"]:
        for place, hour in enumerate(upstream["hours"]):
            start_ms = last_ms - (23 - place) * HOUR_MS
            here = facts_in(books, start_ms, start_ms + HOUR_MS)
            own = [fact for fact in here if fact.upstream == upstream["name"]]
            assert hour == {name: total_of(own, name) for name in ("requests", "failed")}


# -- keys and prices --------------------------------------------------------------------------


@pytest.mark.parametrize("moment", MOMENTS)
def test_keys(books, moment):
    """This month's, of UTC."""
    books.at(moment)
    start_ms = midnight_ms(moment.date().replace(day=1), "UTC")
    rows = books.pages("/keys", {"limit": "5"})
    assert {row["id"] for row in rows} == {person.key_id for person in books.traffic.people}
    for row in [*rows, books.ask(f"/keys/{books.person.key_id}")]:
        own = facts_in(books, start_ms, books.end_ms, lambda fact, row=row: fact.key_id == row["id"])
        assert nano(row["spent_month_usd"]) == total_of(own, "cost_nanousd")
        assert row["requests_month"] == total_of(own, "requests")


@pytest.mark.parametrize("moment", MOMENTS)
def test_prices(books, moment):
    """Of thirty days."""
    books.at(moment)
    start_ms = books.end_ms - QUARTER_MS - 30 * 24 * HOUR_MS
    wanted = {}
    for fact in facts_in(books, start_ms, books.end_ms):
        requests, unpriced = wanted.get((fact.model, fact.upstream), (0, 0))
        wanted[fact.model, fact.upstream] = requests + 1, unpriced + fact.sums["unpriced"]
    rows = books.ask("/prices")["data"]
    found = {(row["model"], row["upstream"]): (row["requests_30_days"], row["unpriced"]) for row in rows}
    assert {place: counts for place, counts in found.items() if counts != (0, 0)} == wanted


def test_what_would_be_priced_again(books):
    """Told, not done: of what is unpriced, part has a price by now, part has none."""
    body = {"from": "2026-01-01T00:00:00Z", "dry_run": True}
    answer = books.admin.post("/prices/reprice", json=body)
    assert answer.status_code == 200, answer.text
    told = answer.json()
    assert told["attempts"] + told["unpriced"] == books.whole()["unpriced"]
    assert sum(told["unpriced_models"].values()) == told["unpriced"]


# -- budgets ----------------------------------------------------------------------------------


def window_of(window, today, zone):
    first = {
        "day": today,
        "week": today - timedelta(days=today.weekday()),
        "month": today.replace(day=1),
        "total": None,
    }[window]
    return 0 if first is None else midnight_ms(first, zone)


@pytest.fixture(scope="module")
def rules(year):
    """Budgets of every window, and what each counts. None has a counter: no request has been made under them."""
    year.at(NEW_YEAR)
    search, support = year.person, year.traffic.people[3]
    made = []
    for window, zone, more, lets in (
        ("day", BERLIN, {"team_id": search.team_id}, lambda fact: fact.team_id == search.team_id),
        ("week", LORD_HOWE, {"team_id": search.team_id}, lambda fact: fact.team_id == search.team_id),
        ("month", "America/New_York", {"team_id": support.team_id}, lambda fact: fact.team_id == support.team_id),
        ("total", "UTC", {"team_id": support.team_id}, lambda fact: fact.team_id == support.team_id),
        (
            "month",
            "Asia/Kathmandu",
            {"team_id": search.team_id, "key_id": search.key_id},
            lambda fact: fact.key_id == search.key_id,
        ),
        (
            "total",
            "UTC",
            {"team_id": search.team_id, "model": "gpt-5*"},
            lambda fact: fact.team_id == search.team_id and fact.model.startswith("gpt-5"),
        ),
        (
            "month",
            "America/New_York",
            {"team_id": search.team_id, "tag_name": "project", "tag_value": "search-a"},
            lambda fact: fact.team_id == search.team_id and fact.value_of("project") == "search-a",
        ),
        (
            "total",
            "UTC",
            {"team_id": search.team_id, "tag_name": "project"},
            lambda fact: fact.team_id == search.team_id and fact.value_of("project") != "",
        ),
        (
            "total",
            "UTC",
            {"team_id": search.team_id, "tag_name": "env", "model": "gpt-5*"},
            lambda fact: (
                fact.team_id == search.team_id and fact.model.startswith("gpt-5") and fact.value_of("env") != ""
            ),
        ),
    ):
        body = {"maximum_usd": "9000", "window": window, "time_zone": zone, **more}
        answer = year.admin.post("/budgets", json=body)
        assert answer.status_code == 201, answer.text
        made.append((answer.json(), lets))
    yield made
    for budget, _ in made:
        assert year.admin.delete(f"/budgets/{budget['id']}").status_code == 204


def check_budget(books, budget, lets):
    today = today_in(books, budget["time_zone"])
    facts = facts_in(books, window_of(budget["window"], today, budget["time_zone"]), books.end_ms, lets)
    tag = budget["tag_name"]
    if tag is None or budget["tag_value"] is not None:
        assert nano(budget["spent_usd"]) == total_of(facts, "cost_nanousd"), budget
        check_budget_days(budget, facts)
        return
    by_value = costs_by(facts, lambda fact: fact.value_of(tag))
    assert {each["tag_value"]: nano(each["spent_usd"]) for each in budget["values"]} == by_value
    assert nano(budget["spent_usd"]) == max(by_value.values())
    top = max(by_value, key=by_value.get)
    check_budget_days(budget, [fact for fact in facts if fact.value_of(tag) == top])


def check_budget_days(budget, facts):
    """Those that are shown, as each cost."""
    days = {each["day"]: nano(each["spent_usd"]) for each in budget["days"]}
    costs = costs_by(facts, day_in(budget["time_zone"]))
    assert {day: cost for day, cost in days.items() if cost} == {
        day: cost for day, cost in costs.items() if day in days
    }
    if budget["window"] != "total":
        assert sum(days.values()) == nano(budget["spent_usd"])


def test_budgets(books, rules):
    for made, lets in rules:
        check_budget(books, made, lets)
        check_budget(books, books.ask(f"/budgets/{made['id']}"), lets)
    listed = {each["id"]: each for each in books.pages("/budgets", {"limit": "2"})}
    assert set(listed) == {made["id"] for made, _ in rules}
    for made, lets in rules:
        check_budget(books, listed[made["id"]], lets)


def test_what_is_left_for_a_key(books, rules):
    own = [
        (made, lets) for made, lets in rules if made["key"] is not None or made["team"]["id"] == books.person.team_id
    ]
    # The data plane follows within a second.
    wait_for(lambda: len(books.ask("/me/limits", of=books.own)["data"]) == len(own))
    rows = books.ask("/me/limits", of=books.own)["data"]
    for made, lets in own:
        (row,) = (row for row in rows if place_of(row) == place_of({**made, "scope": "key" if made["key"] else "team"}))
        if row["tag_name"] is not None and row["tag_value"] is None:
            # What other keys of the team have spent is not told.
            assert row["used_usd"] is None
            continue
        today = today_in(books, made["time_zone"])
        facts = facts_in(books, window_of(made["window"], today, made["time_zone"]), books.end_ms, lets)
        assert nano(row["used_usd"]) == total_of(facts, "cost_nanousd")
        assert nano(row["left_usd"]) == nano(row["maximum_usd"]) - nano(row["used_usd"])


def place_of(row):
    return tuple(row[name] for name in ("scope", "window", "time_zone", "model", "tag_name", "tag_value"))


def test_limits_of_the_command_line(books, rules):
    rows = books.told_by("limits", "list")
    of_api = {each["id"]: each for each in books.pages("/budgets", {})}
    for made, _ in rules:
        found = [row for row in rows if row["id"] == made["id"]]
        told = of_api[made["id"]]
        if told["values"] is None:
            assert [nano(row["spent_usd"]) for row in found] == [nano(told["spent_usd"])]
        else:
            values = {f"{made['tag_name']}={each['tag_value']}": nano(each["spent_usd"]) for each in told["values"]}
            assert {row["tag"]: nano(row["spent_usd"]) for row in found} == values
    assert {row["id"] for row in rows} == set(of_api)
    assert books.told_by("limits", "list", "--team", "search") == [row for row in rows if row["team"] == "search"]
