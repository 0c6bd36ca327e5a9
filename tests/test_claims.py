"""Claims: a verdict for each by rule, and a page that is never typed."""

import json
import re
from pathlib import Path

import pytest
from study_samples import results, verdict

from dragoman.cli import main
from dragoman.compare.claim_forms import CANNOT, HOLDS, NOT_HERE, PARTLY, ClaimTest
from dragoman.compare.claims import Claim, judge
from dragoman.compare.claims_page import claims_page, gallery
from dragoman.compare.slips import slips
from dragoman.compare.study import RESULTS
from dragoman.config import from_dict

DOCS = Path(__file__).parent.parent / "docs"


def said(test, found=None):
    claim = Claim(id="x", claim="c", source="s", study="study", test=from_dict(ClaimTest, test))
    return judge(claim, {"study": found or results()})


def compared(*verdicts, **more):
    return results(verdicts=list(verdicts), **more)


NOTHING = {"figure": "BLEU", "better": "A", "than": "B"}
RULES = {
    "shown, and nothing more claimed": (NOTHING, None, HOLDS),
    "shown, of the published size": (NOTHING | {"by": 2.5}, None, HOLDS),
    "shown, of the published size in percent": (NOTHING | {"by_percent": 10}, None, HOLDS),
    "shown, of another size": (NOTHING | {"by": 9}, None, PARTLY),
    "the pair named the other way round": ({"figure": "BLEU", "better": "B", "than": "A"}, None, NOT_HERE),
    "the other one is better": (NOTHING, compared(verdict("A", "B", -2, 1, "b")), NOT_HERE),
    "stored the other way round": (NOTHING, compared(verdict("B", "A", -2, 1, "b")), HOLDS),
    "not shown, though it would have been": (
        NOTHING | {"by": 5},
        compared(verdict("A", "B", 0, 1, "neither")),
        NOT_HERE,
    ),
    "not shown, and the claimed size is within the interval": (
        NOTHING | {"by": 3},
        compared(verdict("A", "B", 1.5, 2, "neither", detectable=2.5)),
        CANNOT,
    ),
    "not shown, and could not have been": (NOTHING | {"by": 1}, compared(verdict("A", "B", 0, 1, "neither")), CANNOT),
    "not compared": (NOTHING | {"figure": "chrF"}, None, CANNOT),
    "equal": ({"figure": "BLEU", "equal": ("A", "B"), "within": 3.5}, None, HOLDS),
    "nearly equal, and different": ({"figure": "BLEU", "equal": ("A", "B"), "within": 2.5}, None, PARTLY),
    "not equal": ({"figure": "BLEU", "equal": ("A", "B"), "within": 0.5}, None, NOT_HERE),
    "different, and perhaps by no more than is allowed": (
        {"figure": "BLEU", "equal": ("A", "B"), "within": 1.5},
        None,
        CANNOT,
    ),
    "perhaps equal": (
        {"figure": "BLEU", "equal": ("A", "B"), "within": 0.5},
        compared(verdict("A", "B", 0, 1, "neither")),
        CANNOT,
    ),
    "at least": ({"figure": "BLEU", "of": "A", "at_least": 28}, None, HOLDS),
    "at least by its mean": ({"figure": "BLEU", "of": "A", "at_least": 29.5}, None, PARTLY),
    "less by its mean, and perhaps at least": ({"figure": "BLEU", "of": "A", "at_least": 30.5}, None, CANNOT),
    "less": ({"figure": "BLEU", "of": "A", "at_least": 32}, None, NOT_HERE),
    "at most": ({"figure": "BLEU", "of": "A", "at_most": 31.5}, None, HOLDS),
    "near": ({"figure": "BLEU", "of": "A", "near": 30, "within": 2}, None, HOLDS),
    "far": ({"figure": "BLEU", "of": "A", "near": 40, "within": 2}, None, NOT_HERE),
    "another size in the claim's direction": (
        {"figure": "BLEU", "of": "A", "near": 20, "within": 1, "direction": 0},
        None,
        PARTLY,
    ),
    "another size against the claim's direction": (
        {"figure": "BLEU", "of": "A", "at_least": 50, "direction": 40},
        None,
        NOT_HERE,
    ),
    "at a place": ({"figure": "BLEU", "of": "A", "at": 80, "at_most": 25}, None, HOLDS),
    "at a place by its mean": ({"figure": "BLEU", "of": "A", "at": 200, "at_most": 10}, None, PARTLY),
    "at a place without an interval": ({"figure": "BLEU", "of": "B", "at": 200, "at_most": 10}, None, CANNOT),
    "at a place without a value": ({"figure": "BLEU", "of": "B", "at": 80, "at_most": 25}, None, CANNOT),
    "no such contestant": ({"figure": "BLEU", "of": "C", "at_most": 25}, None, CANNOT),
    "nothing collapses": ({"collapses": "A"}, None, NOT_HERE),
    "no contestant to collapse": ({"collapses": "C"}, None, CANNOT),
}


@pytest.mark.parametrize("rule", RULES)
def test_a_verdict_follows_its_rule(rule):
    test, found, wanted = RULES[rule]
    verdict = said(test, found)
    assert verdict.verdict == wanted and verdict.why


