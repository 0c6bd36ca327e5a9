"""Phi 3 and 4: LLaMA whose matrices with one input are stored as one, and LongRoPE (arXiv:2404.14219)."""

from typing import Any

from dragoman.interchange.families import llama, mistral
from dragoman.interchange.family import Family, HubConfig
from dragoman.interchange.names import NameTable, TensorForm
from dragoman.interchange.rope import read_rotary, rope_settings
from dragoman.model.masks.visibility import Causal
from dragoman.model.mlp import Gated
from dragoman.model.transformer import BlockConfig, TransformerConfig

_THEIRS, _OURS = "model.layers.{i}", "decoder.blocks.{i}"
_ALONE = {name: ours for name, ours in llama.TABLE.items() if not any(part in name for part in ("self_attn", "mlp"))}
TABLE: NameTable = _ALONE | {
    f"{_THEIRS}.self_attn.qkv_proj.weight": TensorForm(tuple(f"{_OURS}.mixer.{part}.weight" for part in "qkv")),
    f"{_THEIRS}.self_attn.o_proj.weight": f"{_OURS}.mixer.out.weight",
    f"{_THEIRS}.mlp.gate_up_proj.weight": TensorForm(tuple(f"{_OURS}.mlp.{part}.weight" for part in ("gate", "up"))),
    f"{_THEIRS}.mlp.down_proj.weight": f"{_OURS}.mlp.out.weight",
}


def with_current_rope(given: HubConfig) -> HubConfig:
    """Return a config.json where LongRoPE has its present name; the first files called it ``su``, or ``yarn``."""
    changed = {}
    for name in ("rope_parameters", "rope_scaling"):
        settings = rope_settings(given, name)
        if settings.get("rope_type", settings.get("type")) in ("su", "yarn"):
            changed[name] = {k: v for k, v in settings.items() if k != "type"} | {"rope_type": "longrope"}
    return given.changed(**changed)


def config(given: HubConfig) -> TransformerConfig:
    given, norm = with_current_rope(given), llama.rms_norm(given)
    given.read.add("original_max_position_embeddings")  # unused without LongRoPE
    attention = llama.attention(
        given,
        position=read_rotary(given, partial=True),
        visibility=Causal(window=given.get("sliding_window")),
        bias=False,
    )
    mlp = Gated(hidden=given["intermediate_size"], activation=given.activation("hidden_act"))
    return llama.model(given, [BlockConfig(mixer=attention, mlp=mlp, norm=norm)], norm)


def describe(cfg: TransformerConfig) -> dict[str, Any]:
    described = mistral.describe(cfg)
    trained = described["rope_parameters"].get("original_max_position_embeddings")
    return described | ({"original_max_position_embeddings": trained} if trained else {})


FAMILY = Family(
    name="phi3",
    architectures=("Phi3ForCausalLM",),
    model_type="phi3",
    table=lambda cfg: TABLE,
    config=config,
    describe=describe,
    prefix="model.",
)
