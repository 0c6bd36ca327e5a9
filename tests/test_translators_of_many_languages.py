"""Imported translators for many languages: the language of either side is a token, and the folder's settings hold."""

import asyncio
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import foreign
import foreign_text
import pytest
import torch

from dragoman.checkpoint import load_model
from dragoman.cli import main
from dragoman.decode.augment import Augmentation, distilled
from dragoman.decode.knn import Datastore, build_datastore
from dragoman.decode.request import Request
from dragoman.decode.search.beam import Beam
from dragoman.decode.search.greedy import Greedy
from dragoman.decode.search.length_penalty import Average
from dragoman.decode.search.sample import Sample
from dragoman.decode.search.strategy import LengthLimit
from dragoman.decode.translator import Translator
from dragoman.errors import ConfigError
from dragoman.inspect.lens import beam_tree
from dragoman.inspect.subject import Subject
from dragoman.interchange.importing import import_checkpoint, origin_vocabulary
from dragoman.serve.options import TranslateOptions
from dragoman.serve.served import ServedModel
from dragoman.serve.service import Service
from dragoman.text.lines import Pair
from dragoman.text.tokens.tokenizer import SOURCE_FRAME

transformers = pytest.importorskip("transformers")
pytest.importorskip("sentencepiece")
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

pytestmark = pytest.mark.filterwarnings("ignore:Recommended. pip install sacremoses")

LIMIT = LengthLimit(tokens=foreign.LONGEST, ratio=0.0, extra=foreign.LONGEST)
TEXTS = [
    "The door is open.",
    "Grüße aus Köln",
    "12:30 and 3.14159, or not",
    "Привет, мир",
    "don't",
    "no",
    "a b c d e f",
]
FOLDERS = {  # case, languages as a user may name them and as their tokenizer does
    "mBART-50": (foreign_text.Case("mBART", True), ("de", "de_DE"), ("fr", "fr_XX")),
    "mBART": (foreign_text.Case("mBART", False), ("ro_RO", "ro_RO"), ("es", "es_XX")),
    "NLLB": (foreign_text.Case("M2M-100", True), ("de", "deu_Latn"), ("fra_Latn", "fra_Latn")),
    "M2M-100": (foreign_text.Case("M2M-100", False), ("deu", "de"), ("fr", "fr")),
}


class Made:
    """A folder, its model and tokenizer, and the run that it becomes."""

    def __init__(self, case, path):
        self.folder, self.run = path / "folder", path / "run"
        self.tokenizer, self.model = foreign_text.make(case, self.folder)
        with torch.no_grad():
            foreign.make_ends_likely(self.model)
        self.model.save_pretrained(self.folder)

    def imported(self, path, **settings):
        """Import the folder with these settings of generation; return the run and their model, which obeys them too."""
        never = [i for i in (self.model.config.pad_token_id, self.model.config.decoder_start_token_id)]
        known = json.loads((self.folder / "generation_config.json").read_text())
        end = self.model.config.eos_token_id
        stated = known | {"suppress_tokens": [i for i in never if i != end], "max_length": None} | settings
        (self.folder / "generation_config.json").write_text(json.dumps(stated))
        import_checkpoint(self.folder, path)
        for name, value in stated.items():
            setattr(self.model.generation_config, name, value)
        return path

    def says(self, text, **options):
        """Return the ids of their answer, the end left out; None where it does not end."""
        ids = torch.tensor([self.tokenizer(text).input_ids])
        with torch.inference_mode():
            said = self.model.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=foreign.LONGEST, **options
            )[0].tolist()[1:]
        end = self.model.config.eos_token_id
        return said[: said.index(end)] if end in said else None


def of_theirs(run, candidate):
    vocabulary = origin_vocabulary(foreign.RunDirectory.open(run))
    assert vocabulary is not None
    return vocabulary.order()[list(candidate.tokens)].tolist()[:-1]


