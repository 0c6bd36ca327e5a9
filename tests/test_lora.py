"""Low-rank adapters: at first no change, in the end one of low rank, which folds into the weights."""

import os
import shutil

import pytest
import tiny_run
import torch
import variants
from torch import nn

from dragoman.checkpoint import BASE, RunDirectory, load_model
from dragoman.cli import main
from dragoman.config import from_dict, merge, to_dict
from dragoman.decode.alignment import AlignmentHeads
from dragoman.decode.calibration import Calibration
from dragoman.errors import CheckpointError, ConfigError
from dragoman.model.families import ModelConfig
from dragoman.model.lora import Adapted, Lora, fold
from dragoman.model.meta_device import on_meta_device
from dragoman.presets import PRESETS
from dragoman.train import recipe
from dragoman.train.average import average_checkpoints
from dragoman.train.events import Started
from dragoman.train.run import resume, start

ALL = Lora(rank=2, targets=("*",))
EXACT = {"rtol": 1e-9, "atol": 1e-9}


@pytest.fixture(scope="module", autouse=True)
def quick_disk():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)  # these tests stop runs, not machines
        yield


def tiny():
    torch.manual_seed(0)
    return from_dict(ModelConfig, tiny_run.MODEL | {"vocab": 20}).build().double().eval()


def shaken(module):
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if "lora" in name:
                parameter.normal_(std=0.3)
    return module


# ---- one layer ------------------------------------------------------------------------------------


def layer(cfg, inputs=6, outputs=4):
    torch.manual_seed(0)
    return Adapted(nn.Linear(inputs, outputs).double().requires_grad_(False), cfg)


def test_gradients_are_those_of_the_formula():
    adapted, x, upstream = (
        shaken(layer(Lora(rank=3, alpha=6.0))),
        torch.randn(5, 6).double(),
        torch.randn(5, 4).double(),
    )
    adapted(x).backward(upstream)
    a, b = adapted.lora_down, adapted.lora_up
    torch.testing.assert_close(b.grad, 2 * upstream.T @ (x @ a.T), **EXACT)
    torch.testing.assert_close(a.grad, 2 * (upstream @ b).T @ x, **EXACT)
    assert adapted.weight.grad is None


def test_at_full_rank_a_step_is_one_of_the_whole_matrix():
    """With A the identity, the gradient of B is that of W."""
    adapted, x = layer(Lora(rank=6, alpha=6.0), outputs=8), torch.randn(5, 6).double()
    whole = nn.Linear(6, 8).double()
    whole.load_state_dict({name: adapted.get_parameter(name) for name in ("weight", "bias")})
    with torch.no_grad():
        adapted.lora_down.copy_(torch.eye(6))
    for module, parameter in ((adapted, adapted.lora_up), (whole, whole.weight)):
        module(x).square().sum().backward()
        torch.optim.SGD([parameter], lr=0.1).step()
    folded = fold({f"x.{name}": value for name, value in adapted.state_dict().items()}, Lora(rank=6, alpha=6.0))
    torch.testing.assert_close(folded["x.weight"], whole.weight.detach(), **EXACT)


@pytest.mark.parametrize("scaling", ["lora", "rslora"])
def test_a_layer_says_what_peft_says(scaling):
    peft = pytest.importorskip("peft")
    cfg = Lora(rank=3, alpha=5.0, scaling=scaling)
    ours, x = shaken(layer(cfg)), torch.randn(5, 6).double()
    theirs = peft.get_peft_model(
        nn.Sequential(nn.Linear(6, 4).double()),
        peft.LoraConfig(r=3, lora_alpha=5, target_modules=["0"], use_rslora=scaling == "rslora"),
    ).double()
    inner = theirs.base_model.model[0]
    inner.base_layer.load_state_dict({name: ours.get_parameter(name) for name in ("weight", "bias")})
    with torch.no_grad():
        inner.lora_A["default"].weight.copy_(ours.lora_down)
        inner.lora_B["default"].weight.copy_(ours.lora_up)
    torch.testing.assert_close(ours(x), theirs(x), **EXACT)


# ---- a model --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", variants.VARIANTS)
def test_adapters_change_nothing_at_first_and_fold_into_what_they_have_become(name):
    module, plain = (variants.build_from(variants.VARIANTS[name].config("encoder-decoder")) for _ in range(2))
    target, source = variants.batch(plain, 2, 7, 5)
    ALL.adapt(module)
    variants.assert_equal(module(target, source), plain(target, source))
    shaken(module)
    assert not torch.allclose(module(target, source), plain(target, source))
    plain.load_state_dict(fold(module.state_dict(), ALL))
    variants.assert_equal(module(target, source), plain(target, source))


