"""Every variant of the model is exported with the same answers, or refused in one line, by each exporter."""

import dataclasses
import json
import re

import foreign
import pytest
import test_export
import torch
import variants

from dragoman.checkpoint import RunDirectory
from dragoman.cli import main
from dragoman.config import config, to_dict
from dragoman.data.material import IdMaterial
from dragoman.errors import ConfigError
from dragoman.interchange import checking, ctranslate2, exporting, family, known_parts, layouts
from dragoman.interchange.families import FAMILIES
from dragoman.interchange.family import obstacles, shape_of
from dragoman.interchange.whitelist import unknown_parts
from dragoman.model.masks.visibility import Causal
from dragoman.model.mlp import FeedForward
from dragoman.model.moe import Mixture
from dragoman.model.norm import LayerNorm, RmsNorm
from dragoman.model.positions.position import Learned, NoPosition, T5Bias
from dragoman.model.positions.rotary import DynamicNtkScaling, LongRope, Rotary
from dragoman.model.scorer import CappedDot, Dot, ScaledDot
from dragoman.model.short_convolution import ShortConvolution

pytest.importorskip("transformers")
pytest.importorskip("ctranslate2")

CASES = [(name, "encoder-decoder") for name in variants.MODELS] + [(name, "decoder-only") for name in variants.VARIANTS]


def made(name, shape):
    return dataclasses.replace(variants.MODELS[name].config(shape), source_vocab=None)


def refused(run, layout, folder, capsys):
    """The one line that says so; None where the export was written, which it is only if its answers are the same."""
    status = main(["export", str(run.path), "--to", layout, "-o", str(folder)])
    said = capsys.readouterr()
    if status == 0:
        assert "compared with the run: the same answers" in said.out
        return None
    assert status == 2 and said.err.count("\n") == 1 and not folder.exists(), said.err
    assert "compared" not in said.err, said.err  # a part that is known by name, but not refused by it
    return said.err


@pytest.mark.parametrize("part", ctranslate2.KNOWN, ids=lambda part: part.__name__)
def test_the_engine_has_a_rule_for_every_field_of_every_part(part):
    assert ctranslate2.KNOWN[part].keys() == {field.name for field in dataclasses.fields(part)} - {"kind"}


def test_a_cap_of_scores_is_seen_whatever_the_scale():
    cfg = made("rotary", "decoder-only")
    [block, *others] = cfg.decoder.pattern
    plain, scaled, capped = (
        dataclasses.replace(
            cfg,
            decoder=dataclasses.replace(
                cfg.decoder,
                pattern=(dataclasses.replace(block, mixer=dataclasses.replace(block.mixer, scorer=scorer)), *others),
            ),
        )
        for scorer in (Dot(), ScaledDot(scale=1.0), CappedDot(scale=1.0, cap=5.0))
    )
    assert family.alike(plain, scaled) and not family.alike(plain, capped)


def test_ctranslate2_has_the_same_answers_or_refuses_every_variant(tmp_path, capsys):
    written = []
    for i, (name, shape) in enumerate(CASES):
        cfg = made(name, shape)
        if next(ctranslate2.obstacles(cfg), None) is None:
            run = test_export.save(cfg, tmp_path / f"run{i}")
            assert refused(run, "ctranslate2", tmp_path / f"folder{i}", capsys) is None
            written.append(name)
    assert {"sinusoidal", "rotary", "biases, not on the output"} & set(written)


def test_hugging_face_has_the_same_answers_or_refuses_every_variant(tmp_path, capsys):
    for i, (name, shape) in enumerate(CASES):
        cfg = made(name, shape)
        families = [family for family in FAMILIES if family.shape == shape_of(cfg)]
        if not all(any(obstacles(family, exporting.to_layout(cfg, family))) for family in families):
            run = test_export.save(cfg, tmp_path / f"run{i}")
            assert refused(run, "huggingface", tmp_path / f"folder{i}", capsys) is None


@pytest.mark.parametrize(("name", "shape"), CASES)
def test_the_setting_to_blame_is_one_that_the_model_has(name, shape, tmp_path):
    """Where a model has another kind of part than a layout, the fields of the layout's part are none of the model's."""
    cfg = dataclasses.replace(made(name, shape), vocab=259)
    try:
        layouts.choose_family(cfg, RunDirectory(tmp_path))
    except ConfigError as error:
        path, _, value = str(error).partition(" cannot be expressed")[0].partition(": ")
        found = {"model": to_dict(cfg)}
        for key in path.split("."):
            found = found[int(key) % len(found)] if isinstance(found, list) else found[key]
        if isinstance(found, dict):
            assert value == found["kind"]
        elif found is not None:  # what None stands for is written out
            assert value == str(found)


