"""Model families that a run may train: a new one is its file and its name here."""

from typing import Annotated

from dragoman.config import OneOf
from dragoman.model.contrastive import TwoTowersConfig
from dragoman.model.convolutional import ConvolutionalConfig
from dragoman.model.encoder import EncoderConfig
from dragoman.model.prefixed import PrefixedTransformerConfig
from dragoman.model.recurrent.model import RecurrentConfig
from dragoman.model.transformer import TransformerConfig

ModelConfig = Annotated[
    (TransformerConfig | EncoderConfig | TwoTowersConfig | RecurrentConfig | ConvolutionalConfig)
    | PrefixedTransformerConfig,
    OneOf(usual="transformer"),
]
"""Configuration under ``model:`` in a run file. Each has ``sized(...)``, which takes the sizes that only the data give
(vocabulary, classes), and ``build()``, which returns a ``SequenceModel``, an ``EncoderModel``, or two encoders."""
