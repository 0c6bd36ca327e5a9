"""The page of ``dragoman serve`` in a real browser: typing, choosing, files, chat, and what goes wrong.

The browser and the server start once. Each test opens a page that knows nothing, which takes half a second.
"""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("playwright.sync_api")
pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

from page_browser import Pages, browser, typed, until, words  # noqa: F401 (a fixture)
from page_server import ALL, JAPANESE, PageServer, model
from playwright.sync_api import Browser, Locator, Page, expect

from dragoman.serve.page import CONTENT_SECURITY_POLICY, FOLDER

Opener = Callable[..., Page]


@pytest.fixture(scope="module")
def running() -> Iterator[PageServer]:
    with PageServer() as server:
        yield server


@pytest.fixture
def server(running: PageServer) -> PageServer:
    running.reset()
    return running


@pytest.fixture
def open_page(browser: Browser, server: PageServer) -> Iterator[Opener]:  # noqa: F811 (a fixture)
    with Pages(browser, server.address) as pages:
        yield pages.open


# ---- typing ------------------------------------------------------------------------------------------


def test_a_text_is_translated_while_it_is_typed(open_page, server):
    page = open_page()
    output = typed(page, "The dog sees ")
    expect(output).to_have_text("SEES GOD EHT ")
    typed(page, "a house.")
    expect(output).to_have_text("ESUOH A SEES GOD EHT.")
    assert server.asked[0]["model"] == "en-es" and server.asked[0]["nbest"] > 1


def test_only_the_sentence_that_changed_is_asked_again(open_page, server):
    page = open_page()
    page.locator("#source").fill("One dog. Two cats.\n\nA tree.")
    expect(page.locator("#output")).to_have_text("GOD ENO. STAC OWT.\n\nEERT A.")
    server.asked.clear()
    page.locator("#source").fill("One dog. Two cats sleep.\n\nA tree.")
    expect(page.locator("#output")).to_have_text("GOD ENO. PEELS STAC OWT.\n\nEERT A.")
    assert server.asked[0]["text"] == ["Two cats sleep."]


def test_what_stands_keeps_its_place_in_the_document(open_page):
    page = open_page()
    typed(page, "The dog sees the house. The cat sleeps")
    expect(page.locator("#output")).to_contain_text("SPEELS TAC EHT")
    page.evaluate("""() => {
      for (const node of document.querySelectorAll('#output .word')) node.stands = true;
      window.moved = 0;
      const count = (records) => records.forEach((one) => { window.moved += one.removedNodes.length; });
      new MutationObserver(count).observe(document.getElementById('output'), {childList: true, subtree: true});
    }""")
    typed(page, " here")
    expect(page.locator("#output")).to_contain_text("EREH SPEELS TAC EHT")
    stand = page.evaluate("[...document.querySelectorAll('#output .word')].map((node) => Boolean(node.stands))")
    assert stand == [True] * 5 + [False] + [True] * 3
    assert page.evaluate("window.moved") == 0


def test_a_translation_stands_until_its_new_one_is_there(open_page, server):
    page = open_page()
    typed(page, "The dog ")
    expect(page.locator("#output")).to_have_text("GOD EHT ")
    server.delay = 0.4
    typed(page, "sleeps ", wait=False)
    expect(page.locator("#output .sentence.stale")).to_have_text("GOD EHT ")
    expect(page.locator("#output")).to_have_text("SPEELS GOD EHT ")


def test_words_are_not_asked_for_letter_by_letter(open_page, server):
    page = open_page(haste=False)
    typed(page, "considerable")
    expect(page.locator("#output")).to_have_text("ELBAREDISNOC")
    assert len(server.asked) <= 2


def test_what_was_cleared_can_be_brought_back(open_page):
    page = open_page()
    typed(page, "The dog.")
    page.get_by_role("button", name="Clear").click()
    expect(page.locator("#source")).to_have_value("")
    page.keyboard.press("Control+z")
    expect(page.locator("#source")).to_have_value("The dog.")
    expect(page.locator("#output")).to_have_text("GOD EHT.")


def test_an_answer_to_a_text_that_is_gone_is_not_shown(open_page, server):
    page = open_page()
    server.delay = 0.3
    page.locator("#source").fill("The dog.")
    page.wait_for_timeout(100)
    page.locator("#clear").click()
    page.wait_for_timeout(500)
    expect(page.locator("#output")).to_have_text("")


DIVIDED = {
    "I saw Dr. Smith. He slept.": ["I saw Dr. Smith.", "He slept."],
    "It costs 3. 50 is too much.": ["It costs 3. 50 is too much."],
    "See e.g. London. Then go.": ["See e.g. London.", "Then go."],
    "Really? Yes! Good.": ["Really?", "Yes!", "Good."],
    "a\r\nb\n\n  c ": ["a", "b", "c"],
    "He said: «Come here. Now.» And went.": ["He said: «Come here.", "Now.»", "And went."],
    "今日は。元気です。": ["今日は。", "元気です。"],
    "J. R. Smith came. all is well": ["J. R. Smith came. all is well"],
    "   ": [],
    "👍🏽 Good. 👍🏽 Fine.": ["👍🏽 Good.", "👍🏽 Fine."],
}


