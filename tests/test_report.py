"""The page stands alone, shows what there is, and does not trust the text it shows."""

import json
import math
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import asdict
from html.parser import HTMLParser
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragoman.checkpoint import RunDirectory
from dragoman.config import kind_of
from dragoman.data.tasks import Task
from dragoman.evaluate.metrics import Score
from dragoman.journal import Journal
from dragoman.train.report import page as report
from dragoman.train.report.chart import POINTS, ChartLine, draw, round_ticks, short

HOSTILE = '<script>alert("1 & 2")</script> $title {0} العربية'
VOID = {"meta", "link", "br", "img", "input"}


class Checker(HTMLParser):
    """Fails on tags that do not match, and lists what the page would fetch."""

    def __init__(self):
        super().__init__()
        self.open, self.fetched, self.scripts = [], [], 0

    def handle_starttag(self, tag, attrs):
        self.fetched += [value for name, value in attrs if name in ("src", "href")]
        self.scripts += tag == "script"
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def train_row(step, **changes):
    row = {"kind": "train", "step": step, "total": 100, "loss": 8 / step, "lr": 1e-4 * step, "grad_norm": 1.0}
    return (
        row
        | {"tokens": 9 * step, "padding": 0.05, "skipped": 0, "seconds": 1.5 * step, "tokens_per_second": 900.0}
        | changes
    )


def valid_row(step, **changes):
    return {"kind": "valid", "step": step, "loss": 3.0, "perplexity": math.e**3, "best": True, "scores": {}} | changes


@pytest.fixture
def run(tmp_path):
    run = RunDirectory.create(tmp_path / "a <run> & more", {"name": HOSTILE, "task": {"kind": "translation"}})
    yield run
    run.close()


def page(run, metrics=(), samples=()):
    for name, lines in (("metrics", metrics), ("samples", samples)):
        for line in lines:
            Journal(run.path / f"{name}.jsonl").append(line)
    report.write(run)
    text = (run.path / "report.html").read_text(encoding="utf-8")
    checker = Checker()
    checker.feed(text)
    assert not checker.open and not checker.fetched and checker.scripts == 1
    for svg in re.findall(r"<svg.*?</svg>", text, re.DOTALL):
        ElementTree.fromstring(svg)
    return text


def test_before_the_first_step_the_page_says_so(run):
    text = page(run)
    assert "not a step yet" in text and "nothing yet" in text


def test_both_axes_of_every_chart_have_a_name(run):
    rows = [train_row(step, utilisation=0.3) for step in (5, 10)]
    text = page(run, [*rows, valid_row(10, scores={"BLEU": 41.5})])
    charts = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    assert len(charts) == 7
    for chart in charts:
        names = re.findall(r'class="axis"[^>]*>([^<]+)<', chart)
        assert names[0] == "step" and len(names) == 2 and names[1]


def test_the_page_fetches_nothing(run):
    text = page(run, [train_row(5), valid_row(5)])
    assert not re.findall(r"url\(|@import|https?://(?!www\.w3\.org/2000/svg)", text)


def test_curves_scores_and_samples_are_all_there(run):
    scored = valid_row(10, loss=1.0, perplexity=math.e, scores={"BLEU": 41.5, "chrF": 66.0})
    looks = [
        {"step": step, "samples": [{"source": "hello", "reference": "hola", "output": f"try {step}"}]}
        for step in range(1, 40)
    ]
    text = page(run, [train_row(5), valid_row(5), train_row(10), scored], looks)
    for title in (
        "Loss per target token",
        "Learning rate",
        "Gradient norm",
        "Tokens a second",
        "Padding",
        "Validation scores",
    ):
        assert title in text
    assert "2.72" in text and "at step 10, the best" in text and "41.5" in text
    assert "try 1<" in text and "try 39<" in text and text.count("try ") == report.SHOWN_OUTPUTS
    assert text.count("step 10 of 100") == 1


@pytest.mark.parametrize("before, now", [(1, 3), (3, 1), (0, 2), (2, 0)])
def test_validations_may_show_different_examples(run, before, now):
    def look(step, count):  # as of a language model, whose number of examples decides which they are
        names = ["all", *(f"{i}/{count}" for i in range(count))][:count]
        return {
            "step": step,
            "samples": [{"source": name, "reference": "r", "output": f"{step}: {name}"} for name in names],
        }

    text = page(run, [valid_row(1), valid_row(2)], [look(1, before), look(2, now)])
    cards = re.findall(r'<div class="card">.*?</div>', text)
    assert len(cards) == (now or before)
    assert [re.findall(r"([12]: [^<]+)<", card) for card in cards[1:]] == [
        [f"{2 if now else 1}: {i}/{now or before}"] for i in range((now or before) - 1)
    ]
    assert ("1: all" in cards[0], "2: all" in cards[0]) == (before > 0, now > 0)