@pytest.fixture(scope="module", params=FOLDERS)
def made(request, tmp_path_factory):
    case, source, target = FOLDERS[request.param]
    path = tmp_path_factory.mktemp("many")
    folder = Made(case, path)
    folder.imported(folder.run)
    return folder, source, target


@pytest.mark.parametrize("beams", [1, 3])
def test_a_text_is_read_in_one_language_and_answered_in_another(made, beams):
    folder, (source, their_source), (target, their_target) = made
    translator = Translator.load(folder.run, source_language=source, target_language=target, precision="float32")
    folder.tokenizer.src_lang = their_source
    name = f"__{their_target}__" if their_target == "fr" else their_target
    first = folder.tokenizer.convert_tokens_to_ids(name)
    search = Greedy(limit=LIMIT) if beams == 1 else Beam(size=3, penalty=Average(), stop="first", limit=LIMIT)
    compared = 0
    for text, found in zip(TEXTS, translator.translate(TEXTS, search=search), strict=True):
        said = folder.says(text, num_beams=beams, forced_bos_token_id=first)
        if said is not None:
            assert of_theirs(folder.run, found.candidates[0]) == said, text
            assert said[0] == first
            compared += 1
    assert compared


def their_log_probs(folder, source, target, text, translation):
    """Log-probabilities of the labels that their tokenizer makes, that of the language left out."""
    tokenizer, model = folder.tokenizer, folder.model
    tokenizer.src_lang, tokenizer.tgt_lang = source, target
    batch = tokenizer([text], text_target=[translation], return_tensors="pt")
    with torch.inference_mode():
        log_probs = model(**batch).logits[0].log_softmax(-1)
    labels = batch["labels"][0]
    if tokenizer.convert_ids_to_tokens(int(labels[0])) not in (target, f"__{target}__"):
        pytest.skip("labels of this family end with the language, their translations begin with it")
    return log_probs.gather(1, labels[:, None])[1:, 0]


def test_a_target_is_scored_after_the_token_of_its_language(made, tmp_path, capsys):
    folder, (source, their_source), (target, their_target) = made
    translator = Translator.load(folder.run, source_language=source, target_language=target, precision="float32")
    [found] = translator.score([("The door is open.", "the line is red")])
    wanted = their_log_probs(folder, their_source, their_target, "The door is open.", "the line is red")
    torch.testing.assert_close(torch.tensor(found.token_log_probs), wanted, atol=1e-4, rtol=1e-4)

    (tmp_path / "pairs.tsv").write_text("The door is open.\tthe line is red\n")
    assert main(["score", str(folder.run), str(tmp_path / "pairs.tsv"), "--from", source, "--to", target]) == 0
    said = float(capsys.readouterr().out.split("\t")[0])
    assert said == pytest.approx(found.log_prob, rel=0.01)  # in another precision


def test_a_datastore_holds_the_states_after_the_token_of_the_language(made, tmp_path):
    folder, (source, _), (target, _) = made
    pairs = [Pair("The door is open.", "the line is red")]
    languages = {"source_language": source, "target_language": target}
    count = build_datastore(folder.run, pairs, tmp_path / "store", **languages)
    translator = Translator.load(folder.run, precision="float32", **languages)
    [scored] = translator.score(pairs)
    stored = Datastore(tmp_path / "store")
    assert stored.tokens.tolist() == list(scored.tokens) and len(scored.tokens) == count
    logits = translator.model.output(stored._keys(0))
    found = logits.log_softmax(-1).gather(1, stored.tokens[:, None])[:, 0]
    torch.testing.assert_close(found, torch.tensor(scored.token_log_probs), atol=0.05, rtol=0.05)  # float16 states


def test_pairs_are_made_in_the_languages_and_by_the_rules_of_the_model(made, tmp_path):
    folder, (source, _), (target, _) = made
    (tmp_path / "text.txt").write_text("The door is open.\nno\n")
    arguments = [str(folder.run), str(tmp_path / "text.txt"), "-o", str(tmp_path / "o.tsv")]
    assert main(["augment", "distill", *arguments, "--from", source, "--to", target]) in (0, 2)
    translator = Translator.load(folder.run, source_language=source, target_language=target)
    said = [one.candidates[0] for one in translator.translate(["The door is open.", "no"])]
    pairs = (tmp_path / "o.tsv").read_text() if (tmp_path / "o.tsv").exists() else ""
    assert [line.split("\t")[1] for line in pairs.splitlines()] == [c.text for c in said if c.text and not c.truncated]


