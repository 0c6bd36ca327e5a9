"""The checklist: each row notices the fault that it is for, and stays quiet where there is none."""

import itertools
import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from test_bulk import run  # noqa: F401 (a fixture)
from test_every_command import make
from tiny_reader import quick_disk  # noqa: F401 (a fixture)

from dragoman.cli import checklist as cli_checklist
from dragoman.cli import main
from dragoman.decode.documents.line_translation import LineSettings
from dragoman.decode.search.greedy import Greedy
from dragoman.decode.sentence_splitting import NO_SPLITTING
from dragoman.decode.translation import Candidate, Translation
from dragoman.inspect.checklist import perturbations, quality, robustness, texts, trust
from dragoman.inspect.checklist.collect import Checklist
from dragoman.inspect.checklist.languages import LANGUAGES, recognise
from dragoman.inspect.checklist.material import TranslatorMaterial
from dragoman.inspect.checklist.page import as_page
from dragoman.inspect.checklist.row import ChecklistRow, ChecklistTable, above, below, counted, example, percent
from dragoman.text.context import NO_CONTEXT
from dragoman.text.lines import Pair, Sourced

# ---- a translator that is a function of the text -------------------------------------------------------


class Material(TranslatorMaterial):
    """A translator that upper-cases words it knows, on pairs that it is asked about."""

    def __init__(self, answer, test, *, training=(), hard=(), confidence=lambda text: 0.9):
        self.answer, self.confidence, self.training, self.hard = answer, confidence, training, hard
        self.test = [Sourced(*pair, "") if len(pair) == 2 else Sourced(*pair) for pair in test]
        self.named, self.settings = "the test set", SimpleNamespace(sentences=1000, sample=200)
        self.words = self.target_words = LANGUAGES.get(recognise(pair.source for pair in self.test) or "")
        tokenizer = SimpleNamespace(encode=str.split)
        self.lines = SimpleNamespace(translator=SimpleNamespace(source_tokenizer=tokenizer))
        lengths = [len(source.split()) for source, _ in training]
        self.__dict__["corpus"] = Corpus(lengths) if training else None

    def translate(self, pairs, *, split_sentences=True):
        texts = [pair.source for pair in pairs]
        return [translation(i, text, self.answer(text), self.confidence(text)) for i, text in enumerate(texts, 1)]

    def training_pairs(self):
        return iter(Pair(*pair) for pair in self.training)

    def held_out(self, name):
        return [Sourced(*pair, "") for pair in self.hard] if name == "hard" else []


class Corpus:
    """Training text of which only the lengths are asked."""

    def __init__(self, lengths):
        self.source = SimpleNamespace(lengths=lengths)

    def __len__(self):
        return len(self.source.lengths)


def translation(row, source, text, confidence=0.9):
    candidate = Candidate(text, 0.0, 0.0, (1,), (0.0,), truncated=False, confidence=confidence)
    return Translation(row, source, (candidate,), (), confidence)


def tidy(text):
    return " ".join(text.split())


WORDS = ["house", "garden", "little", "window", "morning", "friend", "water", "street", "yellow", "summer"]
SENTENCES = [
    f"The {WORDS[i % 10]} is near the {WORDS[(i // 10 + i + 1) % 10]} and the {WORDS[(3 * i) % 10]}." for i in range(60)
]
PAIRS = [(text, text) for text in SENTENCES]  # a translation into the same language: what comes in is right


# ---- perturbations -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "before", "after"),
    [
        (perturbations.upper, "Open {name} now", "OPEN {name} NOW"),
        (perturbations.upper, "100 %s", None),
        (perturbations.lower, "Open <B>It</B>", "open <B>it</B>"),
        (perturbations.lower, "open", None),
        (perturbations.spacing, "a b", "  a  b "),
        (perturbations.spacing, "", None),
        (perturbations.odd_spaces, "a b c", "a\u00a0b\tc"),
        (perturbations.odd_spaces, "alone", None),
        (perturbations.final_mark, "Stop.", "Stop"),
        (perturbations.final_mark, "Stop", "Stop."),
        (perturbations.final_mark, "Wait...", None),
        (perturbations.final_mark, "Really?", None),
        (perturbations.typos, "to be or", None),
        (perturbations.other_numbers, "take 3", None),
        (perturbations.other_numbers, "the {user_12} file", None),
    ],
)
def test_a_perturbation_changes_what_it_says_and_no_placeholder(change, before, after):
    assert change(before) == after