@pytest.mark.parametrize(
    "task, learned, perplexity",
    [
        ("translation", "target token", True),
        ("language_modelling", "token", True),
        ("classification", "example", False),
        ("tagging", "word", False),
        ("question_answering", "text", False),
        ("contrastive", "pair", False),
    ],
)
def test_the_page_says_what_the_task_learns_from(run, task, learned, perplexity):
    run.write_config({"task": {"kind": task}})
    text = page(run, [train_row(5), valid_row(5)])
    assert f"Loss per {learned}<" in text and f"45 {learned}s" in text
    assert ("validation perplexity" in text, "validation loss" in text) == (perplexity, not perplexity)
    assert ("target" in text) == (task == "translation")


def test_every_task_is_known_to_it():
    kinds = {kind_of(task) for task in get_args(get_args(Task)[0])}
    assert report.LEARNED.keys() <= kinds


def test_text_of_the_run_is_shown_and_never_obeyed(run):
    sample = {"source": HOSTILE, "reference": HOSTILE, "output": HOSTILE}
    text = page(run, [valid_row(5, scores={HOSTILE: 1.0})], [{"step": 5, "samples": [sample]}])
    assert "alert(&quot;1 &amp; 2&quot;)" in text and "<run>" not in text


def test_steps_without_a_finite_loss_leave_a_gap_and_are_counted(run):
    text = page(run, [train_row(5), train_row(10, loss=None, grad_norm=None, skipped=5)])
    assert "skipped steps" in text


def test_evaluations_and_removed_pairs_are_shown(run):
    folder = run.path / "evaluations" / "test"
    folder.mkdir(parents=True)
    score = Score("BLEU", 41.25, (40.0, 42.5), True, "nrefs:1")
    (folder / "scores.json").write_text(json.dumps({"scores": {"bleu": asdict(score)}, "sentences": 1000}))
    (run.path / "data").mkdir()
    removed = {
        "cleaning": {"read": 1200, "removed": {"copy": 30, "link": 0}},
        "held_out": {"near source": 4},
        "pairs": {"test": 9},
    }
    (run.path / "data" / "report.json").write_text(json.dumps(removed))
    text = page(run)
    assert (
        "41.2" in text
        and "40.0 to 42.5" in text
        and "nrefs:1" in text
        and "1,200" in text
        and "removed: copy" in text
        and "link" not in text
    )


# ---- charts ---------------------------------------------------------------------------------------


def points(figure):
    return [tuple(map(float, p.split(","))) for p in re.findall(r'points="([^"]*)"', figure)[0].split()]


def test_a_long_line_is_thinned_and_ends_where_it_ended():
    figure = draw("loss", [ChartLine("a", range(1, 5001), [1.0] * 5000)])
    assert len(points(figure)) <= POINTS
    assert json.loads(re.findall(r"data-points='([^']*)'", figure)[0].replace("&quot;", '"'))[0]["x"][-1] == 5000


finite = st.floats(-1e9, 1e9, allow_subnormal=False).filter(lambda value: value == 0 or abs(value) > 1e-9)


@given(st.lists(finite, min_size=1, max_size=50))
def test_every_line_stays_inside_its_chart(values):
    figure = draw("any", [ChartLine("a", range(1, len(values) + 1), values)])
    for x, y in points(figure):
        assert 0 <= x <= 560 and 0 <= y <= 240


@given(finite, finite)
def test_ticks_are_few_and_reach_around_the_values(a, b):
    low, high = min(a, b), max(a, b)
    if high - low > 1e-6 * max(abs(low), abs(high), 1e-3):
        ticks = round_ticks(low, high, 4)
        slack = 1e-6 * (high - low)
        assert 2 <= len(ticks) <= 11 and ticks[0] <= low + slack and ticks[-1] >= high - slack


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.85, "0.85"), (12_000, "12k"), (5e-4, "5e-4"), (2_500_000, "2.5M"), (-0.00012, "-1.2e-4")],
)
def test_numbers_are_short(value, text):
    assert short(value) == text
