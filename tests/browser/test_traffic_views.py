"""Live, Requests, one request, and what is made and changed beside keys: on a real gateway."""

from __future__ import annotations

import re
import threading

import httpx

from tests.browser.conftest import settle
from tests.fakes.admin_api import API
from tests.fakes.gateway import RunningGateway


def slow(company, key: str, seconds: int) -> threading.Thread:
    """A call that takes so long, on its way."""
    text = f"Hello [[sim: first_ms={seconds * 1000} tokens=5]]"
    thread = threading.Thread(target=company.call, args=(key,), kwargs={"text": text})
    thread.start()
    return thread


def test_a_call_is_seen_while_it_runs_and_when_it_has_ended(enter, company):
    page = enter("/console/live")
    running, ended = page.locator(".live-columns > .panel").all()
    page.get_by_text("Connecting…").wait_for(state="detached")
    thread = slow(company, company.keys["red"]["key"], 4)
    running.get_by_role("rowheader", name=re.compile(r"\d\d:\d\d:\d\d")).first.wait_for()
    row = running.locator("tbody tr").first
    assert "red bot" in row.inner_text()
    assert "waiting" in row.inner_text()
    assert running.get_by_role("heading").inner_text().startswith("In flight: ")
    thread.join()
    running.locator("tbody tr").first.wait_for(state="detached")
    assert "red bot" in ended.locator("tbody tr").first.inner_text()
    ended.locator("tbody tr a").first.click()
    page.get_by_role("heading", name="Request", exact=True).wait_for()
    settle(page)
    assert page.locator(".verdict-sentence").inner_text().startswith("Completed in")


def test_rows_stand_still_under_the_pointer_and_space_pauses(enter, company):
    page = enter("/console/live")
    ended = page.locator(".live-columns > .panel").last
    ended.locator("tbody tr").first.wait_for()
    first = ended.locator("tbody tr").first.get_attribute("data-id")
    ended.locator("tbody tr").first.hover()
    company.call(company.keys["red"]["key"])
    page.get_by_role("button", name=re.compile(r"\d+ new: show")).wait_for()
    assert ended.locator("tbody tr").first.get_attribute("data-id") == first
    page.get_by_role("button", name=re.compile(r"\d+ new: show")).click()
    assert ended.locator("tbody tr").first.get_attribute("data-id") != first
    page.mouse.move(5, 5)
    page.locator("h1").click()
    page.keyboard.press("Space")
    page.get_by_role("button", name="Go on").wait_for()
    first = ended.locator("tbody tr").first.get_attribute("data-id")
    company.call(company.keys["red"]["key"])
    page.get_by_role("button", name=re.compile(r"\d+ new: show")).wait_for()
    assert ended.locator("tbody tr").first.get_attribute("data-id") == first
    page.keyboard.press("Space")
    page.locator(f'.live-columns > .panel:last-child tbody tr:first-child:not([data-id="{first}"])').wait_for()


def test_a_lost_stream_says_since_when_and_comes_back(enter):
    page = enter("/console/keys")
    page.expected += ["net::", "ERR_"]
    page.evaluate(
        "() => { window.streams = []; window.EventSource = class extends EventSource {"
        " constructor(address) { super(address); window.streams.push(this); } }; }"
    )
    page.locator(".side a", has_text="Live").click()
    page.get_by_role("heading", name=re.compile("^In flight: ")).wait_for()
    page.route(re.compile("/api/v1/live"), lambda route: route.abort())
    page.evaluate("window.streams.at(-1).dispatchEvent(new Event('error'))")
    page.get_by_text(re.compile(r"Not live since \d\d:\d\d:\d\d, reconnecting")).wait_for()
    assert page.locator(".live-columns.is-lost").count() == 1
    page.unroute_all()
    page.locator(".live-columns.is-lost").wait_for(state="detached")
    assert page.get_by_text("Not live since").count() == 0


def test_a_stream_whose_session_has_ended_leads_to_the_sign_in_page(enter, company):
    made = company.admin.ask("POST", "/tokens", json={"name": "for a while", "role": "viewer"})
    company.credentials["for a while"] = made["token"]
    page = enter("/console/live", role="for a while")
    page.expected += ["401"]
    page.get_by_text("Connecting…").wait_for(state="detached")
    company.admin.ask("DELETE", f"/tokens/{made['id']}")
    page.get_by_role("heading", name="Sign in").wait_for()


