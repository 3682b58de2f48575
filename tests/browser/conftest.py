"""Debian's chromium, driven by Playwright, and pages that keep what they were told of errors."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.browser.company import Company
from tests.fakes.admin_api import ADMIN, API, NOW, AdminApi, Shop

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
LISTEN = (
    "addEventListener('securitypolicyviolation', (e) => console.error('policy:', e.violatedDirective, e.blockedURI))"
)


def settle(page: Any) -> None:
    """Until a view stands and has what it asked for."""
    page.locator("h1").first.wait_for()
    page.locator("[aria-busy]").first.wait_for(state="detached")


@pytest.fixture(scope="package")
def chromium():
    """One browser for the tests of this folder: its loop runs in this thread until it is closed."""
    if CHROMIUM is None:
        pytest.skip("no chromium: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="package")
def served() -> Iterator[AdminApi]:
    with AdminApi() as api:
        yield api


@pytest.fixture
def api(served) -> Iterator[AdminApi]:
    """The stand-in with its usual figures; a test may give it another shop."""
    served.shop = Shop()
    yield served
    served.shop = Shop()


@pytest.fixture
def visit(chromium, api) -> Iterator[Callable[..., Any]]:
    """``visit(path, role=ADMIN, width=1440, theme="light")``: a page at the fixed moment of the figures.

    What the page was told of errors is looked at in the end: none is the only right number, but for those that a
    test has named in ``page.expected``.
    """
    contexts = []

    def open_page(
        path: str = "/",
        *,
        role: str | None = ADMIN,
        width: int = 1440,
        height: int = 900,
        theme: str = "light",
        wait: bool = True,
        **more: Any,
    ) -> Any:
        context = chromium.new_context(
            viewport={"width": width, "height": height},
            color_scheme=theme,
            timezone_id="Europe/Berlin",
            locale="en-GB",
            **more,
        )
        page = context.new_page()
        page.set_default_timeout(10_000)
        page.errors, page.expected = [], []
        page.on("console", lambda message: page.errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: page.errors.append(str(error)))
        page.on("dialog", lambda dialog: (page.errors.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        page.add_init_script(LISTEN)
        page.clock.set_system_time(NOW)
        if role is not None:
            answer = context.request.post(f"{api.url}{API}/session", data={"credential": role})
            assert answer.ok
        contexts.append((context, page))
        page.goto(api.url + path)
        if wait:
            settle(page)
        return page

    yield open_page
    for context, page in contexts:
        told = [text for text in page.errors if not any(part in text for part in page.expected)]
        context.close()
        assert told == []


@pytest.fixture(scope="package")
def company(tmp_path_factory) -> Iterator[Company]:
    with Company(tmp_path_factory.mktemp("company")) as made:
        yield made


@pytest.fixture
def enter(chromium, company) -> Iterator[Callable[..., Any]]:
    """``enter(path, role="admin", width=1440, theme="light")``: a page of the real gateway's console, signed in.

    As with ``visit`` errors that no test expects fail it.
    """
    contexts = []

    def open_page(
        path: str, *, role: str = "admin", width: int = 1440, height: int = 900, theme: str = "light", wait: bool = True
    ) -> Any:
        context = chromium.new_context(
            viewport={"width": width, "height": height}, color_scheme=theme, timezone_id="UTC", locale="en-GB"
        )
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.errors, page.expected = [], []
        page.on("console", lambda message: page.errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: page.errors.append(str(error)))
        page.add_init_script(LISTEN)
        credential = company.credentials[role]
        answer = context.request.post(f"{company.gateway.url}{API}/session", data={"credential": credential})
        assert answer.ok
        contexts.append((context, page))
        page.goto(company.gateway.url + path)
        if wait:
            settle(page)
        return page

    yield open_page
    for context, page in contexts:
        told = [text for text in page.errors if not any(part in text for part in page.expected)]
        context.close()
        assert told == []


@pytest.fixture(scope="package")
def words(chromium, served):
    """``words(module, expression)`` with the module as ``m``."""
    context = chromium.new_context(timezone_id="America/New_York", locale="de-DE")
    page = context.new_page()
    page.goto(f"{served.url}/console/assets/js/format.js")

    def ask(module: str, expression: str):
        return page.evaluate(f"import('/console/assets/js/{module}.js').then((m) => ({expression}))")

    yield ask
    context.close()
