"""Evaluating, with a translator whose outputs are known."""

import json

import pytest
from torch import nn

from dragoman.cli.evaluate import show
from dragoman.decode.generation_settings import NO_SETTINGS
from dragoman.decode.search.beam import Beam
from dragoman.decode.search.greedy import Greedy
from dragoman.decode.translator import Candidate, Translation, Translator
from dragoman.errors import ConfigError, DataError
from dragoman.evaluate.evaluation import evaluate
from dragoman.evaluate.metrics import METRICS, score
from dragoman.text.lines import Pair


class Known(Translator):
    """Says what it is told to, and remembers how it was asked."""

    def __init__(self, outputs):
        self.outputs, self.asked, self.defaults, self.model = outputs, {}, NO_SETTINGS, nn.Identity()

    def translate(self, requests, **how):
        self.asked = how
        texts = [request.text for request in requests]
        return [
            Translation(
                row, text, (Candidate(self.outputs[text], -1.5, -3.0, (2,), (-3.0,), truncated=False),), (f"row {row}",)
            )
            for row, text in enumerate(texts, 1)
        ]


PAIRS = [
    Pair(" ".join(["word"] * words), " ".join(f"Wort{i}" for i in range(words)))
    for words in (1, 3, 5, 6, 12, 25, 60, 70)
]
TRANSLATOR = Known({source: target if len(target) % 2 else target.replace("0", "zero") for source, target in PAIRS})


def test_scores_are_those_of_the_outputs():
    found = evaluate(TRANSLATOR, PAIRS, metrics=list(METRICS))
    outputs, references = [TRANSLATOR.outputs[p.source] for p in PAIRS], [p.target for p in PAIRS]
    assert found.scores == {name: score(metric, outputs, references) for name, metric in METRICS.items()}
    assert [(o.source, o.output, o.reference) for o in found.outputs] == [
        (p.source, o, p.target) for p, o in zip(PAIRS, outputs, strict=True)
    ]


@pytest.mark.parametrize(
    ("reference", "spaces"),
    [
        ("机器翻译正在改变人们获取信息的方式。", False),
        ("昨日は雨が降りましたが、今日は晴れています。", False),
        ("Das Bundesverfassungsgericht entscheidet.", True),
        ("Epäjärjestelmällisyys on tavallista.", True),
        ("нет", True),
    ],
)
def test_where_references_have_hardly_any_spaces_a_note_says_so(reference, spaces, tmp_path, capsys):
    translator = Known({"a": reference})
    found = evaluate(translator, [Pair("a", reference)], folder=tmp_path / "e")
    show(found)
    assert (found.notes == ()) == spaces == ("bleu_char" not in capsys.readouterr().out)
    assert json.loads((tmp_path / "e" / "scores.json").read_text())["notes"] == list(found.notes)
    assert evaluate(translator, [Pair("a", reference)], metrics=["bleu_char", "chrf"]).notes == ()


def test_nearly_right_chinese_has_a_score_that_reads_characters():
    pair = Pair("a", "机器翻译正在改变人们获取信息的方式。")
    found = evaluate(Known({"a": pair.target.replace("正在", "已经")}), [pair], metrics=["bleu_zh", "bleu_char"])
    assert all(score.value > 60 for score in found.scores.values())


def test_every_sentence_is_in_the_bucket_of_its_length():
    found = evaluate(TRANSLATOR, PAIRS).by_length
    assert [(b.shortest, b.longest, b.sentences) for b in found] == [
        (0, 5, 3),
        (6, 10, 1),
        (11, 20, 1),
        (21, 30, 1),
        (51, None, 2),
    ]
    rows = slice(0, 3)
    outputs = [TRANSLATOR.outputs[p.source] for p in PAIRS[rows]]
    assert found[0].scores["chrf"] == score(METRICS["chrf"], outputs, [p.target for p in PAIRS[rows]])


def test_results_are_kept_and_replaced_as_a_whole(tmp_path):
    folder = tmp_path / "run" / "evaluations" / "test"
    evaluate(TRANSLATOR, PAIRS, folder=folder)
    found = evaluate(TRANSLATOR, PAIRS[:3], folder=folder, beam=1)
    assert sorted(path.name for path in folder.parent.iterdir()) == ["test"]
    summary = json.loads((folder / "scores.json").read_text(encoding="utf-8"))
    assert summary["sentences"] == 3 and summary["search"]["kind"] == "greedy"
    assert summary["scores"]["bleu"]["value"] == found.scores["bleu"].value
    assert summary["scores"]["bleu"]["signature"].startswith("nrefs:1|case:mixed|eff:no|tok:13a")
    assert (folder / "translations.txt").read_text(encoding="utf-8") == "".join(o.output + "\n" for o in found.outputs)
    lines = [json.loads(line) for line in (folder / "outputs.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["reference"] for line in lines] == [p.target for p in PAIRS[:3]]
    assert lines[1]["warnings"] == ["row 2"]


def test_a_failure_leaves_what_was_there(tmp_path, monkeypatch):
    folder = tmp_path / "test"
    evaluate(TRANSLATOR, PAIRS, folder=folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def full_disk(path, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("dragoman.durable.write", full_disk)
    with pytest.raises(OSError, match="No space left"):
        evaluate(TRANSLATOR, PAIRS[:2], folder=folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["test"]


def test_the_search_is_passed_on():
    assert evaluate(TRANSLATOR, PAIRS, beam=1).search == Greedy() == TRANSLATOR.asked["search"]
    assert evaluate(TRANSLATOR, PAIRS, beam=3).search == Beam(size=3) == TRANSLATOR.asked["search"]
    own = Beam(size=2, stop="first")
    assert evaluate(TRANSLATOR, PAIRS, search=own).search == own


def test_an_unknown_metric_and_an_empty_test_set_are_refused():
    with pytest.raises(ConfigError, match=r"no 'blue' here\. Did you mean 'bleu'\?"):
        evaluate(TRANSLATOR, PAIRS, metrics=["blue"])
    with pytest.raises(DataError, match="no pairs"):
        evaluate(TRANSLATOR, [])
