"""Keys on a real gateway: made, shown once, used, rotated, stopped, revoked; and who may do that."""

from __future__ import annotations

import re

import pytest

from tests.browser.company import BAD
from tests.browser.conftest import settle

SECRET = re.compile(r"sk-hg-[A-Za-z0-9]{10}-[A-Za-z0-9]{38}")
LEAKS = """(secret) => ({
  nodes: [...document.querySelectorAll('*')].filter((one) => [...one.childNodes].some((node) => node.nodeType === 3 && node.data.includes(secret))).length,
  attributes: [...document.querySelectorAll('*')].filter((one) => [...one.attributes].some((each) => each.value.includes(secret))).length,
  fields: [...document.querySelectorAll('input, textarea')].filter((one) => one.value.includes(secret)).length,
  address: location.href.includes(secret) || JSON.stringify(history.state ?? null).includes(secret),
  storage: JSON.stringify({...localStorage}) .includes(secret) || JSON.stringify({...sessionStorage}).includes(secret),
})"""


@pytest.fixture
def said(enter):
    """What a page writes to its console."""
    texts: list[str] = []

    def open_page(*arguments, **named):
        page = enter(*arguments, **named)
        page.on("console", lambda message: texts.append(message.text))
        return page, texts

    return open_page


def make(page, name: str, team: str = "red") -> str:
    """Make a key in the dialog; its secret, as it is shown."""
    page.get_by_role("button", name="Make a key").first.click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Name").fill(name)
    dialog.get_by_label("Team").select_option(label=team)
    dialog.get_by_role("button", name="Make key").click()
    page.get_by_text("Copy it now. It is shown only once.").wait_for()
    secret = page.get_by_label("The key", exact=True).inner_text()
    assert SECRET.fullmatch(secret)
    return secret


def test_a_secret_is_shown_once_in_one_place_and_is_gone_when_it_is_stored(said, company):
    page, texts = said("/console/keys")
    secret = make(page, "made-by-hand")
    found = page.evaluate(LEAKS, secret)
    assert found == {"nodes": 1, "attributes": 0, "fields": 0, "address": False, "storage": False}
    assert f"curl {company.gateway.base_url}/responses" in page.get_by_role("dialog").inner_text()
    page.keyboard.press("Escape")
    page.get_by_text("Close it? Once closed, nobody can show it again.").wait_for()
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    assert page.get_by_label("The key", exact=True).inner_text() == secret
    page.get_by_role("button", name="Keep it open").click()
    stored = page.get_by_role("button", name="I have stored it")
    # With the press, not with a task that a busy browser does later.
    assert (
        stored.evaluate("(one, secret) => (one.click(), document.documentElement.outerHTML.includes(secret))", secret)
        is False
    )
    page.get_by_role("dialog").wait_for(state="detached")
    assert page.evaluate(LEAKS, secret)["nodes"] == 0
    assert not any(secret in text for text in texts)
    assert secret not in page.content()
    company.call(secret)
    page.get_by_role("heading", name="made-by-hand").wait_for()


def test_what_is_wrong_stands_at_its_field(enter, company):
    page = enter("/console/keys")
    page.expected += ["409"]
    page.get_by_role("button", name="Make a key").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name="Make key").click()
    assert dialog.get_by_text("This is needed.").count() == 2
    dialog.get_by_label("Name").fill("red bot")
    dialog.get_by_label("Team").select_option(label="red")
    dialog.get_by_text("Limits", exact=True).click()
    dialog.get_by_label("Requests a minute").fill("many")
    dialog.get_by_role("button", name="Make key").click()
    assert dialog.get_by_text("A whole number, such as 600 or 400k.").is_visible()
    dialog.get_by_label("Requests a minute").fill("1k")
    dialog.get_by_role("button", name="Make key").click()
    dialog.get_by_role("alert").or_(dialog.locator(".fault")).filter(
        has_text=re.compile("red bot|already|name")
    ).first.wait_for()


