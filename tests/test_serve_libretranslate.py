"""LibreTranslate's API: its clients work unchanged, and get the translations of `dragoman translate`."""

import gzip
import re
import time
from pathlib import Path

import httpx
import pytest
from libretranslatepy import LibreTranslateAPI
from serving import SENTENCES, running, train_tiny, translated_by_command

from dragoman.serve.http import files
from dragoman.serve.http.context import ServerContext
from dragoman.serve.http.html_text import HtmlText
from dragoman.serve.http.languages import Directions
from dragoman.serve.http.suggestions import SuggestionFile
from dragoman.serve.service import Service


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return train_tiny(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def expected(run, tmp_path_factory) -> list[str]:
    """Translations of SENTENCES by the command."""
    found = translated_by_command(run, SENTENCES, tmp_path_factory.mktemp("command"))
    assert not set(found) & set(SENTENCES) and len(set(found)) == len(found)
    return found


@pytest.fixture(scope="module")
def server(run):
    with running(ServerContext(Service.load({"en-es": run, "es-en": run}))) as url:
        yield url


def post(url: str, path: str, **data):
    return httpx.post(f"{url}{path}", **data, timeout=60)


def test_libretranslatepy_translates_detects_and_lists_languages(server, expected):
    client = LibreTranslateAPI(server)
    assert client.translate("the red house", "en", "es") == expected[0]
    assert client.detect("This is certainly an English sentence about a house.")[0]["language"] == "en"
    assert client.languages() == [
        {"code": "en", "name": "English", "targets": ["es"]},
        {"code": "es", "name": "Spanish", "targets": ["en"]},
    ]


def test_weblates_requests_get_a_translation_for_each_text(server, expected):
    """Weblate asks for the codes of the languages, and sends a list of texts with an empty key as JSON."""
    codes = [language["code"] for language in httpx.get(f"{server}/languages").raise_for_status().json()]
    assert {"en", "es"} <= set(codes)
    asked = {"api_key": "", "q": SENTENCES, "source": "en", "target": "es"}
    answer = post(server, "/translate", json=asked).raise_for_status().json()
    assert answer["translatedText"] == expected


def test_weblates_earlier_requests_are_forms(server, expected):
    asked = {"api_key": "", "q": SENTENCES[0], "source": "en", "target": "es"}
    assert post(server, "/translate", data=asked).json() == {"translatedText": expected[0]}


def test_a_form_may_hold_utf8_as_it_is_which_curl_sends(server):
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    for text in ("the größe", "año", "日本", "😀 house"):
        escaped = post(server, "/translate", data={"q": text, "source": "en", "target": "es"})
        plain = post(server, "/translate", content=f"q={text}&source=en&target=es".encode(), headers=headers)
        assert plain.status_code == 200 and plain.json() == escaped.json()
    broken = post(server, "/translate", content=b"q=\xff&source=en&target=es", headers=headers)
    assert broken.status_code == 400 and "not UTF-8" in broken.json()["error"]


def test_parameters_may_stand_in_the_address(server, expected):
    answer = httpx.post(f"{server}/translate", params={"q": "the red house", "source": "en", "target": "es"}).json()
    assert answer["translatedText"] == expected[0]


def test_a_text_gets_the_same_translation_alone_in_a_list_in_a_file_and_as_html(server, expected):
    def translated(q, **more):
        return post(server, "/translate", json={"q": q, "source": "en", "target": "es"} | more).json()["translatedText"]

    alone = [translated(text) for text in SENTENCES]
    assert alone == translated(SENTENCES) == expected
    assert translated("\n".join(SENTENCES)).split("\n") == alone
    assert translated(SENTENCES, format="html") == alone
    name = {"file": ("three.txt", "\n".join(SENTENCES).encode())}
    address = post(server, "/translate_file", files=name, data={"source": "en", "target": "es"}).json()
    found = httpx.get(address["translatedFileUrl"])
    assert found.text.split("\n") == alone
    assert 'filename="three_es.txt"' in found.headers["content-disposition"]


def test_lines_of_a_file_end_where_lines_of_text_end(server):
    text = "the red\u2028house\r\na\x0bdog\n\na\x0ccat and\x85a dog\r\rthe house"
    name = {"file": ("three.txt", text.encode())}
    address = post(server, "/translate_file", files=name, data={"source": "en", "target": "es"}).json()
    lines = re.split("(\r\n|\n|\r)", text)
    asked = {"q": lines[::2], "source": "en", "target": "es"}
    lines[::2] = post(server, "/translate", json=asked).json()["translatedText"]
    assert httpx.get(address["translatedFileUrl"]).content.decode() == "".join(lines)


def test_each_text_of_a_list_has_its_own_language(server):
    texts = [
        "Where is the nearest train station, please?",
        "¿Dónde está la estación de tren más cercana, por favor?",
        "",
    ]
    answer = post(server, "/translate", json={"q": texts, "source": "auto", "target": "en"}).json()
    assert [one["language"] for one in answer["detectedLanguage"]] == ["en", "es", "es"]
    assert answer["translatedText"][0] == texts[0]  # is in the target language already
    assert answer["translatedText"][1] != texts[1]
    assert answer["translatedText"][2] == ""


def test_alternatives_are_others_and_leave_the_translation_as_it_is(server):
    asked = {"q": SENTENCES, "source": "en", "target": "es"}
    plain = post(server, "/translate", json=asked).json()["translatedText"]
    for wanted in (2, 9):
        answer = post(server, "/translate", json=asked | {"alternatives": wanted}).json()
        assert answer["translatedText"] == plain
        for best, others in zip(plain, answer["alternatives"], strict=True):
            assert best not in others and len(others) == len(set(others)) <= wanted
    single = post(server, "/translate", json=asked | {"q": SENTENCES[0], "alternatives": 2}).json()
    assert single["alternatives"] and all(isinstance(one, str) for one in single["alternatives"])


def test_html_keeps_its_tags_and_entities(server):
    page = '<div class="a"><p>the <b>red</b> house</p><script>if (a < b) {}</script> a dog &amp; a cat<br/></div>'
    found = post(server, "/translate", json={"q": page, "source": "en", "target": "es", "format": "html"}).json()
    text = found["translatedText"]
    for kept in ('<div class="a"><p>', "<b>", "</b>", "</p><script>if (a < b) {}</script>", "<br/></div>"):
        assert text.count(kept) == 1
    assert "red" not in text.replace(kept, "") or "house" not in text


@pytest.mark.parametrize(
    "page",
    [
        "<p>the house</p><pre>the red\n  house</pre>",
        "<p>the house &amp;lt;b&amp;gt; &lt;i&gt; is red</p>",
        "<p>the <span class=notranslate>red dog</span> house</p>",
        "<p>the <code>red dog</code> house</p>",
        "<script>a = '<script>';</script><p>the red house</p>",
        "<p data-translate='no'>the red house</p><p translate='no'>a dog</p>",
        '<p title="a dog">the <img alt="cat" src="a.png"> house</p>',
        "the red house <!-- a dog -->",
        '<meta charset="unknown-8"><p>the red\u2028house</p>\r\n<br>a dog',
        "<b>the house",
        "a < b and <",
        "<hr>",
    ],
)
def test_html_in_a_request_is_translated_as_in_a_file(server, page):
    asked = {"source": "en", "target": "es"}
    found = post(server, "/translate", json=asked | {"q": page, "format": "html"}).raise_for_status().json()
    file = post(server, "/translate_file", files={"file": ("page.html", page.encode())}, data=asked)
    assert found["translatedText"].encode() == httpx.get(file.json()["translatedFileUrl"]).raise_for_status().content


@pytest.mark.parametrize("part", ["a", "<x", "<a ", '<a b="', "<!--", "</x", "&#"])
def test_html_of_many_unclosed_tags_is_divided_at_once(part):
    start = time.monotonic()
    HtmlText("<x" + part * (100_000 // len(part)))
    assert time.monotonic() - start < 2


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"source": "en", "target": "es"}, "q: must be given"),
        ({"q": "a", "target": "es"}, "source: must be given"),
        (
            {"q": "a", "source": "en", "target": "xx"},
            "from 'en' to 'xx' is not served here; there are: en to es, es to en",
        ),
        ({"q": "a", "source": "tlh", "target": "es"}, "en to es"),
        ({"q": "a", "source": "en", "target": ""}, "target: must not be empty"),
        ({"q": 7, "source": "en", "target": "es"}, "q: expected text"),
        ({"q": [], "source": "en", "target": "es"}, "q: must not be an empty list"),
        ({"q": ["a", 7], "source": "en", "target": "es"}, "q.1: expected text"),
        ({"q": "a", "source": "en", "target": "es", "format": "pdf"}, "format: must be 'text' or 'html'"),
        ({"q": "a", "source": "en", "target": "es", "alternatives": 1000}, "alternatives: at most 20"),
        ({"q": "a", "source": "en", "target": "es", "alternatives": -1}, "alternatives"),
    ],
)
def test_a_wrong_request_gets_one_sentence_and_400(server, asked, says):
    response = post(server, "/translate", json=asked)
    assert response.status_code == 400
    assert says in response.json()["error"] and "\n" not in response.json()["error"]


