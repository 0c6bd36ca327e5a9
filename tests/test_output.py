"""How translations are written."""

import io
import json
import math

import pytest

from dragoman.cli import main
from dragoman.cli.output import OutputFormat, OutputLayout, write
from dragoman.decode.translation import Candidate, Translation
from dragoman.json_files import json_text


def candidate(text, log_prob):
    return Candidate(text, log_prob / 2, log_prob, (5, 2), (log_prob, 0.0), truncated=False)


def test_results_are_json_whatever_their_numbers():
    written = json_text({"scores": [1.5, math.inf, {"low": -math.inf}], "rows": ({"p": math.nan},), "é": "é"})
    strict = json.loads(written, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert strict == {"scores": [1.5, None, {"low": None}], "rows": [{"p": None}], "é": "é"} and "é" in written


GOOD = Translation(1, "one", (candidate("uno", -0.1), candidate("un", -2.0)), confidence=0.9)
BAD = Translation(2, "two", (candidate("dos", -3.0),), ("row 2: too long",), confidence=0.2)


@pytest.mark.parametrize(
    ("layout", "expected"),
    [
        (OutputLayout(), "uno\ndos\n"),
        (OutputLayout(nbest=2), "1\tuno\n1\tun\n2\tdos\n"),
        (OutputLayout(scores=True), "uno\t-0.050000\t-0.100000\ndos\t-1.500000\t-3.000000\n"),
        (OutputLayout(flag_below=0.5), "uno\t0.9000\t\ndos\t0.2000\treview\n"),
        (OutputLayout(nbest=2, flag_below=0.95), "1\tuno\t0.9000\treview\n1\tun\t\t\n2\tdos\t0.2000\treview\n"),
    ],
    ids=["text", "nbest", "scores", "flag", "nbest and flag"],
)
def test_text_has_the_columns_that_were_asked_for(layout, expected):
    file = io.StringIO()
    results = [GOOD, BAD] if layout.nbest > 1 else [Translation(1, "one", GOOD.candidates[:1], confidence=0.9), BAD]
    write(results, file, layout)
    assert file.getvalue() == expected


def test_what_is_to_be_said_about_a_translation_goes_to_standard_error(capsys):
    write([GOOD, BAD], io.StringIO(), OutputLayout(flag_below=0.5))
    assert capsys.readouterr().err.splitlines() == [
        "dragoman: row 2: too long",
        "dragoman: row 2: marked for review: confidence 0.20 is below 0.5",
    ]


def test_json_has_everything_and_a_review_field_where_that_was_asked_for():
    file = io.StringIO()
    write([GOOD, BAD], file, OutputLayout(format=OutputFormat.json, flag_below=0.5))
    first, second = map(json.loads, file.getvalue().splitlines())
    assert (first["text"], first["review"], second["review"]) == ("uno", False, True)
    assert [c["text"] for c in first["candidates"]] == ["uno", "un"] and second["warnings"] == ["row 2: too long"]
    write([GOOD], file := io.StringIO(), OutputLayout(format=OutputFormat.json))
    assert "review" not in json.loads(file.getvalue())


def test_more_translations_than_the_beam_holds_is_one_line(tmp_path, capsys):
    assert main(["translate", str(tmp_path), "text", "--beam", "2", "--nbest", "3"]) == 2
    assert capsys.readouterr().err == "dragoman: a beam of 2 cannot return the 3 best: 1 <= nbest <= size\n"
