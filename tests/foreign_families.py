"""Further families with random weights, for ``foreign``: rows of the tables there, in a file of their own."""

from typing import Any

DISTILBERT = {
    "vocab_size": 31, "dim": 18, "n_layers": 2, "n_heads": 3, "hidden_dim": 29, "max_position_embeddings": 40,
    "pad_token_id": 0, "bos_token_id": 4, "eos_token_id": 7,
}  # fmt: skip
OTHER_DISTILBERT = DISTILBERT | {"dim": 20, "n_heads": 5, "n_layers": 3, "activation": "relu"}

SIDES = {
    "encoder_layers": 2, "decoder_layers": 1, "encoder_attention_heads": 3, "decoder_attention_heads": 3,
    "encoder_ffn_dim": 31, "decoder_ffn_dim": 33, "d_model": 18, "vocab_size": 31, "max_position_embeddings": 64,
    "forced_eos_token_id": None,
}  # fmt: skip
OTHER_SIDES = SIDES | {"d_model": 20, "encoder_attention_heads": 5, "decoder_attention_heads": 2, "decoder_layers": 3}
TWO_LANGUAGES = {"decoder_start_token_id": 2, "scale_embedding": True}

UMT5 = {
    "d_model": 18, "d_kv": 5, "d_ff": 31, "num_layers": 2, "num_heads": 3, "vocab_size": 31,
    "relative_attention_num_buckets": 8, "relative_attention_max_distance": 20, "decoder_start_token_id": 0,
}  # fmt: skip

