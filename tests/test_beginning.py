"""Fine-tuning: a run that begins with another's weights, all or parts of them; what does not fit is named."""

import os

import pytest
import tiny_run
import torch

from dragoman.checkpoint import RunDirectory
from dragoman.cli import main
from dragoman.config import merge, to_dict
from dragoman.errors import CheckpointError, ConfigError
from dragoman.model.meta_device import on_meta_device
from dragoman.text.tokens.extension import decompose_new_entries
from dragoman.train import recipe
from dragoman.train.run import resume, start


@pytest.fixture(scope="module", autouse=True)
def quick_disk():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)  # these tests stop runs, not machines
        yield


@pytest.fixture(scope="module")
def earlier(tmp_path_factory):
    """A finished run, and the text it was trained on."""
    folder = tmp_path_factory.mktemp("earlier")
    pairs = tiny_run.write_pairs(folder / "pairs.tsv")
    list(start(tiny_run.config(pairs, average=None), folder / "run").events())
    return folder / "run", pairs


def config(earlier, change=None, **init):
    run, pairs = earlier
    plain = to_dict(tiny_run.config(pairs, average=None, validate_every=100, budget={"kind": "steps", "steps": 4}))
    plain = {
        "data": plain["data"],
        "train": plain["train"],
        "start_from": {"run": str(run), "checkpoint": "last"} | init,
    }
    return recipe.load(merge(plain, change or {}))


def weights(path, which="last"):
    return RunDirectory.open(path).load(which).tensors["model"]


def test_a_fine_tuned_run_begins_where_the_other_ended_and_keeps_what_is_frozen(earlier, tmp_path):
    cfg = config(earlier, frozen=["encoder.*", "*embed*"])
    list(start(cfg, tmp_path / "run").events())
    before, after = weights(earlier[0]), weights(tmp_path / "run")
    for name in before:
        same = torch.equal(before[name], after[name])
        assert same == (name.startswith("encoder.") or "embed" in name or name == "output.weight"), name
        assert torch.allclose(before[name], after[name], atol=0.1), "four small steps lead nowhere else"
    optimizer = RunDirectory.open(tmp_path / "run").load("last").tensors["optimizer"]
    assert not [name for name in optimizer if name.startswith("encoder.")]


def test_a_fine_tuned_run_that_was_stopped_comes_to_the_same_end_to_the_bit(earlier, tmp_path):
    cfg = config(earlier, {"train": {"save_every": 2}}, frozen=["encoder.*"])
    list(start(cfg, tmp_path / "whole").events())
    events = start(cfg, tmp_path / "stopped").events()
    assert any(getattr(event, "path", None) for event in events)
    events.close()
    list(resume(tmp_path / "stopped").events())
    assert tiny_run.outcome(tmp_path / "stopped") == tiny_run.outcome(tmp_path / "whole")


def test_what_is_new_begins_anew(earlier, tmp_path):
    other = {
        "model": {"decoder": {"pattern": [merge(tiny_run.MODEL["decoder"]["pattern"][0], {"mlp": {"hidden": 24}})]}}
    }
    list(start(config(earlier, other, new=["decoder.*mlp*"]), tmp_path / "run").events())
    shapes = {tuple(t.shape) for name, t in weights(tmp_path / "run").items() if "mlp" in name and "decoder" in name}
    assert (24, 8) in shapes


@pytest.mark.parametrize("tying", ["all", "target"])
@pytest.mark.parametrize("name", ["output.*", "embed.*"])
def test_a_tied_weight_begins_anew_under_any_of_its_names(earlier, tmp_path, name, tying):
    shared = {"output.weight", "embed.tokens.weight", "source_embed.tokens.weight"}
    run, pairs = earlier
    if tying != "all":
        plain = to_dict(tiny_run.config(pairs, average=None)) | {"model": tiny_run.MODEL | {"tying": tying}}
        list(start(recipe.load(plain), run := tmp_path / "earlier").events())
        shared.remove("source_embed.tokens.weight")
    change = {"train": {"schedule": {"kind": "cosine", "peak": 1e-9, "warmup": 1}}}
    list(start(config((run, pairs), change, new=[name]), tmp_path / "run").events())
    before, after = weights(run), weights(tmp_path / "run")
    changed = {name for name in before if not torch.allclose(before[name], after[name], atol=1e-6)}
    assert changed == shared & before.keys() and len(changed) > 1


