"""Images as a prefix of a language model: captions of images that nobody has captioned, frozen parts, and the same
answer however it is computed."""

import json
import re
from itertools import zip_longest
from pathlib import Path

import numpy as np
import pytest
import sacrebleu
import torch
from PIL import Image

import dragoman
from dragoman import cli
from dragoman.checkpoint import RunDirectory, load_any
from dragoman.config import from_dict, merge, to_dict
from dragoman.data.captioning import CaptionedExamples
from dragoman.data.captions import CaptionedImage, ImageWithCaption, captions_by_image
from dragoman.decode.generator import Generator
from dragoman.decode.search.beam import Beam
from dragoman.decode.search.greedy import Greedy
from dragoman.decode.search.sample import Sample
from dragoman.decode.search.speculative import Speculative
from dragoman.decode.verify.writing import WritingVerifier
from dragoman.errors import CheckpointError, ConfigError, UserError
from dragoman.evaluate.captioning import CaptionEvaluator
from dragoman.model.families import ModelConfig
from dragoman.model.interface import Frames
from dragoman.serve.served import ServedModel
from dragoman.text.store import Store
from dragoman.text.tokens.tokenizer import EOS, Tokenizer
from dragoman.text.tokens.training import Bytes
from dragoman.train import recipe
from dragoman.train.events import Notice, Validated
from dragoman.train.run import resume, start

COLOURS = {"red": (220, 40, 40), "green": (40, 200, 60), "blue": (50, 70, 230), "white": (240, 240, 240)}
SHAPES = ("square", "ring", "cross")
SIZE = 32


def draw(shape, colour, rng):
    """Return an image of a shape somewhere on a dark ground."""
    radius = int(rng.integers(6, 9))
    x, y = (int(rng.integers(radius, SIZE - radius)) for _ in range(2))
    rows, columns = np.mgrid[:SIZE, :SIZE]
    down, right = np.abs(rows - y), np.abs(columns - x)
    inside = {
        "square": np.maximum(down, right) <= radius,
        "ring": np.abs(np.hypot(down, right) - radius) <= 1,
        "cross": (np.minimum(down, right) <= 1) & (np.maximum(down, right) <= radius),
    }[shape]
    image = rng.integers(0, 40, (SIZE, SIZE, 3), dtype=np.uint8)
    image[inside] = COLOURS[colour]
    return image


def write_images(folder, count, seed):
    """Write images with captions, in equal parts; return the table."""
    folder.mkdir()
    rng, rows = np.random.default_rng(seed), []
    kinds = [(shape, colour) for shape in SHAPES for colour in COLOURS]
    for number in range(count):
        shape, colour = kinds[number % len(kinds)]
        Image.fromarray(draw(shape, colour, rng)).save(folder / f"{number}.png")
        rows.append(f"{number}.png\ta {colour} {shape}")
    (folder / "captions.tsv").write_text("\n".join(rows) + "\n")
    return folder / "captions.tsv"


def block(visibility, position="no_position"):
    mixer = {"heads": 4, "visibility": visibility, "position": position}
    return {"mixer": mixer, "mlp": {"kind": "feed_forward", "hidden": 64}, "norm": "layer_norm"}


def model(visibility="prefix", position="rotary", absolute="no_embedding", patch=4, size=SIZE, **more):
    tower = {"depth": 1, "pattern": [block("full")], "final_norm": "layer_norm"}
    inputs = {"kind": "patch_input", "size": [size, size], "patch": patch, "class_token": False}
    decoder = {"depth": 2, "pattern": [block(visibility, position)], "final_norm": "layer_norm"}
    return {
        "kind": "prefixed_transformer",
        "encoder": {"dim": 32, "inputs": inputs, "tower": tower},
        "decoder": {"dim": 32, "decoder": decoder, "position": absolute},
    } | more


STEPS = 220


