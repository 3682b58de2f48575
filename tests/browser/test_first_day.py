"""The first day with a gateway, as a person lives it: from the sign-in page to a revoked key; and what others may."""

from __future__ import annotations

import csv
import re
import threading
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import openai
import pytest
from openai import OpenAI

from tests.browser.company import BAD
from tests.browser.conftest import settle
from tests.browser.person import exact_of, go, is_written, reload_until, rows_of, sign_in, sign_out
from tests.fakes.admin_api import API
from tests.fakes.gateway import RunningGateway

TEAM, KEY = "search", "search-indexer"
MODEL = "gpt-5.4"
PLAIN = "Say hello. [[sim: tokens=2000]]"
STREAMED = "Count. [[sim: tokens=1500]]"
SLOW = "Think. [[sim: first_ms=1500 pace_ms=25 tokens=60]]"
MTOK = 1_000_000
CHANGING = re.compile("^(Make|Set|Change|Rename|Raise|Take|Rotate|Revoke|Stop|Give|Reprice|Probe|Send|More)\\b")


@dataclass
class Day:
    """The page that the administrator has open, and what the calls told their callers."""

    page: Any
    gateway: RunningGateway
    usages: list[Any] = field(default_factory=list)
    input_usd: Decimal = Decimal()
    cached_usd: Decimal = Decimal()
    output_usd: Decimal = Decimal()

    def client(self, secret: str) -> OpenAI:
        return OpenAI(base_url=self.gateway.base_url, api_key=secret, max_retries=0, timeout=30)

    def call(self, secret: str, text: str, *, stream: bool = False) -> None:
        with self.client(secret) as client:
            if not stream:
                self.usages.append(client.responses.create(model=MODEL, input=text).usage)
                return
            for event in client.responses.create(model=MODEL, input=text, stream=True):
                if event.type == "response.completed":
                    self.usages.append(event.response.usage)

    @property
    def tokens(self) -> int:
        return sum(usage.total_tokens for usage in self.usages)

    @property
    def cost(self) -> Decimal:
        """By what the callers were told of usage, and the prices that the console shows."""
        cached = sum(usage.input_tokens_details.cached_tokens for usage in self.usages)
        uncached = sum(usage.input_tokens for usage in self.usages) - cached
        output = sum(usage.output_tokens for usage in self.usages)
        return (uncached * self.input_usd + cached * self.cached_usd + output * self.output_usd) / MTOK


@pytest.fixture
def people(chromium):
    """``people()``: a page of its own for each person; none may be told of an error that it does not expect."""
    opened = []

    def come() -> Any:
        context = chromium.new_context(viewport={"width": 1440, "height": 900}, timezone_id="UTC", locale="en-GB")
        page = context.new_page()
        page.set_default_timeout(20_000)
        # Whoever has not signed in is told so by a 401.
        page.errors, page.expected = [], ["401"]
        page.on("console", lambda message: page.errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: page.errors.append(str(error)))
        opened.append((context, page))
        return page

    yield come
    for context, page in opened:
        told = [text for text in page.errors if not any(part in text for part in page.expected)]
        context.close()
        assert told == []


def test_a_first_day_from_signing_in_to_a_revoked_key(people, tmp_path):
    with RunningGateway(tmp_path) as gateway:
        day = Day(people(), gateway)
        sign_in(day.page, gateway.url, gateway.first_run["admin_token"])
        follow_the_empty_state(day.page)
        make_a_team(day.page)
        secret = make_a_key(day.page, KEY, TEAM)
        give_it_a_budget(day.page)
        day.call(secret, PLAIN)
        day.call(secret, STREAMED, stream=True)
        watch_a_slow_call(day, secret)
        read_the_prices(day)
        find_the_calls_in_requests(day)
        find_the_same_in_overview(day)
        find_the_same_in_explore_and_its_file(day)
        find_the_same_in_budgets_and_keys(day)
        fresh = rotate_the_key(day.page, KEY)
        see_each_secret_used(day, secret, fresh)
        revoke_the_key(day.page, KEY)
        for gone in (secret, fresh):
            with day.client(gone) as client, pytest.raises(openai.AuthenticationError):
                client.responses.create(model=MODEL, input="Hello")
        read_who_did_what(day.page)


def follow_the_empty_state(page: Any) -> None:
    assert page.get_by_text("No requests yet. Make a key, then send this:").is_visible()
    assert f"curl {page.url.split('/?')[0].rstrip('/')}/v1/responses" in page.locator("main").inner_text()
    page.locator("main").get_by_role("link", name="Make a key").click()
    page.get_by_role("heading", name="Keys", level=1).wait_for()
    settle(page)