def test_tied_weights_that_begin_anew_may_have_another_shape(earlier):
    with on_meta_device():
        larger = config(earlier).model.sized(vocab=999, source_vocab=None).build()
    config(earlier, new=["output.*"]).start_from.check(larger)
    with pytest.raises(ConfigError, match="has the shape"):
        config(earlier).start_from.check(larger)


@pytest.mark.parametrize("frozen", ["output.*", "embed.*"])
def test_what_begins_anew_is_not_frozen_at_random(earlier, tmp_path, frozen):
    with pytest.raises(ConfigError, match=r"^start_from\.frozen: \w+(\.tokens)?\.weight begins anew"):
        start(config(earlier, new=["output.*"], frozen=[frozen]), tmp_path / "run")


@pytest.mark.parametrize(
    ("change", "init", "says"),
    [
        (
            {"model": {"dim": 16}},
            {},
            r"start_from: '[\w.]+' has the shape \([\d, ]+\) in .*run and \([\d, ]+\) in this model",
        ),
        ({"model": {"output_bias": True}}, {}, r"start_from: .*run has no 'output\.bias': add it to start_from\.new"),
        (
            {},
            {"frozen": ["decodr.*"]},
            r"start_from\.frozen: 'decodr\.\*' is no weight of this model; did you mean 'decoder\.\*'\? there are",
        ),
        ({}, {"frozen": ["*"]}, r"start_from\.frozen: nothing is left to train"),
    ],
    ids=["shape", "missing", "typo", "everything"],
)
def test_what_does_not_fit_is_named(earlier, tmp_path, change, init, says):
    with pytest.raises(ConfigError, match=says):
        list(start(config(earlier, change, **init), tmp_path / "run").events())


def test_beginning_with_a_run_that_is_not_there_is_told_as_one(earlier):
    with pytest.raises(CheckpointError, match="no such run directory"):
        config(earlier, {"start_from": {"run": "runs/nowhere"}})


def test_a_run_named_on_the_command_line_gives_settings_and_weights_as_one_named_in_the_file(earlier, tmp_path):
    run, pairs = earlier
    block = tiny_run.MODEL["decoder"]["pattern"][0]
    larger = {"decoder": {"pattern": [merge(block, {"mixer": {"heads": 4}, "mlp": {"activation": "gelu"}})]}}
    plain = to_dict(tiny_run.config(pairs, average=None)) | {"model": merge(tiny_run.MODEL, larger)}
    list(start(recipe.load(plain), other := tmp_path / "other").events())
    rest = {"data": plain["data"], "train": plain["train"]}
    expected = recipe.load(rest | {"start_from": {"run": str(other)}})
    assert expected.model != recipe.load(rest | {"start_from": {"run": str(run)}}).model
    for written in ({}, {"start_from": None}, {"start_from": {"run": str(run)}}):
        for assignment in (f"start_from.run={other}", f"start_from={{run: {other}}}"):
            assert recipe.load(rest | written, [assignment]) == expected
    assert recipe.load(rest | {"start_from": {"run": str(run)}}, [f"*.run={other}"]) == expected
    deeper = recipe.load(rest, [f"start_from.run={other}", 'start_from.frozen=["encoder.*"]', "model.dropout=0.3"])
    assert (deeper.start_from.frozen, deeper.model.dropout) == (("encoder.*",), 0.3)


# ---- what composes --------------------------------------------------------------------------------


