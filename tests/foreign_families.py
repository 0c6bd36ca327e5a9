"""Further families with random weights, for ``foreign``: rows of the tables there, in a file of their own."""

from typing import Any

DISTILBERT = {
    "vocab_size": 31, "dim": 18, "n_layers": 2, "n_heads": 3, "hidden_dim": 29, "max_position_embeddings": 40,
    "pad_token_id": 0, "bos_token_id": 4, "eos_token_id": 7,
}  # fmt: skip
OTHER_DISTILBERT = DISTILBERT | {"dim": 20, "n_heads": 5, "n_layers": 3, "activation": "relu"}

WRITERS: dict[str, Any] = {}
"""Families that write text, two sizes each."""
READERS: dict[str, Any] = {
    "DistilBERT": (
        lambda t: t.DistilBertForMaskedLM(t.DistilBertConfig(**DISTILBERT)),
        lambda t: t.DistilBertForSequenceClassification(t.DistilBertConfig(**OTHER_DISTILBERT, num_labels=3)),
        lambda t: t.DistilBertForTokenClassification(t.DistilBertConfig(**OTHER_DISTILBERT, sinusoidal_pos_embds=True)),
        lambda t: t.DistilBertForQuestionAnswering(t.DistilBertConfig(**DISTILBERT)),
        lambda t: t.DistilBertModel(t.DistilBertConfig(**DISTILBERT)),
    ),
}
"""Families that read text."""
