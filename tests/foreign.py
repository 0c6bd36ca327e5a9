"""Models of Hugging Face's `transformers` with random weights, in folders as people have them, and what is compared.

One row a family and size. Widths and heads are odd where the architecture lets them be, special tokens stand in
different places, and every parameter is shaken, so that no bias is zero and no norm's weight is one.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import foreign_families
import torch
from torch import Tensor, nn

from dragoman.checkpoint import RunDirectory, load_model
from dragoman.config import from_dict
from dragoman.decode.search.beam import Beam
from dragoman.decode.search.greedy import Greedy
from dragoman.decode.search.length_penalty import Average
from dragoman.decode.search.search import SearchConfig, search
from dragoman.decode.search.strategy import LengthLimit
from dragoman.interchange.exporting import export_huggingface
from dragoman.interchange.importing import ORIGIN, RECORD, import_checkpoint
from dragoman.interchange.vocabulary import VocabularyMapping
from dragoman.model.families import ModelConfig
from dragoman.model.interface import SequenceModel, Tokens

Make = Callable[[Any], nn.Module]  # the argument is the module transformers
LONGEST = 24
"""Tokens that a search may say."""

ONE = {
    "vocab_size": 31, "hidden_size": 20, "intermediate_size": 27, "num_hidden_layers": 2, "num_attention_heads": 5,
    "num_key_value_heads": 5, "max_position_embeddings": 64, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
TWO = {
    "vocab_size": 37, "hidden_size": 24, "intermediate_size": 35, "num_hidden_layers": 3, "num_attention_heads": 6,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "bos_token_id": 9, "eos_token_id": 3, "pad_token_id": 5,
}  # fmt: skip
SIDES = {
    "encoder_layers": 2, "decoder_layers": 1, "encoder_attention_heads": 3, "decoder_attention_heads": 3,
    "encoder_ffn_dim": 31, "decoder_ffn_dim": 33, "d_model": 18, "vocab_size": 31, "max_position_embeddings": 64,
}  # fmt: skip
OTHER_SIDES = SIDES | {"d_model": 20, "encoder_attention_heads": 5, "decoder_attention_heads": 2, "decoder_layers": 3}
MARIAN = {"eos_token_id": 0, "pad_token_id": 30, "decoder_start_token_id": 30, "forced_eos_token_id": None}
SEPARATE = {"share_encoder_decoder_embeddings": False}
TWO_VOCABULARIES = "Marian, two vocabularies"
BART = {"forced_bos_token_id": None, "forced_eos_token_id": None}
T5 = {"d_model": 18, "d_kv": 5, "d_ff": 31, "num_layers": 2, "num_heads": 3,
      "vocab_size": 31, "relative_attention_num_buckets": 8, "relative_attention_max_distance": 20,
      "decoder_start_token_id": 0}  # fmt: skip
GPT2 = {"vocab_size": 31, "n_embd": 18, "n_layer": 2, "n_head": 3, "n_positions": 64, "bos_token_id": 7,
        "eos_token_id": 7}  # fmt: skip
LLAMA3 = {"rope_type": "llama3", "rope_theta": 500_000.0, "factor": 8.0, "low_freq_factor": 1.0,
          "high_freq_factor": 4.0, "original_max_position_embeddings": 16}  # fmt: skip
MAMBA = {"vocab_size": 31, "hidden_size": 18, "num_hidden_layers": 2, "bos_token_id": 4, "eos_token_id": 7,
         "pad_token_id": 2}  # fmt: skip
OTHER_MAMBA = MAMBA | {"hidden_size": 20, "num_hidden_layers": 3, "state_size": 5, "conv_kernel": 3, "use_bias": True,
                       "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}  # fmt: skip
GEMMA = {"head_dim": 6, "query_pre_attn_scalar": 10, "sliding_window": 4, "bos_token_id": 2, "eos_token_id": 1,
         "pad_token_id": 0}  # fmt: skip
LONG_ROPE = {"rope_type": "longrope", "rope_theta": 10_000.0, "partial_rotary_factor": 0.7,
             "short_factor": [1.0, 1.5], "long_factor": [1.2, 6.0]}  # fmt: skip
QWEN_MOE = {"head_dim": 6, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 11}
LFM2 = {"pad_token_id": 0, "block_auto_adjust_ff_dim": False}
XLSTM = {"vocab_size": 31, "hidden_size": 64, "num_hidden_layers": 2, "num_heads": 4, "qk_dim_factor": 1.0,
         "ffn_proj_factor": 0.7, "ffn_round_up_to_multiple_of": 5, "autocast_kernel_dtype": "float32",
         "pad_token_id": 4, "bos_token_id": 1, "eos_token_id": 2}  # fmt: skip
OTHER_XLSTM = {"hidden_size": 32, "num_hidden_layers": 1, "num_heads": 2, "qk_dim_factor": 2.0, "v_dim_factor": 2.0,
               "gate_soft_cap": 4.0, "output_logit_soft_cap": 3.0, "norm_eps": 1e-4}  # fmt: skip

MODELS: dict[str, tuple[Make, Make]] = {
    "Marian": (
        lambda t: t.MarianMTModel(t.MarianConfig(**SIDES, **MARIAN, activation_function="relu")),
        lambda t: t.MarianMTModel(
            t.MarianConfig(**OTHER_SIDES, **MARIAN, activation_function="swish", scale_embedding=True)
        ),
    ),
    TWO_VOCABULARIES: (
        lambda t: t.MarianMTModel(t.MarianConfig(**SIDES, **MARIAN, **SEPARATE, decoder_vocab_size=33)),
        lambda t: t.MarianMTModel(
            t.MarianConfig(**OTHER_SIDES | {"vocab_size": 43}, **MARIAN, **SEPARATE, tie_word_embeddings=False)
        ),
    ),
    "GPT-2": (
        lambda t: t.GPT2LMHeadModel(t.GPT2Config(**GPT2)),
        lambda t: t.GPT2LMHeadModel(
            t.GPT2Config(
                **GPT2 | {"n_embd": 21, "n_inner": 29, "bos_token_id": 3}, scale_attn_by_inverse_layer_idx=True
            )
        ),
    ),
    "LLaMA": (
        lambda t: t.LlamaForCausalLM(t.LlamaConfig(**ONE)),
        lambda t: t.LlamaForCausalLM(t.LlamaConfig(**TWO, tie_word_embeddings=True, rope_parameters=LLAMA3)),
    ),
    "Mistral": (
        lambda t: t.MistralForCausalLM(t.MistralConfig(**ONE, sliding_window=4)),
        lambda t: t.MistralForCausalLM(t.MistralConfig(**TWO, sliding_window=None, head_dim=6)),
    ),
    "Qwen 2": (
        lambda t: t.Qwen2ForCausalLM(t.Qwen2Config(**ONE)),
        lambda t: t.Qwen2ForCausalLM(
            t.Qwen2Config(**TWO, use_sliding_window=True, sliding_window=4, max_window_layers=1)
        ),
    ),
    "Qwen 3": (
        lambda t: t.Qwen3ForCausalLM(t.Qwen3Config(**ONE, head_dim=6)),
        lambda t: t.Qwen3ForCausalLM(t.Qwen3Config(**TWO, head_dim=10, tie_word_embeddings=True)),
    ),
    "T5": (
        lambda t: t.T5ForConditionalGeneration(t.T5Config(**T5)),
        lambda t: t.T5ForConditionalGeneration(
            t.T5Config(**T5 | {"d_model": 21, "num_decoder_layers": 1}, feed_forward_proj="gated-gelu")
        ),
    ),
    "BART": (
        lambda t: t.BartForConditionalGeneration(t.BartConfig(**SIDES, **BART)),
        lambda t: t.BartForConditionalGeneration(
            t.BartConfig(**OTHER_SIDES, **BART, scale_embedding=True, activation_function="relu")
        ),
    ),
    "Mamba": (
        lambda t: t.MambaForCausalLM(t.MambaConfig(**MAMBA)),
        lambda t: t.MambaForCausalLM(
            t.MambaConfig(**OTHER_MAMBA, time_step_rank=3, use_conv_bias=False, tie_word_embeddings=False)
        ),
    ),
    "Mamba-2": (
        lambda t: t.Mamba2ForCausalLM(
            t.Mamba2Config(**MAMBA, num_heads=9, head_dim=4, n_groups=3, state_size=6, chunk_size=4)
        ),
        lambda t: t.Mamba2ForCausalLM(
            t.Mamba2Config(
                **OTHER_MAMBA, num_heads=5, head_dim=4, expand=1, n_groups=1, chunk_size=16, tie_word_embeddings=True
            )
        ),
    ),
    "Gemma 2": (
        lambda t: t.Gemma2ForCausalLM(t.Gemma2Config(**ONE | GEMMA, final_logit_softcapping=5.0)),
        lambda t: t.Gemma2ForCausalLM(t.Gemma2Config(**TWO | GEMMA, attn_logit_softcapping=2.0)),
    ),
    "Gemma 3": (
        lambda t: t.Gemma3ForCausalLM(
            t.Gemma3TextConfig(**ONE | GEMMA, layer_types=["sliding_attention", "full_attention"])
        ),
        lambda t: t.Gemma3ForCausalLM(t.Gemma3TextConfig(**TWO | GEMMA)),
    ),
    "Mixtral": (
        lambda t: t.MixtralForCausalLM(t.MixtralConfig(**ONE, num_local_experts=3)),
        lambda t: t.MixtralForCausalLM(t.MixtralConfig(**TWO, num_local_experts=4, num_experts_per_tok=3)),
    ),
    "Qwen 3 MoE": (
        lambda t: t.Qwen3MoeForCausalLM(t.Qwen3MoeConfig(**ONE | QWEN_MOE)),
        lambda t: t.Qwen3MoeForCausalLM(
            t.Qwen3MoeConfig(
                **TWO | QWEN_MOE,
                norm_topk_prob=True,
                mlp_only_layers=[1],
                use_sliding_window=True,
                sliding_window=4,
                tie_word_embeddings=True,
            )
        ),
    ),
    "Phi 3": (
        lambda t: t.Phi3ForCausalLM(t.Phi3Config(**ONE | {"pad_token_id": None}, sliding_window=4)),
        lambda t: t.Phi3ForCausalLM(
            t.Phi3Config(
                **TWO | {"hidden_size": 36},
                original_max_position_embeddings=7,
                rope_parameters=LONG_ROPE,
                tie_word_embeddings=True,
            )
        ),
    ),
    "SmolLM 3": (
        lambda t: t.SmolLM3ForCausalLM(t.SmolLM3Config(**ONE, pad_token_id=4, no_rope_layer_interval=2)),
        lambda t: t.SmolLM3ForCausalLM(
            t.SmolLM3Config(
                **TWO, no_rope_layers=[0, 1, 1], use_sliding_window=True, sliding_window=4, tie_word_embeddings=False
            )
        ),
    ),
    "OLMo 2": (
        lambda t: t.Olmo2ForCausalLM(t.Olmo2Config(**ONE)),
        lambda t: t.Olmo2ForCausalLM(t.Olmo2Config(**TWO, tie_word_embeddings=True, attention_bias=True)),
    ),
    "LFM2": (
        lambda t: t.Lfm2ForCausalLM(t.Lfm2Config(**ONE | LFM2, layer_types=["conv", "full_attention"])),
        lambda t: t.Lfm2ForCausalLM(
            t.Lfm2Config(
                **TWO | {"pad_token_id": 0, "tie_word_embeddings": False, "intermediate_size": 33},
                full_attn_idxs=[1],
                conv_L_cache=4,
                conv_bias=True,
                block_multiple_of=7,
            )
        ),
    ),
    "xLSTM": (
        lambda t: t.xLSTMForCausalLM(t.xLSTMConfig(**XLSTM)),
        lambda t: t.xLSTMForCausalLM(t.xLSTMConfig(**XLSTM | OTHER_XLSTM)),
    ),
}
BERT = {
    "vocab_size": 31, "hidden_size": 18, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 29,
    "max_position_embeddings": 40, "pad_token_id": 0, "bos_token_id": 4, "eos_token_id": 7,
}  # fmt: skip
OTHER_BERT = BERT | {"hidden_size": 20, "num_attention_heads": 5, "hidden_act": "relu", "num_labels": 3}
ROBERTA = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "type_vocab_size": 1}
VIT = {"hidden_size": 18, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 29, "image_size": 12,
       "patch_size": 3}  # fmt: skip
DINO = {"hidden_size": 18, "num_hidden_layers": 2, "num_attention_heads": 3, "image_size": 12, "patch_size": 3,
        "use_mask_token": False}  # fmt: skip
TOWERS = "SigLIP, similarities"
SIGLIP = {"vocab_size": 31, "hidden_size": 18, "num_hidden_layers": 2, "num_attention_heads": 3,
          "intermediate_size": 29, "max_position_embeddings": 16, "hidden_act": "gelu_pytorch_tanh"}  # fmt: skip
ENCODERS: dict[str, tuple[Make, ...]] = {
    "BERT": (
        lambda t: t.BertForMaskedLM(t.BertConfig(**BERT)),
        lambda t: t.BertForSequenceClassification(t.BertConfig(**OTHER_BERT)),
        lambda t: t.BertForTokenClassification(t.BertConfig(**OTHER_BERT)),
        lambda t: t.BertForQuestionAnswering(t.BertConfig(**BERT)),
        lambda t: t.BertModel(t.BertConfig(**OTHER_BERT), add_pooling_layer=False),
    ),
    "RoBERTa": (
        lambda t: t.RobertaForMaskedLM(t.RobertaConfig(**BERT | ROBERTA)),
        lambda t: t.RobertaForSequenceClassification(t.RobertaConfig(**OTHER_BERT | ROBERTA)),
    ),
    "SigLIP, images": (
        lambda t: t.SiglipVisionModel(t.SiglipVisionConfig(**VIT)),
        lambda t: t.SiglipVisionModel(t.SiglipVisionConfig(**VIT | {"num_hidden_layers": 3, "hidden_act": "gelu"})),
    ),
    TOWERS: (
        lambda t: t.SiglipModel(t.SiglipConfig(text_config=SIGLIP, vision_config=VIT)),
        lambda t: t.SiglipModel(
            t.SiglipConfig(
                text_config=SIGLIP | {"hidden_size": 20, "num_attention_heads": 5, "projection_size": 18},
                vision_config=VIT | {"num_hidden_layers": 3, "hidden_act": "gelu"},
            )
        ),
    ),
    "DINOv2": (
        lambda t: t.Dinov2ForImageClassification(t.Dinov2Config(**DINO)),
        lambda t: t.Dinov2Model(t.Dinov2Config(**DINO | {"use_swiglu_ffn": True, "qkv_bias": False})),
    ),
    "ViT": (
        lambda t: t.ViTForImageClassification(t.ViTConfig(**VIT, num_labels=5)),
        lambda t: t.ViTForImageClassification(
            t.ViTConfig(**VIT | {"num_channels": 1, "hidden_size": 20, "num_attention_heads": 5}, qkv_bias=False)
        ),
    ),
}
MODELS |= foreign_families.WRITERS
ENCODERS |= foreign_families.READERS
IMAGES = ("ViT", "DINOv2", "SigLIP, images")
"""Families that read images."""
CASES = [(name, size) for name in MODELS for size in (0, 1)]
ENCODER_CASES = [(name, size) for name, makes in ENCODERS.items() for size in range(len(makes))]


def write_tokenizer(folder: Path, size: int) -> None:
    """A tokenizer with ``size`` words, the special tokens of config.json among them under their usual names."""
    from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

    config = json.loads((folder / "config.json").read_text())
    config = {"pad_token_id": 1, "eos_token_id": 1} if "text_config" in config else config
    names = {config.get(f"{role}_token_id"): f"<{role}>" for role in ("pad", "bos", "eos")}
    vocab = {names.get(i, f"w{i}"): i for i in range(size)}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token=f"w{size - 2}"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens([AddedToken(name, special=True) for i, name in names.items() if i is not None])
    tokenizer.save(str(folder / "tokenizer.json"))


def write_two_vocabularies(folder: Path) -> None:
    """Write the tokenizers of a Marian folder with two vocabularies: as many words as the config.json states."""
    from foreign_pieces import write_pieces

    config = json.loads((folder / "config.json").read_text())
    sizes = {"vocab.json": config["vocab_size"], "target_vocab.json": config["decoder_vocab_size"]}
    for name, size in sizes.items():
        roles = {config["eos_token_id"]: "</s>", 1: "<unk>", config["pad_token_id"]: "<pad>"}
        (folder / name).write_text(json.dumps({roles.get(i, f"▁{name[0]}{i}"): i for i in range(size)}))
    for side in ("source", "target"):
        write_pieces(folder / f"{side}.spm", [f"▁{side[0]}{i}" for i in range(9)])
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "MarianTokenizer", "separate_vocabs": true}')


def make_folder(name: str, size: int, folder: Path) -> nn.Module:
    """Their model, saved in ``folder`` as people have it."""
    import transformers

    torch.manual_seed(size)
    model = (MODELS | ENCODERS)[name][size](transformers).eval()
    if hasattr(model, "set_experts_implementation"):
        model.set_experts_implementation("eager")  # the fast one wants sizes that 4 divides
    with torch.no_grad():
        for parameter in filter(lambda p: p.requires_grad, model.parameters()):
            parameter.add_(torch.randn_like(parameter) * 0.15)
        if hasattr(model, "final_logits_bias"):
            model.final_logits_bias.normal_()
        if name in MODELS:
            make_ends_likely(model)
    model.save_pretrained(folder)
    if name == TWO_VOCABULARIES:
        write_two_vocabularies(folder)
    elif hasattr(text := model.config.get_text_config(), "vocab_size"):
        write_tokenizer(folder, text.vocab_size)
    if name == TOWERS:
        (folder / "tokenizer_config.json").write_text('{"pad_token": "<eos>", "eos_token": "<eos>"}')
    return model


def make_ends_likely(model: Any) -> None:
    """Random weights hardly ever end a text. Turn the row of the end towards what the output layer mostly sees."""
    ids = torch.randint(10, 29, (8, 12))
    target = {"decoder_input_ids": ids} if model.config.is_encoder_decoder else {}
    seen = model(input_ids=ids, output_hidden_states=True, **target)
    hidden = (seen.decoder_hidden_states if target else seen.hidden_states)[-1].flatten(0, 1)
    if getattr(model.config, "scale_decoder_outputs", False):
        hidden = hidden / model.config.d_model**0.5
    mean, spread = hidden.mean(dim=0), seen.logits.std()
    row = model.get_output_embeddings().weight[model.config.eos_token_id]
    row += mean * (3.0 * spread - seen.logits[..., model.config.eos_token_id].mean()) / mean.square().sum()


@dataclass
class Pair:
    """Their model and ours."""

    name: str
    theirs: Any
    ours: Any
    folder: Path
    run: Path

    @cached_property
    def vocabulary(self) -> VocabularyMapping:
        return VocabularyMapping.from_dict(json.loads((self.run / ORIGIN / RECORD).read_text())["vocabulary"])

    @cached_property
    def inverse(self) -> Tensor:
        """Our id for each of theirs."""
        return self.vocabulary.order().argsort()

    @cached_property
    def source_inverse(self) -> Tensor:
        """Our id for each of theirs in a source."""
        return self.vocabulary.of_source.order().argsort()

    @property
    def translates(self) -> bool:
        return self.ours.cfg.encoder is not None

    def texts(
        self, count: int, seed: int = 0, shortest: int = 2, longest: int = 9, *, source: bool = False
    ) -> list[Tensor]:
        """Random texts in their ids, without special ones; of a ``source`` where it has a vocabulary of its own."""
        draw, of = torch.Generator().manual_seed(seed), self.vocabulary.of_source if source else self.vocabulary
        special = {of.pad, of.bos, of.eos, of.start}
        plain = torch.tensor([i for i in range(of.size) if i not in special])
        lengths = torch.randint(shortest, longest + 1, (count,), generator=draw).tolist()
        return [plain[torch.randint(len(plain), (n,), generator=draw)] for n in lengths]

    def reference(self, text: Tensor, source: Tensor | None) -> Tensor:
        """Their logits for one text, unpadded."""
        if source is None:
            return self.theirs(input_ids=text[None]).logits[0]
        return self.theirs(input_ids=source[None], decoder_input_ids=text[None]).logits[0]

    def in_our_order(self, logits: Tensor) -> Tensor:
        order = self.vocabulary.order()
        return logits[..., order[order < self.vocabulary.size]]

    def without_added(self, logits: Tensor) -> Tensor:
        return logits[..., self.vocabulary.order() < self.vocabulary.size]

    def sources(self, count: int) -> list[Tensor | None]:
        if not self.translates:
            return [None] * count
        end = torch.tensor([self.vocabulary.of_source.eos])
        return [torch.cat([text, end]) for text in self.texts(count, seed=1, source=True)]


def pair(name: str, size: int, path: Path) -> Pair:
    theirs = make_folder(name, size, path / "folder")
    import_checkpoint(path / "folder", path / "run")
    model = load_model(path / "run")[0] if name in MODELS else load_encoder(path / "run")
    return Pair(name, theirs, model, path / "folder", path / "run")


def load_encoder(run: Path) -> nn.Module:
    content = RunDirectory.open(run).load("last")
    model = from_dict(ModelConfig, content.config["model"]).build()
    model.load_state_dict(content.tensors["model"])
    return model.eval()


# ---- what is compared --------------------------------------------------------------------------------


def padded(rows: list[Tensor], side: str) -> Tokens:
    longest = max(map(len, rows)) + 2
    ids, keep = torch.full((len(rows), longest), 3), torch.zeros(len(rows), longest, dtype=torch.bool)
    for i, row in enumerate(rows):
        where = slice(0, len(row)) if side == "right" else slice(longest - len(row), longest)
        ids[i, where], keep[i, where] = row, True
    return Tokens(ids, keep)


@torch.inference_mode()
def logit_errors(pair: Pair, side: str, count: int = 4) -> list[float]:
    """For each text of a padded batch the largest difference to their logits of that text alone."""
    texts, sources = pair.texts(count), pair.sources(count)
    batch = padded([pair.inverse[text] for text in texts], side)
    memory = (
        padded([pair.source_inverse[source] for source in sources if source is not None], side)
        if sources[0] is not None
        else None
    )
    got = pair.ours(batch, memory)
    return [
        float((pair.without_added(row[keep]) - pair.in_our_order(pair.reference(text, source))).abs().max())
        for row, keep, text, source in zip(got, batch.keep, texts, sources, strict=True)
    ]


@torch.inference_mode()
def encoder_errors(pair: Pair, side: str, count: int = 4) -> list[float]:
    """For each text of a padded batch (or each image) the largest difference to their answer to that one alone."""
    if pair.name in IMAGES:
        images = torch.randn(count, *(pair.ours.cfg.inputs.channels, *pair.ours.cfg.inputs.size))
        answers = [pair.theirs(image[None]) for image in images]
        wanted = torch.cat([a.logits if "logits" in a else a.pooler_output for a in answers])
        return (pair.ours(images) - wanted).abs().amax(dim=1).tolist()
    if pair.name == TOWERS:
        return similarity_errors(pair, side, count)
    begin, end = torch.tensor([pair.vocabulary.bos]), torch.tensor([pair.vocabulary.eos])
    texts = [torch.cat([begin, text, end]) for text in pair.texts(count)]
    batch = padded([pair.inverse[text] for text in texts], side)
    assert batch.keep is not None
    got, found = pair.ours(batch), []
    for row, keep, text in zip(got, batch.keep, texts, strict=True):
        said = pair.theirs(input_ids=text[None])
        want = said.get("logits", said.get("last_hidden_state"))
        if want is None:
            want = torch.stack([said.start_logits, said.end_logits], dim=-1)
        want, row = want[0], row if row.dim() == 1 else row[keep]
        want = pair.in_our_order(want) if want.shape[-1] == pair.vocabulary.size else want
        found.append(float((row - want).abs().max()))
    return found


def similarity_errors(pair: Pair, side: str, count: int) -> list[float]:
    """For each text of a padded batch the largest difference to its similarities to three images."""
    texts = [torch.cat([text, torch.tensor([1])]) for text in pair.texts(count)]
    images = torch.randn(3, 3, *pair.ours.cfg.second.inputs.size)
    got = pair.ours(padded([pair.inverse[text] for text in texts], side), images)
    filled = [torch.nn.functional.pad(text, (0, 16 - len(text)), value=1)[None] for text in texts]
    wanted = torch.cat([pair.theirs(input_ids=text, pixel_values=images).logits_per_text for text in filled])
    return (got - wanted).abs().amax(dim=1).tolist()


@torch.inference_mode()
def cached_errors(pair: Pair, count: int = 2) -> list[float]:
    """The same for a text read token by token, after its first two; theirs of the text so far, where that matters."""
    found = []
    for text, source in zip(pair.texts(count, seed=2, shortest=6), pair.sources(count), strict=True):
        state = pair.ours.start(None if source is None else pair.source_inverse[source][None])
        ours = pair.inverse[text][None]
        parts = [
            pair.ours.decode(ours[:, :2], state),
            *(pair.ours.decode(ours[:, i : i + 1], state) for i in range(2, len(text))),
        ]
        got = pair.without_added(torch.cat(parts, dim=1)[0])
        if getattr(pair.ours, "limits", ()):
            so_far = [pair.reference(text[:end], source)[-1:] for end in range(3, len(text) + 1)]
            wanted = torch.cat([pair.reference(text[:2], source), *so_far])
        else:
            wanted = pair.reference(text, source)
        found.append(float((got - pair.in_our_order(wanted)).abs().max()))
    return found


@torch.inference_mode()
def said_by_us(pair: Pair, prompts: list[Tensor], cfg: SearchConfig) -> list[list[int]]:
    """Their ids of what our search says, the end left out; the batch is padded."""
    rows = [(pair.source_inverse if pair.translates else pair.inverse)[prompt] for prompt in prompts]
    if pair.translates:
        longest = max(map(len, rows))
        batch = torch.stack([torch.nn.functional.pad(row, (0, longest - len(row))) for row in rows])
        found = search(pair.ours, batch, cfg)
    else:
        found = [continued(pair.ours, row, cfg) for row in rows]
    order = pair.vocabulary.order()
    return [order[list(hypotheses[0].tokens)].tolist()[:-1] for hypotheses in found]


def continued(model: SequenceModel, prompt: Tensor, cfg: SearchConfig) -> list[Any]:
    """The search's best continuations of a prompt."""
    strategy = cfg.start([cfg.limit.tokens], prompt.device)
    state = model.start(None)
    logits = model.decode(prompt[None], state)[:, -1]
    choice = strategy.step(logits, logits)
    if choice and strategy.beams > 1:
        state.expand(strategy.beams)
    while choice:
        if choice.keep is not None:
            state.select(choice.keep)
        if choice.rows is not None:
            state.reorder(choice.rows)
        logits = model.decode(choice.tokens[:, None], state)[:, -1]
        choice = strategy.step(logits, logits)
    return strategy.results()[0]