def test_a_text_is_divided_where_the_server_divides_it(open_page, server):
    page = open_page()
    for text, asked in DIVIDED.items():
        page.locator("#source").fill("")
        server.asked.clear()
        page.locator("#source").fill(text)
        if asked:
            expect(page.locator("#output .word").first).to_be_visible()
            expect(page.locator("#output .stale")).to_have_count(0)
        assert server.texts()[: len(asked)] == asked


def test_a_model_that_reads_whole_lines_gets_whole_lines(open_page, server):
    server.models = [model("en-es", splits=False)]
    page = open_page()
    page.locator("#source").fill("One dog. Two cats.\nA tree.")
    expect(page.locator("#output")).to_contain_text("EERT A.")
    assert server.texts() == ["One dog. Two cats.", "A tree."]


def test_where_the_server_divides_a_line_otherwise_its_answer_to_the_whole_is_shown(open_page, server):
    server.whole_lines = True
    page = open_page()
    page.locator("#source").fill("One dog. Two cats.")
    expect(page.locator("#output")).to_have_text("STAC OWT .GOD ENO.")
    assert server.texts() == ["One dog.", "Two cats.", "One dog. Two cats."]


def test_a_long_text_comes_in_pieces_and_the_typing_is_not_held_up(open_page, server):
    page = open_page()
    text = " ".join(f"Dog number {number} sleeps." for number in range(60))
    page.locator("#source").fill(text)
    expect(page.locator("#output .sentence:not(.stale)")).to_have_count(60)
    assert len(server.asked[0]["text"]) == 8
    server.asked.clear()
    started = page.evaluate("performance.now()")
    page.locator("#source").press("End")
    page.keyboard.insert_text(" One more.")
    assert page.evaluate("performance.now()") - started < 500
    expect(page.locator("#output")).to_contain_text("EROM ENO.")
    assert ["One more."] in [each["text"] for each in server.asked]
    assert "Dog number 1 sleeps." not in server.texts()


def test_no_answer_that_is_shown_is_forgotten(open_page):
    asked = open_page().evaluate("""async () => {
      const { Draft } = await import("./static/draft.js");
      const draft = new Draft();
      draft.update(Array.from({ length: 2500 }, (_, i) => `Line ${i}`).join("\\n"));
      let count = 0;
      for (let wanted; count < 2501 && (wanted = draft.next(32)); count += wanted.texts.length)
        draft.learn(wanted, wanted.texts.map((text) => ({ candidates: [{ text }] })));
      return count;
    }""")
    assert asked == 2500


def test_without_sockets_the_same_is_asked_by_plain_requests(open_page, server):
    server.sockets = False
    page = open_page()
    output = typed(page, "The dog.")
    expect(output).to_have_text("GOD EHT.")
    typed(page, " A cat.")
    expect(output).to_have_text("GOD EHT. TAC A.")


def test_the_page_works_behind_the_path_of_a_proxy(open_page):
    with PageServer(prefix="/tools/translate") as server:
        page = open_page(server.address)
        expect(typed(page, "The dog.")).to_have_text("GOD EHT.")


# ---- alternatives, alignments, confidence -------------------------------------------------------------


def others_for(page: Page) -> Locator:
    """Return the list of other words, which is above that of whole sentences."""
    return page.locator("#alternatives .choices").first


def test_a_word_is_replaced_and_the_translation_goes_on_from_there(open_page, server):
    page = open_page()
    typed(page, "The big dog sleeps. A cat.")
    words(page).nth(1).click()
    others = others_for(page)
    expect(others.get_by_role("button", name="GOD2")).to_be_visible()
    expect(page.locator("#alternatives-title")).to_have_text("Instead of “GOD”")
    first = next(each for each in server.asked if "prefix" in each)
    assert (first["text"], first["prefix"], first["forbidden"]) == ("The big dog sleeps.", "SPEELS ", ["GOD"])
    others.get_by_role("button", name="GOD3").click()
    expect(page.locator("#output")).to_have_text("SPEELS GOD3 GIB EHT. TAC A.")
    assert "SPEELS GOD3 " in [each.get("prefix") for each in server.asked]
    expect(others).to_be_hidden()


def test_what_was_chosen_stays_while_its_sentence_grows(open_page, server):
    page = open_page()
    typed(page, "The big dog")
    words(page).first.click()
    others_for(page).get_by_role("button", name="GOD2").click()
    expect(page.locator("#output")).to_have_text("GOD2 GIB EHT")
    typed(page, " sleeps")
    expect(page.locator("#output .stale")).to_have_count(0)
    expect(page.locator("#output")).to_contain_text("GOD2")
    assert server.asked[-1]["prefix"] == "GOD2 "
    page.locator("#source").fill("A cat")
    expect(page.locator("#output")).to_have_text("TAC A")


def test_a_click_elsewhere_closes_the_list_and_goes_where_it_was_made(open_page):
    page = open_page()
    typed(page, "The big dog")
    words(page).first.click()
    expect(others_for(page).get_by_role("button").first).to_be_focused()
    page.locator("#source").click()
    expect(page.locator("#alternatives")).to_be_hidden()
    page.keyboard.type(" sleeps")
    expect(page.locator("#source")).to_have_value("The big dog sleeps")
    expect(page.locator("#output")).to_have_text("SPEELS GOD GIB EHT")
    words(page).first.click()
    expect(page.locator("#alternatives-title")).to_have_text("Instead of “SPEELS”")
    words(page).last.click()
    expect(page.locator("#alternatives-title")).to_have_text("Instead of “EHT”")
    expect(page.locator(".word.open")).to_have_text("EHT")


