"""Two towers: from pairs of texts, or images with captions, to vectors that are close where things belong together."""

import json

import numpy as np
import pytest
import torch
from tiny_reader import MODEL, config, quick_disk, trained  # noqa: F401 (a fixture)
from torch._subclasses.fake_tensor import FakeTensor

from dragoman.checkpoint import RunDirectory
from dragoman.cli import main
from dragoman.data.captions import CaptionTable
from dragoman.data.matches import mean_reciprocal_rank, ranks, recall
from dragoman.data.material import ImageMaterial
from dragoman.data.tasks import ContrastiveTask
from dragoman.decode.readers.embedder import Embedder
from dragoman.errors import ConfigError, DataError
from dragoman.evaluate.metrics import scores_of
from dragoman.evaluate.retrieval import TfIdf, counted_ranks, evaluate
from dragoman.model.inputs import PatchInput
from dragoman.text.lines import Pair
from dragoman.text.store import Store
from dragoman.train.distributed.processes import SingleProcess
from dragoman.train.events import Validated
from dragoman.train.memory import OutOfMemory
from dragoman.train.run import start

WORDS = ["red", "blue", "green", "house", "tree", "car", "dog", "cat", "sees", "big", "small", "old"]
HEAD = {"kind": "sentence", "size": 16}
TEXTS = {"kind": "two_towers", "first": MODEL | {"dim": 32, "head": HEAD}}


def write_pairs(path, count=150):
    """Each second says the words of the first backwards."""
    draw = np.random.default_rng(1)
    lines = []
    for number in range(count):
        words = [str(word) for word in draw.choice(WORDS, 3, replace=False)] + [f"n{number}"]
        lines.append(" ".join(words[:3]) + "\t" + " ".join(word[::-1] for word in words[:3]))
    path.write_text("\n".join(sorted(set(lines))) + "\n")
    return path


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return write_pairs(tmp_path_factory.mktemp("text") / "pairs.tsv")


def run_config(path, steps=12, model=TEXTS, data=None, vocab=290, **train):
    held = {"test": 20, "valid": 20, "near": None}
    data = data or {"kind": "data", "train": [{"kind": "table", "path": str(path)}], "hold_out": held}
    return config("contrastive", data, model, steps, vocab=vocab, **train)