def config(table, **changes):
    plain = {
        "task": "captioning",
        "data": {
            "kind": "captioned_images",
            "train": [{"kind": "caption_table", "path": str(table)}],
            "hold_out": {"test": 12, "valid": 12, "near": None},
        },
        "tokenizer": {"kind": "words", "vocab": 280},
        "model": model(patch=8),
        "train": {
            "budget": {"kind": "steps", "steps": STEPS},
            "schedule": {"kind": "cosine", "peak": 4e-3, "warmup": 20},
            "batch_tokens": 1200,
            "validate_every": STEPS,
            "save_every": STEPS,
            "scored": 12,
            "precision": "float32",
            "products": "torch",
        },
    }
    return recipe.load(merge(plain, changes))


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("images") / "train", 600, 1)


@pytest.fixture(scope="module")
def trained(table, tmp_path_factory):
    folder = tmp_path_factory.mktemp("captions") / "run"
    list(start(config(table), folder).events())
    return folder


@pytest.fixture(scope="module")
def new(tmp_path_factory):
    folder = tmp_path_factory.mktemp("new") / "images"
    rows = write_images(folder, 60, 2).read_text().splitlines()
    return [(folder / path, caption) for path, caption in (row.split("\t") for row in rows)]


@pytest.fixture(scope="module")
def generator(trained):
    return Generator.load(trained)


def test_captions_of_new_images_are_right(generator, new):
    found = generator.generate([""] * len(new), images=[path for path, _ in new], search=Greedy(), max_new_tokens=8)
    right = [one.text.strip() == caption for one, (_, caption) in zip(found, new, strict=True)]
    assert sum(right) >= 55


def test_handwritten_digits_are_named(tmp_path):
    from sklearn.datasets import load_digits

    digits = load_digits()
    names = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    rows = []
    for number, (image, label) in enumerate(zip(digits.images[:700], digits.target, strict=False)):
        Image.fromarray((image * 15).astype(np.uint8)).save(tmp_path / f"{number}.png")
        rows.append(f"{number}.png\tthe digit {names[label]}\n")
    (tmp_path / "train.tsv").write_text("".join(rows[:600]))
    (tmp_path / "test.tsv").write_text("".join(rows[600:]))
    small = merge(model(patch=2, size=8), {"encoder": {"inputs": {"channels": 1}}})
    list(start(config(tmp_path / "train.tsv", model=small), tmp_path / "run").events())
    test = [row.strip().split("\t") for row in rows[600:]]
    options = {"images": [tmp_path / path for path, _ in test], "search": Greedy(), "max_new_tokens": 8}
    found = Generator.load(tmp_path / "run").generate([""] * len(test), **options)
    assert sum(one.text.strip() == caption for one, (_, caption) in zip(found, test, strict=True)) >= 75


def test_a_prompt_is_continued_after_its_image(generator, new):
    path, caption = new[0]
    found = generator.generate([caption.rpartition(" ")[0]], images=[path], search=Greedy(), max_new_tokens=8)
    assert found[0].prompt + found[0].text == caption


# ---- the same answer every way --------------------------------------------------------------------------


LAYOUTS = [
    ("prefix", "rotary", "no_embedding"),
    ("causal", "rotary", "no_embedding"),
    ("causal", "alibi", "sinusoidal"),
]


@pytest.fixture(params=LAYOUTS, ids=["-".join(layout) for layout in LAYOUTS])
def random_model(request):
    torch.manual_seed(0)
    cfg = from_dict(ModelConfig, model(*request.param, patch=8))
    return cfg.sized(vocab=30).build().eval()