def test_a_choice_can_be_taken_back(open_page):
    page = open_page()
    typed(page, "The big dog")
    words(page).first.click()
    others_for(page).get_by_role("button", name="GOD2").click()
    expect(page.locator("#output .chosen")).to_be_visible()
    words(page).first.click()
    page.get_by_role("button", name="Back to the first translation").click()
    expect(page.locator("#output")).to_have_text("GOD GIB EHT")


def test_a_choice_that_the_server_refuses_is_taken_back(open_page, server):
    page = open_page()
    typed(page, "The big dog")
    words(page).first.click()
    expect(page.locator("#alternatives .looking")).to_have_count(0)
    server.failures = [(422, "the prefix 'GOD2 ' holds a forbidden term", None)]
    others_for(page).get_by_role("button", name="GOD2").click()
    expect(page.get_by_role("alert")).to_have_text("the prefix 'GOD2 ' holds a forbidden term")
    typed(page, " sleeps")
    expect(page.locator("#output")).to_have_text("SPEELS GOD GIB EHT")
    expect(page.locator("#notice")).to_be_hidden()


def test_other_translations_of_a_single_sentence_are_listed(open_page):
    page = open_page()
    typed(page, "The dog")
    others = page.locator("#others-list").get_by_role("button")
    expect(others).to_have_text(["GOD2 EHT", "GOD3 EHT", "GOD4 EHT"])
    others.nth(1).click()
    expect(page.locator("#output")).to_have_text("GOD3 EHT")
    expect(others).to_have_text(["GOD EHT", "GOD2 EHT", "GOD4 EHT"])


def test_pointing_at_a_word_marks_where_it_comes_from(open_page):
    page = open_page()
    typed(page, "One dog. The big cat")
    page.locator("#output .word", has_text="GIB").hover()
    expect(page.locator("#mirror mark.on")).to_have_text(["big"])
    page.mouse.move(5, 700)
    expect(page.locator("#mirror mark.on")).to_have_count(0)


def test_pointing_at_the_text_marks_its_translation(open_page):
    page = open_page()
    typed(page, "One dog. The big cat")
    expect(page.locator("#output")).to_contain_text("TAC GIB EHT")
    place = page.locator("#mirror mark", has_text="cat").bounding_box()
    page.mouse.move(place["x"] + 5, place["y"] + 5)
    expect(page.locator("#output .word.on")).to_have_text(["TAC"])
    page.locator("#source").press("Home")
    expect(page.locator("#output .word.on")).to_have_text(["ENO."])