def failing(**failed):
    runs = [
        {"contestant": name, "seed": seed, "finished": seed > failed.get(name, 0), "failure": "diverged"}
        for name in "AB"
        for seed in (1, 2)
    ]
    lost = [{"contestant": run["contestant"], "seed": run["seed"]} for run in runs if not run["finished"]]
    nothing = verdict("A", "B", 0, 1, "neither") | {"difference": None, "interval": None}
    return results(runs=runs, failed=lost, verdicts=[nothing])


def test_one_that_does_not_finish_is_worse_than_one_that_does():
    assert said(NOTHING, failing(B=2)).verdict == HOLDS
    assert said(NOTHING, failing(A=2)).verdict == NOT_HERE
    assert said(NOTHING, failing(A=2, B=2)).verdict == CANNOT


@pytest.mark.parametrize("failed", [{"A": 1}, {"B": 1}, {"A": 1, "B": 2}, {"A": 2, "B": 1}])
def test_a_training_in_two_that_does_not_finish_tells_nothing(failed):
    assert said(NOTHING, failing(**failed)).verdict == CANNOT


@pytest.mark.parametrize("failed", [{"A": 2}, {"B": 1}, {"B": 2}, {"A": 2, "B": 2}])
def test_trainings_that_do_not_finish_are_not_equal_to_others(failed):
    assert said({"figure": "BLEU", "equal": ("A", "B"), "within": 9}, failing(**failed)).verdict == CANNOT


def test_trainings_collapse_all_or_in_part():
    assert said({"collapses": "A"}, failing(A=2)).verdict == HOLDS
    assert said({"collapses": "A"}, failing(A=1)).verdict == PARTLY


def test_a_claim_without_a_result_says_so():
    claim = Claim(id="x", claim="c", source="s", study="study", test=from_dict(ClaimTest, NOTHING))
    assert judge(claim, {}).why == "the study has no result yet"


def test_the_pages_of_the_documents_are_what_the_results_say(tmp_path):
    assert main(["claims", "-o", str(tmp_path / "claims.md"), "--gallery", str(tmp_path / "studies.md")]) == 0
    for name in ("claims.md", "studies.md"):
        assert (DOCS / name).read_text() == (tmp_path / name).read_text(), "dragoman claims -o ... --gallery ..."


def test_the_readme_counts_claims_as_their_page_does():
    counts = (
        r"(\d+) hold, (\d+) hold partly, (\d+) do not hold here, (\d+) cannot be tested at this size\S\s(?:(\d+) wait)?"
    )
    readme, page = ((DOCS / name).read_text() for name in ("../README.md", "claims.md"))
    assert re.search(counts, readme).groups() == re.search(counts, page).groups()


@pytest.mark.parametrize("result", sorted(RESULTS.glob("*.json")), ids=lambda path: path.stem)
def test_the_page_of_a_result_says_what_the_result_does(result, tmp_path, capsys):
    copy = tmp_path / result.name
    copy.write_bytes(result.read_bytes())
    assert main(["claims", "--results", str(tmp_path), "--pages"]) == 0
    assert capsys.readouterr().out == ""
    assert copy.with_suffix(".html").read_text() == result.with_suffix(".html").read_text(), "dragoman claims --pages"


# ---- the command ----------------------------------------------------------------------------------

CLAIMS = """
- {id: a, claim: "A | B", source: an essay, printed: 2 BLEU, study: study, test: {figure: BLEU, better: A, than: B}}
- {id: b, claim: needs more, source: an essay, cannot: needs WMT14}
"""


@pytest.fixture
def files(tmp_path):
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "study.json").write_text(json.dumps(results()))
    (tmp_path / "claims.yaml").write_text(CLAIMS)
    return ["--claims", str(tmp_path / "claims.yaml"), "--results", str(tmp_path / "results")]


