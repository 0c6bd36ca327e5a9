"""Learning rates by part: each weight moves by its share of what one rate for all would move it."""

from typing import get_args

import pytest
import tiny_run
import torch

from dragoman.config import from_dict, to_dict
from dragoman.errors import ConfigError
from dragoman.model.families import ModelConfig
from dragoman.train import recipe
from dragoman.train.changes import changed
from dragoman.train.loop import LoopProgress, MicroBatch, StepRules, train_step
from dragoman.train.optimize import Optimizer
from dragoman.train.rates import ByName, Layerwise, Uniform, apply_rate_factors

OPTIMIZERS = get_args(get_args(Optimizer)[0])
BY_NAME = ByName(factors={"*.blocks.0.mixer.*": 0.25, "*.blocks.0.*": 0.5, "output.weight": 0.125})


def model(depth=1):
    torch.manual_seed(0)
    towers = {side: tiny_run.MODEL[side] | {"depth": depth} for side in ("encoder", "decoder")}
    return from_dict(ModelConfig, tiny_run.MODEL | towers | {"vocab": 20}).build().double().eval()


def moved(optimizer, rates):
    """How far a step moves each weight."""
    module, ids = model(), torch.arange(3, 19).view(2, 8)
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    built = optimizer().build(module)
    apply_rate_factors(built, rates.shares(module))

    def loss(module, batch):
        return module(batch, batch).square().sum(), torch.tensor(16)

    train_step(
        module, loss, [MicroBatch(ids, (0,))], built, LoopProgress(), lr=1e-2, rules=StepRules(seed=1, clip=None)
    )
    return {name: p.detach() - before[name] for name, p in module.named_parameters()}


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda optimizer: optimizer.__name__)
def test_a_weight_moves_by_its_share_and_the_first_pattern_that_fits_it_counts(optimizer):
    whole, parts = moved(optimizer, Uniform()), moved(optimizer, BY_NAME)
    for name, distance in whole.items():
        share = 0.25 if ".mixer." in name else 0.5 if ".blocks." in name else 0.125  # the output is the embedding
        torch.testing.assert_close(parts[name], share * distance, rtol=1e-9, atol=1e-12, msg=name)


def test_layerwise_rates_fall_from_the_last_layer_to_the_embeddings():
    module = model(depth=3)
    shares = Layerwise(decay=0.5).shares(module)
    found = {name: shares.get(p, 1.0) for name, p in module.named_parameters()}
    assert found["decoder.blocks.2.mlp.up.weight"] == found["encoder.blocks.2.mixer.q.weight"] == 1
    assert found["decoder.blocks.1.cross.q.weight"] == 0.5
    assert found["encoder.blocks.0.mlp.out.bias"] == 0.25
    assert found["embed.tokens.weight"] == 0.125


def test_a_name_that_no_weight_has_is_told_with_what_may_be_meant():
    with pytest.raises(ConfigError, match=r"train\.rates: 'decodr\.\*' is no weight .* did you mean 'decoder\.\*'\?"):
        ByName(factors={"decodr.*": 0.1}).shares(model())


def test_rates_are_written_as_a_run_file_has_them(tmp_path):
    plain = to_dict(tiny_run.config(tmp_path / "pairs.tsv"))
    plain["train"]["rates"] = {"factors": {"embed.*": 0.1}}
    assert recipe.load(plain).train.rates == ByName(factors={"embed.*": 0.1})
    plain["train"]["rates"] = {"factors": {"embed.*": 0}}
    with pytest.raises(ConfigError, match=r"train\.rates\.factors\.embed\.\*: must be greater than 0"):
        recipe.load(plain)


def test_a_run_from_before_there_were_rates_goes_on(tmp_path):
    plain = to_dict(tiny_run.config(tmp_path / "pairs.tsv"))
    older = plain | {"train": {name: value for name, value in plain["train"].items() if name != "rates"}}
    assert changed(older, plain, deliberate=False, where="run")[1] == []