@pytest.fixture(scope="module")
def run(pairs, tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "run"
    _, seen = trained(run_config(pairs, steps=60), path)
    assert seen.scores["recall@1"] > 50
    return path


def test_partners_are_found_and_the_baseline_that_shares_no_word_finds_few(run, capsys):
    assert main(["evaluate", str(run)]) == 0
    assert "tf-idf" in capsys.readouterr().out
    kept = json.loads((run / "evaluations" / "test" / "scores.json").read_text())
    assert kept["scores"]["MRR"]["value"] > kept["baseline"]["MRR"]["value"] + 20
    assert kept["sentences"] == 20 and kept["scores"]["recall@5 back"]["value"] > 70


def test_both_towers_are_verified(run, capsys):
    assert main(["verify", str(run), "--sentences", "6"]) == 0
    assert "hold." in capsys.readouterr().out


def test_vectors_have_length_1_and_are_alike_alone_and_among_others(run, tmp_path, capsys):
    (tmp_path / "texts.txt").write_text("red house dog\nbig cat\n")
    assert (
        main(["embed", str(run), str(tmp_path / "texts.txt"), "--tower", "second", "-o", str(tmp_path / "v.npy")]) == 0
    )
    vectors = np.load(tmp_path / "v.npy")
    assert vectors.shape == (2, 16) and np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    alone = Embedder.load(run, tower="second").embed(["big cat"]).numpy()
    assert np.allclose(alone[0], vectors[1], atol=1e-5)
    assert main(["embed", str(run), "a", "--tower", "third"]) == 2
    assert "Known: first, second" in capsys.readouterr().err


def test_captions_and_images_are_learned_together(tmp_path):
    image = pytest.importorskip("PIL.Image")
    draw, rows = np.random.default_rng(1), []
    for number in range(90):
        kind = int(draw.integers(3))
        colours = draw.integers(0, 60, (4, 4, 3), dtype=np.uint8)
        colours[:, :, kind] += 180
        image.fromarray(colours).save(tmp_path / f"{number}.png")
        rows.append(
            f"{number}.png\ta {['red', 'green', 'blue'][kind]} one {chr(97 + number // 10)}{chr(97 + number % 10)}"
        )
    (tmp_path / "captions.tsv").write_text("\n".join(rows) + "\n")
    inputs = {"kind": "patch_input", "size": [4, 4], "patch": 2, "class_token": False, "position": "no_grid"}
    block = {**MODEL["tower"]["pattern"][0], "mixer": {"heads": 2, "visibility": "full"}}
    images = MODEL | {"inputs": inputs, "tower": {"depth": 1, "pattern": [block]}, "head": HEAD}
    model = {"kind": "two_towers", "first": MODEL | {"head": HEAD}, "second": images}
    held = {"test": 10, "valid": 20, "near": None}
    table = {"kind": "caption_table", "path": str(tmp_path / "captions.tsv")}
    data = {"kind": "captioned_images", "train": [table], "hold_out": held}
    _, seen = trained(run_config(None, 40, model, data, vocab=270), tmp_path / "run")
    assert seen.scores["recall@5"] > 40  # among 20, of three colours
    assert main(["evaluate", str(tmp_path / "run")]) == 0
    (tmp_path / "run/data/test.jsonl").unlink()  # earlier versions wrote none
    assert main(["evaluate", str(tmp_path / "run")]) == 0
    assert main(["embed", str(tmp_path / "run"), str(tmp_path / "0.png"), "--tower", "second"]) == 0
    (tmp_path / "captions.tsv").write_text("gone.png\ta caption\n")
    with pytest.raises(DataError, match=r"captions\.tsv: row 1: .*gone\.png: no such image file"):
        list(CaptionTable(path=str(tmp_path / "captions.tsv")).read())


def test_figures_agree_with_their_definitions_and_ties_win_nothing():
    similarity = np.array([[0.9, 0.1, 0.2], [0.8, 0.5, 0.6], [0.1, 0.3, 0.2]])
    pairs = np.eye(3, dtype=bool)
    found = ranks(similarity, pairs)
    assert found.tolist() == [1, 3, 2]
    assert recall(found, 1) == 1 / 3 and mean_reciprocal_rank(found) == pytest.approx((1 + 1 / 3 + 1 / 2) / 3)
    assert scores_of(counted_ranks(similarity, pairs))["recall@1"].value == pytest.approx(100 / 3)
    assert ranks(np.zeros((4, 4)), np.eye(4, dtype=bool)).tolist() == [4] * 4
    assert ranks(np.full((4, 4), np.nan), np.eye(4, dtype=bool)).tolist() == [4] * 4


class Knowing:
    """A tower that knows each item of ``vectors``."""

    def __init__(self, material, vectors):
        self.material, self.vectors = material, vectors

    def embed(self, given, progress=None, places=None):
        return torch.stack([self.vectors[str(item)] for item in given])


def images_with_captions(folder, captions):
    """Write a table of images, some of them twice under other names, each with all of its ``captions``."""
    image, rows = pytest.importorskip("PIL.Image"), []
    for number, said in enumerate(captions):
        for copy, caption in enumerate(said):
            image.fromarray(np.full((4, 4), number, np.uint8)).save(folder / f"{number}-{copy}.png")
            rows.append(f"{number}-{copy}.png\t{caption}\n")
    (folder / "captions.tsv").write_text("".join(rows))
    return list(CaptionTable(path=str(folder / "captions.tsv")).read())


IMAGE = PatchInput(size=(4, 4), patch=2, channels=1)


def test_a_perfect_model_of_images_with_several_captions_finds_all_of_them(tmp_path):
    captions = [["a dog", "one dog"], ["a cat", "a pet"], ["a bird", "a bird", "a pet"]]  # "a pet" is of two images
    examples = images_with_captions(tmp_path, captions)
    meaning = torch.eye(3)
    shown = Knowing(ImageMaterial(IMAGE), {str(e.image): meaning[int(e.image.name[0])] for e in examples})
    said = {"a pet": meaning[1] + meaning[2]}
    said |= {text: meaning[i] for i, texts in enumerate(captions) for text in texts if text != "a pet"}
    found = evaluate((shown, Knowing(None, said)), examples)
    assert {name: score.value for name, score in found.scores.items()} == dict.fromkeys(found.scores, 100.0)
    assert [found.counted[name].counts.shape[0] for name in ("recall@1", "recall@1 back")] == [3, 5]
    assert [one["rank"] for one in found.outputs] == [1, 1, 1]


def test_equal_texts_are_one_item_and_any_of_its_partners_counts():
    pairs = [Pair("a", "x"), Pair("a", "y"), Pair("b", "x"), Pair("c", "z")]
    meaning = dict(zip("abcxyz", torch.eye(6), strict=True))
    meaning |= {"x": meaning["a"] + meaning["b"], "y": meaning["a"], "z": meaning["c"]}
    found = evaluate((Knowing(None, meaning), Knowing(None, meaning)), pairs)
    assert {score.value for score in found.scores.values()} == {100.0}
    with pytest.raises(DataError, match="nothing can be mistaken"):
        evaluate((Knowing(None, meaning), Knowing(None, meaning)), pairs[:2])


def test_validation_and_the_stored_test_set_have_each_image_once_and_captions_whole(tmp_path):
    draw = np.random.default_rng(1)
    numbers = draw.permutation(200)[:60].tolist()
    image = pytest.importorskip("PIL.Image")
    for number in numbers:
        image.fromarray(np.full((4, 4, 3), number, np.uint8)).save(tmp_path / f"{number}.png")

    def table(name, some):
        rows = [f"{number}.png\tthe {word} number {number}\n" for number in some for word in ("first", "second")]
        (tmp_path / name).write_text("".join(rows))
        return {"kind": "caption_table", "path": str(tmp_path / name)}

    given = {name: table(f"{name}.tsv", numbers[a:b]) for name, a, b in (("valid", 0, 8), ("test", 8, 16))}
    data = {"kind": "captioned_images", "train": [table("train.tsv", numbers[16:])], "overlap": "keep", "longest": 9}
    inputs = {"kind": "patch_input", "size": [4, 4], "patch": 2, "class_token": False, "position": "no_grid"}
    images = MODEL | {"inputs": inputs, "head": HEAD}
    model = {"kind": "two_towers", "first": images, "second": MODEL | {"head": HEAD}}
    events, _ = trained(run_config(None, 4, model, data | given, vocab=270), tmp_path / "run")
    samples = [sample for one in events if isinstance(one, Validated) for sample in one.samples]
    assert {sample.reference for sample in samples} <= {f"the first number {n}" for n in numbers[:8]}
    assert main(["evaluate", str(tmp_path / "run")]) == 0
    outputs = (tmp_path / "run/evaluations/test/outputs.jsonl").read_text().splitlines()
    assert [json.loads(line)["first"] for line in outputs] == [str(tmp_path / f"{n}.png") for n in numbers[8:16]]


def test_the_baseline_has_the_weights_of_scikit_learn():
    text = pytest.importorskip("sklearn.feature_extraction.text")
    from dragoman.evaluate.retrieval import _features

    train, first, second = ["a red house", "a dog", "the red car"], ["a red dog", "car"], ["red red", "the dog"]
    theirs = text.TfidfVectorizer(analyzer=_features).fit(train)
    expected = (theirs.transform(first) @ theirs.transform(second).T).toarray()
    np.testing.assert_allclose(TfIdf(train).similarity(first, second), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"model": MODEL | {"head": HEAD}}, "model: contrastive takes two_towers, not encoder"),
        ({"target_tokenizer": "bytes"}, "target_tokenizer: two towers share one tokenizer"),
        ({"data": {"kind": "captioned_images", "train": []}}, "model: captioned_images need a tower .* patch_input"),
    ],
    ids=["model", "tokenizer", "data"],
)
def test_what_does_not_fit_is_named_before_anything_is_written(pairs, tmp_path, change, says):
    from dragoman.train import recipe

    with pytest.raises(ConfigError, match=says):
        start(recipe.load(recipe.to_dict(run_config(pairs)) | change), tmp_path / "run")