def test_adapters_alone_learn_and_what_is_whole():
    module = tiny()
    Lora(rank=2, targets=("*.mixer.q",), whole=("output.weight",)).adapt(module)
    learning = {name for name, p in module.named_parameters() if p.requires_grad}
    q = [f"{side}.blocks.0.mixer.q.lora_{which}" for side in ("encoder", "decoder") for which in ("down", "up")]
    assert learning == {"embed.tokens.weight", *q}, "the output is the embedding's matrix"


@pytest.mark.parametrize(
    ("lora", "says"),
    [
        (
            {"targets": ["*.mixer.query"]},
            r"start_from\.lora\.targets: '\*\.mixer\.query' is no linear layer of this model;",
        ),
        ({"targets": ["output"]}, r"start_from\.lora\.targets: 'output' is no linear layer"),
        ({"rank": 9}, r"start_from\.lora\.rank: 9 for encoder\.blocks\.0\.mixer\.q, which is 8 x 8: at most 8"),
        ({"whole": ["embd.*"]}, r"start_from\.lora\.whole: 'embd\.\*' is no weight .* did you mean 'embed\.\*'\?"),
        ({"rank": 0}, r"rank: must be greater than 0, got 0"),
    ],
)
def test_what_does_not_fit_is_told(lora, says):
    with pytest.raises(ConfigError, match=says):
        from_dict(Lora, lora).adapt(tiny())


def test_the_output_layer_of_a_captioner_takes_no_adapter_either():
    """The loss multiplies by its matrix, and would pass the adapter by."""
    plain = PRESETS["captioner-tiny"]()["model"]
    plain["decoder"]["tying"] = "none"
    with on_meta_device():
        module = from_dict(ModelConfig, plain).sized(vocab=40).build()
    with pytest.raises(ConfigError, match=r"'decoder\.output' is no linear layer"):
        Lora(rank=2, targets=("decoder.output",)).target_layers(module)
    assert "projector.0" in Lora(rank=2, targets=("*",)).target_layers(module)


# ---- a run ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def earlier(tmp_path_factory):
    folder = tmp_path_factory.mktemp("earlier")
    pairs = tiny_run.write_pairs(folder / "pairs.tsv")
    list(start(tiny_run.config(pairs, average=None), folder / "run").events())
    return folder / "run", pairs


def config(earlier, change=None, **lora):
    run, pairs = earlier
    plain = to_dict(tiny_run.config(pairs, save_every=2, validate_every=100, budget={"kind": "steps", "steps": 4}))
    init = {"run": str(run), "checkpoint": "last", "lora": {"rank": 2, "targets": ["*"], "dropout": 0.1} | lora}
    return recipe.load(merge({"data": plain["data"], "train": plain["train"], "start_from": init}, change or {}))


@pytest.fixture(scope="module")
def adapted(earlier, tmp_path_factory):
    path = tmp_path_factory.mktemp("adapted") / "run"
    list(start(config(earlier), path).events())
    return path


def test_checkpoints_hold_the_adapters_and_load_as_whole_models(earlier, adapted):
    content = RunDirectory.open(adapted).load("last")
    assert {name.rpartition(".")[2] for name in content.tensors["model"]} == {"lora_down", "lora_up"}
    assert content.tensors["average"].keys() == content.tensors["model"].keys()
    before, after = load_model(earlier[0], "last")[0], load_model(adapted, "last")[0]
    for (name, was), now in zip(before.named_parameters(), after.parameters(), strict=True):
        linear = name.endswith(".weight") and "residual" not in name and "embed" not in name
        assert torch.equal(was, now) != linear, name
        assert not linear or torch.linalg.matrix_rank(now - was, rtol=1e-3) == 2


def test_a_stopped_run_comes_to_the_same_end_to_the_bit_without_the_earlier_one(earlier, adapted, tmp_path):
    shutil.copytree(earlier[0], tmp_path / "earlier")
    cfg = config(earlier, {"start_from": {"run": str(tmp_path / "earlier")}})
    events = start(cfg, tmp_path / "stopped").events()
    assert any(getattr(event, "step", 0) == 2 and getattr(event, "path", None) for event in events)
    events.close()
    shutil.rmtree(tmp_path / "earlier")
    list(resume(tmp_path / "stopped").events())
    assert tiny_run.outcome(tmp_path / "stopped") == tiny_run.outcome(adapted)