def test_the_keyboard_alone_reaches_words_their_sources_and_their_alternatives(open_page):
    page = open_page()
    typed(page, "The big dog")
    expect(page.locator("#output")).to_have_text("GOD GIB EHT")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    expect(page.locator("#output")).to_be_focused()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#said")).to_have_text("GIB, from big")
    expect(page.locator("#mirror mark.on")).to_have_text(["big"])
    page.keyboard.press("Enter")
    expect(page.locator("#alternatives button").first).to_be_focused()
    expect(page.locator("#alternatives button").first).to_contain_text("GIB2")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(page.locator("#output")).to_have_text("GOD GIB3 EHT")
    expect(page.locator("#output")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#alternatives")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#alternatives")).to_be_hidden()
    expect(page.locator("#output")).to_be_focused()
    expect(page.locator(".word.here")).to_have_text("GIB3")  # where it was


def test_doubt_is_shown_by_more_than_colour(open_page):
    page = open_page()
    typed(page, "A hard word. A dog.")
    expect(page.locator("#confidence")).to_have_text("Less sure of 1 of 2 sentences: please check")
    expect(page.locator("#output .doubtful")).to_have_css("text-decoration-style", "dashed")
    expect(words(page).first).to_have_attribute("title", "Less sure of this word (8%)")
    expect(page.locator("#output .sentence").nth(1).locator(".unsure")).to_have_count(0)


def test_a_warning_of_the_server_is_listed(open_page):
    page = open_page()
    typed(page, "The 7 dogs.")
    expect(page.locator("#warnings li")).to_have_text(["the numbers differ"])
    page.locator("#source").fill("The dogs.")
    expect(page.locator("#warnings")).to_be_hidden()


def test_what_rules_withhold_is_no_translation_and_what_they_say_is_shown(open_page):
    page = open_page()
    typed(page, "A dog. A poison.")
    expect(page.locator("#output .withheld")).to_have_text("This is not translated here.")
    expect(page.locator("#confidence")).to_have_text("")
    page.locator("#output .withheld .word").first.click()
    expect(page.locator("#alternatives")).to_be_hidden()
    page.locator("#source").fill("A dose.")
    expect(page.locator("#warnings li")).to_have_text(["A person will look at it: q-17"])
    page.locator("#source").fill("A drug.")
    expect(page.locator("#output")).to_have_text("GURD A.")
    expect(page.locator("#warnings li")).to_have_text(["About drugs: ask someone who knows."])


# ---- languages ----------------------------------------------------------------------------------------


def test_languages_are_chosen_and_swapped(open_page, server):
    page = open_page()
    typed(page, "The dog.")
    expect(page.locator("#output")).to_have_text("GOD EHT.")
    page.get_by_role("button", name="Swap: from Spanish to English").click()
    expect(page.locator("#source")).to_have_value("GOD EHT.")
    expect(page.locator("#output")).to_have_text("THE DOG.")
    assert server.asked[-1]["model"] == "es-en"
    page.get_by_role("combobox", name="From", exact=True).select_option("English")
    page.get_by_role("combobox", name="To", exact=True).select_option("Arabic")
    expect(page.locator("#output-label")).to_have_text("Arabic")
    assert page.locator("#swap").count() == 0
    page.reload()
    expect(page.locator("#output-label")).to_have_text("Arabic")


def test_one_direction_is_named_and_several_models_for_it_can_be_chosen(open_page, server):
    server.models = [model("en-es"), model("en-es", tags=["formal"]) | {"name": "larger"}]
    page = open_page()
    expect(page.locator("#languages")).to_contain_text("English")
    assert page.get_by_role("combobox", name="From", exact=True).count() == 0
    page.get_by_role("combobox", name="Model", exact=True).select_option("larger")
    page.get_by_role("combobox", name="Tag", exact=True).select_option("formal")
    typed(page, "The dog.")
    expect(page.locator("#output")).to_have_text("GOD EHT.")
    assert server.asked[-1]["model"] == "larger" and server.asked[-1]["tags"] == ["formal"]


def test_models_without_languages_are_chosen_by_their_names(open_page, server):
    server.models = [model("plain"), model("fancy")]
    page = open_page()
    assert page.get_by_role("combobox").count() == 1
    page.get_by_role("combobox", name="Model").select_option("fancy")
    expect(typed(page, "The dog.")).to_have_text("GOD EHT.")
    assert server.asked[-1]["model"] == "fancy"
    assert page.locator("#output").get_attribute("lang") is None


def test_another_language_is_offered_where_the_text_looks_like_it(open_page, server):
    page = open_page()
    typed(page, "Aquí está el perro grande.")
    page.get_by_role("button", name="Translate from Spanish").click()
    expect(page.locator("#source-label")).to_have_text("Spanish")
    expect(page.locator("#detected")).to_be_hidden()


def test_arabic_is_set_from_the_right_and_walked_through_in_its_direction(open_page):
    page = open_page()
    page.get_by_role("combobox", name="To", exact=True).select_option("Arabic")
    typed(page, "The big dog")
    output = page.locator("#output")
    expect(output).to_have_attribute("lang", "ar")
    boxes = [words(page).nth(i).bounding_box()["x"] for i in range(3)]
    assert boxes == sorted(boxes, reverse=True)
    output.focus()
    page.keyboard.press("ArrowRight")  # from the end backwards, as the eye goes
    page.keyboard.press("ArrowLeft")
    expect(page.locator(".word.here")).to_have_count(1)
    page.keyboard.press("Home")
    page.keyboard.press("ArrowLeft")
    expect(words(page).nth(1)).to_have_class(re.compile("here"))


def test_words_of_a_script_without_spaces_can_be_chosen(open_page, server):
    page = open_page()
    page.get_by_role("combobox", name="To", exact=True).select_option("Japanese")
    typed(page, "The dog.")
    expect(page.locator("#output")).to_have_text(JAPANESE)
    expect(page.locator("#output")).to_have_attribute("lang", "ja")
    words(page).nth(2).click()
    expect(page.locator("#alternatives")).to_be_visible()
    assert JAPANESE.startswith(server.asked[-1]["prefix"]) and server.asked[-1]["prefix"]


# ---- glossary and history -----------------------------------------------------------------------------


def test_the_glossary_is_kept_and_sent_for_its_languages_alone(open_page, server):
    page = open_page()
    typed(page, "The dog.")
    page.get_by_role("button", name="Glossary").click()
    page.get_by_label("Term").fill("dog")
    page.get_by_label("Translation", exact=True).last.fill("perro | can")
    page.get_by_label("Never").fill("chucho")
    page.keyboard.press("Enter")
    expect(page.locator("#terms-body th")).to_have_text(["dog"])
    page.keyboard.press("Escape")
    expect(page.locator("#output")).to_have_text("perro EHT.")
    assert server.asked[-1]["glossary"] == [{"source": "dog", "target": ["perro", "can"], "forbidden": ["chucho"]}]
    page.reload()
    expect(page.get_by_role("button", name="Glossary (1)")).to_be_visible()
    page.get_by_role("button", name="Swap").click()
    expect(page.get_by_role("button", name="Glossary", exact=True)).to_be_visible()
    page.get_by_role("button", name="Swap").click()
    page.get_by_role("button", name="Glossary (1)").click()
    page.get_by_role("button", name="Remove dog").click()
    expect(page.locator("#terms")).to_be_hidden()


def test_a_term_without_a_translation_is_refused(open_page):
    page = open_page()
    page.get_by_role("button", name="Glossary").click()
    page.get_by_label("Term").fill("dog")
    page.get_by_role("button", name="Add").click()
    assert not page.locator("#term-target").evaluate("(node) => node.validity.valid")
    expect(page.locator("#terms")).to_be_hidden()


def test_history_is_kept_in_the_browser_only_and_can_be_cleared_and_switched_off(open_page, server):
    page = open_page()
    typed(page, "The dog")
    stored = "() => JSON.parse(localStorage.getItem('dragoman.history') ?? '[]').map((entry) => entry.text)"
    until(lambda: page.evaluate(stored) == ["The dog"])
    typed(page, " sleeps")
    until(lambda: page.evaluate(stored) == ["The dog sleeps"])  # what was carried on is one entry
    page.reload()
    page.get_by_role("button", name="History").click()
    page.locator("#past .entry").click()
    expect(page.locator("#source")).to_have_value("The dog sleeps")
    expect(page.locator("#history-dialog")).to_be_hidden()
    page.get_by_role("button", name="History").click()
    page.get_by_role("button", name="Clear the history").click()
    assert page.evaluate(stored) == []
    page.get_by_label("Keep a history").uncheck()
    page.keyboard.press("Escape")
    typed(page, " here")
    expect(page.locator("#output")).to_contain_text("EREH")
    page.wait_for_timeout(700)
    assert page.evaluate(stored) == [] and page.context.cookies() == []
    page.get_by_role("button", name="Copy").click()
    assert page.evaluate(stored) == []


def test_the_page_works_where_storage_is_closed(open_page):
    closed = "Object.defineProperty(window, 'localStorage', {get() { throw new DOMException('closed'); }});"
    page = open_page(script=closed)
    expect(typed(page, "The dog.")).to_have_text("GOD EHT.")
    page.get_by_role("button", name="History").click()
    expect(page.locator("#history-dialog")).to_be_visible()


@pytest.mark.parametrize("secure", [True, False])
def test_the_translation_is_copied(secure, open_page):
    page = open_page(permissions=["clipboard-read", "clipboard-write"])
    if not secure:  # as where the page comes without TLS
        page.evaluate("navigator.clipboard.writeText = undefined")
    typed(page, "One dog. A cat.")
    expect(page.locator("#said")).to_have_text("Translation: GOD ENO. TAC A.")
    page.get_by_role("button", name="Copy").click()
    expect(page.locator("#said")).to_have_text("Copied.")
    assert page.evaluate("navigator.clipboard.readText()") == "GOD ENO. TAC A."


# ---- what goes wrong ----------------------------------------------------------------------------------


@pytest.mark.parametrize("sockets", [True, False])
def test_a_busy_server_is_asked_again_when_it_says(sockets, open_page, server):
    server.sockets = sockets
    server.failures = [(429, "too many requests", 2.0)]
    page = open_page()
    typed(page, "The dog.", wait=False)
    expect(page.locator("#notice")).to_contain_text("The server is busy; this will be tried again.")
    expect(page.locator("#output")).to_have_text("GOD EHT.")
    expect(page.locator("#notice")).to_be_hidden()


def test_a_text_is_kept_while_the_server_is_away(open_page):
    with PageServer() as first:
        page = open_page(first.address)
        typed(page, "The dog.")
        expect(page.locator("#output")).to_have_text("GOD EHT.")
    typed(page, " A cat.", wait=False)
    expect(page.locator("#notice")).to_contain_text("What you typed is kept here.")
    expect(page.locator("#output")).to_contain_text("GOD EHT.")
    with PageServer(port=first.port):
        expect(page.locator("#output")).to_have_text("GOD EHT. TAC A.")
        expect(page.locator("#notice")).to_be_hidden()


def test_a_page_that_is_opened_too_early_begins_when_the_server_is_there(open_page, server):
    server.away = True
    page = open_page(built=False)
    expect(page.locator("#notice")).to_contain_text("the model is being loaded")
    server.away = False
    expect(page.locator("#translate")).to_be_visible()
    expect(page.locator("#notice")).to_be_hidden()


def test_a_text_that_is_too_long_is_counted_and_not_sent(open_page, server):
    server.limit = 20
    page = open_page()
    typed(page, "The dog 👍🏽 is so big.", wait=False)
    expect(page.locator("#count")).to_have_text("21 of 20 characters")
    expect(page.locator("#notice")).to_contain_text("The text is 1 character too long: 20 can be translated at once.")
    expect(page.locator("#source")).to_have_attribute("aria-invalid", "true")
    page.wait_for_timeout(200)
    assert not [text for text in server.texts() if "big." in text]
    page.locator("#source").press("Backspace")
    expect(page.locator("#notice")).to_be_hidden()
    expect(page.locator("#output")).to_contain_text("GIB")


@pytest.mark.parametrize("status", [422, 413, 500])
def test_an_error_is_said_in_the_servers_words(status, open_page, server):
    server.failures = [(status, "glossary: the term 'dog' needs a translation", None)]
    page = open_page()
    typed(page, "The dog.", wait=False)
    expect(page.get_by_role("alert")).to_have_text("glossary: the term 'dog' needs a translation")
    typed(page, " A cat.")
    expect(page.locator("#output")).to_have_text("GOD EHT. TAC A.")
    expect(page.locator("#notice")).to_be_hidden()


def test_a_key_is_asked_for_kept_and_sent(open_page, server):
    server.key = "secret"
    page = open_page(built=False)
    page.get_by_role("button", name="Close").last.click()
    page.get_by_role("button", name="Enter a key").click()
    page.get_by_label("Key for this server").fill("wrong")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert", include_hidden=True)).to_contain_text("a key is needed")
    page.get_by_label("Key for this server").fill("secret")
    page.get_by_role("button", name="Use").click()
    expect(page.locator("#translate")).to_be_visible()
    output = typed(page, "The dog.")
    expect(output).to_have_text("GOD EHT.")
    words(page).first.click()
    expect(others_for(page).get_by_role("button", name="GOD2")).to_be_visible()
    page.reload()
    expect(page.locator("#translate")).to_be_visible()
    expect(page.locator("#settings-dialog")).to_be_hidden()
    assert "secret" not in page.url


def test_a_key_that_holds_no_more_is_asked_for_and_the_text_is_translated_then(open_page, server):
    page = open_page()
    typed(page, "The dog.")
    server.key = "new"
    typed(page, " A cat.", wait=False)
    page.get_by_label("Key for this server").fill("new")
    page.keyboard.press("Enter")
    expect(page.locator("#output")).to_have_text("GOD EHT. TAC A.")
    expect(page.locator("#notice")).to_be_hidden()


def test_markup_is_text_everywhere(open_page, server):
    page = open_page()
    markup = "<img/src=x/onerror=alert(1)>"
    output = typed(page, markup)
    expect(output).to_have_text(markup[::-1].upper())
    words(page).first.click()
    expect(others_for(page).get_by_role("button").first).to_be_visible()
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Glossary").click()
    page.get_by_label("Term").fill(markup)
    page.get_by_label("Never").fill(markup)
    page.keyboard.press("Enter")
    expect(page.locator("#terms-body th")).to_have_text([markup])
    page.keyboard.press("Escape")
    expect(page.locator("#output .stale")).to_have_count(0)
    server.failures = [(422, markup, None)]
    typed(page, " more", wait=False)
    expect(page.get_by_role("alert")).to_have_text(markup)
    expect(page.locator("img")).to_have_count(0)


def test_models_that_the_page_cannot_use_are_said(open_page, server):
    server.models = [model("sorts", "classify")]
    page = open_page(built=False)
    expect(page.locator("#nothing")).to_be_visible()
    expect(page.locator("#translate")).to_be_hidden()


# ---- files --------------------------------------------------------------------------------------------

PO = b'msgid "dog"\nmsgstr ""\n'


def test_a_file_is_sent_followed_and_fetched(open_page, server):
    page = open_page("#files")
    page.locator("#file-input").set_input_files({"name": "app.po", "mimeType": "text/plain", "buffer": PO})
    expect(page.locator(".job")).to_contain_text("1 of 3")
    with page.expect_download() as download:
        page.get_by_role("button", name="Download the translation of app.po").click()
    expect(page.locator(".job")).to_contain_text("Done: 2 translated, 1 to check, 1 withheld")
    assert download.value.suggested_filename == "app_es.po"
    assert Path(download.value.path()).read_bytes() == PO.upper()
    assert server.files["app.po"]["fields"] == {"model": "en-es"}


def test_the_kinds_of_files_are_listed(open_page):
    page = open_page("#files")
    page.get_by_text("2 kinds of files, up to 4 KB").click()
    expect(page.locator("#kinds")).to_have_text(".po, .txt")


def test_files_are_taken_wherever_they_are_dropped(open_page):
    page = open_page()
    page.evaluate("""() => {
      const data = new DataTransfer();
      for (const name of ["one.po", "two.txt"]) data.items.add(new File(["dog"], name));
      for (const kind of ["dragenter", "dragover"])
        document.body.dispatchEvent(new DragEvent(kind, {dataTransfer: data, bubbles: true, cancelable: true}));
      if (!document.querySelector("#drop.over")) throw new Error("the place to drop is not shown");
      document.body.dispatchEvent(new DragEvent("drop", {dataTransfer: data, bubbles: true, cancelable: true}));
    }""")
    expect(page.locator("#files")).to_be_visible()
    expect(page.locator(".job .name")).to_have_text(["two.txt", "one.po"])
    expect(page.get_by_role("button", name="Download")).to_have_count(2)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("image.png", b"x", "Not a kind of file that can be translated; the list above has those that can."),
        ("empty.po", b"", "The file is empty."),
        ("large.txt", b"x" * 5000, "Too large: 5 KB, and 4 KB can be sent."),
        ("messages.po", b"broken", "messages.po:3: an entry without its end"),
    ],
)
def test_a_file_that_cannot_be_translated_says_why(name, content, said, open_page):
    page = open_page("#files")
    page.locator("#file-input").set_input_files({"name": name, "mimeType": "text/plain", "buffer": content})
    expect(page.locator(".job.failed")).to_contain_text(said)
    expect(page.locator("#said")).to_have_text(f"{name}: {said}")


