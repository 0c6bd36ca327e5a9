"""SigLIP whole: texts and images become the vectors and similarities of its own library."""

import dataclasses
import json
import shutil

import foreign
import foreign_pieces
import foreign_text
import pytest
import test_towers
import torch
from PIL import Image

from dragoman.checkpoint import RunDirectory, load_any
from dragoman.cli import main
from dragoman.config import from_dict
from dragoman.data.tasks.contrastive import ContrastiveTask
from dragoman.decode.readers.embedder import Embedder
from dragoman.errors import ConfigError, DataError
from dragoman.interchange.exporting import export_huggingface
from dragoman.interchange.importing import import_checkpoint, origin_vocabulary
from dragoman.model.contrastive import SIGMOID_BIAS, sigmoid_loss
from dragoman.model.heads import TaggingHead
from dragoman.model.inputs import FixedLength
from dragoman.model.positions.tokens import Tokens
from dragoman.train.recipe import RunConfig
from dragoman.train.tasks import task_data_for

transformers = pytest.importorskip("transformers")
pytest.importorskip("sentencepiece")
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

LENGTH, TOLERANCE = 64, 1e-5
TEXTS = [text for text in foreign_text.TEXTS if len(text) < 40]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Return the path, with a folder as it is published and the run that it becomes, and their model and processor."""
    path = tmp_path_factory.mktemp("siglip")
    foreign_pieces.make("SigLIP", foreign_text.made(path / "folder"), foreign_text.CORPUS)
    tokenizer = transformers.AutoTokenizer.from_pretrained(path / "folder")
    torch.manual_seed(0)
    texts = {"hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 20,
             "vocab_size": len(tokenizer) + 3, "projection_size": 24}  # fmt: skip
    images = foreign.VIT | {"hidden_size": 24, "num_attention_heads": 12}
    model = transformers.SiglipModel(transformers.SiglipConfig(text_config=texts, vision_config=images)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.15)
        model.logit_scale.fill_(4.77)  # as published: e to the power of it is above 100
    model.save_pretrained(path / "folder")
    content = json.loads((path / "folder" / "config.json").read_text())
    for name in ("num_attention_heads", "hidden_act", "layer_norm_eps", "num_channels", "vision_use_head"):
        del content["vision_config"][name]
    for name in ("hidden_act", "layer_norm_eps", "max_position_embeddings"):
        del content["text_config"][name]
    (path / "folder" / "config.json").write_text(json.dumps(content))
    settings = {"image_processor_type": "SiglipImageProcessor", "size": {"height": 12, "width": 12}, "resample": 3}
    (path / "folder" / "preprocessor_config.json").write_text(json.dumps(settings))
    for i in range(3):
        Image.radial_gradient("L").rotate(40 * i).resize((30 + 9 * i, 26)).convert("RGB").save(path / f"{i}.png")
    import_checkpoint(path / "folder", path / "run")
    return path, model, tokenizer, [path / f"{i}.png" for i in range(3)]


def _padded(tokenizer, texts):
    return tokenizer(texts, padding="max_length", max_length=LENGTH, truncation=True, return_tensors="pt").input_ids


@torch.inference_mode()
def test_vectors_of_texts_and_image_files_are_theirs(made):
    path, model, tokenizer, photos = made
    wanted = model.get_text_features(_padded(tokenizer, TEXTS)).pooler_output
    got = Embedder.load(path / "run").embed(TEXTS)
    torch.testing.assert_close(got, torch.nn.functional.normalize(wanted, dim=-1), rtol=0, atol=TOLERANCE)
    processor = transformers.AutoImageProcessor.from_pretrained(path / "folder")
    pixels = processor(list(map(str, photos)), return_tensors="pt").pixel_values
    wanted = model.get_image_features(pixel_values=pixels).pooler_output
    got = Embedder.load(path / "run", tower="second").embed(photos)
    torch.testing.assert_close(got, torch.nn.functional.normalize(wanted, dim=-1), rtol=0, atol=TOLERANCE)


@torch.inference_mode()
def test_similarities_are_theirs_with_padding_on_either_side(made):
    path, model, tokenizer, photos = made
    processor = transformers.AutoImageProcessor.from_pretrained(path / "folder")
    pixels = processor(list(map(str, photos)), return_tensors="pt").pixel_values
    wanted = model(input_ids=_padded(tokenizer, TEXTS), pixel_values=pixels).logits_per_text
    run, ours, _ = load_any(path / "run")
    frame = run.tokenizers()[0].frame(foreign_text.PROMPT_FRAME)
    rows = [torch.tensor(frame.around(ids)) for ids in run.tokenizers()[0].encode_batch(TEXTS)]
    for side in ("left", "right"):
        torch.testing.assert_close(ours(foreign.padded(rows, side), pixels), wanted, rtol=0, atol=1e-4)
    assert ours.scale() > 100  # so 1e-4 is 1e-6 of the scale


def test_a_tokenizer_json_beside_the_pieces_is_not_what_is_read(made, tmp_path):
    shutil.copytree(made[0] / "folder", tmp_path / "folder")
    foreign.write_tokenizer(tmp_path / "folder", 40)
    import_checkpoint(tmp_path / "folder", tmp_path / "run")
    texts, tokenizer = TEXTS[:9], transformers.AutoTokenizer.from_pretrained(tmp_path / "folder")
    run = RunDirectory.open(tmp_path / "run")
    vocabulary = origin_vocabulary(run)
    ours = [vocabulary.order()[ids].tolist() for ids in run.tokenizers()[0].encode_batch(texts)]
    assert [[*ids, 1] for ids in ours] == tokenizer(texts).input_ids


def test_it_comes_back_and_is_read_again(made, tmp_path):
    path, model, _, _ = made
    assert export_huggingface(path / "run", tmp_path / "again") == "siglip_towers"
    again = transformers.SiglipModel.from_pretrained(tmp_path / "again").state_dict()
    assert all(torch.equal(value, again[name]) for name, value in model.state_dict().items())
    import_checkpoint(tmp_path / "again", tmp_path / "second")
    first, second = (
        RunDirectory.open(run).load("last").tensors["model"] for run in (path / "run", tmp_path / "second")
    )
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_a_folder_that_we_write_is_opened_by_their_class_with_its_tokenizer(made, tmp_path, monkeypatch):
    from dragoman.interchange import exporting

    monkeypatch.setattr(exporting, "_is_as_it_came", lambda *_: False)
    export_huggingface(made[0] / "run", tmp_path / "anew")  # compares similarities and ids by itself
    config = json.loads((tmp_path / "anew" / "config.json").read_text())
    assert config["text_config"]["vocab_size"] == made[1].config.text_config.vocab_size
    assert "vocab_size" not in config
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "anew")
    assert (tokenizer.pad_token, tokenizer.eos_token) == ("</s>", "</s>")


def test_the_commands_take_it_as_they_take_clip(made, tmp_path, capsys):
    path, _, _, photos = made
    assert main(["embed", str(path / "run"), "a photo of a cat"]) == 0
    assert len(json.loads(capsys.readouterr().out)["vector"]) == 24
    assert main(["embed", str(path / "run"), str(photos[0]), "--tower", "second"]) == 0
    assert len(json.loads(capsys.readouterr().out)["vector"]) == 24


def test_a_text_too_long_is_cut_by_commands_and_refused_by_the_model(made):
    embedder = Embedder.load(made[0] / "run")
    assert embedder.embed(["word " * 200]).shape == (1, 24)
    with pytest.raises(DataError, match="more than 64 tokens"):
        embedder.model(torch.full((1, 65), 7))
    with pytest.raises(DataError, match="cannot be packed"):
        embedder.model(Tokens(torch.full((1, 4), 7), segment=torch.tensor([[0, 0, 1, 1]])))


def test_what_a_filled_text_cannot_do_is_refused(made):
    cfg = load_any(made[0] / "run")[1].cfg.first
    with pytest.raises(ConfigError, match="filled: this head"):
        dataclasses.replace(cfg, head=TaggingHead(classes=3)).build()
    typed = dataclasses.replace(cfg.inputs, types=2)
    with pytest.raises(ConfigError, match="filled: what texts are filled with has no token type"):
        dataclasses.replace(cfg, inputs=typed).build()


def test_filling_puts_each_text_at_the_beginning_of_its_row():
    keep = torch.tensor([[False, True, True], [True, True, False]])
    filled = FixedLength(length=4, token=9).fill(Tokens(torch.tensor([[0, 5, 6], [7, 8, 0]]), keep))
    assert filled == Tokens(filled.ids) and filled.ids.tolist() == [[5, 6, 9, 9], [7, 8, 9, 9]]


def test_the_loss_of_all_pairs_is_that_of_siglip(made):
    similarity = torch.randn(5, 5)
    summed, count = sigmoid_loss(similarity)
    eye = torch.eye(5)
    wanted = -torch.nn.functional.logsigmoid((2 * eye - 1) * similarity).sum(dim=-1).mean()
    torch.testing.assert_close(summed / count, wanted)


def _change(part, **settings):
    def change(folder):
        content = json.loads((folder / "config.json").read_text())
        content[part] = content[part] | settings if settings else 7
        (folder / "config.json").write_text(json.dumps(content))

    return change


FAULTS = {
    "no head for images": (_change("vision_config", vision_use_head=False), "vision_use_head: must be true"),
    "a size that is none": (_change("text_config", hidden_size="x"), "hidden_size: expected a whole number"),
    "settings that are none": (_change("text_config"), "text_config: expected the settings of a tower, got 7"),
    "vectors of two sizes": (_change("text_config", projection_size=20), "vectors of size"),
    "no tokenizer": (lambda folder: (folder / "spiece.model").unlink(), "no such file"),
    "an activation of another kind": (_change("text_config", hidden_act="mish"), "hidden_act: no 'mish' here"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_broken_folder_is_refused_in_a_line(made, tmp_path, fault, capsys):
    break_it, said = FAULTS[fault]
    shutil.copytree(made[0] / "folder", tmp_path / "folder")
    break_it(tmp_path / "folder")
    assert main(["import", str(tmp_path / "folder"), "-o", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err.strip()
    assert said in error and "\n" not in error
    assert not (tmp_path / "run").exists()


def test_towers_with_its_objective_are_trained_and_learn_their_bias(tmp_path):
    pairs = test_towers.write_pairs(tmp_path / "pairs.tsv", 80)
    inputs = {"kind": "token_input", "filled": {"length": 40}}
    model = test_towers.TEXTS | {"objective": "sigmoid", "first": test_towers.TEXTS["first"] | {"inputs": inputs}}
    test_towers.trained(test_towers.run_config(pairs, steps=6, model=model), tmp_path / "run")
    weights = RunDirectory.open(tmp_path / "run").load("last").tensors["model"]
    assert weights["bias"] != SIGMOID_BIAS


@pytest.mark.parametrize("objective", ["softmax", "sigmoid"])
def test_the_validation_loss_is_that_of_the_objective(tmp_path, objective):
    pairs = test_towers.write_pairs(tmp_path / "pairs.tsv", 80)
    model = test_towers.TEXTS | {"objective": objective}
    _, seen = test_towers.trained(test_towers.run_config(pairs, steps=4, model=model), tmp_path / "run")
    run, model, config = load_any(tmp_path / "run", "last")
    cfg = from_dict(RunConfig, config, where="run")
    task_data = task_data_for(cfg).open(cfg, run)
    validator: Any = task_data.validator(cfg, torch.device("cpu"))
    batches = [task_data.form.batch(task_data.valid, rows) for rows in validator.batches]
    with torch.no_grad():
        summed, counts = zip(*(ContrastiveTask().loss(model, batch) for batch in batches), strict=True)
    assert seen.loss == pytest.approx(float(sum(summed) / sum(counts)), rel=1e-4)
