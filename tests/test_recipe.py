"""A run file over its preset, the command line over both; mistakes are named with their place."""

import re

import pytest
import tiny_run
import torch

from dragoman import machine
from dragoman.cli import main
from dragoman.config import from_dict, to_dict
from dragoman.errors import ConfigError
from dragoman.machine import choose_device, choose_precision, choose_products
from dragoman.machine import product_seconds as really_measured
from dragoman.model.short_convolution import ShortConvolution
from dragoman.presets import PRESETS
from dragoman.train.recipe import RunConfig, fill, load, outline, read_run_file
from dragoman.train.schedule import Noam
from dragoman.train.tasks import task_data_for

DATA = {"data": {"train": [{"kind": "table", "path": "pairs.tsv"}]}}


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_laid_under_a_run_file(name):
    cfg = load({"preset": name, **DATA})
    assert from_dict(RunConfig, to_dict(cfg)) == cfg


@pytest.mark.parametrize("name", [name for name, preset in PRESETS.items() if "task" in preset()])
def test_a_preset_with_a_task_is_a_whole_run_but_for_its_text(name):
    cfg = load({"preset": name, **DATA})
    longest, context = task_data_for(cfg).outline(cfg).max_length, getattr(cfg.task, "context", None)
    assert None in (longest, context) or longest == context


@pytest.mark.parametrize(
    "preset, says",
    [
        ("bert-base", "model: encoder generates no text, which translation needs: use transformer"),
        ("gpt2", "model.encoder: must be given for translation: a decoder alone reads no source"),
    ],
)
def test_a_model_that_cannot_translate_is_refused_before_anything_is_begun(preset, says):
    with pytest.raises(ConfigError, match=re.escape(says)):
        outline(load({"preset": preset, **DATA}))


@pytest.mark.parametrize("preset", [["transformer-small"], {"transformer-small": 1}, 3, True])
def test_a_preset_is_a_name(preset):
    with pytest.raises(ConfigError, match=r"^preset: expected a name, got"):
        load({"preset": preset, **DATA})


@pytest.mark.parametrize("value", [".inf", "-.inf", ".nan", "1e999"])
def test_numbers_are_finite(value, tmp_path):
    with pytest.raises(ConfigError, match=r"^train\.clip: expected a finite number"):
        load({"preset": "transformer-tiny", **DATA}, [f"train.clip={value}"])
    (tmp_path / "run.yaml").write_text(
        f"preset: lm-tiny\ndata: {{train: [{{kind: table, path: a.tsv}}]}}\ntrain: {{clip: {value}}}\n"
    )
    with pytest.raises(ConfigError, match=r"run\.yaml\.train\.clip: expected a finite number"):
        load(tmp_path / "run.yaml")


def test_the_file_lies_over_the_preset_and_the_command_line_over_both(tmp_path):
    (tmp_path / "run.yaml").write_text(
        "preset: transformer-tiny\ndata: {train: [{kind: table, path: a.tsv}]}\ntrain: {clip: 0.5, seed: 7}\n"
    )
    cfg = load(tmp_path / "run.yaml", ["train.seed=8", "train.schedule.warmup=9"])
    assert (cfg.train.clip, cfg.train.seed, cfg.train.schedule.warmup) == (0.5, 8, 9)
    assert cfg.train.schedule.kind == PRESETS["transformer-tiny"]()["train"]["schedule"]["kind"]


@pytest.mark.parametrize("section", ["task", "tokenizer", "train"])
@pytest.mark.parametrize("preset", ["transformer-tiny", "auto"])
def test_a_section_without_settings_is_as_if_it_were_not_there(tmp_path, section, preset):
    lines = f"preset: {preset}\ndata: {{train: [{{kind: table, path: a.tsv}}]}}\n"
    (tmp_path / "whole.yaml").write_text(lines)
    (tmp_path / "empty.yaml").write_text(f"{lines}{section}:\n  # seed: 7\n")
    assert read_run_file(tmp_path / "empty.yaml") == read_run_file(tmp_path / "whole.yaml")
    if preset != "auto":
        for settings in ([], ["train.seed=8"]):
            assert load(tmp_path / "empty.yaml", settings) == load(tmp_path / "whole.yaml", settings)