def test_a_file_that_met_a_busy_server_can_be_sent_again(open_page, server):
    page = open_page("#files")
    server.failures = [(429, "64 files wait already", 30.0)]
    page.locator("#file-input").set_input_files({"name": "app.po", "mimeType": "text/plain", "buffer": PO})
    expect(page.locator(".job.failed")).to_contain_text("64 files wait already")
    page.get_by_role("button", name="Try again").click()
    expect(page.get_by_role("button", name="Download")).to_be_visible()


# ---- chat ---------------------------------------------------------------------------------------------


def test_a_conversation_is_shown_as_it_is_written(open_page, server):
    server.held_at = 2
    page = open_page("#chat")
    page.get_by_label("Message").fill("Hello")
    page.keyboard.press("Enter")
    expect(page.locator("#talk .written")).to_have_text("word0 word1")
    expect(page.locator("#talk")).to_have_attribute("aria-busy", "true")
    server.held_at = None
    expect(page.locator("#talk .written")).to_have_text("word0 word1 word2 word3 word4 word5")
    expect(page.locator("#talk .after")).to_contain_text("Cut off at the longest answer.")
    expect(page.get_by_label("Message")).to_be_focused()
    page.keyboard.type("And")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("then?")
    page.get_by_role("button", name="Send").click()
    expect(page.locator("#talk .after")).to_have_count(2)
    roles = [(message["role"], message["content"][:5]) for message in server.chats[-1]["messages"]]
    assert roles == [("user", "Hello"), ("assistant", "word0"), ("user", "And\nt")]
    page.get_by_role("button", name="Start anew").click()
    expect(page.locator("#talk")).to_have_text("")