def make_a_team(page: Any) -> None:
    go(page, "Teams")
    page.get_by_role("button", name="Make a team").click()
    page.get_by_role("dialog").get_by_label("Name").fill(TEAM)
    page.get_by_role("button", name="Make team").click()
    page.get_by_role("heading", name=TEAM, level=1).wait_for()


def make_a_key(page: Any, name: str, team: str) -> str:
    """Its secret, as the page shows it this once."""
    go(page, "Keys")
    page.get_by_role("button", name="Make a key").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Name").fill(name)
    dialog.get_by_label("Team").select_option(label=team)
    dialog.get_by_role("button", name="Make key").click()
    return store_the_secret(page)


def store_the_secret(page: Any) -> str:
    page.get_by_text("Copy it now. It is shown only once.").wait_for()
    secret = page.get_by_label("The key", exact=True).inner_text()
    page.get_by_role("button", name="I have stored it").click()
    page.get_by_role("dialog").wait_for(state="detached")
    assert secret not in page.content()
    return secret


def give_it_a_budget(page: Any) -> None:
    go(page, "Budgets")
    page.get_by_role("button", name="Make a budget").first.click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Team").select_option(label=TEAM)
    dialog.get_by_role("combobox", name="Key").select_option(label=KEY)
    dialog.get_by_label("Dollars").fill("25")
    dialog.get_by_label("For", exact=True).select_option(label="a month")
    dialog.get_by_role("button", name="Make budget").click()
    dialog.wait_for(state="detached")
    page.get_by_role("button", name=re.compile(KEY)).wait_for()


def watch_a_slow_call(day: Day, secret: str) -> None:
    page = day.page
    go(page, "Live")
    running, ended = page.locator(".live-columns > .panel").all()
    page.get_by_text("Nothing runs at this moment.").wait_for()
    ended.locator("tbody tr").nth(1).wait_for()
    call = threading.Thread(target=day.call, args=(secret, SLOW), kwargs={"stream": True})
    call.start()
    row = running.locator("tbody tr").filter(has_text=KEY)
    row.filter(has_text="waiting").wait_for()
    row.filter(has_text="streaming").wait_for()
    running.get_by_role("heading", name="In flight: 1", exact=True).wait_for()
    call.join()
    row.wait_for(state="detached")
    ended.locator("tbody tr").nth(2).wait_for()
    assert [each["Outcome"].split()[-1] for each in rows_of(ended)] == ["Completed"] * 3


def read_the_prices(day: Day) -> None:
    go(day.page, "Prices")
    reload_until(day.page, lambda: MODEL in day.page.locator("main").inner_text())
    price = next(row for row in rows_of(day.page.locator(".prices-table")) if row["Model"] == MODEL)
    names = ("In, for 1M", "Cached", "Out")
    day.input_usd, day.cached_usd, day.output_usd = (Decimal(price[name].strip("$")) for name in names)


def find_the_calls_in_requests(day: Day) -> None:
    page = day.page
    go(page, "Requests")
    reload_until(page, lambda: page.locator(".records-table tbody tr").count() == len(day.usages))
    shown = rows_of(page.locator(".records-table"))
    assert {(row["Team"], row["Key"], row["Model"]) for row in shown} == {(TEAM, KEY, MODEL)}
    assert all(
        is_written(row["Tokens"], usage.total_tokens) for row, usage in zip(shown, day.usages[::-1], strict=True)
    )
    exported = download(page, lambda: page.get_by_role("link", name="Export").click())
    assert len(exported) == len(shown)
    assert sum(Decimal(row["cost_usd"]) for row in exported) == day.cost
    assert sum(int(row["input_tokens"]) + int(row["output_tokens"]) for row in exported) == day.tokens
    assert all(is_written(row["Cost"], Decimal(line["cost_usd"])) for row, line in zip(shown, exported, strict=True))


def download(page: Any, click: Any) -> list[dict[str, str]]:
    """The rows of the CSV that a click brings."""
    with page.expect_download() as download:
        click()
    with download.value.path().open(newline="") as file:
        return list(csv.DictReader(file))


