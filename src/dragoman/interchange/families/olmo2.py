"""OLMo 2: norms on the output of each sublayer, and on all queries and keys of a token together (arXiv:2501.00656)."""

from dragoman.interchange.families import llama
from dragoman.interchange.family import Family, HubConfig
from dragoman.interchange.names import NameTable
from dragoman.model.mlp import Gated
from dragoman.model.norm import ProjectionRmsNorm, RmsNorm
from dragoman.model.transformer import BlockConfig, TransformerConfig

TABLE: NameTable = (
    llama.ATTENTION
    | llama.MLP
    | {
        "model.layers.{i}.post_attention_layernorm.{leaf}": "decoder.blocks.{i}.mixer_residual.output.{leaf}",
        "model.layers.{i}.post_feedforward_layernorm.{leaf}": "decoder.blocks.{i}.mlp_residual.output.{leaf}",
    }
)


def config(given: HubConfig) -> TransformerConfig:
    eps = given.get("rms_norm_eps", 1e-5)
    block = BlockConfig(
        mixer=llama.attention(given, qk_norm=ProjectionRmsNorm(eps=eps)),
        mlp=Gated(hidden=given["intermediate_size"], activation=given.activation("hidden_act")),
        norm=RmsNorm(eps=eps),
        placement="output",
    )
    return llama.model(given, [block], RmsNorm(eps=eps))


FAMILY = Family(
    name="olmo2",
    architectures=("Olmo2ForCausalLM",),
    model_type="olmo2",
    table=lambda cfg: TABLE,
    config=config,
    describe=llama.describe,
    prefix="model.",
)
