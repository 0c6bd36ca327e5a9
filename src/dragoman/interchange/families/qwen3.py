"""Qwen 3: no biases, norms on each head's queries and keys (arXiv:2505.09388)."""

from dragoman.interchange.families import llama, qwen2
from dragoman.interchange.family import Family, HubConfig
from dragoman.model.transformer import BlockConfig, TransformerConfig


def config(given: HubConfig) -> TransformerConfig:
    norm = llama.rms_norm(given)
    head_dim = given.get("head_dim", 128)
    blocks = [
        BlockConfig(
            mixer=llama.attention(given, head_dim=head_dim, qk_norm=norm, visibility=mask),
            mlp=llama.gated(given),
            norm=norm,
        )
        for mask in qwen2.masks(given)
    ]
    return llama.model(given, blocks, norm)


FAMILY = Family(
    name="qwen3",
    architectures=("Qwen3ForCausalLM",),
    model_type="qwen3",
    table=lambda cfg: llama.TABLE,
    config=config,
    describe=lambda cfg: llama.describe(cfg) | qwen2.layer_types(cfg),
    prefix="model.",
)