def find_the_same_in_overview(day: Day) -> None:
    page = day.page
    go(page, "Overview")
    requests = page.locator(".figure-tile").filter(has_text="Requests").locator(".figure")
    reload_until(page, lambda: requests.inner_text() == str(len(day.usages)))
    spent = page.locator(".figure-tile.is-lead .figure").inner_text()
    today = page.locator(".figure-tile").filter(has_text="Today, until").locator(".figure").inner_text()
    legend = page.locator(".legend-panel tbody tr").filter(has_text=TEAM)
    assert is_written(spent, day.cost)
    assert today == spent
    assert legend.get_by_text(spent, exact=True).count() == 1
    for top in page.locator(".overview-tops table").all()[:2]:
        assert spent in top.inner_text()


def find_the_same_in_explore_and_its_file(day: Day) -> None:
    page = day.page
    page.get_by_role("link", name="Open in Explore").click()
    page.get_by_role("heading", name="Explore", level=1).wait_for()
    settle(page)
    cost, requests, tokens, _ = page.locator(".total-figure").all_inner_texts()
    assert is_written(cost, day.cost)
    assert requests == str(len(day.usages))
    assert is_written(tokens, day.tokens)
    table = page.locator(".explore table")
    assert exact_of(table, "Cost") == day.cost
    assert exact_of(table, "Input") + exact_of(table, "Output") == day.tokens
    page.get_by_role("button", name="Export these rows").click()
    exported = download(page, lambda: page.get_by_role("menuitem", name="CSV", exact=True).click())
    assert sum(Decimal(row["cost_usd"]) for row in exported) == day.cost
    assert sum(int(row["requests"]) for row in exported) == len(day.usages)
    assert sum(int(row["input_tokens"]) + int(row["output_tokens"]) for row in exported) == day.tokens


def find_the_same_in_budgets_and_keys(day: Day) -> None:
    page = day.page
    go(page, "Budgets")
    row = rows_of(page.locator(".budgets-table"))[0]
    assert is_written(row["Spent"].splitlines()[0], day.cost)
    assert is_written(row["Left"].splitlines()[0], 25 - day.cost)
    go(page, "Keys")
    key = next(row for row in rows_of(page.locator(".keys-table")) if KEY in row["Key"])
    spent = next(text for name, text in key.items() if name.startswith("Spent in"))
    assert is_written(spent.splitlines()[0], day.cost)
    assert "$25" in spent


def rotate_the_key(page: Any, name: str) -> str:
    """The new secret."""
    go(page, "Keys")
    page.get_by_role("button", name=re.compile(name)).click()
    page.get_by_role("button", name="Rotate the secret").click()
    page.get_by_role("radio", name="1 day").check()
    page.get_by_role("button", name="Make a new secret").click()
    return store_the_secret(page)


def see_each_secret_used(day: Day, old: str, fresh: str) -> None:
    page = day.page
    page.get_by_role("heading", name="Rotation in progress").wait_for()
    used = page.get_by_role("complementary").locator("table.secrets")
    before = len(day.usages)
    assert "never used" in rows_of(used)[0]["Last used"]
    day.call(old, PLAIN)
    day.call(fresh, PLAIN)
    hours = [["1", "request"], [str(before + 1), "requests"]]
    reload_until(page, lambda: [row["Last hour"].split() for row in rows_of(used)] == hours)
    new_row, old_row = rows_of(used)
    assert fresh.startswith(new_row["Secret"].splitlines()[0].rstrip("…"))
    assert old.startswith(old_row["Secret"].splitlines()[0].rstrip("…"))
    assert (new_row["Last used"], old_row["Last used"]) == ("just now", "just now")


def revoke_the_key(page: Any, name: str) -> None:
    page.get_by_role("button", name="More", exact=True).click()
    page.get_by_role("menuitem", name="Revoke this key").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("textbox").fill(name)
    dialog.get_by_role("button", name="Revoke key").click()
    page.get_by_text(re.compile(r"Revoked everywhere at \d\d:\d\d:\d\d\.")).first.wait_for()


def read_who_did_what(page: Any) -> None:
    go(page, "Audit")
    did = [(row["Who"], row["Did"], row["To"]) for row in rows_of(page.locator(".audit-table"))]
    deeds = [(deed, thing) for who, deed, thing in did if who == "first-run"]
    assert deeds == [
        ("Revoked", f"{KEY} key"),
        ("Rotated", f"{KEY} key"),
        ("Made", f"{KEY}: $25 / month budget"),
        ("Made", f"{KEY} key"),
        ("Made", f"{TEAM} team"),
    ]