@pytest.mark.parametrize("text", ["the window", "Straßenbahn fährt ab", "ВОДА и дорога", "one {placeholder} here"])
def test_a_typing_error_keeps_the_letters_and_the_ends_of_words(text):
    changed = perturbations.typos(text)
    assert changed != text and sorted(changed) == sorted(text) and perturbations.typos(text) == changed
    assert [(w[0], w[-1]) for w in changed.split()] == [(w[0], w[-1]) for w in text.split()]


@pytest.mark.parametrize("text", ["in 25 days", "from 1999 to 2024", "10 of 100 files", "room 42."])
def test_other_numbers_have_as_many_digits(text):
    changed = perturbations.other_numbers(text)
    assert changed != text and re.sub(r"\d", "0", changed) == re.sub(r"\d", "0", text)


# ---- languages -----------------------------------------------------------------------------------------

NEGATED = """
en: It is open. > It is not open.
en: You cannot go. > You can go.
en: Don't stop > Do stop
en: It isn't on > It is on
en: He did not come > He come
en: I never sleep > I always sleep
de: Das ist gut. > Das ist nicht gut.
de: Er kommt nicht. > Er kommt.
de: Kein Brot > ein Brot
de: Keine Zeit > eine Zeit
es: La puerta está abierta > La puerta no está abierta
es: No puede entrar > puede entrar
es: Nunca llueve > siempre llueve
fr: Il n\u2019est pas là > Il est là
fr: Elle est ici > Elle n\u2019est pas ici
fr: Ils ne peuvent pas venir > Ils peuvent venir
it: Non è qui > è qui
it: Lui è qui > Lui non è qui
pt: Não é aqui > é aqui
pt: Ele é alto > Ele não é alto
nl: Het is niet open > Het is open
nl: Er is geen tijd > Er is een tijd
"""


@pytest.mark.parametrize("line", NEGATED.strip().splitlines())
def test_a_sentence_is_negated_or_its_negation_undone(line):
    code, _, pair = line.partition(": ")
    before, _, after = pair.partition(" > ")
    known = LANGUAGES[code]
    assert known.negated(before) == after and known.denies(before) != known.denies(after)


def test_a_sentence_without_anything_to_negate_is_left_out():
    assert [known.negated("42 %s") for known in LANGUAGES.values()] == [None] * len(LANGUAGES)


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("en", "The device is not connected to the network, and it has been turned off."),
        ("de", "Das Gerät ist nicht mit dem Netz verbunden und wird ausgeschaltet."),
        ("es", "El dispositivo no está conectado a la red y se ha apagado."),
        ("fr", "Le périphérique n'est pas connecté au réseau et il est éteint."),
        ("it", "Il dispositivo non è connesso alla rete e si è spento."),
        ("pt", "O dispositivo não está ligado à rede e foi desligado por uma pessoa."),
        ("nl", "Het apparaat is niet met het netwerk verbonden en is uitgezet."),
        (None, "Устройство не подключено к сети и было выключено."),
        (None, "42 %s"),
    ],
)
def test_a_language_is_recognised_by_its_commonest_words(code, text):
    assert recognise([text]) == code


# ---- rows notice what they are for ---------------------------------------------------------------------


def test_a_perfect_translator_gets_good_marks_wherever_something_is_measured():
    material = Material(tidy, PAIRS, training=[(s, s) for s in ["Some other words entirely, said once."] * 9])
    rows = [
        quality.overall(material),
        quality.by_length(material),
        quality.degenerate_outputs(material),
        quality.known_failures(material),
        *robustness.stays(Material(tidy, PAIRS))[3:5],
        robustness.negation(material),
        texts.length_extrapolation(material),
        texts.placeholders_kept(Material(lambda t: f"{tidy(t)} indeed", PAIRS)),
        trust.train_test_overlap(material),
    ]
    assert {row.title: row.verdict for row in rows} == {row.title: "good" for row in rows}


