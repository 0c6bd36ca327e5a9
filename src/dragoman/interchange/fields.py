"""Fields of a config.json: missing ones get the value that transformers gives them, and none is ignored silently.

A family reads the fields that it obeys. Of the others, those that only matter for training or bookkeeping are harmless,
those known to change what some model computes are refused, and the rest is noted.
"""

import re
from collections.abc import Mapping
from typing import Any

from dragoman.errors import ConfigError
from dragoman.interchange.generation import GENERATION_SETTINGS, SPEECH_SETTINGS
from dragoman.interchange.hub_config import HubConfig, named_architectures

_LLAMA = {"hidden_act": "silu", "rms_norm_eps": 1e-6}
_GEMMA = {
    "num_key_value_heads": 4, "head_dim": 256, "rms_norm_eps": 1e-6, "query_pre_attn_scalar": 256,
    "sliding_window": 4096, "tie_word_embeddings": True,
}  # fmt: skip
_BERT = {"hidden_act": "gelu", "layer_norm_eps": 1e-12, "type_vocab_size": 2}
DEFAULTS: dict[str, dict[str, Any]] = {
    "llama": _LLAMA,
    "mistral": _LLAMA | {"num_key_value_heads": 8, "sliding_window": 4096},
    "qwen2": _LLAMA | {"num_key_value_heads": 32, "sliding_window": 4096},
    "qwen3": _LLAMA | {"num_key_value_heads": 32, "head_dim": 128, "sliding_window": 4096},
    "mixtral": {
        "hidden_act": "silu", "rms_norm_eps": 1e-5, "num_key_value_heads": 8, "rope_theta": 1e6,
        "num_local_experts": 8, "num_experts_per_tok": 2,
    },
    "qwen3_moe": _LLAMA | {
        "num_key_value_heads": 4, "sliding_window": 4096, "moe_intermediate_size": 768, "num_experts_per_tok": 8,
        "num_experts": 128,
    },
    "smollm3": _LLAMA | {"num_key_value_heads": 4, "tie_word_embeddings": True},
    "phi3": _LLAMA | {"rms_norm_eps": 1e-5, "original_max_position_embeddings": 4096},
    "olmo2": _LLAMA | {"rms_norm_eps": 1e-5},
    "gemma2": _GEMMA | {"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0},
    "gemma3_text": _GEMMA,
    "gpt2": {"activation_function": "gelu_new", "layer_norm_epsilon": 1e-5},
    "marian": {"activation_function": "gelu"},
    "bart": {"activation_function": "gelu"},
    "whisper": {
        "activation_function": "gelu", "num_mel_bins": 80, "max_source_positions": 1500, "max_target_positions": 448,
    },
    "mbart": {"activation_function": "gelu", "max_position_embeddings": 1024},
    "pegasus": {"activation_function": "gelu"},
    "m2m_100": {"activation_function": "relu", "scale_embedding": True},
    "t5": {"feed_forward_proj": "relu", "layer_norm_epsilon": 1e-6},
    "mt5": {"feed_forward_proj": "gated-gelu", "layer_norm_epsilon": 1e-6, "tie_word_embeddings": False},
    "bert": _BERT,
    "roberta": _BERT,
    "xlm-roberta": _BERT,
    "umt5": {"feed_forward_proj": "gated-gelu", "layer_norm_epsilon": 1e-6},
    "deberta-v2": {"hidden_act": "gelu", "pooler_hidden_act": "gelu", "layer_norm_eps": 1e-7, "type_vocab_size": 0},
    "electra": _BERT | {"embedding_size": 128},
    "albert": _BERT | {"hidden_act": "gelu_new", "embedding_size": 128},
    "modernbert": {"hidden_activation": "gelu", "classifier_activation": "gelu"},
    "distilbert": {"activation": "gelu", "max_position_embeddings": 512},
    "mamba": {
        "state_size": 16, "expand": 2, "conv_kernel": 4, "layer_norm_epsilon": 1e-5, "tie_word_embeddings": True,
    },
    "mamba2": {
        "num_heads": 128, "head_dim": 64, "state_size": 128, "expand": 2, "n_groups": 8, "conv_kernel": 4,
        "chunk_size": 256, "layer_norm_epsilon": 1e-5, "tie_word_embeddings": False,
    },
    "lfm2": {"norm_eps": 1e-5, "num_key_value_heads": 8, "conv_L_cache": 3, "tie_word_embeddings": True},
    "siglip_vision_model": {
        "hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6, "image_size": 224, "patch_size": 16,
    },
    "dinov2": {
        "hidden_act": "gelu", "layer_norm_eps": 1e-6, "image_size": 224, "patch_size": 14, "mlp_ratio": 4,
        "qkv_bias": True,
    },
    "vit": {"hidden_act": "gelu", "layer_norm_eps": 1e-12},
}  # fmt: skip
"""Values of missing fields, by model_type. Sizes have no default: they must be given."""

HARMLESS = frozenset({
    # bookkeeping
    "architectures", "model_type", "_name_or_path", "name_or_path", "transformers_version", "dtype", "torch_dtype",
    "_commit_hash", "auto_map", "tokenizer_class", "return_dict", "output_attentions", "output_hidden_states",
    "use_cache", "cache_implementation", "label2id", "id2label", "num_labels", "task_specific_params",
    "finetuning_task", "problem_type", "output_past", "eos_token_ids",
    "torchscript", "gradient_checkpointing", "chunk_size_feed_forward", "_attn_implementation",
    "_attn_implementation_autoset", "attn_implementation", "prefix", "model_max_length", "n_ctx", "vocab_size",
    "bos_token_id", "eos_token_id", "pad_token_id", "sep_token_id", "cls_token_id", "unk_token_id", "mask_token_id",
    "decoder_start_token_id", "is_encoder_decoder", "max_position_embeddings", "num_hidden_layers", "directionality",
    "transformers.js_config", "unsloth_version", "unsloth_fixed", "_from_model_config", "language",
    # training
    "initializer_range", "initializer_factor", "init_std", "attention_dropout", "hidden_dropout_prob",
    "attention_probs_dropout_prob", "classifier_dropout", "classif_dropout", "dropout", "dropout_rate",
    "activation_dropout", "embd_pdrop", "resid_pdrop", "attn_pdrop", "encoder_layerdrop", "decoder_layerdrop",
    "router_jitter_noise", "output_router_logits", "router_aux_loss_coef", "hidden_dropout", "tf_legacy_loss",
    "use_bfloat16", "time_step_min", "time_step_max", "time_step_floor", "time_step_scale", "time_step_init_scheme",
    "rescale_prenorm_residual", "pad_vocab_size_multiple", "qa_dropout", "seq_classif_dropout",
    "layerscale_value", "drop_path_rate", "use_mask_token",
    # heads that generation and these tasks do not use
    "summary_last_dropout", "classifier_dropout_prob",
    "summary_type", "summary_use_proj", "summary_activation", "summary_proj_to_labels", "summary_first_dropout",
    "pooler_fc_size", "pooler_num_attention_heads", "pooler_num_fc_layers", "pooler_size_per_head", "pooler_type",
    "pooler_output_size", "pooler_act", "encoder_stride", "out_features", "out_indices", "stage_names",
    "apply_layernorm", "reshape_hidden_states", "_out_features", "_out_indices",
    # how numbers are computed, not their values
    "reorder_and_upcast_attn", "attention_implementation", "use_flash_attn", "use_mambapy", "use_associative_scan",
    "residual_in_fp32", "fused_add_norm",
    # settings of generation, which are in generation_config.json too
    "forced_eos_token_id", "forced_bos_token_id", "num_beams", "length_penalty", "early_stopping",
    "no_repeat_ngram_size", "min_length", "max_length", "bad_words_ids", "do_sample", "temperature", "top_k", "top_p",
    "repetition_penalty", "suppress_tokens", "begin_suppress_tokens", "n_positions_trained", *GENERATION_SETTINGS,
    *SPEECH_SETTINGS,
    "num_return_sequences", "output_scores", "return_dict_in_generate", "remove_invalid_values", "max_new_tokens",
})  # fmt: skip
"""Fields that change nothing of what a model computes for a text."""

COMPUTING = frozenset({
    "sliding_window", "layer_types", "attn_logit_softcapping", "final_logit_softcapping", "attention_bias", "mlp_bias",
    "use_bias", "qkv_bias", "rope_scaling", "rope_parameters", "rope_interleaved", "partial_rotary_factor",
    "rotary_pct",
    "rotary_dim", "rope_dim", "no_rope_layers", "scale_embedding", "embedding_multiplier", "residual_multiplier",
    "attention_multiplier", "logits_scaling", "logit_scale", "scale_emb", "scale_depth", "dim_model_base", "clip_qkv",
    "use_qk_norm", "qk_layernorm", "parallel_attn", "use_parallel_residual", "alibi", "multi_query",
    "attention_chunk_size", "query_pre_attn_scalar", "use_bidirectional_attention", "add_cross_attention",
    "cross_attention_hidden_size", "is_decoder", "position_embedding_type", "hidden_act", "hidden_activation",
    "normalize_before", "normalize_embedding", "layernorm_embedding", "use_sliding_window", "pruned_heads",
    "decoder_vocab_size", "num_experts", "num_local_experts", "shared_expert_intermediate_size", "embedding_size",
})  # fmt: skip
"""Fields that change what some model computes: a family that does not obey one of these refuses it."""


def settings_of(content: Mapping[str, Any], where: Any, model_type: str) -> HubConfig:
    """Return a config.json with transformers' values for the missing fields."""
    defaults = DEFAULTS.get(content.get("model_type", model_type), {})
    return HubConfig(defaults | dict(content) | {"architectures": named_architectures(content, where)}, where)


_SIZES = re.compile(
    r"(num|n|max)_\w+|(\w+_)?(size|layers?|heads?|dim|ffn_dim|embeddings)|d_model|d_kv|d_ff|(encoder|decoder)_\w+_(heads|dim)"
    r"|local_attention|\w+_multiple_of"
)
_NUMBERS = re.compile(
    r"\w+_(eps|epsilon|theta|base_freq|scalar|softcapping|soft_cap|multiplier|dim_factor|proj_factor)|logit_scale|mlp_ratio"
)
_TEXTS = re.compile(r"problem_type|feed_forward_proj|activation(_function)?|(?!is_)\w+_(act|activation)")
_NO_SIZES = frozenset({
    "num_labels", "chunk_size_feed_forward", "max_window_layers", "tie_word_embeddings", "mlp_only_layers",
    "no_rope_layers", "pruned_heads",
})  # fmt: skip
"""Fields with such a name that are no sizes; a family that reads one checks it."""
_LEAST = {"type_vocab_size": 0, "max_relative_positions": -1}
"""Smallest values of sizes that may be below 1."""
_PAIRS = frozenset({"image_size", "patch_size"})
"""Sizes that may be two numbers, of height and width."""
_CHECKED = frozenset(
    {"vocab_size", "max_position_embeddings", "num_hidden_layers", "problem_type", "pad_token_id", "id2label"}
)
"""Fields in HARMLESS that are checked all the same."""


def check_kinds(content: Mapping[str, Any], where: Any) -> None:
    """Look for values of the wrong kind: sizes that are no whole numbers above 0, numbers that are none, and others.

    Raises:
        ConfigError: there is one; the message names it.
    """
    for name, value in content.items():
        if value is None or name in _NO_SIZES | HARMLESS - _CHECKED:
            continue
        if expected := _misfit(name, value):
            raise ConfigError(f"{where}: {name}: expected {expected}, got {value!r}")


def _misfit(name: str, value: Any) -> str | None:
    """Return the kind of value that a field has, where ``value`` is none; None where it is one, or any may be."""
    if _SIZES.fullmatch(name):
        several = value if name in _PAIRS and isinstance(value, list) and len(value) == 2 else [value]
        fits = isinstance(value, bool) or all(type(n) is int and n >= _LEAST.get(name, 1) for n in several)
        return None if fits else "a whole number above 0"
    if _NUMBERS.fullmatch(name):
        return None if type(value) in (int, float) else "a number"
    if _TEXTS.fullmatch(name):
        return None if isinstance(value, str) else "a name"
    if name == "pad_token_id":
        return None if type(value) is int else "the id of a token"
    if name == "layer_types":
        return None if isinstance(value, list) and all(isinstance(kind, str) for kind in value) else "a list of names"
    if name == "id2label":
        return None if isinstance(value, dict | list) else "names of classes"
    return None


def unknown_fields(given: HubConfig, family: str) -> list[str]:
    """Return the fields that have a value and that no one has read.

    Raises:
        ConfigError: one of them changes what a model computes.
    """
    unread = [name for name, value in given.content.items() if value and name not in given.read | HARMLESS]
    if known := sorted(set(unread) & COMPUTING):
        value = given.content[known[0]]
        raise ConfigError(f"{given.where}: {known[0]}: {value!r} is not supported for {family}")
    return sorted(unread)