def part(path, **options):
    return {"kind": "part", "pairs": {"kind": "table", "path": str(path)}, **options}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("mixture", {"kind": "temperature"}),
        ("order", {"kind": "easy_first"}),
        ("context", {"kind": "entry_notes"}),
        ("retrieval", {"kind": "fuzzy_matches"}),
        ("noise", {"kind": "word_noise"}),
        ("segmentation", {"kind": "bpe_dropout"}),
        ("train.0.tags", ["2de"]),
        ("valid.tags", ["2de"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_settings_of_translation_are_refused_by_path(pairs, tmp_path, name, value):
    from dragoman.train import recipe

    plain = recipe.to_dict(run_config(pairs, data={"kind": "data", "train": [part(pairs)], "valid": part(pairs)}))
    with pytest.raises(ConfigError, match=rf"^data\.{name}: (is|are) for translation"):
        start(recipe.load(plain, [f"data.{name}={json.dumps(value)}"]), tmp_path / "run")


def test_a_prefix_is_read_and_a_source_may_lend_nothing_to_held_out_sets(pairs, tmp_path):
    made = tmp_path / "made.tsv"
    made.write_text("".join(f"made {word} {n}\tedam {n} {word}\n" for n, word in enumerate(WORDS * 3)))
    sources = [part(pairs, prefix="query: "), part(made, name="made", prefix="made: ", hold_out=False)]
    data = {"kind": "data", "train": sources, "hold_out": {"test": 40, "valid": 40, "near": None}}
    trained(run_config(pairs, steps=1, data=data), tmp_path / "run")
    held = [(tmp_path / f"run/data/{name}.jsonl").read_text().splitlines() for name in ("valid", "test")]
    assert all(json.loads(line)["source"].startswith("query: ") for line in held[0] + held[1])
    tokenizer, _ = RunDirectory.open(tmp_path / "run").tokenizers()
    store = Store.open(tmp_path / "run/data/train").columns
    firsts = [tokenizer.decode(store["first"][row]) for row in range(len(store["first"]))]
    assert {first.split()[0] for first in firsts} == {"query:", "made:"}
    assert sum(first.startswith("made: ") for first in firsts) == 36
    seconds = [tokenizer.decode(store["second"][row]) for row in range(len(store["second"]))]
    assert not any(":" in second for second in seconds)


# ---- negatives are those of the whole batch ---------------------------------------------------------


class Two(SingleProcess):
    """The first of two processes, before they meet."""

    count = 2


def test_no_batch_is_divided_among_processes(pairs, tmp_path):
    with pytest.raises(ConfigError, match=r"^train\.accumulate: 3, with 2 processes: .* set a multiple of the number"):
        start(run_config(pairs, accumulate=3), tmp_path / "run", group=Two())
    assert not (tmp_path / "run").exists()
    start(run_config(pairs, accumulate=4), tmp_path / "run", group=Two())


def test_no_batch_is_divided_where_memory_is_short(pairs, tmp_path, monkeypatch):
    ask = ContrastiveTask.loss

    def exhausted(self, model, batch):
        if len(batch.first) > 1 and not isinstance(next(model.parameters()), FakeTensor):  # those are only counted
            raise MemoryError
        return ask(self, model, batch)

    monkeypatch.setattr(ContrastiveTask, "loss", exhausted)
    with pytest.raises(OutOfMemory, match=r"step 1: out of memory on a batch of \d+ rows .* train\.recompute=true$"):
        list(start(run_config(pairs), tmp_path / "run").events())


def test_shards_are_refused_for_the_temperature(pairs, tmp_path):
    with pytest.raises(ConfigError, match=r"^train\.parallel: sharded cannot divide the temperature"):
        start(run_config(pairs, parallel="sharded", optimizer="adam_w"), tmp_path / "run")
