"""The page with the real server and tiny models: what is typed reads as ``dragoman translate`` says it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("playwright.sync_api")
pytest.importorskip("transformers")

import chat_templates
import foreign_text
from page_browser import Pages, browser, typed, words  # noqa: F401 (a fixture)
from playwright.sync_api import Browser, Page, expect
from serving import running, train_tiny, translated_by_command
from test_every_command import make

from dragoman.decode.chat import ChatModel
from dragoman.decode.generator import Generator
from dragoman.decode.search.greedy import Greedy
from dragoman.interchange.importing import import_checkpoint
from dragoman.serve.http.context import ServerContext
from dragoman.serve.page import CONTENT_SECURITY_POLICY
from dragoman.serve.service import Service

TEXT = ["the red house", "a dog sees one cat", "two big cars"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("page")
    foreign_text.make(foreign_text.Case("Mistral", False), folder / "mistral")
    (folder / "mistral" / "chat_template.jinja").write_text(chat_templates.CHATML)
    import_checkpoint(folder / "mistral", folder / "chat")
    translator = train_tiny(tmp_path_factory.getbasetemp())
    return {"en-es": translator, "chat": folder / "chat", "writer": make("language_model", folder / "writer")}


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


def ask(page: Page, question: str) -> str:
    """Send a message, with at most 12 tokens of the likeliest answer, and return that."""
    page.get_by_text("Options").click()
    page.get_by_label("Temperature").fill("0")
    page.get_by_label("Longest answer").fill("12")
    page.locator("#question").fill(question)
    page.keyboard.press("Enter")
    expect(page.locator("#talk .after")).to_be_visible(timeout=20_000)
    return str(page.locator("#talk .written").text_content())


def test_a_chat_model_answers_as_it_does_alone(pages, runs):
    page = pages.open("#chat")
    said = ask(page, "The door is open.")
    talk = [{"role": "user", "content": "The door is open."}]
    [alone] = ChatModel.load(runs["chat"]).reply([talk], search=Greedy(), max_new_tokens=12)
    assert said == alone.text and said


def test_a_language_model_carries_a_text_on_as_it_does_alone(pages, runs):
    page = pages.open("#chat")
    page.get_by_role("combobox", name="Model").select_option("writer")
    said = ask(page, "ab")
    [alone] = Generator.load(runs["writer"]).generate(["ab"], search=Greedy(), max_new_tokens=12)
    assert said == alone.continuations[0].text and said


def test_the_server_sends_the_policy_under_which_the_page_works(pages):
    page = pages.open(built=False)
    for path in ("", "static/main.js"):
        headers = page.request.get(pages.address + path).headers
        assert headers["content-security-policy"] == CONTENT_SECURITY_POLICY
        assert headers["x-content-type-options"] == "nosniff"
