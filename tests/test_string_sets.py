"""Sets of strings in a string catalog: several phrases for one action, each of which is translated."""

import json

import pytest
from document_samples import opened

from dragoman.errors import DataError
from dragoman.text.document import Filling


def catalog(**languages: object) -> str:
    entry = {"localizations": languages}
    return json.dumps({"sourceLanguage": "en", "strings": {"Record": entry}, "version": "1.0"}, indent=2)


def phrases(*values: str, state: str = "translated") -> dict[str, object]:
    return {"stringSet": {"state": state, "values": list(values)}}


ENGLISH = phrases("Record in ${applicationName}", "New note")


def written(raw: bytes) -> dict[str, object]:
    return json.loads(raw)["strings"]["Record"]["localizations"]


@pytest.mark.parametrize("there", [{}, {"pl": phrases("", "", state="new")}])
@pytest.mark.parametrize("review", [False, True])
def test_each_phrase_of_a_set_is_translated(there, review):
    document = opened("a.xcstrings", catalog(en=ENGLISH, **there))
    assert [slot.text for slot in document.slots] == ["Record in ${applicationName}", "New note"]
    done = written(document.fill({0: Filling("Nagraj w ${applicationName}"), 1: Filling("Notatka", review=review)}))
    state = "needs_review" if review else "translated"
    assert done == {"en": ENGLISH, "pl": phrases("Nagraj w ${applicationName}", "Notatka", state=state)}


def test_a_phrase_without_a_translation_is_left_out():
    document = opened("a.xcstrings", catalog(en=ENGLISH))
    assert written(document.fill({1: Filling("Notatka")}))["pl"] == phrases("Notatka")


def test_a_translated_set_of_the_same_size_is_there_already():
    document = opened("a.xcstrings", catalog(en=ENGLISH, pl=phrases("Nagraj", "Notatka")))
    assert [(slot.filled, slot.translation) for slot in document.slots] == [(True, "Nagraj"), (True, "Notatka")]


def test_a_translated_set_of_another_size_stays():
    assert not opened("a.xcstrings", catalog(en=ENGLISH, pl=phrases("Nagraj"))).slots


@pytest.mark.parametrize("broken", [{"stringSet": {"values": [1]}}, {"stringSet": {"state": [], "values": ["x"]}}])
def test_a_set_of_other_types_is_refused(broken):
    with pytest.raises(DataError, match=r"^a\.xcstrings.*string unit in en"):
        opened("a.xcstrings", catalog(en=broken))
