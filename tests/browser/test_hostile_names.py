"""Whatever users and clients call things: in no view, drawer or dialog does a name become more than text.

Markup, scripts, handlers and addresses that run stand in every name that somebody else than the operator chooses.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.browser.company import CONFIG, Company
from tests.browser.conftest import LISTEN, settle
from tests.fakes.admin_api import API

MARKUP = """\"'><img src=x onerror=window.owned=1><script>window.owned=2</script>"""
ADDRESS = "javascript:window.owned=3//"
HANDLER = """' onmouseover=window.owned=4 onfocus=window.owned=5 autofocus x='"""
NAMES = (MARKUP, ADDRESS, HANDLER)
TAG = "javascript:window.owned//"
"""Values of tags are of few characters: this is the worst that they can be."""
ALIASED = CONFIG.replace(
    "models:", f"models:\n  - {{name: {json.dumps('alias ' + MARKUP)}, upstream: simulator, model: priced}}"
)
FOREIGN = """
() => {
  const found = [];
  if (window.owned !== undefined) found.push(`owned: ${window.owned}`);
  for (const one of document.querySelectorAll('*')) {
    if (['IMG', 'IFRAME', 'OBJECT', 'EMBED', 'BASE'].includes(one.tagName)) found.push(one.outerHTML);
    if (one.tagName === 'SCRIPT' && !one.src.startsWith(`${location.origin}/console/assets/`)) found.push(one.outerHTML);
    for (const { name, value } of one.attributes) {
      if (name.startsWith('on') || name === 'autofocus' && !one.closest('dialog')) found.push(`${one.tagName} ${name}=${value}`);
      if (['href', 'src', 'action', 'formaction', 'xlink:href'].includes(name) && !/^(https?:|\\/(?!\\/)|\\?|#)/.test(value)) found.push(`${one.tagName} ${name}=${value}`);
    }
  }
  return found;
}
"""


class HostileCompany(Company):
    """A team, a key, a token, a rule, a budget, a price and calls for each of the names."""

    def _furnish(self) -> None:
        for name in NAMES:
            team = self.teams[name] = self.admin.ask("POST", "/teams", json={"name": name})
            self.keys[name] = self.make_key(name, name, models=["*"], tags={"odd": TAG})
            token = self.admin.ask("POST", "/tokens", json={"name": name, "role": "viewer"})
            self.credentials[name] = token["token"]
            self.admin.ask("POST", "/alerts", json={"kind": "budget.threshold", "name": name, "team_id": team["id"]})
            for narrowed in ({}, {"model": name}, {"tag_name": "odd", "tag_value": TAG}):
                budget = {"team_id": team["id"], "window": "month", "maximum_usd": "0.000001", **narrowed}
                self.admin.ask("POST", "/budgets", json={**budget, "mode": "observe"})
            price = {"model": name, "input_per_mtok_usd": "1", "output_per_mtok_usd": "2"}
            self.admin.ask("POST", "/prices", json=price)
        lead = {"name": f"lead {MARKUP}", "role": "lead", "team_id": self.teams[MARKUP]["id"]}
        self.credentials |= {"admin": self.gateway.first_run["admin_token"], "key": self.keys[MARKUP]["key"]}
        self.credentials["lead"] = self.admin.ask("POST", "/tokens", json=lead)["token"]
        self.requests = [
            self.ask_as(name, model, field)
            for name in NAMES
            for model in (name, f"unpriced {name}")
            for field in ("user", "safety_identifier")
        ]
        self.requests.append(self.ask_as(MARKUP, f"alias {MARKUP}", "user"))
        self.wait(lambda: self.admin.ask("GET", "/usage?by=model")["total"]["requests"] == len(self.requests))

    def ask_as(self, name: str, model: str, field: str) -> str:
        answer = httpx.post(
            f"{self.gateway.base_url}/responses",
            json={"model": model, "input": name, field: name, "metadata": {name[:60]: name}},
            headers={"authorization": f"Bearer {self.keys[name]['key']}", "x-headgate-tags": f"odd={TAG}"},
            timeout=30,
        )
        assert answer.status_code == 200, answer.text
        return answer.headers["x-headgate-request-id"]


@pytest.fixture(scope="module")
def hostile(tmp_path_factory) -> Iterator[HostileCompany]:
    with HostileCompany(tmp_path_factory.mktemp("hostile"), ALIASED) as made:
        yield made