@torch.inference_mode()
def said_by_them(pair: Pair, prompt: Tensor, beams: int) -> list[int] | None:
    """What `generate` says, the end left out; None where it ran out of tokens before any end."""
    pad = pair.vocabulary.eos if pair.vocabulary.pad is None else pair.vocabulary.pad
    suppressed = [i for i in (pair.vocabulary.pad, pair.vocabulary.bos) if i is not None]
    cached = pair.name != "xLSTM" or beams == 1  # its cache cannot be reordered there
    out = pair.theirs.generate(
        input_ids=prompt[None], attention_mask=torch.ones(1, len(prompt), dtype=torch.long), do_sample=False,
        num_beams=beams, max_new_tokens=LONGEST, suppress_tokens=suppressed or None, length_penalty=1.0,
        early_stopping=False, pad_token_id=pad, use_cache=cached,
    )[0].tolist()  # fmt: skip
    said = out[1:] if pair.translates else out[len(prompt) :]
    return said[: said.index(pair.vocabulary.eos)] if pair.vocabulary.eos in said else None


def searches(beams: int) -> SearchConfig:
    """Ours, with the rules of theirs for when a sentence is done."""
    limit = LengthLimit(tokens=LONGEST + 1, ratio=0.0, extra=LONGEST + 1)
    if beams == 1:
        return Greedy(limit=limit)
    return Beam(size=beams, nbest=beams, penalty=Average(), stop="first", limit=limit)


