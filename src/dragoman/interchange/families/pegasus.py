"""Pegasus: Marian's encoder-decoder with norms before its sublayers, for summaries (arXiv:1912.08777)."""

from dragoman.interchange.families import marian, mbart
from dragoman.interchange.family import Family, HubConfig
from dragoman.model.norm import NoNorm
from dragoman.model.positions.position import Sinusoidal
from dragoman.model.transformer import TransformerConfig

TABLE = mbart.pre_norm(marian.TABLE)


def config(given: HubConfig) -> TransformerConfig:
    given.only("normalize_embedding", False)
    given.only("add_final_layer_norm", True)
    given.only("static_position_embeddings", True)
    given.only("add_bias_logits", False)
    given.only("extra_pos_embeddings", 1)  # rows of a table that is computed
    given.only("force_bos_token_to_be_generated", False)
    return marian.model(given, Sinusoidal(layout="halves"), NoNorm(), placement="pre")


FAMILY = Family(
    name="pegasus",
    architectures=("PegasusForConditionalGeneration", "PegasusModel"),
    model_type="pegasus",
    table=lambda cfg: TABLE,
    config=config,
    describe=marian.describe,
    prefix="model.",
    aliases=marian.ALIASES,
    shape="encoder-decoder",
)