FAULTS = {
    "the translation of nothing": (quality.overall, lambda t: "?", {}),
    "one long slice": (quality.by_length, lambda t: t if len(t.split()) <= 10 else "?", {}),
    "an empty answer": (quality.degenerate_outputs, lambda t: "" if "yellow" in t else t, {}),
    "a loop": (quality.degenerate_outputs, lambda t: "on and on and on and on" if "yellow" in t else t, {}),
    "a failure in ten": (quality.known_failures, lambda t: "zzz" if "yellow" in t else t, {}),
    "deaf to negation": (robustness.negation, lambda t: t.replace(" not", ""), {}),
    "deaf to gender": (robustness.gender, lambda t: "same", {}),
    "lost placeholders": (texts.placeholders_kept, lambda t: t.replace("{name}", "").replace("%s", ""), {}),
    "short of breath": (texts.length_extrapolation, lambda t: " ".join(t.split()[:12]), {"training": PAIRS}),
    "sure of everything": (trust.confidence, lambda t: t if "summer" in t else "?", {"confidence": lambda t: 0.99}),
    "tested on training": (trust.train_test_overlap, tidy, {"training": PAIRS}),
    "lost on the hard set": (
        quality.hard_set,
        lambda t: t if t in SENTENCES else "?",
        {"hard": [("rare", "words")] * 3},
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_row_notices_its_fault(fault, tmp_path):
    question, answer, more = FAULTS[fault]
    pairs = PAIRS + [(f"{a} {b}", f"{a} {b}") for a, b in itertools.pairwise(SENTENCES)]
    material = Material(answer, pairs, **more)
    material.folder = tmp_path
    row = question(material)
    assert row.verdict in ("poor", "look") and row.finding.endswith(".") and row.measured and row.limits


@pytest.mark.parametrize(
    ("title", "answer"),
    [
        ("Capital letters", lambda t: "?" if t.isupper() else t),
        ("Small letters", lambda t: "?" if t.islower() else t),
        ("Typing errors", lambda t: t if t in SENTENCES else "?"),
        ("Doubled spaces", lambda t: "?" if "  " in t else t),
        ("Tabs and no-break spaces", lambda t: "?" if "\t" in t else t),
        ("With or without a final full stop", lambda t: t if t.endswith(".") else "?"),
    ],
)
def test_a_change_that_costs_quality_is_named_by_its_row_alone(title, answer):
    verdicts = {row.title: row.verdict for row in robustness.stays(Material(answer, PAIRS))}
    assert verdicts[title] == "poor"


def test_words_that_training_never_had_are_a_slice():
    known = [("The house is near the garden and the house.",) * 2] * 9
    test = (
        known[:1] * 25
        + [("The zebra is near the garden and the house.", "The zebra is near the garden and the house.")] * 25
    )
    row = quality.by_rare_words(Material(lambda t: "?" if "zebra" in t else t, test, training=known))
    assert row.verdict == "poor" and "never had" in row.finding
    assert [cells[1] for cells in row.tables[0].rows] == ["25", "25"]


def test_failures_name_the_words_that_training_hardly_has():
    row = quality.known_failures(Material(lambda t: "?", PAIRS, training=PAIRS[:30] * 5 + [("a summer", "a summer")]))
    assert "60 of 60" in row.finding and "of them with a rare word" in row.finding
    told = dict(quality.known_failures(Material(lambda t: "?", PAIRS, training=[("nothing",) * 2])).examples[0].parts)
    assert "the (0 in training)" in told["rare words"]


def test_a_test_pair_that_training_has_many_times_is_one_of_many_test_pairs():
    alone = trust.train_test_overlap(Material(tidy, PAIRS * 3, training=[PAIRS[0]] * 200))
    assert "3 of 180 test pairs (1.7%)" in alone.finding and "200 training pairs" in alone.finding
    assert alone.verdict == "look"


def test_other_numbers_must_come_out():
    pairs = [(f"Wait {i} days for it.",) * 2 for i in range(10, 40)]
    assert robustness.numbers(Material(tidy, pairs)).verdict == "good"
    stuck = robustness.numbers(Material(lambda t: re.sub(r"\d+", "25", t), pairs))
    assert stuck.verdict == "poor" and stuck.examples
    assert texts.numbers_kept(Material(lambda t: re.sub(r"\d", "", t), pairs)).verdict == "poor"


def test_quality_by_source_needs_two_sources():
    tagged = [Sourced(s, s, "", tag) for s, tag in zip(SENTENCES, ["ui", "docs"] * 30, strict=True)]
    material = Material(tidy, tagged)
    assert [cells[0] for cells in quality.by_source(material).tables[0].rows] == ["ui", "docs"]
    assert quality.by_source(Material(tidy, PAIRS)) is None


def in_language(text, tags):
    return re.sub(r"\bthe\b", {"2a": "ye", "2b": "thine"}[tags], text)


class TwoLanguages(Material):
    """A translator that asks which language is wanted, and cannot do without the sentence before."""

    def translate(self, pairs, *, split_sentences=True):
        assert all(pair.context == ("Before.",) or pair.source in self.own for pair in pairs)
        texts = [in_language(tidy(pair.source), pair.tags) for pair in pairs]
        return [translation(i, pair.source, text) for i, (pair, text) in enumerate(zip(pairs, texts, strict=True), 1)]

    own = tuple(text for both in LANGUAGES["en"].genders for text in both)

    def held_out(self, name):
        return self.test if name == "hard" else []


def test_every_row_asks_for_the_language_of_the_pair_and_gives_it_its_context():
    def asked(sentence, i):
        tags = "2b" if i % 3 == 0 else "2a"
        return Sourced(sentence, in_language(sentence, tags), "", tags, ("Before.",))

    numbered = [sentence.replace(".", f" of {i + 20}.") for i, sentence in enumerate(SENTENCES)]
    material = TwoLanguages(None, list(map(asked, numbered, range(60))), training=PAIRS)
    rows = [
        quality.hard_set(material),
        *robustness.stays(material)[3:5],
        robustness.numbers(material),
        robustness.negation(material),
        robustness.gender(material),
        texts.length_extrapolation(material),
        texts.placeholders_kept(material),
    ]
    assert {row.title: row.verdict for row in rows} == {row.title: "good" for row in rows}


def test_users_and_the_checklist_get_the_same_answers_with_tags_and_context(monkeypatch):
    seen = []

    class Recorder:
        context, splitter = NO_CONTEXT, NO_SPLITTING

        def translate(self, requests, **options):
            seen.extend(requests)
            return [translation(i, one.text, one.text) for i, one in enumerate(requests, 1)]

    pairs = [Sourced("one {name}", "", "", "2b", ("Before.",)), Sourced("two", "", "", "2a"), Sourced("three", "", "")]
    material = Material(None, pairs)
    settings = LineSettings(run=Path("r"), search=Greedy())
    material.lines = SimpleNamespace(settings=settings, translator=Recorder())
    answers = TranslatorMaterial.translate(material, [*pairs, pairs[0]])
    assert [answer.text for answer in answers] == ["one {name}", "two", "three", "one {name}"]
    assert {(one.text[:3], one.tags, one.context) for one in seen} == {
        ("one", ("2b",), ("Before.",)),
        ("two", ("2a",), ()),
        ("thr", (), ()),
    }


@pytest.mark.parametrize(
    "question", [quality.by_rare_words, quality.hard_set, texts.length_extrapolation, trust.train_test_overlap]
)
def test_what_cannot_be_measured_says_why(question):
    row = question(Material(tidy, PAIRS))
    assert row.verdict == "not measured" and row.finding.endswith(".")


def test_unknown_languages_leave_negation_and_gender_unmeasured():
    material = Material(tidy, [(f"слово {i}", f"слово {i}") for i in range(30)])
    assert robustness.negation(material).verdict == robustness.gender(material).verdict == "not measured"


# ---- data ----------------------------------------------------------------------------------------------


def test_a_licence_counts_as_recorded_where_the_run_has_one(tmp_path):
    config = {"data": {"train": [{"kind": "table", "path": "a.tsv"}]}}
    row = trust.data_and_licence(tmp_path, config)
    assert row.verdict == "look" and "not recorded" in row.finding and row.tables[0].rows[0][1] == "a.tsv"
    (tmp_path / "LICENSE").write_text("CC0")
    assert trust.data_and_licence(tmp_path, config).verdict == "good"
    assert "CC-BY" in trust.data_and_licence(tmp_path, {"data": {"licence": "CC-BY", "files": "a.txt"}}).finding


# ---- figures and the page ------------------------------------------------------------------------------


def test_verdicts_follow_from_their_limits():
    assert [below(x, 1, 2) for x in (1, 1.5, 2, 2.1)] == ["good", "look", "look", "poor"]
    assert [above(x, 2, 1) for x in (2, 1.5, 1, 0.9)] == ["good", "look", "look", "poor"]


@pytest.mark.parametrize(
    ("part", "shown"), [(0, "0%"), (0.004, "0.4%"), (0.096, "9.6%"), (0.25, "25%"), (0.999, "99.9%"), (1, "100%")]
)
def test_percentages_keep_a_digit_where_it_says_something(part, shown):
    assert percent(part) == shown


def test_nouns_follow_their_number():
    assert [counted(n, "pair") for n in (0, 1, 1234)] == ["0 pairs", "1 pair", "1,234 pairs"]


ROW = ChecklistRow(
    group="Quality",
    title="A <row>",
    verdict="poor",
    finding="x < y & “z”.",
    measured="1 pair",
    tables=(ChecklistTable(("a", "b"), (("<1>", "2"),)),),
    examples=(example(source="<script>alert(1)</script>", answer=""),),
)


def test_the_page_holds_everything_and_nothing_from_elsewhere():
    rows = (ROW, replace(ROW, verdict="good", title="Fine"), replace(ROW, verdict="not measured", title="Open"))
    page = as_page(Checklist("run <1>", "2026-01-01", (("task", "a & b"),), rows)).decode()
    assert "<script" not in page and "x &lt; y &amp; “z”." in page and "run &lt;1&gt;" in page
    assert not re.search(r"""(?:src|href)=["'](?!#)""", page) and "url(" not in page
    assert page.count("<article") == 3 and "$" not in page
    assert '<a href="#quality-a-&lt;row&gt;">' in page and "<i>nothing</i>" in page


def test_a_model_is_identified_by_its_run_and_by_its_checkpoint_alike(run):  # noqa: F811
    facts = trust.facts(run, "best")
    assert facts == trust.facts(run / "checkpoints" / dict(facts)["checkpoint"], "last")


# ---- the command ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_translator_s_page_is_written_and_its_figures_printed(run, tmp_path, monkeypatch, capsys):  # noqa: F811
    monkeypatch.setattr(texts, "TEXTS", 1)
    monkeypatch.setattr(texts, "TIMES", (1, 2))
    page = tmp_path / "page.html"
    command = ["checklist", str(run), "--test", str(run.parent / "pairs.tsv"), "-o", str(page), "--json"]
    assert main([*command, "--sentences", "12", "--sample", "12", "--beam", "1"]) == 0
    told = json.loads(capsys.readouterr().out)
    titles = [row["title"] for row in told["rows"]]
    assert {"On the whole", "Capital letters", "Negation", "Longer than in training", "Confidence"} <= set(titles)
    assert len(titles) == len(set(titles)) and sum(told["verdicts"].values()) == len(titles)
    assert told["facts"]["task"] == "translation" and all(row["finding"] for row in told["rows"])
    assert page.read_text().count("<article") == len(titles)


def test_labels_and_names_are_printed_as_they_are(capsys):
    made = Checklist("run", "2026-01-01", (), (replace(ROW, finding="The label is “[/b]”, not [x]."),))
    cli_checklist._show(made, Path("[page].html"))
    shown = " ".join(capsys.readouterr().out.split())
    assert "“[/b]”, not [x]." in shown and "page: [page].html" in shown


TEXT = "The red dog sees the green house, and the big cat is near it. "


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "content", "titles"),
    [
        ("language_model", TEXT * 30, {"On the whole", "Continuations", "Capital letters", "Longer than in training"}),
        (
            "classifier",
            "".join(f"{TEXT} {i}\t{('bad', 'good')[i % 2]}\n" for i in range(30)),
            {"On the whole", "By label", "By length", "Typing errors", "Gendered pairs", "Probability"},
        ),
    ],
)
def test_other_models_get_the_rows_that_make_sense(kind, content, titles, tmp_path, capsys):
    folder = make(kind, tmp_path / "run")
    test = tmp_path / ("test.tsv" if kind == "classifier" else "test.txt")
    test.write_text(content)
    assert main(["checklist", str(folder), "--test", str(test), "-o", str(tmp_path / "page.html"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert titles <= {row["title"] for row in told["rows"]} and told["facts"]["parameters"]
    groups = [row["group"] for row in told["rows"]]
    assert groups == sorted(groups, key=groups.index)  # each group in one place


def test_a_run_of_another_task_is_refused_by_its_name(tmp_path, capsys):
    assert main(["checklist", str(make("tagger", tmp_path / "run"))]) == 2
    assert "its task is tagging, and the checklist is for translators" in capsys.readouterr().err


MISTAKES = {
    "no such run": (["absent"], "absent"),
    "no such test set": (["RUN", "--test", "absent.tsv"], "absent.tsv: no such file"),
    "no folder for the page": (["RUN", "-o", "absent/page.html"], "there is no folder absent"),
    "an empty test set": (["RUN", "--test", "empty.tsv"], "empty.tsv"),
    "a test set without two texts": (["RUN", "--test", "blank.tsv"], "the test set has no pairs of two texts"),
    "no such checkpoint": (["RUN", "--checkpoint", "step-9"], "step-9: no such checkpoint"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line(mistake, run, tmp_path, monkeypatch, capsys):  # noqa: F811
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.tsv").write_text("")
    (tmp_path / "blank.tsv").write_text("a\t \n b\t\n")
    arguments, message = MISTAKES[mistake]
    assert main(["checklist", *(str(run) if one == "RUN" else one for one in arguments)]) == 2
    error = capsys.readouterr().err
    assert message in error and error.startswith("dragoman: ") and error.count("\n") == 1