MODERN, LANGUAGE_MODEL = test_export.MODERN, test_export.LANGUAGE_MODEL


def with_block(cfg, **options):
    (block,) = cfg.decoder.pattern
    decoder = dataclasses.replace(cfg.decoder, pattern=(dataclasses.replace(block, **options),))
    return dataclasses.replace(cfg, decoder=decoder)


def reading(cfg, **options):
    """``cfg`` with other self-attention in the encoder."""
    (block,) = cfg.encoder.pattern
    encoder = dataclasses.replace(cfg.encoder, pattern=(with_mixer(block, **options),))
    return dataclasses.replace(cfg, encoder=encoder)


def with_mixer(block, **options):
    return dataclasses.replace(block, mixer=dataclasses.replace(block.attention, **options))


def crossing(**options):
    return with_block(MODERN, cross=dataclasses.replace(MODERN.decoder.pattern[0].cross, **options))


def with_final_norm(cfg, norm):
    return dataclasses.replace(cfg, decoder=dataclasses.replace(cfg.decoder, final_norm=norm))


TANH = FeedForward(hidden=8, activation="tanh")
EXPERTS = Mixture(experts=2, expert=FeedForward(hidden=8))
REFUSED = {
    "norms of queries and keys across": (crossing(qk_norm=RmsNorm()), "ctranslate2", r"pattern\.0\.cross\.qk_norm"),
    "other heads across": (crossing(heads=2, kv_heads=2, head_dim=6), "ctranslate2", r"pattern\.0\.cross\.heads"),
    "an embedding norm over RMS blocks": (
        dataclasses.replace(MODERN, embedding_norm=LayerNorm(eps=1e-6)), "ctranslate2", r"model\.embedding_norm"),
    "another final norm": (
        with_final_norm(LANGUAGE_MODEL, LayerNorm(eps=1e-6)), "ctranslate2", r"decoder\.final_norm"),
    "an activation the engine has not": (
        with_block(LANGUAGE_MODEL, mlp=TANH), "ctranslate2", r"mlp\.activation: tanh"),
    "an encoder without positions": (
        reading(MODERN, position=NoPosition()), "ctranslate2", r"encoder\.pattern\.0\.mixer\.position: no_position"),
    "a decoder without positions": (
        test_export.changed(MODERN, position=NoPosition()), "ctranslate2",
        r"decoder\.pattern\.0\.mixer\.position: no_position"),
    "rotations in the encoder, and sines": (
        reading(test_export.BASE, position=Rotary()), "ctranslate2", r"encoder\.pattern\.0\.mixer\.position: rotary"),
    "biases in the encoder, and learned positions": (
        dataclasses.replace(
            reading(test_export.BASE, position=T5Bias(buckets=8, reach=12, bidirectional=True)),
            position=Learned(length=64)),
        "ctranslate2", r"encoder\.pattern\.0\.mixer\.position: t5_bias"),
    "an encoder that sees only the past": (
        reading(MODERN, visibility=Causal()), "ctranslate2", r"encoder\.pattern\.0\.mixer\.visibility: causal"),
    "a source of which a part is seen": (
        crossing(visibility=Causal()), "ctranslate2", r"decoder\.pattern\.0\.cross\.visibility: causal"),
    "experts in the engine": (
        with_block(LANGUAGE_MODEL, mlp=EXPERTS), "ctranslate2", r"mlp: mixture"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_an_exporter_does_not_know_is_refused_by_its_path(case, tmp_path, capsys):
    cfg, layout, message = REFUSED[case]
    said = refused(test_export.save(cfg, tmp_path / "run"), layout, tmp_path / "folder", capsys)
    assert said and re.search(message, said), said


SCALINGS = {
    "dynamic_ntk_scaling": DynamicNtkScaling(trained=16, factor=2.0),
    "long_rope": LongRope(trained=16, short=(1.0,) * 3, long=(2.0,) * 3),
}


@pytest.mark.parametrize("scaling", SCALINGS)
@pytest.mark.parametrize("beside", ["attention", "a convolution"])
def test_angles_that_depend_on_the_length_of_a_text_do_not_become_a_graph(beside, scaling, tmp_path, capsys):
    pytest.importorskip("onnxscript")
    attention = dataclasses.replace(LANGUAGE_MODEL.decoder.pattern[0].mixer, position=Rotary(scaling=SCALINGS[scaling]))
    cfg = test_export.with_mixers(ShortConvolution() if beside == "a convolution" else attention, attention)
    said = refused(test_export.save(cfg, tmp_path / "run"), "onnx", tmp_path / "folder", capsys)
    path = rf"model\.decoder\.pattern\.[01]\.mixer\.position\.scaling: {scaling}: does not become an ONNX graph"
    assert said and re.search(path, said), said


def test_a_subclass_of_a_known_part_is_not_known():
    @config
    class Skewed(Rotary):
        pass

    cfg = test_export.changed(LANGUAGE_MODEL, position=Skewed())
    for whitelist in (ctranslate2.KNOWN, known_parts.ONNX, known_parts.HUGGINGFACE):
        assert next(unknown_parts(cfg, whitelist)) == "model.decoder.pattern.0.mixer.position: skewed"


def test_an_export_that_answers_otherwise_is_not_put_in_place(tmp_path, capsys, monkeypatch):
    run = test_export.save(LANGUAGE_MODEL, tmp_path / "run")

    def with_other_queries(cfg, weights):
        return checking.built(cfg, {name: w / 2 if ".mixer.q." in name else w for name, w in weights.items()})

    monkeypatch.setattr(ctranslate2, "built", with_other_queries)
    folder = tmp_path / "folder"
    assert main(["export", str(run.path), "--to", "ctranslate2", "-o", str(folder)]) == 2
    said = capsys.readouterr().err
    assert "compared with the run in ctranslate2 and answers otherwise" in said and said.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]
    assert main(["export", str(run.path), "--to", "ctranslate2", "-o", str(folder), "--no-check"]) == 0
    assert "not compared" in capsys.readouterr().out


def test_quantized_models_are_compared_before_they_are_quantized(tmp_path, capsys):
    run = test_export.save(LANGUAGE_MODEL, tmp_path / "run")
    arguments = [
        "export",
        str(run.path),
        "--to",
        "ctranslate2",
        "-o",
        str(tmp_path / "folder"),
        "--quantization",
        "int8",
    ]
    assert main(arguments) == 0
    assert "the same answers" in capsys.readouterr().out


# ---- classifiers whose logits are no softmax ----------------------------------------------------------


def classifier(folder, **fields):
    foreign.make_folder("BERT", 1, folder)
    content = json.loads((folder / "config.json").read_text()) | fields
    (folder / "config.json").write_text(json.dumps(content))


def test_a_classifier_for_several_labels_tells_each_by_itself(tmp_path, capsys):
    classifier(tmp_path / "folder", problem_type="multi_label_classification")
    main(["import", str(tmp_path / "folder"), "--run", str(tmp_path / "run")])
    capsys.readouterr()
    assert main(["classify", str(tmp_path / "run"), "w9 w10", "--format", "json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    model = foreign.load_encoder(tmp_path / "run")
    reader = RunDirectory.open(tmp_path / "run").tokenizers()[0]
    (row,) = IdMaterial(reader, 512).rows(["w9 w10"], [""])
    wanted = model(torch.from_numpy(row)[None])[0].sigmoid().tolist()
    assert list(answer["probabilities"].values()) == pytest.approx(wanted, abs=1e-4)
    assert answer["labels"] == [f"LABEL_{i}" for i, p in enumerate(wanted) if p >= 0.5]
    assert main(["export", str(tmp_path / "run"), "--to", "huggingface", "-o", str(tmp_path / "again")]) == 0
    assert json.loads((tmp_path / "again" / "config.json").read_text())["problem_type"] == "multi_label_classification"


def test_a_regression_tells_values_and_is_not_scored_as_labels(tmp_path, capsys):
    classifier(tmp_path / "folder", problem_type="regression")
    main(["import", str(tmp_path / "folder"), "--run", str(tmp_path / "run")])
    capsys.readouterr()
    assert main(["classify", str(tmp_path / "run"), "w9 w10", "--format", "json"]) == 0
    assert set(json.loads(capsys.readouterr().out)) == {"row", "text", "values"}
    (tmp_path / "test.tsv").write_text("w9\tLABEL_0\n")
    assert main(["evaluate", str(tmp_path / "run"), str(tmp_path / "test.tsv")]) == 2
    assert "accuracy and F1 are for one label a text" in capsys.readouterr().err


def test_an_unknown_problem_type_is_refused(tmp_path, capsys):
    classifier(tmp_path / "folder", problem_type="ranking")
    assert main(["import", str(tmp_path / "folder"), "--run", str(tmp_path / "run")]) == 2
    assert "problem_type: no 'ranking' here" in capsys.readouterr().err


def test_fields_that_make_no_difference_to_a_layout_are_fields_of_today():
    """A field that is renamed must not stay in the list under its old name: every export would be refused for it."""
    fields = {field.name for part in known_parts.HUGGINGFACE for field in dataclasses.fields(part)}
    assert fields >= family._NO_MATTER