def test_a_body_that_is_no_json_gets_one_sentence(server):
    headers = {"Content-Type": "application/json"}
    for body in (
        b"{",
        b"[1]",
        b"\xff\xfe",
        b'{"q": NaN}',
        b"[" * 100_000,
        b'{"q": "\\ud800", "source": "en", "target": "es"}',
    ):
        response = post(server, "/translate", content=body, headers=headers)
        assert response.status_code == 400, body[:20]
        assert response.json().keys() == {"error"}


def test_documents_are_filled_in(server, expected):
    po = 'msgid ""\nmsgstr "Content-Type: text/plain; charset=UTF-8\\n"\n\n#: a.c:1\nmsgid "the red house"\nmsgstr ""\n'
    files = {"file": ("es.po", po.encode())}
    made = post(server, "/translate_file", files=files, data={"source": "en", "target": "es"}).raise_for_status().json()
    filled = httpx.get(made["translatedFileUrl"]).text
    assert f'msgstr "{expected[0]}"' in filled
    assert "#: a.c:1\n" in filled


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.pdf", b"x", "files of this kind are not translated; known are .txt, .po"),
        ("a.txt", b"", "the file is empty"),
        ("a.txt", b"fine\n\xff\xfe", "a.txt:2: not UTF-8"),
        ("a.xlf", b"<xliff", "a.xlf"),
        ("a.po.gz", gzip.compress(b"x", mtime=0), "not translated"),
        ("../../etc/x.txt", b"\xff", "x.txt:1: not UTF-8"),
    ],
)
def test_a_broken_file_is_refused_by_name(server, name, content, says):
    data = {"source": "en", "target": "es"}
    response = post(server, "/translate_file", files={"file": (name, content)}, data=data)
    assert response.status_code == 400
    assert says in response.json()["error"]


