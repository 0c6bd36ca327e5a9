"""Every preset, written out in full: a changed default shows up as a changed line in review."""

import dataclasses
import json
import os
from functools import cache
from pathlib import Path

import pytest
import torch

from dragoman.config import differences, from_dict, to_dict
from dragoman.model.families import ModelConfig
from dragoman.presets import PRESETS
from dragoman.train.recipe import load

GOLDEN = Path(__file__).parent / "golden"


def model(name):
    """As configured, with the vocabulary of the preset's tokenizer, and two classes where the data tell how many."""
    plain = PRESETS[name]()
    cfg = from_dict(ModelConfig, plain["model"])
    if plain.get("task", {}).get("kind") in ("classification", "tagging"):
        cfg = cfg.sized(classes=2)
    return cfg.sized(vocab=plain["tokenizer"]["vocab"]) if "tokenizer" in plain else cfg


@cache
def parameters(name):
    with torch.device("meta"):
        return sum(p.numel() for p in model(name).build().parameters())


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_as_written_down(name):
    plain = PRESETS[name]()
    run = to_dict(load({"preset": name, "data": {"train": []}})) if "task" in plain else plain
    text = json.dumps({"parameters": parameters(name), "run": run}, indent=1) + "\n"
    path = GOLDEN / f"{name}.json"
    if os.environ.get("UPDATE_GOLDEN"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert path.read_text() == text, "run UPDATE_GOLDEN=1 pytest and review the difference"


# ---- counted elsewhere -----------------------------------------------------------------------------

PUBLISHED = {  # what config.json says of each, where it differs from the default of its class in transformers
    "gpt2": ("GPT2LMHeadModel", {}),
    "llama-2-7b": ("LlamaForCausalLM", {}),
    "mamba-130m": ("MambaForCausalLM", {"num_hidden_layers": 24}),
    "mamba-370m": ("MambaForCausalLM", {"num_hidden_layers": 48, "hidden_size": 1024}),
    "mamba2-130m": (
        "Mamba2ForCausalLM",
        {
            "vocab_size": 50_288,
            "hidden_size": 768,
            "num_hidden_layers": 24,
            "num_heads": 24,
            "n_groups": 1,
            "tie_word_embeddings": True,
        },
    ),
    "llama-3-8b": (
        "LlamaForCausalLM",
        {"vocab_size": 128_256, "num_key_value_heads": 8, "intermediate_size": 14_336},
    ),
    "llama-3.2-1b": (
        "LlamaForCausalLM",
        {
            "vocab_size": 128_256,
            "hidden_size": 2048,
            "num_hidden_layers": 16,
            "num_key_value_heads": 8,
            "intermediate_size": 8192,
            "tie_word_embeddings": True,
        },
    ),
    "qwen2-0.5b": (
        "Qwen2ForCausalLM",
        {
            "vocab_size": 151_936,
            "hidden_size": 896,
            "num_hidden_layers": 24,
            "num_attention_heads": 14,
            "num_key_value_heads": 2,
            "intermediate_size": 4864,
            "tie_word_embeddings": True,
        },
    ),
    "qwen3-0.6b": (
        "Qwen3ForCausalLM",
        {
            "vocab_size": 151_936,
            "hidden_size": 1024,
            "num_hidden_layers": 28,
            "num_attention_heads": 16,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "intermediate_size": 3072,
            "tie_word_embeddings": True,
        },
    ),
    "mistral-7b": ("MistralForCausalLM", {}),
    "mixtral-8x7b": ("MixtralForCausalLM", {}),
    "gemma-2-2b": ("Gemma2ForCausalLM", {}),
    "gemma-3-1b": (
        "Gemma3ForCausalLM",
        {
            "vocab_size": 262_144,
            "hidden_size": 1152,
            "num_attention_heads": 4,
            "num_key_value_heads": 1,
            "intermediate_size": 6912,
        },
    ),
    "lfm2-350m": (
        "Lfm2ForCausalLM",
        {
            "hidden_size": 1024,
            "intermediate_size": 6656,
            "num_hidden_layers": 16,
            "num_attention_heads": 16,
            "full_attn_idxs": [2, 5, 8, 10, 12, 14],
        },
    ),
    "lfm2-1.2b": (
        "Lfm2ForCausalLM",
        {"hidden_size": 2048, "num_hidden_layers": 16, "full_attn_idxs": [2, 5, 8, 10, 12, 14]},
    ),
    "t5-small": ("T5ForConditionalGeneration", {}),
    "t5-1.1-small": (
        "T5ForConditionalGeneration",
        {
            "num_layers": 8,
            "num_heads": 6,
            "d_ff": 1024,
            "feed_forward_proj": "gated-gelu",
        },
    ),
    "bart-base": (
        "BartForConditionalGeneration",
        {
            "d_model": 768,
            "encoder_layers": 6,
            "decoder_layers": 6,
            "encoder_attention_heads": 12,
            "decoder_attention_heads": 12,
            "encoder_ffn_dim": 3072,
            "decoder_ffn_dim": 3072,
        },
    ),
    "marian": (
        "MarianMTModel",
        {
            "vocab_size": 58_101,
            "pad_token_id": 58_100,
            "decoder_start_token_id": 58_100,
            "d_model": 512,
            "encoder_layers": 6,
            "decoder_layers": 6,
            "encoder_attention_heads": 8,
            "decoder_attention_heads": 8,
            "encoder_ffn_dim": 2048,
            "decoder_ffn_dim": 2048,
            "max_position_embeddings": 512,
        },
    ),
    "bert-base": ("BertForMaskedLM", {}),
    "roberta-base": (
        "RobertaForMaskedLM",
        {"vocab_size": 50_265, "max_position_embeddings": 514, "type_vocab_size": 1},
    ),
    "vit-base": ("ViTForImageClassification", {"num_labels": 1000}),
    "clip-vit-base-patch32": ("CLIPModel", {}),
}


def counted_by_transformers(name, architecture, options):
    """With the bias on logits, which is no parameter there, and without sinusoids, which are. The class for T5 ties its
    output to the embeddings until it loads a checkpoint of version 1.1, in which that stands apart."""
    transformers = pytest.importorskip("transformers")
    theirs = getattr(transformers, architecture)
    with torch.device("meta"):
        built = theirs(theirs.config_class(**options))
    count = sum(p.numel() for n, p in built.named_parameters() if name != "marian" or "embed_pos" not in n)
    count += built.lm_head.weight.numel() if name == "t5-1.1-small" else 0
    return count + sum(b.numel() for n, b in built.named_buffers() if n == "final_logits_bias")


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_model_has_as_many_parameters_as_transformers_says(name):
    assert parameters(name) == counted_by_transformers(name, *PUBLISHED[name])


@pytest.mark.parametrize("name", ["transformer-base", "transformer-big", "transformer-2026"])
def test_a_decoder_alone_lacks_the_encoder_and_what_reads_it(name):
    both, alone = model(name), model(f"{name}-lm")
    with torch.device("meta"):
        shapes, kept = ({n: t.shape for n, t in cfg.build().named_parameters()} for cfg in (both, alone))
    reading = ("encoder.", "source_embed.")
    assert kept == {n: s for n, s in shapes.items() if not n.startswith(reading) and ".cross" not in n}


def test_the_fast_preset_reads_with_twelve_layers_and_writes_with_one():
    cfg = model("transformer-fast")
    assert (cfg.encoder.depth, cfg.decoder.depth) == (12, 1)


@pytest.mark.parametrize("name, published", [("transformer-base", 65e6), ("transformer-big", 213e6)])
def test_the_2017_models_have_the_papers_parameters(name, published):
    # Table 3 of the paper rounds, and counts a vocabulary of "about 37000"
    assert parameters(name) == pytest.approx(published, rel=0.035)


def test_parameters_of_the_base_model_add_up():
    D, F, N, V = 512, 2048, 6, 37_000
    attention, mlp, norm = 4 * (D * D + D), 2 * D * F + F + D, 2 * D
    encoder, decoder = attention + mlp + 2 * norm, 2 * attention + mlp + 3 * norm
    assert parameters("transformer-base") == V * D + N * (encoder + decoder)


@pytest.mark.parametrize("change", [
    ("model.*.pattern.*.norm=layer_norm"),
    ("model.*.pattern.*.placement=post"),
    ("model.*.pattern.*.mixer.position=no_position"),
    ("model.position=sinusoidal"),
    ("model.*.pattern.*.mlp={kind: feed_forward, hidden: 2048}"),
    ("model.*.pattern.*.mixer.kv_heads=8"),
    ("model.*.pattern.*.mixer.bias=true"),
])  # fmt: skip
def test_each_choice_of_2026_can_be_undone_by_itself(change):
    run = {"preset": "transformer-2026", "data": {"train": []}}
    before, after = load(run), load(run, [change])
    changed = {path for path, _, _ in differences(to_dict(before.model), to_dict(after.model))}
    assert changed
    with torch.device("meta"):
        dataclasses.replace(after.model, vocab=100).build()


@pytest.mark.parametrize(
    ("name", "published"), [("mamba-130m", 129_135_360), ("mamba-370m", 371_516_416), ("mamba2-130m", 128_989_632)]
)
def test_published_state_space_models_have_the_parameters_of_their_files(name, published):
    assert parameters(name) == published


@pytest.mark.parametrize(
    ("name", "beside"),
    [
        ("mamba-small", "lm-small"),
        ("mamba2-small", "lm-small"),
        ("mamba2-hybrid-small", "lm-small"),
        ("mamba-translator-small", "transformer-small"),
    ],
)
def test_small_state_space_models_are_of_the_size_of_the_transformers_beside_them(name, beside):
    assert parameters(name) == pytest.approx(parameters(beside), rel=0.02)


@pytest.mark.parametrize(("name", "vocab"), [("lm-small", 8000), ("lm-tiny", 259)])
def test_small_language_models_of_both_ages_have_as_many_parameters(name, vocab):
    with torch.device("meta"):
        of_now, of_2019 = (
            sum(p.numel() for p in model(preset).sized(vocab=vocab).build().parameters())
            for preset in (name, f"{name}-2019")
        )
    assert 0.99 < of_now / of_2019 <= 1


@pytest.mark.parametrize(
    "name",
    [
        "linear-small",
        "performer-small",
        "gated-deltanet-small",
        "deltanet-hybrid-small",
        "mlstm-small",
        "min-gru-small",
    ],
)
def test_linear_models_have_about_as_many_parameters_as_lm_small(name):
    assert parameters(name) == pytest.approx(parameters("lm-small"), rel=0.02)


@pytest.mark.parametrize("name, published", [("lfm2-350m", 354_483_968), ("lfm2-1.2b", 1_170_340_608)])
def test_lfm2_has_the_parameters_that_its_makers_state(name, published):
    assert parameters(name) == published
