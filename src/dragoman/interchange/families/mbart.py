"""mBART and mBART-50: BART with norms before its sublayers and at the end of each tower (arXiv:2001.08210)."""

from dragoman.interchange.families import bart, marian
from dragoman.interchange.family import Family, HubConfig
from dragoman.interchange.names import NameTable, TensorForm
from dragoman.model.norm import LayerNorm
from dragoman.model.positions.position import Learned
from dragoman.model.transformer import TransformerConfig


def pre_norm(table: NameTable) -> NameTable:
    """Return a table of names with each sublayer's norm before it, and a norm at the end of both towers."""
    found: NameTable = {
        theirs: ours if isinstance(ours, TensorForm) else ours.replace("_residual.after.", "_residual.before.")
        for theirs, ours in table.items()
    }
    return found | {
        f"model.{side}.layer_norm.{{leaf}}": f"{side}.final_norm.{{leaf}}" for side in ("encoder", "decoder")
    }


TABLE = pre_norm(bart.TABLE)


def config(given: HubConfig) -> TransformerConfig:
    given.only("normalize_embedding", True)
    given.only("add_final_layer_norm", True)
    given.only("static_position_embeddings", False)
    given.only("add_bias_logits", False)
    positions = Learned(length=given["max_position_embeddings"], offset=2)
    return marian.model(given, positions, LayerNorm(), placement="pre")


FAMILY = Family(
    name="mbart",
    architectures=("MBartForConditionalGeneration", "MBartModel"),
    model_type="mbart",
    table=lambda cfg: TABLE,
    config=config,
    describe=marian.describe,
    prefix="model.",
    aliases=marian.ALIASES,
    shape="encoder-decoder",
)
