"""The page with the real server and tiny models: what is typed reads as ``dragoman translate`` says it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("playwright.sync_api")

from page_browser import Pages, browser, typed, words  # noqa: F401 (a fixture)
from playwright.sync_api import Browser, expect
from serving import running, train_tiny, translated_by_command
from test_every_command import make

from dragoman.serve.http.context import ServerContext
from dragoman.serve.page import CONTENT_SECURITY_POLICY
from dragoman.serve.service import Service

TEXT = ["the red house", "a dog sees one cat", "two big cars"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[str, Path]:
    base = tmp_path_factory.getbasetemp()
    return {"en-es": train_tiny(base), "writer": make("language_model", tmp_path_factory.mktemp("writer") / "run")}


@pytest.fixture(scope="module")
def address(runs) -> Iterator[str]:
    service = Service.load(runs)
    with running(ServerContext(service)) as url:
        yield url.rstrip("/") + "/"
    service.close()


@pytest.fixture
def pages(browser: Browser, address: str) -> Iterator[Pages]:  # noqa: F811 (a fixture)
    with Pages(browser, address) as opened:
        yield opened


def test_what_is_typed_reads_as_the_command_says_it(pages, runs, tmp_path):
    page = pages.open()
    page.locator("#source").fill("\n".join(TEXT))
    expect(page.locator("#output .stale")).to_have_count(0)
    wanted = translated_by_command(runs["en-es"], TEXT, tmp_path)
    expect(page.locator("#output")).to_have_text("\n".join(wanted), use_inner_text=True)
    words(page).first.hover()
    expect(page.locator("#mirror mark.on").first).to_be_visible()


def test_another_word_is_chosen_and_the_translation_goes_on_from_it(pages):
    page = pages.open()
    typed(page, "a dog sees one cat")
    words(page).first.click()
    other = page.locator("#alternatives .choices").first.get_by_role("button").first
    expect(other).to_be_visible()
    word = other.locator("b").inner_text()
    other.click()
    expect(words(page).first).to_contain_text(word)


def test_a_file_is_translated_as_by_the_command(pages, runs, tmp_path):
    page = pages.open("#files")
    content = "\n".join(TEXT).encode() + b"\n"
    page.locator("#file-input").set_input_files({"name": "text.txt", "mimeType": "text/plain", "buffer": content})
    with page.expect_download() as download:
        page.get_by_role("button", name="Download").click(timeout=20_000)
    assert download.value.suggested_filename == "text_es.txt"
    made = Path(download.value.path()).read_text().splitlines()
    assert made == translated_by_command(runs["en-es"], TEXT, tmp_path)


def test_a_language_model_carries_a_text_on(pages):
    page = pages.open("#chat")
    page.get_by_text("Options").click()
    page.get_by_label("Longest answer").fill("8")
    page.get_by_label("Beginning of a text").fill("ab")
    page.keyboard.press("Enter")
    expect(page.locator("#talk .after")).to_be_visible()
    assert page.locator("#talk .written").inner_text()


def test_the_server_sends_the_policy_under_which_the_page_works(pages):
    page = pages.open(built=False)
    for path in ("", "static/main.js"):
        headers = page.request.get(pages.address + path).headers
        assert headers["content-security-policy"] == CONTENT_SECURITY_POLICY
        assert headers["x-content-type-options"] == "nosniff"
