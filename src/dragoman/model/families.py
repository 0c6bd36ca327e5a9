"""The model families a run may train: a further one is its file and its name here."""

from typing import Annotated

from dragoman.config import OneOf
from dragoman.model.contrastive import TwoTowersConfig
from dragoman.model.encoder import EncoderConfig
from dragoman.model.transformer import TransformerConfig

ModelConfig = Annotated[TransformerConfig | EncoderConfig | TwoTowersConfig, OneOf(usual="transformer")]
"""What ``model:`` in a run file may hold. Each has ``sized(...)``, which takes what only the data tell (vocabulary,
classes), and ``build()``, which gives a ``SequenceModel``, an ``EncoderModel``, or two of these side by side."""
