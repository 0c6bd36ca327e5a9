"""Small models with sparse attention, for long texts on one's own machine: as many parameters as their dense peers."""

import dataclasses

from dragoman.config import to_dict
from dragoman.model.big_bird import BigBird
from dragoman.model.longformer import Longformer
from dragoman.model.reformer import Reformer
from dragoman.model.sparse_transformer import FixedAttention, StridedAttention
from dragoman.model.tower import Mixer
from dragoman.presets.plain import Plain
from dragoman.presets.small import llama_style, lm_small


def _language(*mixers: Mixer, hidden: int = 688) -> Plain:
    """lm-small with these mixers in turn, for texts of 1,024 tokens."""
    model = llama_style(dim=256, depth=6, heads=4, hidden=hidden, dropout=0.1)
    (block,) = model.decoder.pattern
    pattern = tuple(dataclasses.replace(block, mixer=mixer) for mixer in mixers)
    sparse = dataclasses.replace(model, decoder=dataclasses.replace(model.decoder, pattern=pattern))
    plain = lm_small()
    longer = {"task": plain["task"] | {"context": 1024}, "model": to_dict(sparse)}
    return plain | longer | {"train": plain["train"] | {"batch_tokens": 8 * 1024}}


def longformer_small() -> Plain:
    """lm-small with a window of 128 tokens and the first token global (Longformer, arXiv:2004.05150)."""
    return _language(Longformer(heads=4, window=128))


def bigbird_small() -> Plain:
    """lm-small with blocks of 32 tokens: two near, one global, two random (BigBird, arXiv:2007.14062). Layers alternate
    between two draws of the random blocks."""
    mixer = BigBird(heads=4, block=32, window=64, global_blocks=1, random_blocks=2)
    return _language(mixer, dataclasses.replace(mixer, seed=1))


def sparse_transformer_small() -> Plain:
    """lm-small with strided and fixed attention in turn, of stride 32 (Sparse Transformer, arXiv:1904.10509)."""
    return _language(StridedAttention(heads=4, stride=32), FixedAttention(heads=4, stride=32, summary=4))


def reformer_small() -> Plain:
    """lm-small with attention in buckets, two rounds of 32 (Reformer, arXiv:2001.04451). Queries and keys are one
    projection; a wider feed-forward takes its place."""
    return _language(Reformer(heads=4, buckets=32, rounds=2, chunk=64), hidden=773)