@pytest.mark.parametrize(
    "cfg", [Greedy(limit=LIMIT), Beam(size=3, limit=LIMIT), Sample(limit=LIMIT)], ids=lambda c: c.kind
)
def test_what_must_be_said_comes_after_the_token_of_the_language(made, cfg):
    folder, (source, _), (target, _) = made
    translator = Translator.load(folder.run, source_language=source, target_language=target, precision="float32")
    assert translator.first is not None
    ids = tuple(translator.target_tokenizer.encode("the line"))
    requests = [
        Request("The door is open.", prefix="the li"),
        Request("The door is open.", required=(("red",),)),
        Request("The door is open.", prefix="the", required=(("red",),), forbidden=("door",)),
        Request("The door is open.", prefix_ids=ids),
        Request("The door is open.", prefix_ids=(translator.first.token, *ids)),
        Request("The door is open.", forbidden=("the",)),
    ]
    found = [one.candidates[0] for one in translator.translate(requests, search=cfg)]
    assert {one.tokens[0] for one in found} == {translator.first.token}
    begun, red, both, after, with_it, without = (one.text for one in found)
    assert begun.startswith("the li") and "red" in red and both.startswith("the") and "red" in both
    assert after.startswith("the line") and after == with_it
    assert not {"door"} & set(both.split()) and "the" not in without.split()


def test_an_unknown_language_and_one_that_may_be_two_are_refused_in_a_line(made):
    folder, *_ = made
    with pytest.raises(ConfigError, match=r"--to: no 'xx_YY' here.* Known: "):
        Translator.load(folder.run, target_language="xx_YY")
    with pytest.raises(ConfigError, match="--from: no 'klingon' here"):
        Translator.load(folder.run, source_language="klingon")