def identical(pair: Pair, beams: int, count: int) -> tuple[int, int]:
    """How many of those prompts that they bring to an end we answer with the same tokens, and how many those are."""
    prompts = [p for p in pair.sources(count) if p is not None] or pair.texts(count, seed=3)
    wanted = {i: said for i, prompt in enumerate(prompts) if (said := said_by_them(pair, prompt, beams)) is not None}
    got = said_by_us(pair, prompts, searches(beams))
    return sum(got[i] == said for i, said in wanted.items()), len(wanted)


def comes_back(pair: Pair, path: Path) -> bool:
    """Whether import, export and import again give the same files to the bit, and the export their own tensors."""
    from safetensors.torch import load_file

    export_huggingface(pair.run, path / "again")
    import_checkpoint(path / "again", path / "second")
    first, second = (run / "checkpoints" / "step-000000" / "model.safetensors" for run in (pair.run, path / "second"))
    theirs, ours = load_file(pair.folder / "model.safetensors"), load_file(path / "again" / "model.safetensors")
    if pair.name == "Pegasus":  # it stores its sines and cosines, and computes them where they are not stored
        theirs = {name: value for name, value in theirs.items() if not name.endswith("embed_positions.weight")}
    return (
        first.read_bytes() == second.read_bytes()
        and theirs.keys() == ours.keys()
        and all(torch.equal(theirs[name], ours[name]) for name in theirs)
    )
