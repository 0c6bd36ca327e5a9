"""The model families a run may train: a further one is its file and its name here."""

from dragoman.model.transformer import TransformerConfig

ModelConfig = TransformerConfig
"""What ``model:`` in a run file may hold; each has ``vocab``, ``source_vocab`` and ``build() -> SequenceModel``."""
