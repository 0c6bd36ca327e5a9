"""Published architectures and recipes, one function each: presets hold the published hyperparameters."""

from collections.abc import Callable

from dragoman.presets import (
    captioners,
    convolutional,
    encoders,
    language,
    linear,
    pretraining,
    published,
    readers,
    recurrent,
    small,
    sparse,
    state_space,
    text_to_text,
    translation,
)
from dragoman.presets.plain import Plain
from dragoman.presets.translation import rewritten2026, vaswani2017

__all__ = ["PRESETS", "Plain", "rewritten2026", "vaswani2017"]

PRESETS: dict[str, Callable[[], Plain]] = {
    # translation, with recipes
    "transformer-base": translation.transformer_base,
    "transformer-big": translation.transformer_big,
    "transformer-2026": translation.transformer_2026,
    "transformer-fast": translation.transformer_fast,
    "transformer-small": translation.transformer_small,
    "transformer-tiny": translation.transformer_tiny,
    # recurrent models, with recipes but for the published size
    "lstm-bahdanau": recurrent.lstm_bahdanau,
    "lstm-luong": recurrent.lstm_luong,
    "lstm-sutskever": recurrent.lstm_sutskever,
    "gru": recurrent.gru,
    "rnn": recurrent.rnn,
    "gnmt-small": recurrent.gnmt_small,
    "gnmt": recurrent.gnmt,
    "lstm-lm-small": recurrent.lstm_lm_small,
    "lstm-classifier-tiny": recurrent.lstm_classifier_tiny,
    "lstm-tagger-small": recurrent.lstm_tagger_small,
    "convs2s": convolutional.convs2s,
    "bytenet": convolutional.bytenet,
    "cnn-9": convolutional.cnn_9,
    # language models, with recipes
    "lm-small": small.lm_small,
    "lm-hybrid-small": small.lm_hybrid_small,
    "lm-small-2019": small.lm_small_2019,
    "longformer-small": sparse.longformer_small,
    "bigbird-small": sparse.bigbird_small,
    "sparse-transformer-small": sparse.sparse_transformer_small,
    "reformer-small": sparse.reformer_small,
    "lm-tiny": small.lm_tiny,
    "lm-tiny-2019": small.lm_tiny_2019,
    "gated-cnn-lm-small": convolutional.gated_cnn_lm_small,
    # state space models, with recipes
    "mamba-small": state_space.mamba_small,
    "mamba2-small": state_space.mamba2_small,
    "mamba2-hybrid-small": state_space.mamba2_hybrid_small,
    "mamba-translator-small": state_space.mamba_translator_small,
    "linear-small": linear.linear_small,
    "performer-small": linear.performer_small,
    "gated-deltanet-small": linear.gated_deltanet_small,
    "deltanet-hybrid-small": linear.deltanet_hybrid_small,
    "mlstm-small": linear.mlstm_small,
    "min-gru-small": linear.min_gru_small,
    # encoders, with recipes
    "captioner-tiny": captioners.captioner_tiny,
    "classifier-small": readers.classifier_small,
    "classifier-tiny": readers.classifier_tiny,
    "clip-tiny": readers.clip_tiny,
    "reader-small": readers.reader_small,
    "tagger-small": readers.tagger_small,
    "towers-small": readers.towers_small,
    "vit-tiny": readers.vit_tiny,
    # to be fine-tuned, with recipes
    "encoder-small": pretraining.encoder_small,
    "denoiser-small": pretraining.denoiser_small,
    # translation
    "convs2s-wmt": convolutional.convs2s_wmt,
    "bytenet-wmt": convolutional.bytenet_wmt,
    # language models
    "transformer-base-lm": translation.transformer_base_lm,
    "transformer-big-lm": translation.transformer_big_lm,
    "transformer-2026-lm": translation.transformer_2026_lm,
    "gpt2": language.gpt2,
    "llama-2-7b": language.llama_2_7b,
    "llama-3-8b": language.llama_3_8b,
    "llama-3.2-1b": language.llama_3_2_1b,
    "qwen2-0.5b": language.qwen2,
    "qwen3-0.6b": language.qwen3,
    "mistral-7b": language.mistral_7b,
    "mixtral-8x7b": language.mixtral_8x7b,
    "gemma-2-2b": language.gemma_2_2b,
    "gemma-3-1b": language.gemma_3_1b,
    "mamba-130m": state_space.mamba_130m,
    "mamba-370m": state_space.mamba_370m,
    "mamba2-130m": state_space.mamba2_130m,
    "lfm2-350m": linear.lfm2_350m,
    "lfm2-1.2b": linear.lfm2_1_2b,
    # large language models, to be planned
    "gpt3-175b": published.gpt3_175b,
    "chinchilla": published.chinchilla,
    "palm": published.palm,
    "llama-2-13b": published.llama_2_13b,
    "llama-2-70b": published.llama_2_70b,
    "llama-3-70b": published.llama_3_70b,
    "llama-3-405b": published.llama_3_405b,
    # text to text
    "t5-small": text_to_text.t5_small,
    "t5-1.1-small": text_to_text.t5_1_1_small,
    "bart-base": text_to_text.bart_base,
    "marian": text_to_text.marian,
    # encoders
    "bert-base": encoders.bert_base,
    "roberta-base": encoders.roberta_base,
    "vit-base": encoders.vit_base,
    "clip-vit-base-patch32": encoders.clip_vit_base_patch32,
}
