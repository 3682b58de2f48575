"""A name is text, whatever is in it."""

from __future__ import annotations

from tests.fakes.admin_api import Shop

BAD = """<img src=x onerror="window.owned=1">"""
WORSE = "javascript:window.owned=2"
LONG = "a-name-that-is-as-long-as-a-name-may-be-" * 3


def test_names_are_shown_and_never_run(visit, api):
    api.shop = Shop(
        teams=[BAD, WORSE, LONG, "'\"><script>window.owned=3</script>", "${7*7}"],
        keys=[BAD, WORSE, LONG, "</style><svg onload=window.owned=4>", "="],
    )
    for path in (
        "/",
        "/?by=key",
        "/console/explore?by=team&then=key",
        "/console/explore?by=key&draw=lines&team=team_0,team_2",
    ):
        page = visit(path)
        page.locator("svg [role=img][data-index]").nth(3).hover()
        assert BAD in page.locator("body").inner_text(), path
        assert page.evaluate("window.owned") is None
        assert page.locator("img").count() == 0
        assert page.evaluate(
            "[...document.querySelectorAll('a[href]')].every((link) => /^https?:/.test(link.protocol))"
        )


def test_names_of_the_address_are_text_too(visit):
    page = visit(
        f"/console/explore?by=tag.{'<b>x</b>'}&team=%3Cimg%20src=x%20onerror=window.owned=1%3E&range=%22%3E%3Cscript%3E"
    )
    assert page.evaluate("window.owned") is None
    assert page.locator("img, b:not(.side-who b)").count() == 0


def test_the_longest_names_never_push_the_page_sideways(visit, api):
    api.shop = Shop(teams=[LONG + "x" * 80] * 3, keys=[LONG * 2, "M" * 200, LONG])
    for width in (360, 1440):
        for path in ("/", "/?by=key", "/console/explore?by=key&team=team_0"):
            page = visit(path, width=width)
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), (width, path)