WRITERS: dict[str, Any] = {
    "umT5": (
        lambda t: t.UMT5ForConditionalGeneration(t.UMT5Config(**UMT5)),
        lambda t: t.UMT5ForConditionalGeneration(
            t.UMT5Config(**UMT5 | {"num_layers": 3, "num_decoder_layers": 1}, feed_forward_proj="relu")
        ),
    ),
    "mBART": (
        lambda t: t.MBartForConditionalGeneration(t.MBartConfig(**SIDES, decoder_start_token_id=27)),
        lambda t: t.MBartForConditionalGeneration(
            t.MBartConfig(**OTHER_SIDES, **TWO_LANGUAGES, activation_function="relu")
        ),
    ),
    "M2M-100": (
        lambda t: t.M2M100ForConditionalGeneration(t.M2M100Config(**SIDES, decoder_start_token_id=2)),
        lambda t: t.M2M100ForConditionalGeneration(
            t.M2M100Config(
                **OTHER_SIDES | {"scale_embedding": False}, activation_function="gelu", decoder_start_token_id=2
            )
        ),
    ),
    "Pegasus": (
        lambda t: t.PegasusForConditionalGeneration(t.PegasusConfig(**SIDES)),
        lambda t: t.PegasusForConditionalGeneration(
            t.PegasusConfig(**OTHER_SIDES, scale_embedding=True, activation_function="relu")
        ),
    ),
}
"""Families that write text, two sizes each."""
BERT = {
    "vocab_size": 31, "hidden_size": 18, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 29,
    "max_position_embeddings": 40, "pad_token_id": 0, "bos_token_id": 4, "eos_token_id": 7,
}  # fmt: skip
OTHER_BERT = BERT | {"hidden_size": 20, "num_attention_heads": 5, "num_labels": 3}
NARROW = {"embedding_size": 10}
ALBERT = {"inner_group_num": 1, "num_hidden_layers": 5} | NARROW
MODERN = BERT | {
    "hidden_size": 24, "num_hidden_layers": 4, "local_attention": 4, "cls_token_id": 4, "sep_token_id": 7,
}  # fmt: skip
BIASED = {"norm_bias": True, "attention_bias": True, "mlp_bias": True, "classifier_bias": True, "num_labels": 3}
DEBERTA = BERT | {
    "relative_attention": True, "share_att_key": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 4,
    "norm_rel_ebd": "layer_norm", "position_biased_input": False, "type_vocab_size": 0,
}  # fmt: skip
OTHER_DEBERTA = DEBERTA | {"hidden_size": 20, "num_attention_heads": 5, "num_labels": 3}
READERS: dict[str, Any] = {
    "DeBERTa-v3": (
        lambda t: t.DebertaV2ForMaskedLM(t.DebertaV2Config(**DEBERTA)),
        lambda t: t.DebertaV2ForSequenceClassification(
            t.DebertaV2Config(**OTHER_DEBERTA | {"norm_rel_ebd": "none", "position_buckets": 6})
        ),
        lambda t: t.DebertaV2ForTokenClassification(
            t.DebertaV2Config(**OTHER_DEBERTA | {"position_biased_input": True, "type_vocab_size": 2})
        ),
        lambda t: t.DebertaV2ForQuestionAnswering(
            t.DebertaV2Config(**DEBERTA | {"position_buckets": -1, "max_relative_positions": 3})
        ),
        lambda t: t.DebertaV2Model(t.DebertaV2Config(**OTHER_DEBERTA, max_relative_positions=9)),
    ),
    "ELECTRA": (
        lambda t: t.ElectraForMaskedLM(t.ElectraConfig(**BERT | NARROW, hidden_act="relu")),
        lambda t: t.ElectraForSequenceClassification(t.ElectraConfig(**OTHER_BERT | NARROW)),
        lambda t: t.ElectraForTokenClassification(t.ElectraConfig(**OTHER_BERT, embedding_size=20)),
        lambda t: t.ElectraForQuestionAnswering(t.ElectraConfig(**BERT | NARROW)),
        lambda t: t.ElectraModel(t.ElectraConfig(**OTHER_BERT | NARROW)),
    ),
    "ALBERT": (
        lambda t: t.AlbertForMaskedLM(t.AlbertConfig(**BERT | ALBERT)),
        lambda t: t.AlbertForSequenceClassification(t.AlbertConfig(**OTHER_BERT | ALBERT, num_hidden_groups=2)),
        lambda t: t.AlbertForTokenClassification(t.AlbertConfig(**OTHER_BERT | ALBERT, hidden_act="relu")),
        lambda t: t.AlbertForQuestionAnswering(t.AlbertConfig(**BERT | ALBERT | {"embedding_size": 18})),
        lambda t: t.AlbertModel(t.AlbertConfig(**OTHER_BERT | ALBERT, num_hidden_groups=3), add_pooling_layer=False),
    ),
    "ModernBERT": (
        lambda t: t.ModernBertForMaskedLM(t.ModernBertConfig(**MODERN)),
        lambda t: t.ModernBertForSequenceClassification(
            t.ModernBertConfig(**MODERN | BIASED, classifier_pooling="mean")
        ),
        lambda t: t.ModernBertForTokenClassification(t.ModernBertConfig(**MODERN, classifier_activation="relu")),
        lambda t: t.ModernBertForQuestionAnswering(
            t.ModernBertConfig(**MODERN, layer_types=["sliding_attention"] * 4, hidden_activation="silu")
        ),
        lambda t: t.ModernBertModel(t.ModernBertConfig(**MODERN, tie_word_embeddings=False)),
    ),
    "DistilBERT": (
        lambda t: t.DistilBertForMaskedLM(t.DistilBertConfig(**DISTILBERT)),
        lambda t: t.DistilBertForSequenceClassification(t.DistilBertConfig(**OTHER_DISTILBERT, num_labels=3)),
        lambda t: t.DistilBertForTokenClassification(t.DistilBertConfig(**OTHER_DISTILBERT, sinusoidal_pos_embds=True)),
        lambda t: t.DistilBertForQuestionAnswering(t.DistilBertConfig(**DISTILBERT)),
        lambda t: t.DistilBertModel(t.DistilBertConfig(**DISTILBERT)),
    ),
}
"""Families that read text."""
CLASSES = {
    "distilbert": "DistilBertConfig", "mbart": "MBartConfig", "pegasus": "PegasusConfig", "m2m_100": "M2M100Config",
    "umt5": "UMT5Config", "electra": "ElectraConfig", "albert": "AlbertConfig", "modernbert": "ModernBertConfig",
    "deberta": "DebertaV2Config",
}  # fmt: skip
"""Classes of config.json by the family's name."""