@pytest.mark.parametrize("section", ["data", "model"])
def test_a_section_that_must_be_given_is_named_where_it_is_empty(tmp_path, section):
    (tmp_path / "run.yaml").write_text(
        {"data": "preset: transformer-tiny\ndata:\n", "model": "model:\ndata: {train: []}\n"}[section]
    )
    with pytest.raises(ConfigError, match=rf"run\.yaml\.{section}: must be given"):
        load(tmp_path / "run.yaml")


def test_an_override_finds_its_place_in_a_default_that_nobody_wrote_down():
    cfg = load(DATA | {"model": tiny_run.MODEL}, ["train.schedule.warmup=9", "data.cleaning.max_words=50"])
    assert (cfg.train.schedule.warmup, cfg.data.cleaning.max_words) == (9, 50)


def test_an_override_may_be_what_the_file_lacks():
    assert (
        load({"preset": "transformer-tiny"}, ["data={train: [{kind: table, path: a.tsv}]}"]).data.train[0].path
        == "a.tsv"
    )


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"preset": "transformer-tinny"}, r"preset: no 'transformer-tinny' here\. Did you mean 'transformer-tiny'"),
        ({"trian": {}}, r"no 'trian' here\. Did you mean 'train'"),
        ({"train": {"optimizer": "adamw"}}, r"train\.optimizer: no 'adamw' here\. Did you mean 'adam_w'"),
        ({"train": {"budget": {"kind": "steps", "steps": 0}}}, r"train\.budget\.steps"),
        ({"train": {"batch_tokens": "many"}}, r"train\.batch_tokens: expected a whole number"),
        ({"train": {"average": 1.0}}, r"train\.average"),
        ({"train": {"precision": "float61"}}, r"train\.precision: no 'float61' here\. Did you mean 'float16'"),
        ({"data": {}}, r"data\.train: must be given"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_mistake_is_named_with_its_place(change, says):
    with pytest.raises(ConfigError, match=says):
        load({"preset": "transformer-tiny", **DATA} | change)


def test_a_file_that_is_no_mapping_says_what_is_expected(tmp_path):
    (tmp_path / "run.yaml").write_text("- a\n- b\n")
    with pytest.raises(ConfigError, match=r"run\.yaml: expected a mapping.*preset"):
        load(tmp_path / "run.yaml")


def test_what_the_tokenizer_and_the_machine_decide_is_filled_in():
    cfg = load({"preset": "transformer-base", **DATA}, ["train.device=cpu"])
    full = fill(cfg, vocab=4321, source_vocab=None)
    assert (full.model.vocab, full.model.source_vocab) == (4321, None)
    assert full.train.schedule == Noam(warmup=4000, dim=512)
    assert full.train.precision in ("float32", "bfloat16")
    assert fill(full, vocab=4321, source_vocab=None) == full


def test_a_vocabulary_that_is_not_the_tokenizers_is_refused():
    cfg = load({"preset": "transformer-tiny", **DATA}, ["model.vocab=4000"])
    with pytest.raises(ConfigError, match=r"model\.vocab: 4000 given, but the tokenizer has 3900 entries"):
        fill(cfg, vocab=3900, source_vocab=None)


def test_sizes_that_do_not_fit_show_without_any_memory():
    cfg = load({"preset": "transformer-big", **DATA}, ["model.dim=1000", "model.encoder.pattern.0.mixer.heads=7"])
    with pytest.raises(ConfigError, match=r"model\.encoder"):
        outline(cfg)


def test_two_vocabularies_cannot_share_one_matrix():
    cfg = load({"preset": "transformer-tiny", **DATA}, ["target_tokenizer=characters"])
    with pytest.raises(ConfigError, match=r"model\.tying"):
        outline(cfg)


# ---- the machine ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "precision", "products"),
    [
        ({"torch": 4, "onednn": 2, "bfloat16": 1}, "bfloat16", "onednn"),
        ({"torch": 4, "onednn": 2, "bfloat16": 1.9}, "float32", "onednn"),
        ({"torch": 4, "onednn": 4, "bfloat16": 20}, "float32", "torch"),
        ({"torch": 4, "bfloat16": 1}, "bfloat16", "torch"),
    ],
)
def test_auto_is_what_a_cpu_multiplies_faster_by_a_fifth(monkeypatch, seconds, precision, products):
    monkeypatch.setattr(machine, "product_seconds", lambda: seconds)
    cpu = torch.device("cpu")
    assert choose_precision("auto", cpu) == precision and choose_precision("float32", cpu) == "float32"
    assert choose_products("auto", cpu, "float32") == products and choose_products("torch", cpu, "float32") == "torch"
    assert (
        choose_products("auto", cpu, "bfloat16") == choose_products("auto", torch.device("cuda"), "float32") == "torch"
    )


