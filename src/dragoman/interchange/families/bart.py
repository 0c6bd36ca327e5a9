"""BART: the 2017 encoder-decoder with learned positions and a norm on the embeddings (arXiv:1910.13461)."""

from dragoman.interchange.families import marian
from dragoman.interchange.family import Family, HubConfig
from dragoman.interchange.names import NameTable
from dragoman.model.norm import LayerNorm
from dragoman.model.positions.position import Learned
from dragoman.model.transformer import TransformerConfig

TABLE: NameTable = marian.TABLE | {
    "model.encoder.embed_positions.weight": "source_embed.position.weight",
    "model.decoder.embed_positions.weight": "embed.position.weight",
    "model.encoder.layernorm_embedding.{leaf}": "source_embed.norm.{leaf}",
    "model.decoder.layernorm_embedding.{leaf}": "embed.norm.{leaf}",
}


def config(given: HubConfig) -> TransformerConfig:
    given.only("add_final_layer_norm", False)
    positions = Learned(length=given["max_position_embeddings"], offset=2)
    return marian.model(given, positions, LayerNorm())


FAMILY = Family(
    name="bart",
    architectures=("BartForConditionalGeneration", "BartModel"),
    model_type="bart",
    table=lambda cfg: TABLE,
    config=config,
    describe=marian.describe,
    prefix="model.",
    aliases=marian.ALIASES,
    shape="encoder-decoder",
)