def test_a_viewer_sees_everything_and_changes_nothing(people, company):
    page = people()
    sign_in(page, company.gateway.url, company.credentials["viewer"])
    for view in ("Overview", "Explore", "Budgets", "Keys", "Teams", "Live", "Requests", "Upstreams", "Prices", "Audit"):
        go(page, view)
        assert changing(page) == [], view
    key = company.keys["red"]["id"]
    page.goto(f"{company.gateway.url}/console/keys?open={key}")
    page.get_by_role("heading", name="red bot").wait_for()
    assert changing(page) == []
    assert ask(page, company, "POST", "teams", {"name": "mine"}) == 403
    assert ask(page, company, "POST", f"keys/{key}/rotate", {"overlap_s": 0}) == 403
    assert ask(page, company, "GET", f"keys/{key}") == 200


def test_a_lead_looks_after_its_own_team_alone(people, company):
    page = people()
    other, own = company.teams[BAD]["id"], company.teams["red"]["id"]
    sign_in(page, company.gateway.url, company.credentials["lead"])
    for team in (own, other):
        rule = {"team_id": team, "window": "week", "maximum_usd": "70", "model": "of-a-week"}
        company.admin.ask("POST", "/budgets", json=rule)
    for view in ("Overview", "Explore", "Budgets", "Keys", "Requests"):
        go(page, view)
        page.locator("main").get_by_text("red, of-a-week" if view == "Budgets" else "red bot").first.wait_for()
        assert BAD not in page.locator("main").inner_text(), view
    page.goto(f"{company.gateway.url}/console/explore?by=key&team={other}")
    page.get_by_text("No request matches").wait_for()
    assert page.locator(".total-figure").nth(1).inner_text() == "0"
    page.goto(f"{company.gateway.url}/?team={other}")
    page.locator(".overview-tops").get_by_text("red bot").wait_for()
    page.goto(f"{company.gateway.url}/console/live?team={other}")
    page.locator(".live-columns tbody").get_by_text("red bot").first.wait_for()
    for view, way_out in (("Budgets", "Show every budget"), ("Keys", "Show every key")):
        page.goto(f"{company.gateway.url}/console/{view.lower()}?team={other}")
        page.get_by_role("link", name=way_out).click()
        page.locator("main table tbody tr").first.wait_for()

    secret = make_a_key(page, "made-by-the-lead", "red")
    company.call(secret)
    fresh = rotate_the_key(page, "made-by-the-lead")
    company.call(fresh)
    revoke_the_key(page, "made-by-the-lead")
    company.call(fresh, expected=401)

    foreign = company.keys[BAD]["id"]
    money = {"team_id": own, "window": "day", "maximum_usd": "9"}
    assert ask(page, company, "GET", f"keys/{foreign}") == 404
    assert ask(page, company, "GET", f"teams/{other}") == 404
    assert ask(page, company, "POST", f"keys/{foreign}/revoke", {"name": company.keys[BAD]["name"]}) == 404
    assert ask(page, company, "POST", "keys", {"team_id": other, "name": "not mine"}) == 404
    assert ask(page, company, "POST", "budgets", money) == 403
    assert ask(page, company, "PATCH", f"teams/{own}", {"requests_per_minute": None}) == 403
    price = {"model": "priced", "input_per_mtok_usd": "0", "output_per_mtok_usd": "0"}
    assert ask(page, company, "POST", "prices", price) == 403
    for path in ("tokens", "audit", "alerts/targets"):
        assert ask(page, company, "GET", path) == 403, path


def test_who_has_signed_out_is_out(people, company):
    page = people()
    sign_in(page, company.gateway.url, company.credentials["lead"])
    cookies = page.context.cookies()
    sign_out(page)
    page.context.add_cookies(cookies)
    assert page.context.request.get(f"{company.gateway.url}{API}/session").status == 401
    page.goto(f"{company.gateway.url}/console/keys")
    page.get_by_role("heading", name="Sign in").wait_for()


def changing(page: Any) -> list[str]:
    """The buttons that would change something."""
    words = page.locator("main :is(button, [role=button]):visible").all_inner_texts()
    return [text for text in words if CHANGING.match(text.strip())]


def ask(page: Any, company: Any, method: str, path: str, body: object = None) -> int:
    """The status that the page's own session is answered with."""
    at = f"{company.gateway.url}{API}/"
    csrf = page.context.request.get(f"{at}session").json()["csrf"]
    return page.context.request.fetch(at + path, method=method, data=body, headers={"x-headgate-csrf": csrf}).status