def test_the_first_validation_is_of_the_earlier_model_and_stays_the_best_if_nothing_is_better(earlier, tmp_path):
    worse = {"train": {"schedule": {"kind": "cosine", "peak": 3.0, "warmup": 1}, "validate_every": 1, "patience": 2}}
    events = list(start(config(earlier, worse), tmp_path / "run").events())
    assert [event.step for event in events if hasattr(event, "perplexity")] == [0, 1, 2]
    assert "no better validation since step 0, 2 validations ago" in events[-1].reason
    best = weights(tmp_path / "run", "best")
    assert all(torch.equal(value, best[name]) for name, value in weights(earlier[0]).items())


def test_frozen_weights_neither_decay_nor_have_a_memory_nor_an_average(earlier, tmp_path):
    decaying = {"train": {"optimizer": {"kind": "adam_w", "weight_decay": 0.5}, "average": 0.9, "save_every": 2}}
    cfg = config(earlier, decaying, frozen=["decoder.*"])
    list(start(cfg, tmp_path / "run").events())
    tensors = RunDirectory.open(tmp_path / "run").load("last").tensors
    for part in ("optimizer", "average"):
        assert tensors[part] and not any(name.startswith("decoder.") for name in tensors[part])
    before = weights(earlier[0])
    assert all(torch.equal(value, before[n]) for n, value in tensors["model"].items() if n.startswith("decoder."))


# ---- more vocabulary ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def with_pieces(tmp_path_factory):
    """A run whose tokenizer is made of pieces."""
    folder = tmp_path_factory.mktemp("pieces")
    pairs = tiny_run.write_pairs(folder / "pairs.tsv")
    plain = to_dict(tiny_run.config(pairs, average=None)) | {"tokenizer": {"kind": "bpe", "vocab": 270}}
    list(start(recipe.load(plain), folder / "run").events())
    return folder / "run", pairs


@pytest.mark.parametrize("lora", [None, {"rank": 2, "targets": ["*"], "whole": ["embed.*"]}], ids=["all", "lora"])
def test_rows_of_further_pieces_begin_as_the_mean_of_their_parts(with_pieces, tmp_path, lora):
    cfg = config(with_pieces, {"train": {"validate_every": 4}}, vocabulary={"kind": "extended", "by": 4}, lora=lora)
    events = list(start(cfg, tmp_path / "run").events())
    assert any("vocabulary: 270 -> 274 entries; tokens in one of these" in getattr(e, "text", "") for e in events)
    run, before = RunDirectory.open(tmp_path / "run"), weights(with_pieces[0])["embed.tokens.weight"]
    first = run.weights(0).tensors["model"]["embed.tokens.weight"]
    assert torch.equal(first[:270], before)
    made = decompose_new_entries(RunDirectory.open(with_pieces[0]).tokenizers()[0], run.tokenizers()[0])
    torch.testing.assert_close(first[270:], torch.stack([before[ids].mean(dim=0) for ids in made]))
    after = run.weights("last").tensors["model"]["embed.tokens.weight"]
    assert not torch.equal(after[270:], first[270:]), "they learn"
    assert main(["translate", str(tmp_path / "run"), "the red dog", "--beam", "1"]) == 0


def test_another_tokenizer_than_the_earlier_runs_is_refused(earlier):
    with pytest.raises(ConfigError, match=r"^tokenizer: a run that starts from .*run has its tokenizers: leave"):
        config(earlier, {"tokenizer": {"kind": "bpe", "vocab": 300}})


def test_a_vocabulary_too_large_for_the_texts_leaves_nothing_behind(with_pieces, tmp_path):
    with pytest.raises(
        ConfigError, match=r"start_from\.vocabulary: by=9000, but the text yields only \d+ further pieces"
    ):
        list(start(config(with_pieces, vocabulary={"kind": "extended", "by": 9000}), tmp_path / "run").events())
    assert not (tmp_path / "run").exists()
