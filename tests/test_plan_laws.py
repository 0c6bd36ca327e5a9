"""Scaling laws: constants are found again, intervals hold, and runs that say too little are refused."""

import json
import math

import pytest
import torch

from dragoman.cli.plan_laws import print_laws
from dragoman.config import to_dict
from dragoman.errors import CheckpointError, DataError
from dragoman.model.attention import AttentionConfig
from dragoman.model.masks.visibility import Causal
from dragoman.model.mlp import FeedForward
from dragoman.model.norm import LayerNorm
from dragoman.model.tower import BlockConfig, TowerConfig
from dragoman.model.transformer import TransformerConfig
from dragoman.plan.laws import CHINCHILLA, CHINCHILLA_REFITTED, LawRun, ScalingLaw, fit

TRUE = ScalingLaw(E=0.9, A=40, alpha=0.4, B=120, beta=0.35)
SIZES, TOKENS = (3e4, 1e5, 2.2e5, 4.6e5), (4e5, 8e5, 1.6e6, 3.2e6)


def runs(noise: float = 0.0, law: ScalingLaw = TRUE) -> list[LawRun]:
    generator = torch.Generator().manual_seed(0)
    return [
        LawRun(f"{n}-{d}", n, d, law.loss(n, d) * math.exp(noise * torch.randn((), generator=generator).item()))
        for n in SIZES
        for d in TOKENS
    ]


@pytest.mark.parametrize("law", [TRUE, CHINCHILLA, ScalingLaw(E=0.1, A=5, alpha=0.15, B=900, beta=0.6)])
def test_the_constants_of_a_law_are_found_in_its_own_losses(law):
    found = fit(runs(law=law)).law
    for name in ("E", "A", "alpha", "B", "beta"):
        assert math.isclose(getattr(found, name), getattr(law, name), rel_tol=1e-4), name


def test_noise_widens_the_intervals_and_the_truth_lies_within():
    narrow, wide = fit(runs(0.001)), fit(runs(0.01))
    for fitted in (narrow, wide):
        low, high = fitted.interval("alpha")
        assert low <= TRUE.alpha <= high
    spans = [high - low for low, high in (narrow.interval("alpha"), wide.interval("alpha"))]
    assert spans[0] < spans[1]
    assert abs(narrow.law.loss(1.6e6, 3.2e6) / TRUE.loss(1.6e6, 3.2e6) - 1) < 0.01


def test_one_run_that_went_wrong_hardly_moves_the_law():
    spoilt = [*runs()[:-1], LawRun("spoilt", SIZES[-1], TOKENS[-1], 3.0)]
    assert abs(fit(spoilt).law.loss(1e5, 1e6) / TRUE.loss(1e5, 1e6) - 1) < 0.01


@pytest.mark.parametrize("law", [TRUE, CHINCHILLA, CHINCHILLA_REFITTED])
@pytest.mark.parametrize("flops", [1e15, 1e21, 5.76e23])
def test_no_other_split_of_a_budget_ends_lower(law, flops):
    n, d = law.split(flops)
    assert math.isclose(6 * n * d, flops)
    for factor in (0.5, 0.9, 1.1, 2.0):
        assert law.loss(n * factor, d / factor) > law.loss(n, d)


def test_the_constants_of_chinchilla_give_its_figures():
    """For Gopher's budget of 5.76e23 FLOPs: some 70B parameters and 20 tokens each (arXiv:2404.10102); by the constants
    as first printed some 32B parameters (the paper's third approach, which the two others contradict)."""
    n, d = CHINCHILLA_REFITTED.split(5.76e23)
    assert 65e9 < n < 80e9 and 15 < d / n < 25
    assert 25e9 < CHINCHILLA.split(5.76e23)[0] < 45e9


@pytest.mark.parametrize(
    ("parameters", "tokens", "message"),
    [
        (1e9, 1e6, "2,174 times the most of any run"),
        (1e5, 1e9, "tokens are 312 times"),
        (1e3, 1e6, "fewer than a tenth"),
    ],
)
def test_what_lies_far_outside_the_runs_is_not_supported(parameters, tokens, message):
    fitted = fit(runs(0.001))
    assert fitted.unsupported(1.6e6, 3.2e6) is None
    assert message in str(fitted.unsupported(parameters, tokens))


def test_an_exponent_that_is_open_is_not_supported():
    assert "is open" in str(fit(runs(0.1)).unsupported(1e5, 1e6))


@pytest.mark.parametrize(
    ("kept", "message"),
    [
        (lambda run: run.tokens == TOKENS[0], "4 runs: a law has five constants: train at least 6"),
        (lambda run: run.parameters == SIZES[0] or run.tokens < 5e5, None),
        (lambda run: run.parameters > 2e5, "too much alike: their parameters go from 2.2e"),
        (lambda run: run.tokens in TOKENS[2:], "too much alike: their tokens"),
        (lambda run: run.tokens in (TOKENS[0], TOKENS[-1]), "only 2 different numbers of tokens: add a third"),
    ],
)
def test_runs_that_say_too_little_are_refused_with_what_is_missing(kept, message):
    chosen = [run for run in runs() if kept(run)]
    if message is None:
        fit(chosen)
        return
    with pytest.raises(DataError, match=message):
        fit(chosen)


# ---- runs on disk -----------------------------------------------------------------------------------