def test_a_request_is_found_by_what_one_has_of_it_and_its_figures_are_the_records(enter, company):
    request_id = company.call(company.keys["red"]["key"], tags="service=found-by-tag")
    record = company.record(request_id)
    page = enter("/console/requests?tz=UTC")
    for term in (request_id, record["response_id"], "service=found-by-tag"):
        page.get_by_placeholder("Find by id, response id, end user or tag=value").fill(term)
        page.wait_for_function("(term) => new URL(location.href).searchParams.get('q') === term", arg=term)
        settle(page)
        page.locator(f'tr[data-id="{request_id}"]').wait_for()
        assert page.locator(".records-table tbody tr").count() == 1
    page.locator(f'tr[data-id="{request_id}"] a').click()
    page.get_by_role("heading", name="Request", exact=True).wait_for()
    settle(page)
    exact = f"${float(record['cost_usd']):.6f}"
    assert f"It cost {exact}." in page.locator(".verdict-sentence").inner_text()
    assert exact[:-1] in page.get_by_role("region", name="What it cost").locator("tfoot").inner_text()
    cells = page.get_by_role("region", name="What it cost").locator("tbody td:last-child").all_inner_texts()
    assert abs(sum(float(text.strip("$")) for text in cells if text != "–") - float(record["cost_usd"])) < 1e-9
    rail = page.get_by_role("complementary", name="About this request").inner_text()
    assert "service=found-by-tag" in rail
    assert str(record["output_tokens"]) in rail
    page.get_by_text("The stored record").click()
    assert request_id in page.get_by_label("The stored record as JSON").inner_text()


def test_a_refusal_says_which_limit_and_that_nothing_was_charged(enter, company):
    key = company.make_key("red", "narrow", requests_per_minute=1)
    company.call(key["key"])
    refused = company.call(key["key"], expected=429)
    company.wait(lambda: company.admin.get(f"/explain/{refused}").is_success)
    page = enter(f"/console/request/{refused}")
    sentence = page.locator(".verdict-sentence").inner_text()
    assert sentence.startswith("Refused: the key\u2019s limit of requests a minute was reached")
    assert sentence.endswith("Nothing was sent and nothing was charged.")
    assert page.get_by_text("1 refused").is_visible()


def test_a_budget_is_made_raised_and_what_was_changed_stands_in_the_audit(enter, company):
    page = enter("/console/budgets?tz=UTC")
    page.get_by_role("button", name="Make a budget").first.click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Team").select_option(label="red")
    dialog.get_by_label("Dollars").fill("2,000")
    dialog.get_by_label("Only for a model").fill("priced")
    dialog.get_by_role("button", name="Make budget").click()
    dialog.wait_for(state="detached")
    page.get_by_role("button", name=re.compile("red, priced")).click()
    page.get_by_role("button", name="Raise it").click()
    page.get_by_role("dialog").get_by_label("Dollars a month").fill("3000")
    page.get_by_role("button", name="Change budget").click()
    page.get_by_role("complementary").get_by_text(re.compile(r"left of \$3,000")).wait_for()
    page.goto(f"{company.gateway.url}/console/audit")
    settle(page)
    first = page.locator(".audit-table tbody tr").first
    assert "Changed" in first.inner_text()
    assert re.search(r"2000\s*→\s*3000", first.inner_text())
    first.get_by_role("button").first.click()
    page.get_by_role("heading", name="Before and after").wait_for()
    page.goto(f"{company.gateway.url}/console/budgets")
    settle(page)
    page.get_by_role("button", name=re.compile("red, priced")).click()
    page.get_by_role("button", name="Take it away").click()
    page.get_by_role("dialog").get_by_role("button", name="Take it away").click()
    page.get_by_role("button", name=re.compile("red, priced")).wait_for(state="detached")


def test_a_price_is_set_and_what_had_none_is_priced_after_its_sum_was_seen(enter, company):
    company.record(company.call(company.keys["red"]["key"], "to-be-priced"))
    page = enter("/console/prices")
    page.get_by_role("button", name="Set a price of to-be-priced").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Input", exact=True).fill("2")
    dialog.get_by_label("Output", exact=True).fill("8")
    dialog.get_by_role("button", name="Set price").click()
    page.get_by_role("heading", name="Reprice").wait_for()
    button = page.get_by_role("dialog").get_by_role("button", name=re.compile(r"Reprice 1 call$"))
    button.wait_for()
    told = page.locator(".reprice-figure").inner_text()
    assert company.admin.ask("GET", "/usage?by=model&model=to-be-priced")["total"]["unpriced"] == 1
    button.click()
    page.get_by_role("dialog").wait_for(state="detached")
    total = company.admin.ask("GET", "/usage?by=model&model=to-be-priced")["total"]
    assert total["unpriced"] == 0
    assert abs(float(total["cost_usd"]) - float(told.strip("$"))) < 0.0001


def test_a_test_that_does_not_arrive_says_so(enter):
    page = enter("/console/alerts")
    page.get_by_role("button", name="Send a test to nowhere").click()
    page.get_by_text(re.compile("The test did not reach nowhere:")).first.wait_for()
    page.locator("section", has=page.get_by_role("heading", name="What was sent")).get_by_text(
        "a test"
    ).first.wait_for()


