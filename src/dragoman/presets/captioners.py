"""Small language models that read an image before their text, with recipes."""

import dataclasses

from dragoman.model.heads import NoHead
from dragoman.model.inputs import PatchInput
from dragoman.model.masks.visibility import Prefix
from dragoman.model.positions.position import NoPosition
from dragoman.model.positions.rotary import Rotary
from dragoman.model.prefixed import PrefixedTransformerConfig
from dragoman.model.projector import MlpProjector
from dragoman.model.transformer import TransformerConfig
from dragoman.presets.plain import Plain
from dragoman.presets.readers import reader, recipe


def captioner_tiny() -> Plain:
    """Captions of images of 32 x 32 pixels; give other sizes for others."""
    images = PatchInput(size=(32, 32), patch=4, channels=3, class_token=False, dropout=0.1)
    encoder = reader(images, NoHead(), dim=128, depth=4, hidden=344, dropout=0.1, position=NoPosition())
    (block,) = reader(images, NoHead(), dim=128, depth=1, hidden=344, dropout=0.1, position=Rotary()).blocks.pattern
    block = dataclasses.replace(block, mixer=dataclasses.replace(block.attention, visibility=Prefix()))
    decoder = TransformerConfig(
        dim=128,
        decoder=dataclasses.replace(encoder.blocks, depth=3, pattern=(block,)),
        scale_embedding=True,
        dropout=0.1,
        init=encoder.init,
    )
    model = PrefixedTransformerConfig(encoder=encoder, projector=MlpProjector(), decoder=decoder)
    return recipe({"kind": "captioning"}, model, vocab=4000, epochs=20, tokens=8192)