@pytest.fixture
def look(chromium, hostile):
    """``look(role)`` gives a page, and what shows that nothing of what is on it has run."""
    contexts = []

    def sign_in(role: str) -> Any:
        context = chromium.new_context(viewport={"width": 1440, "height": 900}, timezone_id="UTC")
        answer = context.request.post(
            f"{hostile.gateway.url}{API}/session", data={"credential": hostile.credentials[role]}
        )
        assert answer.ok
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.told = []
        page.on("console", lambda message: page.told.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: page.told.append(str(error)))
        page.on("dialog", lambda dialog: (page.told.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        page.add_init_script(LISTEN)
        contexts.append(context)
        return page

    yield sign_in
    for context in contexts:
        context.close()


REFUSED = re.compile(r"the server responded with a status of 40[04]\b")
"""What a browser says of an answer that an address with such a name in it rightly gets, be it early or late."""


def check(page, at: str, *texts: str, refused: bool = False) -> None:
    for text in texts:
        page.get_by_text(text).first.wait_for(state="attached")
    # What has a handler is pointed at and focused, as a person would.
    for one in page.locator("main :is(a, button, tr, [title]):visible").all()[:12]:
        one.dispatch_event("mouseover")
        one.dispatch_event("focus")
    page.wait_for_timeout(50)
    assert page.evaluate(FOREIGN) == [], at
    assert [text for text in page.told if not (refused and REFUSED.search(text))] == [], at


def paths_of(hostile: HostileCompany) -> dict[str, tuple[str, ...]]:
    """Each address of people, and names that must be read there."""
    budgets = hostile.admin.ask("GET", "/budgets")["data"]
    audit = hostile.admin.ask("GET", "/audit")["data"]
    quoted = {name: str(httpx.QueryParams({"team": name})).removeprefix("team=") for name in NAMES}
    return {
        "/?by=team": NAMES,
        "/?by=key": NAMES,
        "/?by=model": NAMES,
        "/?by=tag.odd": (TAG,),
        "/console/explore?by=team&then=model": NAMES,
        "/console/explore?by=key&then=tag.odd&draw=lines": (*NAMES, TAG),
        "/console/explore?by=model&per=hour&range=today&draw=total": NAMES,
        **{f"/console/explore?by=key&model={quoted[name]}": (name,) for name in NAMES},
        "/console/budgets": NAMES,
        **{f"/console/budgets?open={each['id']}": () for each in budgets[:9]},
        "/console/keys": NAMES,
        **{f"/console/keys?open={key['id']}": (name,) for name, key in hostile.keys.items()},
        "/console/teams": NAMES,
        **{f"/console/teams/{team['id']}": (name,) for name, team in hostile.teams.items()},
        "/console/live": NAMES,
        "/console/requests": NAMES,
        **{f"/console/requests?q={quoted[name]}": (name,) for name in NAMES},
        **{f"/console/request/{each}": () for each in hostile.requests},
        "/console/upstreams": (f"alias {MARKUP}",),
        "/console/prices": (*NAMES, f"unpriced {MARKUP}"),
        "/console/alerts": NAMES,
        "/console/audit": NAMES,
        **{f"/console/audit?open={each['id']}": () for each in audit[:30]},
        "/console/tokens": NAMES,
        f"/console/{quoted[MARKUP]}": (),
        f"/console/keys?open={quoted[MARKUP]}&q={quoted[MARKUP]}&team={quoted[MARKUP]}": (),
    }


def test_no_name_is_more_than_text_to_an_administrator(look, hostile):
    page = look("admin")
    for path, texts in paths_of(hostile).items():
        page.goto(hostile.gateway.url + path + ("&" if "?" in path else "?") + "tz=UTC")
        settle(page)
        check(page, path, *texts, refused=True)


@pytest.mark.parametrize(
    ("path", "button"),
    [
        ("/console/keys", "Make a key"),
        ("/console/budgets", "Make a budget"),
        ("/console/prices", "Set a price"),
        ("/console/prices", "Reprice"),
        ("/console/alerts", "Make a rule"),
        ("/console/tokens", "Make a token"),
        ("/console/explore?by=team", "Add filter"),
        ("/console/explore?by=model", "Add filter"),
    ],
)
def test_no_dialog_makes_more_of_a_name(look, hostile, path, button):
    page = look("admin")
    page.goto(hostile.gateway.url + path)
    settle(page)
    page.get_by_role("button", name=button, exact=True).first.click()
    page.get_by_role("dialog").wait_for()
    page.wait_for_timeout(500)
    check(page, f"{path}: {button}")


def test_no_name_is_more_than_text_to_a_lead_and_to_a_key(look, hostile):
    own = hostile.requests[0]
    for role, paths in {
        "lead": ("/", "/console/explore", "/console/budgets", "/console/keys", "/console/teams", "/console/requests"),
        "key": ("/console/me", "/console/me?show=tag", "/console/my-requests", f"/console/my-requests?open={own}"),
    }.items():
        page = look(role)
        for path in paths:
            page.goto(hostile.gateway.url + path)
            settle(page)
            check(page, f"{role}: {path}", MARKUP)


def test_a_drawer_and_a_card_that_are_opened_by_hand_show_text(look, hostile):
    page = look("admin")
    for path in ("/?by=model&tz=UTC", "/console/explore?by=team&tz=UTC"):
        page.goto(hostile.gateway.url + path)
        settle(page)
        page.locator("svg [role=img]:not([aria-label*='to come']):not([aria-label*='forecast'])").last.hover()
        page.locator(".chart-card").get_by_text(MARKUP).first.wait_for()
        check(page, path)