def test_a_key_is_rotated_the_old_secret_watched_and_stopped(enter, company):
    key = company.make_key("red", "turning")
    company.call(key["key"], tags="service=old-program")
    company.wait(lambda: company.admin.ask("GET", f"/keys/{key['id']}/secrets")["data"][0]["requests_last_hour"] == 1)
    page = enter(f"/console/keys?open={key['id']}")
    page.get_by_role("button", name="Rotate the secret").click()
    assert page.get_by_role("radio", name="7 days").is_checked()
    page.get_by_role("button", name="Make a new secret").click()
    fresh = page.get_by_label("The key", exact=True).inner_text()
    page.get_by_role("button", name="I have stored it").click()
    page.get_by_role("heading", name="Rotation in progress").wait_for()
    assert page.locator(".steps li").count() == 3
    assert page.get_by_text("0% moved").is_visible()
    assert page.get_by_role("rowheader", name="service=old-program").is_visible()
    company.call(fresh)
    company.call(key["key"])

    page.get_by_role("button", name="Give it more time").click()
    page.get_by_role("radio", name="30 days later").check()
    page.get_by_role("dialog").get_by_role("button", name="Give it more time").click()
    page.get_by_text(re.compile("The old secret works until")).first.wait_for()

    page.get_by_role("button", name="Stop old secret now").click()
    dialog = page.get_by_role("dialog")
    assert "service=old-program" in dialog.inner_text()
    dialog.get_by_role("button", name="Stop old secret").click()
    page.get_by_role("heading", name="Rotation in progress").wait_for(state="detached")
    company.wait(
        lambda: (
            len([one for one in company.admin.ask("GET", f"/keys/{key['id']}")["secrets"] if one["revoked_at"]]) == 1
        )
    )
    company.call(fresh)


def test_a_key_is_revoked_by_typing_its_name(enter, company):
    key = company.make_key("red", "to-be-revoked")
    company.call(key["key"])
    company.wait(lambda: company.admin.ask("GET", f"/keys/{key['id']}/secrets")["data"][0]["requests_last_hour"] == 1)
    page = enter(f"/console/keys?open={key['id']}")
    page.get_by_role("heading", name="Requests per hour, last 24 hours").wait_for()
    page.get_by_role("button", name="More", exact=True).click()
    page.get_by_role("menuitem", name="Revoke this key").click()
    dialog = page.get_by_role("dialog")
    assert "1 request in the last hour" in dialog.inner_text()
    assert not dialog.get_by_role("checkbox", name="Also cut running requests").is_checked()
    dialog.get_by_role("textbox").fill("to-be-revoke")
    dialog.get_by_role("button", name="Revoke key").click()
    assert dialog.get_by_text("That is not its name.").is_visible()
    dialog.get_by_role("textbox").fill("to-be-revoked")
    dialog.get_by_role("button", name="Revoke key").click()
    page.get_by_text(re.compile(r"Revoked everywhere at \d\d:\d\d:\d\d\.")).first.wait_for()
    assert company.admin.ask("GET", f"/keys/{key['id']}")["state"] == "revoked"


def test_tabs_and_search_hold_in_the_address(enter, company):
    page = enter("/console/keys")
    counts = company.admin.ask("GET", "/keys/counts")
    for name, label in (("active", "Active"), ("rotating", "Rotating"), ("revoked", "Revoked")):
        button = page.locator(".tabs").get_by_role("button", name=re.compile(f"^{label}"))
        assert button.locator(".count").inner_text() == str(counts[name])
    page.get_by_label("Find a key, team or id").fill("red bot")
    page.wait_for_url("**q=red*")
    settle(page)
    assert page.locator(".keys-table tbody tr:not(.group)").count() == 1
    page.locator(".tabs").get_by_role("button", name=re.compile("^Revoked")).click()
    page.wait_for_url("**state=revoked*")
    page.reload()
    settle(page)
    assert page.get_by_label("Find a key, team or id").input_value() == "red bot"


def test_the_keys_add_up_to_what_usage_tells(enter, company):
    page = enter("/console/keys?tz=UTC")
    spent = company.admin.ask("GET", "/usage?by=team&range=this_month&tz=UTC")["total"]["cost_usd"]
    shown = [text for text in page.locator(".keys-table tfoot td.end").all_inner_texts() if text]
    assert sum(float(text.strip("$")) for text in shown) == pytest.approx(float(spent), abs=0.0001)


def test_a_viewer_sees_keys_and_may_do_nothing_with_them(enter, company):
    page = enter(f"/console/keys?open={company.keys['red']['id']}", role="viewer")
    page.get_by_role("heading", name="red bot").wait_for()
    page.get_by_role("heading", name="Requests per hour, last 24 hours").wait_for()
    assert page.get_by_role("button", name="Make a key").count() == 0
    assert page.locator(".drawer-foot").count() == 0


def test_a_lead_has_its_own_team_and_makes_keys_for_it(enter, company):
    page = enter("/console/keys", role="lead")
    assert BAD not in page.locator("main").inner_text()
    assert page.locator(".keys-table tr.group").count() == 1
    page.get_by_role("button", name="Make a key").click()
    assert page.get_by_label("Team").locator("option").all_inner_texts() == ["red"]
    page.keyboard.press("Escape")
    page.expected += ["404"]
    page.goto(f"{company.gateway.url}/console/keys?open={company.keys[BAD]['id']}")
    page.get_by_role("heading", name="No such key").wait_for()
