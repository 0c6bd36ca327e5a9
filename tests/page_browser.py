"""A headless Chromium for tests of the page: what the page complains about, or loads from elsewhere, fails a test."""

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Locator, Page, Request, expect, sync_playwright

CHROMIUM = Path("/usr/bin/chromium")
SWITCHES = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
SWITCHES += ["--disable-background-networking", "--disable-component-update"]
HASTE = """for (const name of ["setTimeout", "setInterval"]) {
  const real = window[name];
  window[name] = (action, wait = 0, ...rest) => real(action, wait / 8, ...rest);
}"""
"""Waiting is the page's business, not the tests': its timers run at eight times their speed."""
BY_BROWSER = re.compile(r"Failed to load resource|WebSocket connection to")
"""Complaints about a refused request or a lost socket, which some tests are about."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if not CHROMIUM.exists():
        pytest.skip("no Chromium")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=SWITCHES)
        yield started
        started.close()


class Pages:
    """Pages of one test, each in a browser that knows nothing yet."""

    def __init__(self, browser: Browser, address: str):
        self.browser, self.address = browser, address
        self.contexts: list[BrowserContext] = []
        self.complaints: list[str] = []

    def __enter__(self) -> "Pages":
        return self

    def __exit__(self, *_: object) -> None:
        for context in self.contexts:
            context.close()
        assert not self.complaints

    def open(
        self,
        path: str = "",
        *,
        built: bool = True,
        haste: bool = True,
        width: int = 1280,
        script: str = "",
        **settings: Any,
    ) -> Page:
        """Open the page, and wait until it is built, unless told otherwise."""
        context = self.browser.new_context(viewport={"width": width, "height": 740}, locale="en-GB", **settings)
        self.contexts.append(context)
        context.set_default_timeout(5000)
        page = context.new_page()
        page.add_init_script(script + HASTE * haste)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", lambda said: self.complain(said.type, said.text))
        page.on("request", self.watch)
        page.goto(path if "://" in path else self.address + path)
        if built:
            expect(page.locator("main > section:not([hidden])")).to_be_visible()
        return page

    def complain(self, kind: str, text: str) -> None:
        if kind in ("error", "warning") and not BY_BROWSER.search(text):
            self.complaints.append(text)

    def watch(self, request: Request) -> None:
        if not re.match(r"http://127\.0\.0\.1:|blob:", request.url):
            self.complaints.append(request.url)


def typed(page: Page, text: str, *, wait: bool = True) -> Locator:
    """Type a text at its end, wait for its translation, and return it."""
    page.locator("#source").press("End")
    page.locator("#source").press_sequentially(text)
    if wait:
        expect(page.locator("#output .stale")).to_have_count(0)
    return page.locator("#output")


def until(holds: Callable[[], bool]) -> None:
    for _ in range(100):
        if holds():
            return
        time.sleep(0.05)
    raise AssertionError("it does not come to hold")


def words(page: Page) -> Locator:
    return page.locator("#output .word")