def test_an_answer_is_stopped(open_page, server):
    server.delay, server.words = 0.1, 200
    page = open_page("#chat")
    page.get_by_label("Message").fill("Hello")
    page.get_by_role("button", name="Send").click()
    expect(page.locator("#talk .written")).to_contain_text("word1")
    page.get_by_role("button", name="Stop").click()
    expect(page.locator("#talk .after")).to_contain_text("Stopped.")
    expect(page.get_by_role("button", name="Send")).to_be_visible()
    page.wait_for_timeout(300)
    assert server.dropped == 1


def test_what_was_written_before_an_error_stays(open_page, server):
    server.breaks = True
    page = open_page("#chat")
    page.get_by_label("Message").fill("Hello")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_have_text("the server is draining")
    expect(page.locator("#talk .written")).to_have_text("word0 word1")
    expect(page.get_by_label("Message")).to_have_value("")


def test_a_conversation_that_is_begun_anew_holds_nothing_of_the_old_one(open_page, server):
    page = open_page("#chat")
    page.get_by_label("Message").fill("Hello")
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Start anew")).to_be_visible()
    server.delay, server.words = 0.1, 100
    page.get_by_label("Message").fill("More")
    page.keyboard.press("Enter")
    expect(page.locator("#talk .written").last).to_contain_text("word1")
    page.get_by_role("button", name="Start anew").click()
    server.delay, server.words = 0.0, 2
    expect(page.get_by_role("button", name="Send")).to_be_visible()
    page.get_by_label("Message").fill("New")
    page.keyboard.press("Enter")
    expect(page.locator("#talk .after")).to_have_count(1)
    assert server.chats[-1]["messages"] == [{"role": "user", "content": "New"}]