def write(folder, width: int, tokens: int, *, loss: float | None = None, total: int = 100, **changed):
    """A run as training leaves it, without its weights."""
    block = BlockConfig(
        mixer=AttentionConfig(heads=1, visibility=Causal()), mlp=FeedForward(hidden=4 * width), norm=LayerNorm()
    )
    model = TransformerConfig(vocab=50, dim=width, decoder=TowerConfig(depth=1, pattern=(block,)))
    with torch.device("meta"):
        parameters = sum(p.numel() for p in model.build().parameters())
    path = folder / f"{width}-{tokens}"
    path.mkdir()
    config = {"task": {"kind": "language_modelling"}, "data": {"valid": ["v.txt"]}, "model": to_dict(model)} | changed
    (path / "config.yaml").write_text(json.dumps(config))
    loss = TRUE.loss(parameters, tokens) if loss is None else loss
    lines = [
        {"kind": "train", "step": 50, "total": total, "tokens": tokens / 2},
        {"kind": "valid", "step": 50, "loss": 9.0},
        {"kind": "train", "step": 100, "total": total, "tokens": tokens},
        {"kind": "valid", "step": 100, "loss": loss},
    ]
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture
def family(tmp_path):
    return [write(tmp_path, width, tokens) for width in (16, 32, 64, 128) for tokens in (100_000, 300_000, 900_000)]


def test_a_law_is_fitted_to_the_runs_in_a_folder(family, tmp_path, capsys):
    print_laws(family, as_json=True, predict=(5e5, 1e6), flops=1e13, plot=tmp_path / "law.svg")
    found = json.loads(capsys.readouterr().out)
    assert math.isclose(found["law"]["alpha"]["value"], TRUE.alpha, rel_tol=1e-3)
    assert abs(found["trial"]["error"]) < 1e-6 and found["trial"]["run"].endswith("128-900000")
    assert math.isclose(found["predictions"][0]["loss"], TRUE.loss(5e5, 1e6), rel_tol=1e-3)
    (split,) = found["budgets"]
    assert math.isclose(6 * split["parameters"] * split["tokens"], 1e13)
    assert (tmp_path / "law.svg").read_text().startswith("<svg")


def test_the_table_says_what_was_predicted_and_what_measured(family, capsys):
    print_laws(family)
    shown = " ".join(capsys.readouterr().out.split())
    assert "was left out" in shown and "off by" in shown and "best split of a budget" in shown


def test_runs_that_have_not_ended_are_left_out_by_name(family, tmp_path, capsys):
    half = write(tmp_path, 16, 50_000, total=200)
    print_laws([*family, half])
    assert "left out: it ended at step 100 of 200: continue it with --resume" in " ".join(
        capsys.readouterr().out.split()
    )


def test_directories_that_are_no_runs_are_passed_over_by_name(family, tmp_path, capsys):
    (tmp_path / "notes").mkdir()
    print_laws([*family, tmp_path / "notes"])
    assert "left out: no run, it has no config.yaml" in " ".join(capsys.readouterr().out.split())
    with pytest.raises(DataError, match="name the directories of runs"):
        print_laws([tmp_path / "notes"])
    with pytest.raises(CheckpointError, match="no such run directory"):
        print_laws([*family, tmp_path / "missing"])


@pytest.mark.parametrize(
    ("changed", "message"),
    [({"data": {"valid": ["other.txt"]}}, "its validation text"), ({"task": {"kind": "translation"}}, "its task")],
)
def test_losses_that_cannot_be_compared_are_refused(family, tmp_path, changed, message):
    other = write(tmp_path, 16, 200_000, **changed)
    with pytest.raises(DataError, match=f"{message} is not that of .* give runs that differ in size and budget alone"):
        print_laws([*family, other])


@pytest.mark.parametrize(
    "tokenizers",
    [
        {"tokenizer.json": "another"},
        {"source.tokenizer.json": "one", "target.tokenizer.json": "another"},
        {"source.tokenizer.json": "another", "target.tokenizer.json": "two"},
    ],
)
def test_losses_in_tokens_of_another_tokenizer_are_refused(family, tmp_path, tokenizers):
    usual = {"tokenizer.json": "one"} if len(tokenizers) == 1 else dict.fromkeys(tokenizers, "one")
    usual |= {"target.tokenizer.json": "two"} if len(tokenizers) == 2 else {}
    other = write(tmp_path, 16, 200_000)
    for run, files in [*((run, usual) for run in family), (other, tokenizers)]:
        for name, content in files.items():
            (run / name).write_text(content)
    with pytest.raises(DataError, match="its tokenizer is not that of"):
        print_laws([*family, other])


def test_runs_that_were_not_trained_here_are_left_out_by_name(family, tmp_path, capsys):
    imported = write(tmp_path, 16, 200_000)
    (imported / "metrics.jsonl").unlink()
    print_laws([*family, imported])
    assert f"{imported}: left out: it was never validated" in " ".join(capsys.readouterr().out.split())


def test_figures_that_cannot_be_read_are_an_error_with_their_path(family, tmp_path):
    broken = write(tmp_path, 16, 200_000)
    (broken / "metrics.jsonl").unlink()
    (broken / "metrics.jsonl").mkdir()
    with pytest.raises(CheckpointError, match=r"metrics\.jsonl: cannot be read"):
        print_laws([*family, broken])
