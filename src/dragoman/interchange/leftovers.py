"""Leftover tensors of a folder, which our model does not use: known to be unused, copies, or a reason to refuse."""

import re
from collections.abc import Collection, Iterable

import torch

from dragoman.errors import CheckpointError
from dragoman.interchange.tensors import TensorShards

_UNUSED: dict[str, str] = {
    r"(.*\.)?rotary_emb\.inv_freq": "frequencies of rotary positions, which are computed",
    r"(.*\.)?position_ids": "numbers of positions, which are computed",
    r"(transformer\.)?h\.\d+\.attn\.(masked_)?bias": "causal masks, which are computed",
    r"(.*\.)?pooler\.dense\.(weight|bias)": "a pooler, which this task does not use",
    r"cls\.seq_relationship\.(weight|bias)": "the head for the next sentence, which is not used",
    r"sop_classifier\.classifier\.(weight|bias)": "the head for the order of sentences, which is not used",
    r"discriminator_predictions\..*": "the head that tells replaced tokens, which is not used",
    r"albert\.pooler\.(weight|bias)|pooler\.(weight|bias)": "a pooler, which this task does not use",
    r"(model\.)?(en|de)coder\.version": "the number of a version",
    r"decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\.weight": (
        "positions between source and target, which T5 does not use"
    ),
}
_SINUSOIDS = {r"(model\.)?(en|de)coder\.embed_positions\.weights?": "sines and cosines, which are computed"}
_UNUSED_BY_FAMILY: dict[str, dict[str, str]] = {
    "dinov2": {r"(dinov2\.)?embeddings\.mask_token": "the vector of hidden patches, which its training used"},
    "siglip": {
        r"(text_model\..*|logit_scale|logit_bias)": "what reads texts",
        r"(vision_model\.)?embeddings\.position_ids": "numbers of positions, which are computed",
    },
    "gemma3": {r"(model\.)?(vision_tower|multi_modal_projector)\..*": "what reads images"},
    "marian": _SINUSOIDS,
    "pegasus": _SINUSOIDS,
    "m2m_100": _SINUSOIDS,
}
_HEADS = (
    r"(cls|lm_head|classifier|qa_outputs|predictions|generator_predictions|generator_lm_head|vocab_transform"
    r"|lm_predictions|mask_predictions|vocab_layer_norm|vocab_projector|pre_classifier|head|decoder)\..*"
)
_COPIES = re.compile(
    r"((.*\.)?lm_head\.(weight|bias)|proj_out\.weight|(.*\.)?embed_tokens\.weight|(model\.)?shared\.weight|(.*\.)?decoder\.(weight|bias))"
)
"""Names of tensors that tied models may store a second time."""
_SHOWN = 3


def describe_leftovers(
    shards: TensorShards, used: Collection[str], copied: Iterable[str], family: str, *, headless: bool
) -> list[str]:
    """Return a line for each kind of tensor that is known to be unused.

    Args:
        used: names of the tensors that the model uses.
        copied: names among them that other tensors may repeat.
        headless: whether the model is an encoder without a head, which needs none of the folder's heads.

    Raises:
        CheckpointError: tensors that would change what the model computes, or that are not known.
    """
    known = _UNUSED | _UNUSED_BY_FAMILY.get(family, {}) | ({_HEADS: "a head of another task"} if headless else {})
    found: dict[str, int] = {}
    strange = []
    for name in sorted(set(shards.names) - set(used)):
        why = next((why for pattern, why in known.items() if re.fullmatch(pattern, name)), None)
        if why is not None:
            found[why] = found.get(why, 0) + 1
        elif not (_COPIES.fullmatch(name) and _repeats(shards, name, copied)):
            strange.append(name)
    if strange:
        more = f" and {len(strange) - _SHOWN} more" if len(strange) > _SHOWN else ""
        raise CheckpointError(
            f"{shards.folder}: the weights hold {', '.join(strange[:_SHOWN])}{more}, for which the model of "
            "config.json has no place: without them it would answer otherwise; correct config.json, or remove them"
        )
    return [f"weights: not used: {why} ({count})" for why, count in found.items()]


def _repeats(shards: TensorShards, name: str, others: Iterable[str]) -> bool:
    """Return whether a tensor equals one of ``others``."""
    shape = shards.shape(name)
    return any(
        shards.shape(other)[-len(shape) :] == shape and torch.equal(shards[other].reshape(shape), shards[name])
        for other in others
        if torch.Size(shards.shape(other)).numel() == torch.Size(shape).numel()
    )
