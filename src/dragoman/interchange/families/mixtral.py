"""Mixtral: Mistral whose feed-forwards are mixtures of experts (arXiv:2401.04088)."""

from typing import Any

from dragoman.interchange.families import llama, mistral
from dragoman.interchange.family import Family, HubConfig
from dragoman.interchange.names import NameTable
from dragoman.model.moe import Mixture
from dragoman.model.transformer import BlockConfig, TransformerConfig

TABLE: NameTable = (
    llama.ATTENTION
    | llama.PRE_NORM
    | {
        "model.layers.{i}.block_sparse_moe.gate.{leaf}": "decoder.blocks.{i}.mlp.router.{leaf}",
        "model.layers.{i}.block_sparse_moe.experts.{j}.w1.{leaf}": "decoder.blocks.{i}.mlp.experts.{j}.gate.{leaf}",
        "model.layers.{i}.block_sparse_moe.experts.{j}.w3.{leaf}": "decoder.blocks.{i}.mlp.experts.{j}.up.{leaf}",
        "model.layers.{i}.block_sparse_moe.experts.{j}.w2.{leaf}": "decoder.blocks.{i}.mlp.experts.{j}.out.{leaf}",
    }
)


def config(given: HubConfig) -> TransformerConfig:
    norm = llama.rms_norm(given)
    mixture = Mixture(
        experts=given["num_local_experts"],
        active=given["num_experts_per_tok"],
        expert=llama.gated(given),
        balance=given.get("router_aux_loss_coef", 0.001),
    )
    blocks = [
        BlockConfig(mixer=llama.attention(given, bias=False, visibility=mask), mlp=mixture, norm=norm)
        for mask in llama.windows(given, every=given.get("sliding_window") is not None)
    ]
    return llama.model(given, blocks, norm)


def describe(cfg: TransformerConfig) -> dict[str, Any]:
    mixture = cfg.decoder.pattern[0].mlp
    expert = getattr(mixture, "expert", mixture)
    return mistral.describe(cfg) | {
        "intermediate_size": getattr(expert, "hidden", 1),
        "num_local_experts": getattr(mixture, "experts", 1),
        "num_experts_per_tok": getattr(mixture, "active", 1),
        "router_aux_loss_coef": getattr(mixture, "balance", 0.0),
    }


FAMILY = Family(
    name="mixtral",
    architectures=("MixtralForCausalLM",),
    model_type="mixtral",
    table=lambda cfg: TABLE,
    config=config,
    describe=describe,
    prefix="model.",
)
