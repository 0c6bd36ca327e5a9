"""umT5: T5 1.1 with a table of biases in every layer (arXiv:2304.09151)."""

from dragoman.interchange.families import t5
from dragoman.interchange.family import Family, HubConfig
from dragoman.interchange.names import NameTable
from dragoman.model.transformer import TransformerConfig

_BIAS = "layer.0.SelfAttention.relative_attention_bias.weight"


def table(cfg: TransformerConfig) -> NameTable:
    shared = {theirs: ours for theirs, ours in t5.table(cfg).items() if "relative_attention_bias" not in theirs}
    return shared | {
        f"{side}.block.{{i}}.{_BIAS}": f"{side}.schemes.{{i}}.table.weight" for side in ("encoder", "decoder")
    }


def config(given: HubConfig) -> TransformerConfig:
    return t5.config(given, shared=False)


FAMILY = Family(
    name="umt5",
    architectures=("UMT5ForConditionalGeneration",),
    model_type="umt5",
    table=table,
    config=config,
    describe=t5.describe,
    aliases={**t5.FAMILY.aliases, "lm_head.weight": ("shared.weight",)},
    shape="encoder-decoder",
)