IMAGES = torch.randn(3, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
IDS = torch.randint(3, 30, (3, 7), generator=torch.Generator().manual_seed(2))


@torch.no_grad()
def test_decoding_step_by_step_equals_one_forward(random_model):
    whole, state = random_model(IDS, IMAGES), random_model.start(IMAGES)
    steps = [
        random_model.decode(IDS[:, :3], state),
        *(random_model.decode(IDS[:, i : i + 1], state) for i in range(3, 7)),
    ]
    torch.testing.assert_close(torch.cat(steps, dim=1), whole, rtol=1e-4, atol=1e-4)
    assert state.length == 7


@torch.no_grad()
def test_neither_padding_nor_the_batch_nor_later_text_changes_what_comes_out(random_model):
    whole, ids = random_model(IDS, IMAGES), IDS.clone()
    ids[0, 4:] = 0
    torch.testing.assert_close(random_model(ids, IMAGES)[0, :4], whole[0, :4], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(random_model(IDS[1:2], IMAGES[1:2]), whole[1:2], rtol=1e-4, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("corner", [(0, 0), (SIZE - 1, SIZE - 1)], ids=["first patch", "last patch"])
def test_all_text_sees_the_whole_image(random_model, corner):
    changed = IMAGES.clone()
    changed[:, :, corner[0], corner[1]] += 5
    difference = (random_model(IDS, changed) - random_model(IDS, IMAGES)).abs().amax(dim=2)
    assert (difference > 1e-6).all()


@torch.no_grad()
def test_frames_of_different_lengths_may_stand_before_the_text():
    plain = merge(model("prefix"), {"encoder": {"inputs": None}})
    plain["encoder"]["inputs"] = {"kind": "frame_input", "channels": 5}
    torch.manual_seed(0)
    made = from_dict(ModelConfig, plain).sized(vocab=30).build().eval()
    values, keep = torch.randn(2, 6, 5), torch.tensor([[True] * 6, [True] * 4 + [False] * 2])
    together = made(IDS[:2], Frames(values, keep))
    torch.testing.assert_close(together[1:], made(IDS[1:2], Frames(values[1:, :4])), rtol=1e-4, atol=1e-4)
    state = made.start(Frames(values, keep))
    steps = [made.decode(IDS[:2, i : i + 1], state) for i in range(7)]
    torch.testing.assert_close(torch.cat(steps, dim=1), together, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("search", [Greedy(), Beam(size=3, nbest=2)], ids=["greedy", "beam"])
def test_captions_in_a_batch_equal_each_alone(generator, new, search):
    paths = [path for path, _ in new[:6]]
    prompts = ["", "a", "a red", "", "a", ""]
    how = {"search": search, "max_new_tokens": 5}
    together = generator.generate(prompts, images=paths, batch_tokens=40, **how)
    alone = [generator.generate([p], images=[path], **how)[0] for p, path in zip(prompts, paths, strict=True)]
    assert [[c.tokens for c in one.continuations] for one in together] == [
        [c.tokens for c in one.continuations] for one in alone
    ]


@pytest.mark.parametrize("plain", [Greedy(), Sample(samples=2, seed=3)], ids=["greedy", "sample"])
def test_speculation_changes_no_caption(generator, new, plain):
    paths = [path for path, _ in new[:4]]
    expected, found = (
        generator.generate([""] * 4, images=paths, search=cfg, max_new_tokens=5)
        for cfg in (plain, Speculative(search=plain))
    )
    assert [[c.tokens for c in one.continuations] for one in found] == [
        [c.tokens for c in one.continuations] for one in expected
    ]


# ---- parts ----------------------------------------------------------------------------------------------


def test_frozen_parts_keep_the_weights_of_the_runs_they_come_from(table, trained, tmp_path):
    parts = {"kind": "captioning", "encoder_from": str(tmp_path / "encoder"), "decoder_from": str(tmp_path / "writer")}
    cfg = config(table, train=SHORT)
    sized = cfg.model.sized(vocab=len(RunDirectory.open(trained).tokenizers()[1]))
    for name, part in (("encoder", sized.encoder), ("writer", sized.decoder)):
        kind = {"encoder": "encoder", "writer": "transformer"}[name]
        content = {"task": {"kind": "captioning"}, "model": {"kind": kind} | to_dict(part)}
        run = RunDirectory.create(tmp_path / name, content)
        run.write_tokenizers(*RunDirectory.open(trained).tokenizers())
        torch.manual_seed(5)
        run.save(1, tensors={"model": part.build().state_dict()}, progress={"step": 1}, config=content, best=True)
        run.close()
    frozen = {"frozen": ["encoder", "decoder"]}
    list(start(config(table, train=SHORT, task=parts, model=model(patch=8) | frozen), tmp_path / "run").events())
    learnt = load_any(tmp_path / "run", "last")[1]
    for name, path in (("encoder", "encoder"), ("decoder", "writer")):
        given = load_any(tmp_path / path, "best")[1].state_dict()
        assert all(torch.equal(tensor, given[key]) for key, tensor in getattr(learnt, name).state_dict().items())


SHORT = {"budget": {"steps": 4}, "validate_every": 2, "save_every": 2, "scored": 0, "samples": 0}


def test_a_resumed_run_equals_an_uninterrupted_one(table, tmp_path):
    list(start(config(table, train=SHORT), tmp_path / "whole").events())
    for _ in start(config(table, train=SHORT), tmp_path / "cut").events():
        if (tmp_path / "cut" / "checkpoints" / "step-000002").exists():
            break
    list(resume(tmp_path / "cut").events())
    whole, cut = (RunDirectory.open(tmp_path / name).load("last").tensors["model"] for name in ("whole", "cut"))
    assert all(torch.equal(whole[name], cut[name]) for name in whole)


# ---- the command ------------------------------------------------------------------------------------------


def test_the_command_captions_images(trained, new, capsys):
    paths = [str(path) for path, _ in new[:2]]
    greedy = ("--search", "greedy", "--max-new-tokens", "8")
    assert not cli.main(["generate", str(trained), "--image", paths[0], "--image", paths[1], *greedy])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("\t")[0] for line in lines] == paths
    assert [line.split("\t")[1].strip() for line in lines] == [caption for _, caption in new[:2]]
    assert not cli.main(["generate", str(trained), "--image", paths[0], *greedy])
    assert capsys.readouterr().out.strip() == new[0][1]
    assert not cli.main(["generate", str(trained), "a red", "--image", paths[0], *greedy, "--format", "json"])
    assert json.loads(capsys.readouterr().out)["prompt"] == "a red"


def test_all_images_of_a_folder_are_captioned_and_named(trained, new, tmp_path, capsys):
    (tmp_path / "some").mkdir()
    for i, (path, _) in enumerate(new[:3]):
        (tmp_path / f"some/{i}.png").write_bytes(path.read_bytes())
    (tmp_path / "some/notes.txt").write_text("no image")
    command = [
        "generate",
        str(trained),
        "--image",
        str(tmp_path / "some"),
        "--search",
        "greedy",
        "--max-new-tokens",
        "8",
    ]
    assert not cli.main([*command, "--format", "json"])
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [one["image"] for one in found] == [str(tmp_path / f"some/{i}.png") for i in range(3)]
    assert [one["continuations"][0]["text"].strip() for one in found] == [caption for _, caption in new[:3]]
    assert not cli.main(command)
    assert [line.split("\t")[0] for line in capsys.readouterr().out.splitlines()] == [one["image"] for one in found]
    (tmp_path / "none").mkdir()
    assert cli.main(["generate", str(trained), "--image", str(tmp_path / "none")]) == 2
    assert "none: holds no image files" in capsys.readouterr().err


def test_a_run_is_evaluated_beside_the_most_frequent_caption(trained, capsys):
    assert not cli.main(["evaluate", str(trained), "--format", "json"])
    found = json.loads(capsys.readouterr().out)
    assert found["sentences"] == 12
    assert found["scores"]["exact_match"]["value"] > 75 > found["baseline"]["exact_match"]["value"]


def test_a_caption_that_the_model_cuts_is_scored_whole_and_has_no_end(table, tmp_path, capsys):
    cfg = config(table, data={"longest": 6}, tokenizer="bytes", train=SHORT | {"scored": 12, "samples": 12})
    seen = list(start(cfg, tmp_path / "run").events())
    texts = [one.text for one in seen if isinstance(one, Notice)]
    assert any(re.match(r"576 of 576 training captions are cut to 6 tokens \(data\.longest\)", text) for text in texts)
    captions = Store.open(tmp_path / "run/data/train").columns["caption"]
    assert {len(captions[i]) for i in range(len(captions))} == {6} and EOS not in captions.ids
    whole = {caption for _, caption in (row.split("\t") for row in table.read_text().splitlines())}
    samples = [sample for one in seen if isinstance(one, Validated) for sample in one.samples]
    assert samples and {sample.reference for sample in samples} <= whole
    assert not cli.main(["evaluate", str(tmp_path / "run")])
    kept = [json.loads(line) for line in (tmp_path / "run/evaluations/test/outputs.jsonl").read_text().splitlines()]
    given = dict(row.split("\t") for row in table.read_text().splitlines())
    assert len(kept) == 12 and all(one["reference"] == [given[Path(one["image"]).name]] for one in kept)


def test_all_captions_of_an_image_are_its_references(trained, new, tmp_path):
    rows = [(path, text) for path, caption in new[:6] for text in (f"something else than {caption}", caption)]
    rows.append((new[0][0], "a third one"))
    (tmp_path / "captions.tsv").write_text("".join(f"{path}\t{caption}\n" for path, caption in rows))
    evaluator = CaptionEvaluator(trained)
    found = evaluator.evaluate(evaluator.examples(str(tmp_path / "captions.tsv")), baseline=False)
    outputs = [one["output"] for one in found.outputs]
    references = [[caption for where, caption in rows if where == path] for path, _ in new[:6]]
    assert [list(one["reference"]) for one in found.outputs] == references
    streams = list(zip_longest(*references))
    bleu = sacrebleu.BLEU(force=True)
    assert found.scores["bleu"].value == pytest.approx(bleu.corpus_score(outputs, streams).score)
    assert found.scores["bleu"].signature == str(bleu.get_signature()) and "nrefs:var" in found.scores["bleu"].signature
    chrf = sacrebleu.CHRF().corpus_score(outputs, streams).score
    assert found.scores["chrf"].value == pytest.approx(chrf)
    right = sum(output in texts for output, texts in zip(outputs, references, strict=True))
    assert found.scores["exact_match"].value == pytest.approx(100 * right / 6) and right > 3


def test_validation_asks_for_each_image_once(table, tmp_path):
    lines = table.read_text().splitlines()
    for name, some in (("valid", lines[:5]), ("train", lines[5:])):
        rows = (f"{table.parent}/{row}{more}\n" for row in some for more in ("", " again"))
        (tmp_path / f"{name}.tsv").write_text("".join(rows))
    given = {"valid": {"kind": "caption_table", "path": str(tmp_path / "valid.tsv")}, "hold_out": {"test": 0}}
    cfg = config(tmp_path / "train.tsv", data=given, train=SHORT | {"samples": 12})
    seen = [one for one in start(cfg, tmp_path / "run").events() if isinstance(one, Validated)]
    captions = [row.split("\t")[1] for row in lines[:5]]
    assert [sample.reference for sample in seen[-1].samples] == captions


def test_an_image_is_held_out_with_all_of_its_captions(table, tmp_path):
    rows = [f"{table.parent}/{row}{more}" for row in table.read_text().splitlines()[:40] for more in ("", " again")]
    (tmp_path / "train.tsv").write_text("\n".join(rows) + "\n")
    cfg = config(tmp_path / "train.tsv", data={"hold_out": {"test": 5, "valid": 6, "near": None}})
    found = cfg.data.split(ImageWithCaption)
    sets = {name: getattr(found.split, name) for name in ("train", "valid", "test")}
    assert {name: len(some) for name, some in sets.items()} == {"train": 2 * 29, "valid": 12, "test": 10}
    assert all(len(captions) == 2 for some in sets.values() for _, captions in captions_by_image(some))
    assert len({one.target for some in sets.values() for one in some}) == 40
    assert found.table[:2] == [("captions read", 80), ("images read", 40)]


def test_a_caption_that_fits_keeps_its_end():
    tokenizer = Tokenizer.train(Bytes(), [])
    images = Generator(from_dict(ModelConfig, model(patch=8)).sized(vocab=len(tokenizer)).build(), tokenizer).images
    example = CaptionedImage(np.zeros((SIZE, SIZE, 3), np.uint8), "abcd", "image", "")
    rows = {longest: CaptionedExamples(images, tokenizer, longest).columns([example]) for longest in (None, 5, 4)}
    assert [rows[longest]["caption"][0][-1] == EOS for longest in (None, 5, 4)] == [True, True, False]
    assert [len(rows[longest]["caption"][0]) for longest in (None, 5, 4)] == [5, 5, 4]


def test_python_loads_a_captioner_and_a_server_refuses_it(trained, new):
    run = dragoman.Run(trained)
    assert run.task == "captioning"
    found = dragoman.load(run).generate([""], images=[new[0][0]], search=Greedy(), max_new_tokens=8)
    assert found[0].text.strip() == new[0][1]
    with pytest.raises(CheckpointError, match="cannot be served"):
        ServedModel.load("captions", trained)


def test_verify_finds_the_same_captions_every_way(trained, capsys):
    assert not cli.main(["verify", str(trained), "--sentences", "3", "--max-new-tokens", "4", "--beam", "2"])
    assert re.search(r"(\d+) of \1 hold", capsys.readouterr().out)


def test_a_window_that_hides_part_of_an_image_is_not_judged_as_exact(table):
    cfg = config(table, model=model("causal"), tokenizer="bytes")
    tokenizer = Tokenizer.train(Bytes(), [])
    verifier = WritingVerifier(cfg.model.sized(vocab=len(tokenizer)).build(), tokenizer, [])
    assert verifier.is_exact("growing") and not verifier.is_exact("window:8:2")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["hello"], "this model reads an image before its text: give one (--image)"),
        (["--image", "none.png"], "none.png: no such file"),
        (["--image", "text.png"], "text.png: not an image that can be read"),
        (["--image", "small.png"], "an image of 4 x 4 x 3 (height, width, channels), and the model reads 32 x 32 x 3"),
        (["--image", "good.png", "--stream", "a"], "--image: takes one prompt, or none"),
        (["--image", "good.png", "--chat"], "--image: cannot be used with --chat"),
    ],
    ids=["no image", "missing", "no picture", "size", "stream", "chat"],
)
def test_a_wrong_image_is_one_line(arguments, message, trained, new, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (4, 4)).save("small.png")
    Path("good.png").write_bytes(new[0][0].read_bytes())
    Path("text.png").write_text("no picture")
    assert cli.main(["generate", str(trained), *arguments]) == 2
    assert message in capsys.readouterr().err