def test_a_model_without_a_template_carries_a_text_on(open_page, server):
    server.models = [model("writer", "generate"), model("en-es")]
    page = open_page()
    page.get_by_role("link", name="Write").click()
    page.get_by_label("Beginning of a text").fill("Once upon")
    page.get_by_text("Options").click()
    page.get_by_label("Temperature").fill("0")
    page.get_by_role("button", name="Continue").click()
    expect(page.locator("#talk .turn")).to_have_text("Once uponword0 word1 word2 word3 word4 word5")
    assert server.chats[0] == {
        "model": "writer", "prompt": "Once upon", "temperature": 0, "max_tokens": 256, "stream": True
    }  # fmt: skip


def test_what_was_asked_comes_back_where_no_answer_came(open_page, server):
    page = open_page("#chat")
    server.failures = [(413, "the conversation is longer than the model reads", None)]
    page.get_by_label("Message").fill("Hello")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_have_text("the conversation is longer than the model reads")
    expect(page.get_by_label("Message")).to_have_value("Hello")
    expect(page.locator("#talk")).to_have_text("")


# ---- for everyone -------------------------------------------------------------------------------------


def full(page: Page) -> None:
    """Fill the page with what is hard to fit in."""
    long = "Donaudampfschifffahrtsgesellschaftskapitänsmütze" * 2
    page.locator("#source").fill(f"A hard 7 {long}. A dog. {long}")
    expect(page.locator("#output .stale")).to_have_count(0)


