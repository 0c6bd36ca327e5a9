"""Qwen 3 with mixtures of experts in the place of most feed-forwards (arXiv:2505.09388)."""

from typing import Any

from dragoman.errors import ConfigError
from dragoman.interchange.families import llama
from dragoman.interchange.family import Family, HubConfig, their_activation
from dragoman.interchange.names import NameTable
from dragoman.model.masks.visibility import Causal
from dragoman.model.mlp import Gated
from dragoman.model.moe import Mixture
from dragoman.model.transformer import BlockConfig, TransformerConfig

_THEIRS, _OURS = "model.layers.{i}.mlp", "decoder.blocks.{i}.mlp"
TABLE: NameTable = llama.TABLE | {
    f"{_THEIRS}.gate.{{leaf}}": f"{_OURS}.router.{{leaf}}",
    f"{_THEIRS}.experts.{{j}}.gate_proj.{{leaf}}": f"{_OURS}.experts.{{j}}.gate.{{leaf}}",
    f"{_THEIRS}.experts.{{j}}.up_proj.{{leaf}}": f"{_OURS}.experts.{{j}}.up.{{leaf}}",
    f"{_THEIRS}.experts.{{j}}.down_proj.{{leaf}}": f"{_OURS}.experts.{{j}}.out.{{leaf}}",
}


def dense_layers(given: HubConfig) -> list[bool]:
    """Return for each layer whether its feed-forward is a plain one, from mlp_only_layers and decoder_sparse_step.

    Raises:
        ConfigError: a list that is none, or a step that is no whole number above 0.
    """
    listed, step = given.get("mlp_only_layers", []), given.get("decoder_sparse_step", 1)
    if not isinstance(listed, list) or not all(type(i) is int for i in listed):
        raise ConfigError(f"{given.where}: mlp_only_layers: expected a list of numbers of layers, got {listed!r}")
    if type(step) is not int or step < 1:
        raise ConfigError(f"{given.where}: decoder_sparse_step: expected a whole number above 0, got {step!r}")
    return [i in listed or (i + 1) % step != 0 for i in range(given["num_hidden_layers"])]


def mixture(given: HubConfig) -> Mixture:
    """Return the mixture of experts; its count is ``num_experts`` in published files, ``num_local_experts`` in new."""
    experts, older = given.get("num_local_experts"), given.get("num_experts")
    return Mixture(
        experts=experts or older or given["num_experts"],
        active=given["num_experts_per_tok"],
        expert=Gated(hidden=given["moe_intermediate_size"], activation=given.activation("hidden_act")),
        normalize=bool(given.get("norm_topk_prob", False)),
        balance=given.get("router_aux_loss_coef", 0.001),
    )


def config(given: HubConfig) -> TransformerConfig:
    norm, experts = llama.rms_norm(given), mixture(given)
    given.read.add("sliding_window")  # unused without use_sliding_window
    window = given["sliding_window"] if given.get("use_sliding_window", False) else None
    attention = llama.attention(given, qk_norm=norm, visibility=Causal(window=window))
    dense = Gated(hidden=given["intermediate_size"], activation=given.activation("hidden_act"))
    blocks = [BlockConfig(mixer=attention, mlp=dense if plain else experts, norm=norm) for plain in dense_layers(given)]
    return llama.model(given, blocks, norm)


def describe(cfg: TransformerConfig) -> dict[str, Any]:
    layers = [cfg.decoder.pattern[i % len(cfg.decoder.pattern)] for i in range(cfg.decoder.depth)]
    mixtures = [layer.mlp for layer in layers if isinstance(layer.mlp, Mixture)]
    if not mixtures:
        raise ConfigError("model.decoder.pattern.0.mlp: this layout has mixtures of experts")
    window, first = layers[0].attention.visibility.window, mixtures[0]
    plain = [layer.mlp for layer in layers if isinstance(layer.mlp, Gated)]
    return llama.describe(cfg) | {
        "hidden_act": llama.describe(cfg)["hidden_act"] if plain else their_activation(first.expert.activation),
        "intermediate_size": plain[0].hidden if plain else first.expert.hidden,
        "moe_intermediate_size": first.expert.hidden,
        "num_local_experts": first.experts,
        "num_experts_per_tok": first.active,
        "norm_topk_prob": first.normalize,
        "router_aux_loss_coef": first.balance,
        "mlp_only_layers": [i for i, layer in enumerate(layers) if not isinstance(layer.mlp, Mixture)],
        "use_sliding_window": window is not None,
        "sliding_window": window,
    }


FAMILY = Family(
    name="qwen3_moe",
    architectures=("Qwen3MoeForCausalLM",),
    model_type="qwen3_moe",
    table=lambda cfg: TABLE,
    config=config,
    describe=describe,
    prefix="model.",
)