def test_claims_are_listed_with_their_verdicts(files, capsys):
    assert main(["claims", *files]) == 0
    assert "holds: A, B: a" in " ".join(capsys.readouterr().out.split())
    assert main(["claims", *files, "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["verdict"] for line in lines] == [HOLDS, CANNOT] and lines[1]["why"] == "needs WMT14"


def test_the_page_has_a_row_for_each_claim_and_no_empty_verdict(files, tmp_path):
    page = tmp_path / "claims.md"
    assert main(["claims", *files, "-o", str(page)]) == 0
    rows = [line for line in page.read_text().splitlines() if line.startswith("| <a id=")]
    assert len(rows) == 2 and "A \\| B (an essay)" in rows[0] and "**holds**" in rows[0]
    assert "[study](../src/dragoman/studies/results/study.html)" in rows[0]
    assert "a processor, 2 cores, 2026-01-01" in rows[0]
    assert all(len(row.replace("\\|", "").split("|")) == 7 for row in rows)


def test_slips_are_recomputed_on_the_page():
    page = claims_page([], [], {}, slips())
    for slip in slips():
        assert f"### {slip.number}. " in page and all(line in page for line in slip.arithmetic)


def test_the_gallery_has_every_study_with_what_it_found():
    study = {"title": "T", "question": "Q?", "minutes": 5}
    claim = Claim(id="c1", claim="A is better.", source="s", study="study", test=from_dict(ClaimTest, NOTHING))
    found = {"study": results(command="dragoman compare study")}
    page = gallery({"study": study, "other": study}, found, [claim], [judge(claim, found)])
    assert "- A, B: a." in page and "- Claim: A is better. [Holds](claims.md#c1)." in page
    assert "- BLEU: A " in page and "`dragoman compare study`" in page and "`dragoman compare other`" in page


MISTAKES = {
    "empty": ("", "no claim in it"),
    "empty list": ("[]", "no claim in it"),
    "twice": (
        "- {id: a, claim: c, source: s, cannot: x}\n- {id: a, claim: c, source: s, cannot: x}",
        "a is there twice",
    ),
    "neither": ("- {id: a, claim: c, source: s}", "a: give study and test, or cannot"),
    "a kind that contradicts": (
        "- {id: a, claim: c, source: s, study: x, test: {kind: better, collapses: A}}",
        "a: test: kind: better does not go with collapses: leave it out",
    ),
    "a mistake where no id is": (
        "- {claim: c, source: s, study: x, test: {figure: BLEU}}",
        "0: test: give one of better",
    ),
    "no form": ("- {id: a, claim: c, source: s, study: x, test: {figure: BLEU}}", "a: test: give one of better"),
    "two forms": (
        "- {id: a, claim: c, source: s, study: x, test: {better: A, than: B, collapses: A}}",
        "a: test: give one of better",
    ),
    "a direction among the claimed values": (
        "- {id: a, claim: c, source: s, study: x, test: {figure: BLEU, of: A, at_least: 3, direction: 4}}",
        "a: test: direction: give a value outside those that are claimed",
    ),
    "a direction of a difference": (
        "- {id: a, claim: c, source: s, study: x, test: {figure: BLEU, better: A, than: B, direction: 4}}",
        "a: test: direction: does not go with better: leave it out",
    ),
    **{
        test: (f"- {{id: a, claim: c, source: s, study: x, test: {{figure: BLEU, {test}}}}}", f"a: test: {says}")
        for test, says in {
            "better: A, than: B, at: 8": "at: does not go with better",
            "better: A, than: B, by: 1, by_percent: 2": "by: give it or by_percent",
            "equal: [A, B], within: 1, near: 3": "near: does not go with equal",
            "of: A, at_least: 5, at_most: 3": "at_least: no value is at least 5 and at most 3",
            "of: A, near: 5, at_most: 3": "near: give it, or at_least and at_most",
            "of: A, at_most: 3, within: 1": "within: give near with it",
            "collapses: A": "figure: does not go with collapses",
        }.items()
    },
    "no bounds": (
        "- {id: a, claim: c, source: s, study: x, test: {figure: BLEU, of: A}}",
        "a: test: of: give at_least, at_most or near",
    ),
    "no other": (
        "- {id: a, claim: c, source: s, study: x, test: {figure: BLEU, better: A}}",
        "a: test: better: give than",
    ),
    "no figure": (
        "- {id: a, claim: c, source: s, study: x, test: {better: A, than: B}}",
        "a: test: better: give figure",
    ),
    "no width": (
        "- {id: a, claim: c, source: s, study: x, test: {figure: BLEU, equal: [A, B]}}",
        "a: test: equal: give within",
    ),
    "misspelt": (
        "- {id: a, claim: c, source: s, study: x, test: {figure: BLEU, better: A, thn: B}}",
        "a: test: settings: no 'thn' here. Did you mean 'than'?",
    ),
    "misspelt form": (
        "- {id: a, claim: c, source: s, study: x, test: {figure: BLEU, bettr: A, than: B}}",
        "a: test: settings: no 'bettr' here. Did you mean 'better'?",
    ),
    "unknown": ("- {id: a, claim: c, source: s, studi: x}", "no 'studi' here. Did you mean 'study'?"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_in_claims_is_one_line(name, files, tmp_path, capsys):
    text, says = MISTAKES[name]
    (tmp_path / "claims.yaml").write_text(text)
    assert main(["claims", *files]) == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1


def test_damaged_results_are_named(files, tmp_path, capsys):
    (tmp_path / "results" / "broken.json").write_text('{"format": 9}')
    assert main(["claims", *files]) == 2
    assert "broken.json: not the results of a study in format 1" in capsys.readouterr().err
    for parts in ({}, {"figures": []}, {"runs": 3}, {"machine": None}):
        damaged = results() | parts if parts else {"format": 1}
        (tmp_path / "results" / "broken.json").write_text(json.dumps(damaged))
        assert main(["claims", *files]) == 2
        assert "broken.json: not the results of a study in format 1" in capsys.readouterr().err
    (tmp_path / "none").mkdir()
    assert main(["claims", "--results", str(tmp_path / "none")]) == 2
    assert "no results of studies (JSON) in it" in capsys.readouterr().err
    assert main(["claims", "--results", str(tmp_path / "nowhere")]) == 2