def test_what_is_measured_draws_no_random_numbers_of_the_run():
    before = torch.get_rng_state()
    seconds = really_measured()
    assert seconds["torch"] > 0 and seconds["bfloat16"] > 0 and torch.equal(torch.get_rng_state(), before)


def test_a_library_that_is_not_there_is_an_error_and_auto_does_without(monkeypatch):
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert choose_products("auto", torch.device("cpu"), "float32") == "torch"
    with pytest.raises(ConfigError, match=r"train\.products: onednn, but this torch was built without it"):
        choose_products("onednn", torch.device("cpu"), "float32")


def test_a_gpu_that_is_not_there_is_an_error_and_auto_does_without(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == torch.device("cpu")
    with pytest.raises(ConfigError, match=r"train\.device: cuda"):
        choose_device("cuda")


WRITER = {
    "task": "language_modelling",
    "data": {"kind": "texts", "files": ["x.txt"]},
    "tokenizer": "bytes",
    "model": {
        "dim": 8,
        "decoder": {
            "depth": 1,
            "pattern": [
                {
                    "mixer": {"heads": 2, "visibility": "causal"},
                    "mlp": {"kind": "feed_forward", "hidden": 16},
                    "norm": "layer_norm",
                }
            ],
        },
    },
}


@pytest.mark.parametrize(
    "change", ["mixer={kind: short_convolution}", "mixer=short_convolution", "mixer.kind=short_convolution"]
)
def test_a_mixer_written_without_a_kind_can_become_one_of_another_kind(change):
    cfg = load(WRITER, [f"model.decoder.pattern.0.{change}"])
    assert cfg.model.decoder.pattern[0].mixer == ShortConvolution()
    assert load(WRITER, ["model.decoder.pattern.*.mixer.kind=attention"]).model.decoder.pattern[0].mixer.heads == 2


@pytest.mark.parametrize("pad", [1, 7, None])
def test_padding_that_batches_do_not_hold_is_refused(pad):
    changed = WRITER | {"model": WRITER["model"] | {"pad": pad}}
    with pytest.raises(ConfigError, match=f"model.pad: {pad}, but texts are padded with 0"):
        load(changed)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("visibility={kind: full}", "model.decoder.pattern.0.mixer.visibility: full: a decoder must not see"),
        ("visibility={kind: structural, sees: [[0]]}", "model.decoder.pattern.0.mixer.visibility: structural goes by"),
        ("position=rotary_grid", "model.decoder.pattern.0.mixer.position: rotary_grid turns by rows and columns"),
    ],
)
def test_attention_that_fits_no_text_is_refused_before_a_run_begins(change, says):
    cfg = load(WRITER, [f"model.decoder.pattern.0.mixer.{change}"])
    with pytest.raises(ConfigError, match=re.escape(says)):
        task_data_for(cfg).check(cfg)


def test_a_preset_on_the_command_line_takes_the_place_of_the_files(tmp_path):
    path = tmp_path / "lm.yaml"
    path.write_text("preset: lm-small\ndata: {kind: texts, files: [a.txt]}\ntrain: {seed: 5}\n")
    cfg = load(path, ["train.seed=6", "preset=lm-tiny", "preset=lstm-lm-small"])
    assert cfg.model.kind == "recurrent" and cfg.train.seed == 6
    with pytest.raises(ConfigError, match=r"preset: no 'lstm-lm-smal' here\. Did you mean 'lstm-lm-small'\?"):
        load(path, ["preset=lstm-lm-smal"])


@pytest.mark.parametrize("content", ["", "[]", "[data, train]", "7"])
def test_a_run_file_that_is_no_mapping_is_one_line_of_every_command(content, tmp_path, capsys):
    path = tmp_path / "run.yaml"
    path.write_text(content)
    for command in (["train"], ["config", "show"], ["plan"]):
        assert main([*command, str(path)]) == 2
        assert capsys.readouterr().err == (
            f"dragoman: {path}: expected a mapping of settings, such as 'preset: transformer-small'\n"
        )