def test_images_for_a_model_that_reads_none_are_refused():
    plain = {"dim": 8, "decoder": {"depth": 1, "pattern": [block("causal")]}, "vocab": 300}
    tokenizer = Tokenizer.train(Bytes(), [])
    writer = Generator(from_dict(ModelConfig, plain).build(), tokenizer)
    with pytest.raises(ConfigError, match="this model reads text alone"):
        writer.generate([""], images=[IMAGES[0].numpy()])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": {"encoder": {"head": "sentence"}}}, r"model\.encoder\.head: the language model reads"),
        (
            {"model": {"frozen": ["encoder"]}},
            r"model\.frozen: encoder has random weights: name a run in task\.encoder_from",
        ),
        ({"model": {"frozen": ["encoder", "projector", "decoder"]}}, r"frozen: nothing is left to train"),
        ({"task": {"kind": "captioning", "decoder_from": "runs/none"}}, "runs/none"),
        ({"train": {"best_by": "exact match", "scored": 0}}, r"train\.best_by: exact match is of captions"),
    ],
    ids=["head", "frozen", "all frozen", "no run", "best by"],
)
def test_a_wrong_setting_is_refused_before_training(changes, message, table, tmp_path):
    with pytest.raises(UserError, match=message):
        start(config(table, **changes), tmp_path / "run")