def test_averaged_checkpoints_are_the_mean_of_whole_models(adapted, tmp_path):
    shutil.copytree(adapted, tmp_path / "run", symlinks=True)
    run = RunDirectory.open(tmp_path / "run")
    every = [run.weights(c.path.name, ["model"]).tensors["model"] for c in run.checkpoints()[-2:]]
    mean = run.weights(average_checkpoints(run, 2).path.name).tensors["model"]
    for name, value in mean.items():
        torch.testing.assert_close(value, (every[0][name] + every[1][name]) / 2)


def test_a_base_that_is_not_what_the_adapters_learned_on_is_refused(adapted, tmp_path):
    shutil.copytree(adapted, tmp_path / "run", symlinks=True)
    base = tmp_path / "run" / BASE
    base.write_bytes(base.read_bytes()[:-1] + b"\x01")
    with pytest.raises(CheckpointError, match=r"base\.safetensors: damaged, its sha256 is not the one in manifest"):
        load_model(tmp_path / "run")
    base.unlink()
    with pytest.raises(CheckpointError, match=r"base\.safetensors: missing"):
        load_model(tmp_path / "run")


@pytest.mark.parametrize("named", ["a folder", "a step", "a name"])
def test_an_earlier_run_is_named_with_its_checkpoint_in_any_way(earlier, tmp_path, named):
    run, _ = earlier
    first = RunDirectory.open(run).checkpoints()[0]
    start_from = {
        "a folder": {"run": str(first.path), "checkpoint": "best"},
        "a step": {"checkpoint": first.step},
        "a name": {"checkpoint": first.path.name},
    }
    begun = start(config(earlier, {"start_from": start_from[named]}), tmp_path / "run")
    events = begun.events()
    assert any(isinstance(event, Started) for event in events)
    events.close()
    theirs = RunDirectory.open(run).weights(first.path.name).tensors["model"]
    base = RunDirectory.open(tmp_path / "run").base
    assert base and all(torch.equal(base[name], theirs[name]) for name in base)


def test_a_mistake_leaves_nothing_behind(earlier, tmp_path):
    with pytest.raises(ConfigError, match=r"start_from\.lora\.rank: 9 for"):
        start(config(earlier, rank=9), tmp_path / "run")
    assert not (tmp_path / "run").exists()


# ---- merged ---------------------------------------------------------------------------------------


def test_a_chat_template_goes_with_the_weights(earlier, tmp_path):
    shutil.copytree(earlier[0], tmp_path / "earlier", symlinks=True)
    (tmp_path / "earlier" / "chat_template.jinja").write_text("own")
    list(start(config(earlier, {"start_from": {"run": str(tmp_path / "earlier")}}), tmp_path / "run").events())
    assert main(["merge", str(tmp_path / "run"), "-o", str(tmp_path / "merged")]) == 0
    for run in ("run", "merged"):
        assert (tmp_path / run / "chat_template.jinja").read_text() == "own"


def test_a_merged_run_says_the_same_and_needs_no_other(adapted, tmp_path, capsys):
    shutil.copytree(adapted, tmp_path / "run", symlinks=True)
    calibration = Calibration(heads=AlignmentHeads(heads=((0, 0),)))
    calibration.write(tmp_path / "run")
    assert main(["merge", str(tmp_path / "run"), "--checkpoint", "last"]) == 0
    assert "run-merged: a run without adapters" in capsys.readouterr().out
    shutil.rmtree(tmp_path / "run")
    merged = tmp_path / "run-merged"
    assert not (merged / BASE).exists()
    assert Calibration.read(merged) == calibration
    ids = torch.randint(3, 200, (2, 7))
    before, after = load_model(adapted, "last")[0], load_model(merged)[0]
    torch.testing.assert_close(after(ids, ids), before(ids, ids), atol=1e-5, rtol=0)
    assert main(["evaluate", str(merged), "--beam", "1"]) == 0, "the test set has come along"
    assert main(["merge", str(merged)]) == 2
    assert "has no adapters" in capsys.readouterr().err
    with pytest.raises(CheckpointError, match=r"weights alone: no checkpoint here can be resumed: start another run"):
        resume(merged)