def test_the_command_line_translates_from_and_to(made, tmp_path, capsys):
    folder, (source, _), (target, _) = made
    assert main(["import", str(folder.folder), "--run", str(tmp_path / "run")]) == 0
    assert "languages, chosen by --from and --to: " in capsys.readouterr().out
    arguments = ["translate", str(folder.run), "The door is open.", "--from", source, "--to", target]
    assert main(arguments) == 0
    assert capsys.readouterr().out.count("\n") == 1
    assert main(["translate", str(folder.run), "The door is open.", "--to", "nowhere"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


# ---- settings of generation ------------------------------------------------------------------------

SETTINGS = {
    "greedy": {"num_beams": 1},
    "beams": {"num_beams": 4},
    "a beam that stops early": {"num_beams": 3, "early_stopping": True},
    "long answers": {"num_beams": 3, "length_penalty": 2.0, "min_length": 9},
    "no pair of tokens twice": {"num_beams": 2, "no_repeat_ngram_size": 2},
    "words that are bad": {"num_beams": 2, "bad_words_ids": [[20], [30], [41]]},
    "a first token": {"num_beams": 3, "forced_bos_token_id": 12},
}


@pytest.fixture(scope="module")
def pegasus(tmp_path_factory):
    return Made(foreign_text.Case("Pegasus", True), tmp_path_factory.mktemp("settings"))


@pytest.mark.parametrize("name", SETTINGS)
def test_the_settings_of_a_folder_are_obeyed_as_generate_obeys_them(name, pegasus, tmp_path):
    neutral = {"num_beams": 1, "early_stopping": False, "length_penalty": 1.0, "min_length": 0}
    neutral |= {"no_repeat_ngram_size": 0, "bad_words_ids": None, "forced_bos_token_id": None}
    run = pegasus.imported(tmp_path / "run", **neutral | SETTINGS[name])
    translator = Translator.load(run, precision="float32")

    chosen = translator.defaults.search
    assert chosen is not None
    translator.defaults = replace(translator.defaults, search=replace(chosen, limit=LIMIT))
    compared = 0
    for text, found in zip(TEXTS, translator.translate(TEXTS), strict=True):
        said = pegasus.says(text)
        if said is not None:
            assert of_theirs(run, found.candidates[0]) == said, text
            compared += 1
    assert compared
    assert not translator.defaults.unused


def test_what_is_said_of_the_settings_is_what_is_obeyed(pegasus, tmp_path):
    run = pegasus.imported(
        tmp_path / "run", num_beams=1, max_new_tokens=1, stop_strings=["e"], forced_bos_token_id=None
    )
    translator = Translator.load(run)
    obeyed, _, unused = str(translator.defaults).partition("not applied: ")
    assert "stop" not in obeyed and "new tokens" not in obeyed
    assert unused == "stop_strings=['e'], max_new_tokens=1"
    assert max(len(one.candidates[0].tokens) for one in translator.translate(TEXTS)) > 2


def test_a_user_who_chooses_a_beam_keeps_the_rules_of_the_folder(pegasus, tmp_path):
    run = pegasus.imported(tmp_path / "run", num_beams=1, forced_bos_token_id=12)
    translator = Translator.load(run)
    [token] = load_model(run)[2].to_our_ids([12])
    said = [
        translator.translate(["The door is open."]),
        translator.translate(["The door is open."], beam=2),
        translator.translate(["The door is open."], rules=[]),
    ]
    assert [translations[0].candidates[0].tokens[0] for translations in said] == [token] * 3


def test_pairs_are_made_by_the_search_and_the_rules_of_the_folder(pegasus, tmp_path):
    run = pegasus.imported(tmp_path / "run", num_beams=1, min_length=20, forced_bos_token_id=None)
    translator = Translator.load(run)
    found = translator.translate(TEXTS)
    assert found != translator.translate(TEXTS, beam=5, rules=[])
    said = [one.candidates[0] for one in found]
    (tmp_path / "text.txt").write_text("".join(f"{text}\n" for text in TEXTS))
    Augmentation(run, distilled).apply(tmp_path / "text.txt", tmp_path / "o.jsonl")
    made = [json.loads(line) for line in (tmp_path / "o.jsonl").read_text().splitlines()]
    assert [one["target"] for one in made] == [one.text for one in said if one.text and not one.truncated]


# ---- Marian: the language of the target stands before the source -------------------------------------


@pytest.fixture(scope="module")
def opus(tmp_path_factory):
    """A folder as OPUS-MT has it, for several target languages, whose config.json alone says how to search."""
    path = tmp_path_factory.mktemp("opus")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(foreign_text, "marian", lambda folder: with_languages(folder, plain))
        made = Made(foreign_text.Case("Marian", True), path)
    config = json.loads((made.folder / "config.json").read_text())
    (made.folder / "generation_config.json").unlink()
    (made.folder / "config.json").write_text(json.dumps(config | {"num_beams": 2, "bad_words_ids": [[30]]}))
    import_checkpoint(made.folder, made.run)
    return made


plain = foreign_text.marian


def with_languages(folder, make):
    make(folder)
    numbers = json.loads((folder / "vocab.json").read_text())
    last = max(numbers.values())
    numbers |= {">>fra<<": last + 1, ">>spa<<": last + 2, ">>cmn_Hans<<": last + 3, ">>cmn_Hant<<": last + 4}
    (folder / "vocab.json").write_text(json.dumps(numbers))
    files = [str(folder / name) for name in ("source.spm", "target.spm", "vocab.json")]
    return transformers.MarianTokenizer(*files)


def test_a_target_language_before_a_source_is_read_as_marian_reads_it(opus):
    tokenizer = load_model(opus.run)[1]
    vocabulary = origin_vocabulary(foreign.RunDirectory.open(opus.run))
    assert vocabulary is not None
    order = vocabulary.order()
    for text in (
        ">>fra<< The door is open.",
        ">>spa<<The door",
        ">>cmn_Hant<< no",
        "no >> and no <<",
        ">>fra<<",
        ">> a",
    ):
        assert order[tokenizer.encode(text)].tolist() == opus.tokenizer(text).input_ids[:-1], text
    chosen = Translator.load(opus.run, target_language="fr")
    known = ">>fra<< The door is open."
    assert chosen.source_tokenizer.frame(SOURCE_FRAME).around(tokenizer.encode("The door is open.")) == [
        *tokenizer.encode(known),
        tokenizer.eos,
    ]


def test_to_chooses_the_target_language_of_marian(opus, capsys):
    said = []
    for arguments in (
        ["The door is open.", "--to", "fra"],
        ["The door is open.", "--to", "fr"],
        [">>fra<< The door is open."],
    ):
        assert main(["translate", str(opus.run), *arguments]) == 0
        said.append(capsys.readouterr())
    assert len({one.out for one in said}) == 1
    assert "beam size 2" in said[0].err and "(the model's config.json)" in said[0].err
    assert main(["translate", str(opus.run), "The door is open.", "--to", "zh"]) == 2
    assert "--to: zh may be cmn_Hans or cmn_Hant here: say which" in capsys.readouterr().err


# ---- evaluated and served ----------------------------------------------------------------------------


def test_an_evaluation_translates_from_and_to_with_the_search_of_the_folder(opus, tmp_path, capsys):
    pairs = tmp_path / "pairs.tsv"
    pairs.write_text("The door is open.\tLa porte\ndon't\tnon\n", encoding="utf-8")
    asked = ["evaluate", str(opus.run), str(pairs), "--to", "fr", "--metric", "chrf"]
    assert main(asked) == 0
    stored = opus.run / "evaluations" / "pairs"
    config = json.loads((stored / "scores.json").read_text(encoding="utf-8"))
    assert config["search"]["size"] == 2
    said = [json.loads(line)["output"] for line in (stored / "outputs.jsonl").read_text(encoding="utf-8").splitlines()]
    alone = Translator.load(opus.run, target_language="fr").translate(["The door is open.", "don't"])
    assert said == [translation.text for translation in alone]
    assert main([*asked[:3], "--to", "nowhere"]) == 2
    assert "--to: no 'nowhere' here" in capsys.readouterr().err


WORDS = ["The door is open.", "a b c d e f", "no", "the red house is open"]


def test_a_service_translates_between_the_languages_of_a_name_with_the_search_of_the_folder(opus):
    async def ask(service):
        return await service.translate("en-fr", WORDS, TranslateOptions())

    service = Service.load({"en-fr": opus.run})
    try:
        found = asyncio.run(ask(service))
    finally:
        service.close()
    alone = Translator.load(opus.run, target_language="fr").translate(WORDS)
    assert [one.candidates[0].tokens for one in found] == [one.candidates[0].tokens for one in alone]
    with pytest.raises(ConfigError, match="--to: no 'is' here"):
        ServedModel.load("en-is", opus.run)


# ---- looking inside --------------------------------------------------------------------------------


def answer_of_tree(nodes):
    """Return the tokens of the answer that a tree of a search ends in."""
    node, path = next(node for node in nodes if node.fate.startswith("chosen")), []
    while node is not None:
        path.append(node.token)
        node = None if node.parent is None else nodes[node.parent]
    return tuple(reversed(path))


@pytest.mark.parametrize("languages", [True, False])
def test_the_answer_that_is_explained_is_the_one_that_translate_gives(made, languages):
    folder, (source, _), (target, _) = made
    chosen = {"source_language": source, "target_language": target} if languages else {}
    translator = Translator.load(folder.run, precision="float32", split_sentences="off", **chosen)
    subject = Subject.open(folder.run, **chosen)
    for text in TEXTS:
        [found] = translator.translate([text])
        given = subject.inputs(text)
        assert given.target_ids == found.candidates[0].tokens, text
        assert answer_of_tree(beam_tree(subject, given)) == given.targets
        assert subject.inputs(text, found.text).target_ids[:1] == given.target_ids[:1] or not languages


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_of_a_folder_hold_for_the_answer_that_is_explained(name, pegasus, tmp_path):
    run = pegasus.imported(tmp_path / "run", max_length=12, **SETTINGS[name])
    translator, subject = Translator.load(run, precision="float32", split_sentences="off"), Subject.open(run)
    for text in TEXTS[:5]:
        [found] = translator.translate([text])
        given = subject.inputs(text)
        assert given.target_ids == found.candidates[0].tokens, text
        if not found.candidates[0].truncated:
            assert answer_of_tree(beam_tree(subject, given)) == given.targets


def test_a_language_is_chosen_on_the_command_line_and_repeated(tmp_path, capsys):
    made = Made(FOLDERS["NLLB"][0], tmp_path)
    run, page, lines = str(made.imported(tmp_path / "run")), str(tmp_path / "page.json"), tmp_path / "lines.txt"
    assert main(["inspect", run, "The door", "--to", "fra_Latn", "--no-attribution", "-o", page]) == 0
    assert json.loads((tmp_path / "page.json").read_text())["tokens"]["next"][0] == "fra_Latn"
    lines.write_text("The door\n")
    assert main(["explain", run, str(lines), "--to", "fr", "--seeds", "1", "-o", str(tmp_path / "explained")]) == 0
    script, csv = tmp_path / "explained" / "repeat.py", tmp_path / "again.csv"
    subprocess.run([sys.executable, str(script), str(csv)], check=True)
    assert csv.read_bytes() == (tmp_path / "explained" / "sensitivity.csv").read_bytes()
    capsys.readouterr()
    assert main(["inspect", run, "The door", "--to", "klingon", "-o", page]) == 2
    said = capsys.readouterr().err
    assert said.startswith("dragoman: --to: no 'klingon' here") and said.count("\n") == 1


def test_a_probe_reads_the_language_that_is_chosen(tmp_path, monkeypatch, capsys):
    pytest.importorskip("sklearn")
    made = Made(FOLDERS["NLLB"][0], tmp_path)
    run, labels = str(made.imported(tmp_path / "run")), tmp_path / "labels.tsv"
    labels.write_text("".join(f"{'The door' if i % 2 else 'A house'} {i}\t{i % 2}\n" for i in range(24)))
    read, inputs_of = set[str](), Subject.inputs

    def inputs(subject, *asked):
        given = inputs_of(subject, *asked)
        read.update(token for token in given.source_tokens if token in ("eng_Latn", "fra_Latn"))
        return given

    monkeypatch.setattr(Subject, "inputs", inputs)
    for language, expected in (("en", "eng_Latn"), ("fra_Latn", "fra_Latn")):
        read.clear()
        asked = ["probe", run, "--labels", str(labels), "--seeds", "1", "--of", "sentences", "--from", language]
        assert main(asked) == 0
        assert read == {expected}
    capsys.readouterr()


def test_a_language_is_refused_for_a_model_that_has_none(tmp_path, capsys):
    made = Made(foreign_text.Case("BART", True), tmp_path)
    run = str(made.imported(tmp_path / "run"))
    lines, pairs, output = (str(tmp_path / name) for name in ("lines.txt", "pairs.tsv", "output.tsv"))
    Path(lines).write_text("The door\n")
    Path(pairs).write_text("The door\tLa porte\n")
    for words in (
        ["inspect", run, "The door", "-o", str(tmp_path / "page.html")],
        ["probe", run, "--labels", pairs, "--of", "sentences"],
        ["score", run, pairs],
        ["calibrate", run, pairs],
        ["augment", "distill", run, lines, "-o", output],
        ["datastore", run, pairs, "-o", str(tmp_path / "store")],
    ):
        for option in ("--from", "--to"):
            assert main([*words, option, "fr"]) == 2
            said = capsys.readouterr().err
            assert said == f"dragoman: {option}: this model has no languages to choose from: leave it out\n"
