"""Small models to pretrain on plain text and fine-tune later: an encoder and an encoder-decoder."""

from dragoman.config import to_dict
from dragoman.model.attention import AttentionConfig
from dragoman.model.encoder import EncoderConfig
from dragoman.model.heads import MaskedLanguageHead
from dragoman.model.init import Xavier
from dragoman.model.inputs import TokenInput
from dragoman.model.masks.visibility import Full
from dragoman.model.mlp import Gated
from dragoman.model.norm import RmsNorm
from dragoman.model.positions.rotary import Rotary
from dragoman.model.tower import BlockConfig, TowerConfig
from dragoman.presets.plain import Plain
from dragoman.presets.translation import rewritten2026


def _recipe(task: Plain, model: Plain) -> Plain:
    return {
        "task": task,
        "tokenizer": {"kind": "bpe", "vocab": 8000},
        "model": model,
        "train": {
            "budget": {"kind": "steps", "steps": 10_000},
            "optimizer": {"kind": "adam_w", "betas": [0.9, 0.98], "weight_decay": 0.1},
            "schedule": {"kind": "warmup_stable_decay", "peak": 2e-3, "warmup": 500, "decay": 0.5},
            "batch_tokens": 4096,
        },
    }


def encoder_small() -> Plain:
    """Masked language model (BERT, arXiv:1810.04805) with the encoder of classifier-small; an evening on a laptop."""
    block = BlockConfig(
        mixer=AttentionConfig(heads=4, position=Rotary(), visibility=Full(), dropout=0.1),
        mlp=Gated(hidden=344, dropout=0.1),
        norm=RmsNorm(),
        dropout=0.1,
    )
    model = EncoderConfig(
        dim=128,
        inputs=TokenInput(scale=True, dropout=0.1),
        tower=TowerConfig(depth=3, pattern=(block,), final_norm=RmsNorm()),
        head=MaskedLanguageHead(norm=RmsNorm()),
        init=Xavier(depth_scaled=True),
    )
    return _recipe({"kind": "masked_language_modelling", "context": 128}, to_dict(model))


def denoiser_small() -> Plain:
    """Denoising (T5, arXiv:1910.10683) for the model of transformer-small; an evening on a laptop."""
    model = rewritten2026(dim=256, heads=4, kv_heads=2, hidden=768, depth=4, dropout=0.1)
    return _recipe({"kind": "denoising", "context": 128}, to_dict(model))
