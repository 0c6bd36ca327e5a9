"""The page of a study in a browser: at 400 and 1,280 pixels, in light and dark, with nothing from elsewhere."""

import pytest
from page_browser import browser  # noqa: F401 (a fixture)
from study_samples import value, verdict

from dragoman.compare.page.charts import Series, curve_chart, interval_table, number
from dragoman.compare.page.study_page import study_page

NAMES = ["A <b>", "B & co", "a contestant with a rather long name, rotary, base 500000", *(f"C{i}" for i in range(9))]


def many():
    """Results of twelve contestants, with names that a page must not take as HTML."""
    curve = {
        "step": [1, 2, 3],
        "tokens": [9, 18, 27],
        "flops": [1e9, 2e9, 3e9],
        "seconds": [1, 2, 3.5],
        "loss": [5, 4, 3],
    }
    runs = [
        {"contestant": name, "seed": seed, "finished": name != "C8", "failure": "", "flops": 1e12}
        | {"tokens_per_second": 1e4, "seconds": 65.0, "curve": curve if name != "C8" else {}}
        for name in NAMES
        for seed in (1, 2)
    ]
    tuning = {
        "path": "p",
        "tried": [{"factor": f, "rate": f / 1e3, "loss": 4.0 if f < 3 else None} for f in (0.3, 1, 3)],
    }
    tuning |= {"chosen": tuning["tried"][1], "at_edge": False}
    match = {"hold": "parameters", "wanted": 1e6, "found": 1.002e6, "off": 0.002, "widths": {"model.dim": 64}}
    contestants = [
        {"name": name, "parameters": 10**6, "memory": 10**8, "flops_per_step": 1e9, "steps": 100}
        | {"tuning": tuning, "match": match}
        for name in NAMES
    ]
    values = {name: value(30 - i, 0.5) for i, name in enumerate(NAMES)}
    places = {"x_title": "words of the source", "x": ["1 to 5", "6 to 10"], "y": {name: [30, None] for name in NAMES}}
    figure = {"unit": "", "higher_is_better": True, "signature": "case:mixed|" * 20, "values": values, "curve": places}
    more = {"over_seeds": [1, 3], "over_examples": None}
    return {
        "title": "A study <script>alert(1)</script>",
        "question": "Is A <i> better?",
        "name": "a",
        "size": "small",
        "date": "2026-01-01",
        "seconds": 600.0,
        "command": "dragoman compare a " + "x" * 200,
        "machine": {
            "gpu": "",
            "processor": "p",
            "cores": 2,
            "memory": 2**34,
            "system": "Linux",
            "python": "3",
            "torch": "2",
        }
        | {"dragoman": "0"},
        "study": {"title": "A"},
        "fair": ["Equal.", "Not fair: it cannot be."],
        "data": {"summary": "1,000 pairs", "overlap": {"seen": {"same source": 2}}},
        "judged": ["BLEU"],
        "contestants": contestants,
        "runs": runs,
        "figures": {"BLEU": figure},
        "verdicts": [verdict(NAMES[0], name, 2, 1, "neither" if i else "a") | more for i, name in enumerate(NAMES[1:])]
        * 2,
        "failed": [{"contestant": "C8", "seed": 1, "why": "step 3: loss nan"}],
    }


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(study_page(many()), encoding="utf-8")
    return path


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1280])
def test_a_page_fits_its_window_and_asks_for_nothing(width, scheme, page, browser):  # noqa: F811
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True)
    shown, asked = context.new_page(), []
    shown.on("request", lambda request: asked.append(request.url))
    shown.goto(page.as_uri())
    assert shown.evaluate("document.documentElement.scrollWidth") <= width
    assert asked == [page.as_uri()] and not shown.query_selector("script")
    sizes = shown.eval_on_selector_all("svg.key, .bar svg", "all => all.map(one => one.getBoundingClientRect().width)")
    assert min(sizes) > 20
    context.close()


def test_names_are_shown_and_never_run(page):
    text = page.read_text(encoding="utf-8")
    assert "A &lt;b&gt;" in text and "<script" not in text and "<i> better" not in text
    assert len(text) < 3e6 and "http" not in text


def test_each_chart_has_its_table_and_every_contestant_a_look_of_its_own(page):
    text = page.read_text(encoding="utf-8")
    assert text.count("<figure") == text.count("<summary>Table</summary>") == 6
    looks = [
        curve_chart("t", [Series("x", i, [1, 2], [1, 2])], "x", "y").partition("<g>")[2] for i in range(len(NAMES))
    ]
    assert len(set(looks)) == len(NAMES)


def test_places_without_a_value_are_left_out():
    drawn = curve_chart("t", [Series("a", 0, [1, 2, 3], [1.0, None, 3.0])], "x", "y")
    assert drawn.count("<circle") == 3  # two points, and the legend
    assert curve_chart("t", [Series("a", 0, [1], [None])], "x", "y") == ""


def test_equal_values_are_drawn_too():
    same = {"mean": 1.0, "low": 1.0, "high": 1.0, "each": [1.0, 1.0]}
    assert "nan" not in interval_table({"a": same, "b": {**same, "low": None, "high": None}}, {"a": 0, "b": 1}, "s")


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (0, "0"),
        (1234567, "1,234,567"),
        (12.3456, "12.35"),
        (0.012345, "0.01235"),
        (3.2e-7, "3.2e-07"),
        (float("nan"), "-"),
    ],
)
def test_numbers_have_four_digits(given, shown):
    assert number(given) == shown