@pytest.mark.parametrize("name", ["a%2Fb.txt", "drei Sätze.txt", "a?b#c.txt", "100%.txt", "a.b.c.txt"])
def test_the_address_of_a_result_is_one_whatever_the_file_is_named(server, expected, name):
    data = {"source": "en", "target": "es"}
    made = post(server, "/translate_file", files={"file": (name, SENTENCES[0].encode())}, data=data).json()
    address = made["translatedFileUrl"]
    assert address.isascii() and not set(" ?#") & set(address)
    assert httpx.get(address).text == expected[0]


@pytest.mark.parametrize(("path", "status"), [("/translate_file", 400), ("/api/files", 404)])
def test_a_file_whose_source_is_not_stated_goes_to_a_model_into_its_target(server, path, status):
    def sent(**data):
        return post(server, path, files={"file": ("a.txt", b"the red house")}, data=data)

    assert sent(source="auto", target="en").is_success
    for wrong in ({"source": "auto", "target": "fr"}, {"source": "en", "target": "en"}):
        refused = sent(**wrong)
        assert refused.status_code == status
        assert f"to {wrong['target']!r} is not served here; there are: en to es, es to en" in refused.text


def test_a_file_without_a_source_is_translated_by_the_first_model_into_the_target(run):
    directions = Directions(Service.load({"en-es": run, "es-en": run, "de-en": run}).models.values())
    assert [directions.for_file("auto", target).name for target in ("es", "en")] == ["en-es", "es-en"]
    assert directions.for_file("de", None).name == directions.for_file("de", "en").name == "de-en"
    assert directions.for_file(None, None).name == "en-es"


def test_unknown_results_are_not_found(server):
    for path in ("/download_file/nothing.txt", "/download_file/..%2f..%2fetc%2fpasswd"):
        assert httpx.get(server + path).status_code in (400, 404)


def test_health_and_settings(server):
    assert httpx.get(f"{server}/health").json() == {"status": "ok"}
    settings = httpx.get(f"{server}/frontend/settings").json()
    assert settings["keyRequired"] is False and settings["suggestions"] is False
    assert settings["language"] == {
        "source": {"code": "en", "name": "English"},
        "target": {"code": "es", "name": "Spanish"},
    }
    assert ".po" in settings["supportedFilesFormat"]


def test_suggestions_are_off_unless_wanted(server, run, tmp_path):
    asked = {"q": "house", "s": "casa", "source": "en", "target": "es"}
    assert post(server, "/suggest", data=asked).status_code == 403
    context = ServerContext(Service.load({"en-es": run}), suggestions=SuggestionFile(tmp_path / "better.jsonl"))
    with running(context) as url:
        assert post(url, "/suggest", data=asked).json() == {"success": True}
    assert '"suggestion": "casa"' in (tmp_path / "better.jsonl").read_text()


def test_only_the_newest_results_are_kept(server, monkeypatch):
    monkeypatch.setattr(files, "MOST_RESULTS", 2)
    data, made = {"source": "en", "target": "es"}, []
    for number in range(3):
        content = {"file": (f"{number}.txt", SENTENCES[0].encode())}
        made.append(post(server, "/translate_file", files=content, data=data).json()["translatedFileUrl"])
    gone, *kept = (httpx.get(address) for address in made)
    assert [answer.status_code for answer in kept] == [200, 200]
    assert gone.status_code == 404 and "the newest 2 of them" in gone.text
