"""M2M-100 and NLLB-200: norms before sublayers, and sines and cosines that count from 2 (arXiv:2010.11125,
arXiv:2207.04672)."""

from typing import Any

from dragoman.interchange.families import marian, mbart
from dragoman.interchange.family import Family, HubConfig
from dragoman.model.norm import NoNorm
from dragoman.model.positions.position import InclusiveSinusoidal
from dragoman.model.transformer import TransformerConfig

TABLE = mbart.pre_norm({theirs: ours for theirs, ours in marian.TABLE.items() if theirs != "final_logits_bias"})


def config(given: HubConfig) -> TransformerConfig:
    position = InclusiveSinusoidal(offset=given.get("pad_token_id", 1) + 1)
    return marian.model(given, position, NoNorm(), placement="pre", output_bias=False)


def describe(cfg: TransformerConfig) -> dict[str, Any]:
    return marian.describe(cfg) | {"pad_token_id": getattr(cfg.position, "offset", 2) - 1}


FAMILY = Family(
    name="m2m_100",
    architectures=("M2M100ForConditionalGeneration", "M2M100Model"),
    model_type="m2m_100",
    table=lambda cfg: TABLE,
    config=config,
    describe=describe,
    prefix="model.",
    aliases=marian.ALIASES,
    shape="encoder-decoder",
)