def test_an_upstream_is_paused_with_a_word_of_what_is_refused_and_resumed(enter, company):
    page = enter("/console/upstreams")
    page.get_by_role("button", name="Pause simulator").click()
    dialog = page.get_by_role("dialog")
    assert "No other upstream serves *: requests for that are refused." in dialog.inner_text()
    dialog.get_by_role("button", name="Pause it").click()
    try:
        resume = page.get_by_role("button", name="Resume simulator")
        resume.wait_for()
        row = page.get_by_role("row").filter(has_text="simulator").inner_text()
        assert "Paused" in row
        assert "just now, by first-run" in row
        watcher = enter("/console/upstreams", role="viewer")
        watcher.get_by_text("just now, by first-run").wait_for()
        assert watcher.get_by_role("button", name=re.compile("(Pause|Resume|Probe) simulator")).count() == 0
        overview = enter("/")
        overview.locator(".service-panel").get_by_text(re.compile("^Paused since")).wait_for()
        resume.click()
        page.get_by_role("button", name="Pause simulator").wait_for()
    finally:
        company.admin.ask("POST", "/upstreams/simulator/resume")
    page.goto(f"{company.gateway.url}/console/audit?kind=upstream")
    settle(page)
    told = page.locator(".audit-table tbody tr").all_inner_texts()[:2]
    assert "Resumed" in told[0]
    assert "Paused" in told[1]


def test_an_upstream_that_is_left_alone_says_so(chromium, tmp_path):
    config = """
upstreams:
  dead: {base_url: "http://127.0.0.1:1/v1", breaker: {failures: 1, open_s: 600}}
models:
  - {match: "*", upstream: dead}
server: {drain_delay_s: 0}
"""
    with RunningGateway(tmp_path, config) as gateway:
        body = {"model": "m", "input": "hi"}
        httpx.post(f"{gateway.base_url}/responses", json=body, headers=gateway.headers, timeout=30)
        context = chromium.new_context(timezone_id="UTC", locale="en-GB")
        signed_in = context.request.post(
            f"{gateway.url}{API}/session", data={"credential": gateway.first_run["admin_token"]}
        )
        assert signed_in.ok
        page = context.new_page()
        page.goto(f"{gateway.url}/console/upstreams")
        page.get_by_text("fails, is left alone").wait_for()
        context.close()


def test_a_token_is_shown_once_signs_in_and_is_revoked(enter, company):
    page = enter("/console/tokens")
    page.get_by_role("button", name="Make a token").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Name").fill("auditor")
    dialog.get_by_role("button", name="Make token").click()
    token = page.get_by_label("The token", exact=True).inner_text()
    assert token.startswith("hg-admin-")
    page.get_by_role("button", name="I have stored it").click()
    page.get_by_role("dialog").wait_for(state="detached")
    assert token not in page.content()
    page.get_by_role("button", name="Revoke auditor").click()
    page.get_by_role("dialog").get_by_role("textbox").fill("auditor")
    page.get_by_role("button", name="Revoke token").click()
    page.get_by_role("button", name="Revoke auditor").wait_for(state="detached")
    refused = company.admin.get("/session", headers={"authorization": f"Bearer {token}"})
    assert refused.status_code == 401


def test_a_team_is_made_renamed_and_limited(enter, company):
    page = enter("/console/teams")
    page.get_by_role("button", name="Make a team").first.click()
    page.get_by_role("dialog").get_by_label("Name").fill("new-team")
    page.get_by_role("button", name="Make team").click()
    page.get_by_role("heading", name="new-team", level=1).wait_for()
    page.get_by_role("button", name="Change limits").click()
    page.get_by_label("Requests a minute").fill("600")
    page.get_by_label("Budget in dollars").fill("25")
    page.get_by_role("dialog").get_by_role("button", name="Change limits").click()
    page.get_by_text("600 / min").wait_for()
    page.get_by_text("of $25", exact=True).wait_for()
    page.get_by_text("Those that are on by default.").wait_for()
    # The first list names what is no family.
    page.expected.append("status of 400")
    page.get_by_role("button", name="Change limits").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_text("Endpoints", exact=True).first.click()
    dialog.get_by_label("Endpoints").fill("models, file")
    dialog.get_by_role("button", name="Change limits").click()
    dialog.get_by_text("fine_tuning").wait_for()
    dialog.get_by_label("Endpoints").fill("models, files")
    dialog.get_by_role("button", name="Change limits").click()
    page.get_by_text("models, files", exact=True).wait_for()
    (team,) = [team for team in company.admin.ask("GET", "/teams")["data"] if team["name"] == "new-team"]
    assert (team["endpoints"], len(team["limits"])) == (["models", "files"], 2)
    page.get_by_role("button", name="Rename").click()
    page.get_by_role("dialog").get_by_label("Name").fill("renamed-team")
    page.get_by_role("button", name="Rename team").click()
    page.get_by_role("heading", name="renamed-team", level=1).wait_for()
    assert "renamed-team" in [team["name"] for team in company.admin.ask("GET", "/teams")["data"]]