@pytest.mark.slow
@pytest.mark.parametrize(("scheme", "width"), [("light", 360), ("dark", 320)])
def test_the_page_fits_a_telephone_and_satisfies_axe(scheme, width, open_page, server):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page = open_page(width=width, color_scheme=scheme)
    page.emulate_media(reduced_motion="reduce", color_scheme=scheme)

    def check(where: str) -> None:
        found = axe.run(page, options={"resultTypes": ["violations"]}).response["violations"]
        assert not found, f"{where}: " + "; ".join(f"{one['id']}: {one['nodes'][0]['html']}" for one in found)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), where

    check("empty")
    full(page)
    check("translated")
    words(page).first.click()
    expect(page.locator("#alternatives button").nth(3)).to_be_visible()
    check("alternatives")
    page.keyboard.press("Escape")
    for name in ("History", "Glossary", "Settings"):
        page.get_by_role("button", name=name).click()
        check(name)
        page.keyboard.press("Escape")
    server.failures = [(429, "busy", 900.0)]
    typed(page, " More.", wait=False)
    expect(page.get_by_role("alert")).to_be_visible()
    check("busy")
    page.get_by_role("link", name="Files").click()
    page.locator("#file-input").set_input_files(
        [
            {"name": f"{'long' * 20}.po", "mimeType": "text/plain", "buffer": PO},
            {"name": f"{'bad' * 20}.po", "mimeType": "text/plain", "buffer": b"broken"},
        ]
    )
    expect(page.get_by_role("button", name="Download")).to_be_visible()
    expect(page.locator(".job.failed")).to_be_visible()
    check("files")
    page.get_by_role("link", name="Chat").click()
    page.get_by_label("Message").fill("Hello" * 30)
    page.keyboard.press("Enter")
    expect(page.locator("#talk .after")).to_be_visible()
    page.get_by_text("Options").click()
    check("chat")


def test_light_and_dark_follow_the_device_or_the_reader(open_page):
    page = open_page(color_scheme="dark")
    ground = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(ground)
    page.get_by_role("button", name="Settings").click()
    page.get_by_label("Light").check()
    light = page.evaluate(ground)
    assert dark != light
    page.reload(wait_until="commit")
    until(lambda: page.evaluate("document.documentElement?.dataset.theme") == "light")
    expect(page.locator("#translate")).to_be_visible()
    page.get_by_role("button", name="Settings").click()
    expect(page.get_by_label("Light")).to_be_checked()
    page.get_by_label("As the device").check()
    assert page.evaluate(ground) == dark


def test_nothing_moves_where_less_motion_is_wanted(open_page):
    page = open_page(reduced_motion="reduce")
    assert page.locator("#copy").evaluate("(node) => getComputedStyle(node).transitionDuration") == "0s"


def test_what_is_translated_is_said_once_typing_rests(open_page):
    page = open_page()
    typed(page, "The dog.")
    expect(page.locator("#said")).to_have_text("Translation: GOD EHT.")
    expect(page.locator("#said")).to_have_attribute("aria-live", "polite")


def test_every_page_is_reached_by_tab_and_shows_where_the_focus_is(open_page):
    page = open_page()
    page.locator(".skip").focus()
    seen = []
    while "output" not in seen:
        page.keyboard.press("Tab")
        seen.append(page.evaluate("document.activeElement.id || document.activeElement.textContent"))
        framed = "document.activeElement.closest('.pane') ?? document.activeElement"
        style = page.evaluate(
            f"(({{outlineStyle, boxShadow}}) => outlineStyle + boxShadow)(getComputedStyle({framed}))"
        )
        assert style != "nonenone", seen
    pages, tools = ["Translate", "Files", "chat-link"], ["open-history", "open-glossary", "open-settings"]
    assert seen == [*pages, *tools, "from", "swap", "to", "source", "output"]


# ---- as it is shipped ---------------------------------------------------------------------------------

SHIPPED = sorted(path for path in FOLDER.iterdir() if path.suffix in (".html", ".css", ".js", ".svg"))


def test_the_page_is_small_and_names_no_other_place():
    assert sum(path.stat().st_size for path in SHIPPED) < 150_000
    for path in SHIPPED:
        text = path.read_text()
        assert not re.findall(r"https?://(?!www\.w3\.org)|@import|url\(|\bstyle=|\son\w+=\"", text), path.name
    assert "unsafe" not in CONTENT_SECURITY_POLICY and "*" not in CONTENT_SECURITY_POLICY


def test_every_module_says_what_it_is_and_is_used():
    modules = {path.name for path in SHIPPED if path.suffix == ".js"}
    named = {name for path in SHIPPED for name in re.findall(r"(?:\./|static/)([\w-]+\.js)", path.read_text())}
    assert modules == named
    assert all((FOLDER / name).read_text().startswith("// ") for name in modules)


def test_every_part_that_a_module_asks_for_is_in_the_page():
    there = set(re.findall(r'\bid="([\w-]+)"', (FOLDER / "index.html").read_text()))
    made = {"from", "to", "model", "tag", "swap", "alternatives-title"}
    for path in SHIPPED:
        asked = set(re.findall(r'find\("([\w-]+)"\)|dialog\("([\w-]+)"', path.read_text()))
        assert {name for pair in asked for name in pair if name} <= there | made, path.name


def test_the_page_is_part_of_the_package():
    pyproject = (FOLDER.parents[3] / "pyproject.toml").read_text()
    for suffix in {path.suffix for path in SHIPPED}:
        assert f"serve/page/*{suffix}" in pyproject


def test_the_answers_of_the_stand_in_have_the_fields_that_the_page_reads():
    answer = PageServer().answer({"text": "The dog.", "model": "en-es", "nbest": 2, "prefix": "GOD "})
    assert json.loads(json.dumps(answer))["translations"][0]["candidates"][1]["text"] == "GOD EHT.2"
    assert {each["task"] for each in ALL} == {"translate", "generate"}
