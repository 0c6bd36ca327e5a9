"""A language model as a GGUF file, which llama.cpp and the programs built on it open.

The model is first put into a layout of transformers, whose names the ``gguf`` package knows; llama.cpp then wants the
rows of queries and keys in the order of its own rotation.

H heads, C channels of one head, D width.
"""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dragoman import durable
from dragoman.checkpoint import RunDirectory
from dragoman.config import unknown
from dragoman.errors import ConfigError
from dragoman.interchange.checking import built, check_gguf, checker_missing
from dragoman.interchange.exporting import check_free, vocabulary_of, weights_of
from dragoman.interchange.importing import ORIGIN
from dragoman.interchange.layouts import Layout, find_layout, stated_longest, to_layout, with_zero_biases
from dragoman.interchange.names import pairs
from dragoman.interchange.nearest import nearest_preset
from dragoman.interchange.tokenizer import write_tokenizer
from dragoman.interchange.vocabulary import VocabularyMapping
from dragoman.model.families import ModelConfig
from dragoman.model.meta_device import on_meta_device
from dragoman.model.positions.rotary import LinearScaling, Llama3Scaling, NoScaling, Rotary, Yarn
from dragoman.model.transformer import TransformerConfig
from dragoman.text.chat_template_files import read_template_sources

ARCHITECTURES = {"llama": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}
"""Layouts that are written, with the names that llama.cpp has for them."""
ACTIVATION = "silu"
"""Activation of their feed-forwards: llama.cpp has no other for these architectures, and a file cannot name one."""
TYPES = ("f32", "f16", "bf16", "q8_0")
FILE = "model.gguf"
_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_PRE_TOKENIZERS = {
    _WORDS + r"\p{N}{1,3}" + _REST: "llama-bpe",
    _WORDS + r"\p{N}" + _REST: "qwen2",
}
"""Ways to cut text into words, by their expression, with the names that llama.cpp has for them."""


def export_gguf(
    run: str | Path,
    folder: str | Path,
    checkpoint: str | int = "best",
    quantization: str | None = None,
    *,
    check: bool = True,
) -> str:
    """Write the folder with ``model.gguf``, and return the name of the architecture there.

    The model is compared with the run's first, in the run's precision, unless ``check`` is false or llama-cpp-python is
    not installed.

    Raises:
        CheckpointError: as ``RunDirectory.load``, something is at ``folder`` already, or the export answers otherwise.
        ConfigError: a model or tokenizer that llama.cpp does not have (the message names the setting to blame, and a
            preset that can be exported), or the package ``gguf`` is not installed.
    """
    directory, folder = RunDirectory.open(run), Path(folder)
    check_free(folder)
    _check_installed()
    if quantization not in (None, *TYPES):
        raise ConfigError(unknown("quantization", quantization, TYPES))
    cfg, weights = weights_of(directory, checkpoint)
    layout = _layout(cfg, weights, directory)
    vocabulary = vocabulary_of(directory)
    assert vocabulary is not None, "a language model reads text"
    tensors, longest = _tensors(layout, vocabulary), stated_longest(layout, directory)
    assert longest is not None, "its positions are rotary"
    with durable.folder(folder) as partial:
        described = _tokenizer_files(partial, directory, vocabulary)
        kinds = [quantization] if not (check and quantization == "q8_0") else [None, quantization]
        for kind in kinds:  # compared before numbers are rounded to 8 bits
            _write(partial / FILE, layout, tensors, described, vocabulary, longest, kind)
            if check and kind != "q8_0" and checker_missing("gguf") is None:
                check_gguf(partial / FILE, built(cfg, weights), vocabulary)
    return ARCHITECTURES[layout.family.name]


def _check_installed() -> None:
    try:
        import gguf  # noqa: F401
    except ImportError:
        raise ConfigError("gguf is not installed: pip install gguf (the extra gguf)") from None


# ---- what can be expressed --------------------------------------------------------------------------


def gguf_obstacle(layout: Layout) -> str | None:
    """Return the setting by which llama.cpp cannot have a model; None where it can."""
    cfg = layout.cfg
    if layout.family.name not in ARCHITECTURES or not isinstance(cfg, TransformerConfig):
        return f"model: the layout of {layout.family.name} is not written"
    for i, block in enumerate(cfg.decoder.pattern):
        if block.attention.visibility.window is not None:
            return f"model.decoder.pattern.{i}.mixer.visibility: a window is not written"
        if (activation := getattr(block.mlp, "activation", ACTIVATION)) != ACTIVATION:
            return f"model.decoder.pattern.{i}.mlp.activation: {activation} is not written"
        if layout.family.name == "qwen3" and block.attention.bias:
            return f"model.decoder.pattern.{i}.mixer.bias: biases are not written beside norms on queries and keys"
    position = cfg.decoder.pattern[0].attention.position
    if not isinstance(position, Rotary) or not isinstance(
        position.scaling, NoScaling | LinearScaling | Llama3Scaling | Yarn
    ):
        kind = type(getattr(position, "scaling", position)).__name__
        return f"model.decoder.pattern.0.mixer.position: {kind} is not written"
    return None


def _layout(cfg: ModelConfig, weights: Any, run: RunDirectory) -> Layout:
    try:
        layout = find_layout(cfg, weights, run)
        reason = gguf_obstacle(layout)
    except ConfigError as error:
        layout, reason = None, str(error).partition(" cannot be expressed")[0].rstrip(":")
    if layout is None or reason is not None:
        raise ConfigError(
            f"{reason}: cannot be expressed in GGUF, which is written for decoders like LLaMA, Qwen 2 and Qwen 3; "
            f"{nearest_preset(cfg, 'gguf')}"
        )
    return layout


# ---- tensors ---------------------------------------------------------------------------------------


def _tensors(layout: Layout, vocabulary: VocabularyMapping) -> dict[str, Tensor]:
    """Return the tensors under their names in GGUF."""
    import gguf

    family, cfg = layout.family, layout.cfg
    assert isinstance(cfg, TransformerConfig)
    written = to_layout(cfg, family)
    weights = with_zero_biases(written, layout.weights)
    with on_meta_device():
        model = written.build()
    architecture = next(k for k, v in gguf.MODEL_ARCH_NAMES.items() if v == ARCHITECTURES[family.name])
    known = gguf.get_tensor_name_map(architecture, cfg.decoder.depth)
    mixer, found = cfg.decoder.pattern[0].attention, {}
    for pair in pairs(model, family.table(cfg), family.tables(cfg)):
        value = pair.write([weights[ours] for ours in pair.ours], vocabulary)
        part, leaf = pair.theirs.rsplit(".", 1)
        if family.name == "llama" and part.endswith(("q_proj", "k_proj")):
            value = as_neighbours(value, mixer.heads if part.endswith("q_proj") else mixer.key_value_heads)
        found[f"{known.get_name(part)}.{leaf}"] = value
    position = mixer.position
    if isinstance(position, Rotary) and isinstance(position.scaling, Llama3Scaling):  # what frequencies are divided by
        channels = mixer.channels(cfg.dim)
        plain, scaled = (s.frequencies(position.theta, channels) for s in (NoScaling(), position.scaling))
        found["rope_freqs.weight"] = (plain / scaled).float()
    return found


def as_neighbours(rows: Tensor, heads: int) -> Tensor:
    """Return the rows of queries or keys (H C, ...) in llama.cpp's order: the two of a rotated pair stand together."""
    return rows.unflatten(0, (heads, 2, -1)).transpose(1, 2).flatten(0, 2).contiguous()


# ---- writing ---------------------------------------------------------------------------------------


def _write(
    path: Path,
    layout: Layout,
    tensors: dict[str, Tensor],
    described: dict[str, Any],
    vocabulary: VocabularyMapping,
    longest: int,
    quantization: str | None,
) -> None:
    import gguf

    writer = gguf.GGUFWriter(path, ARCHITECTURES[layout.family.name])
    assert isinstance(layout.cfg, TransformerConfig)
    _describe_model(writer, layout.cfg, vocabulary, longest)
    _describe_tokenizer(writer, described, vocabulary)
    for name, value in tensors.items():
        kind = quantization or {torch.bfloat16: "bf16", torch.float16: "f16"}.get(value.dtype, "f32")
        _add(writer, name, value, kind if value.dim() > 1 else "f32")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add(writer: Any, name: str, value: Tensor, kind: str) -> None:
    import gguf

    numbers, stored = value.detach().float().numpy(), gguf.GGMLQuantizationType[kind.upper()]
    if kind == "q8_0" and numbers.shape[-1] % 32:
        stored = gguf.GGMLQuantizationType.F16  # 8-bit numbers come in blocks of 32
    writer.add_tensor(name, gguf.quants.quantize(numbers, stored), raw_dtype=stored)


def _describe_model(writer: Any, cfg: TransformerConfig, vocabulary: VocabularyMapping, longest: int) -> None:
    block = cfg.decoder.pattern[0]
    mixer, position = block.attention, block.attention.position
    assert isinstance(position, Rotary)
    channels = mixer.channels(cfg.dim)
    writer.add_context_length(longest)
    writer.add_embedding_length(cfg.dim)
    writer.add_block_count(cfg.decoder.depth)
    writer.add_feed_forward_length(getattr(block.mlp, "hidden", 0))
    writer.add_head_count(mixer.heads)
    writer.add_head_count_kv(mixer.key_value_heads)
    writer.add_key_length(channels)
    writer.add_value_length(channels)
    writer.add_rope_dimension_count(channels)
    writer.add_rope_freq_base(position.theta)
    writer.add_layer_norm_rms_eps(getattr(cfg.decoder.final_norm, "eps", 1e-6))
    writer.add_vocab_size(vocabulary.size)
    match position.scaling:
        case LinearScaling(factor=factor):
            writer.add_rope_scaling_type("linear")
            writer.add_rope_scaling_factor(factor)
        case Yarn(factor=factor, trained=trained, fast=fast, slow=slow):
            writer.add_rope_scaling_type("yarn")
            writer.add_rope_scaling_factor(factor)
            writer.add_rope_scaling_orig_ctx_len(trained)
            writer.add_rope_scaling_yarn_beta_fast(fast)
            writer.add_rope_scaling_yarn_beta_slow(slow)


def _tokenizer_files(folder: Path, run: RunDirectory, vocabulary: VocabularyMapping) -> dict[str, Any]:
    """Write tokenizer.json beside the model; return its content, with the run's chat templates by name."""
    origin = run.path / ORIGIN
    with tempfile.TemporaryDirectory() as written:
        write_tokenizer(Path(written), run.tokenizers()[1], vocabulary, shape="decoder", origin=origin)
        content = json.loads((Path(written) / "tokenizer.json").read_text(encoding="utf-8"))
    (folder / "tokenizer.json").write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    templates = read_template_sources(run.path, origin)
    return {"pre": _pre_tokenizer(content), "templates": templates.sources if templates else {}} | content


def _pre_tokenizer(content: dict[str, Any]) -> str:
    """Return llama.cpp's name for the way in which a tokenizer cuts text.

    Raises:
        ConfigError: it has none, or the tokenizer is no byte-level BPE.
    """
    model = content["model"]
    kind = model.get("type")
    if kind != "BPE" or "ByteLevel" not in str(content.get("pre_tokenizer")) or _longer_without_merges(model):
        name = f"{kind} without merges" if kind == "BPE" else kind
        raise ConfigError(
            f"tokenizer: {name}: llama.cpp reads a byte-level BPE; train with tokenizer.kind=bpe or bytes to export"
        )
    if not model["merges"]:
        return "gpt-2"  # each byte is a token, however text is cut
    match list(_parts(content["pre_tokenizer"])):
        case [{"type": "ByteLevel", "use_regex": True}]:
            return "gpt-2"
        case [{"type": "Digits", "individual_digits": True}, {"type": "ByteLevel", "use_regex": True}]:
            return "smollm"
        case [
            {"type": "Split", "pattern": {"Regex": cut}, "behavior": "Isolated", "invert": False},
            {"type": "ByteLevel", "use_regex": False},
        ] if cut in _PRE_TOKENIZERS:
            return _PRE_TOKENIZERS[cut]
        case parts:
            cuts = ", ".join(str(part.get("pattern", part["type"])) for part in parts)
            raise ConfigError(f"tokenizer: llama.cpp has no name for a tokenizer that cuts text by {cuts}")


def _longer_without_merges(model: dict[str, Any]) -> bool:
    """Return whether a vocabulary has tokens of several bytes that no merge makes."""
    return not model["merges"] and any(len(name) > 1 and not name.startswith(("⟨", "<")) for name in model["vocab"])


def _parts(cut: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the parts of a pre-tokenizer, with what the tokenizers library takes for fields that are not stated."""
    if cut["type"] == "Sequence":
        for part in cut["pretokenizers"]:
            yield from _parts(part)
    else:
        usual = {"ByteLevel": {"use_regex": True}, "Digits": {"individual_digits": False}, "Split": {"invert": False}}
        yield usual.get(cut["type"], {}) | cut


def _describe_tokenizer(writer: Any, described: dict[str, Any], vocabulary: VocabularyMapping) -> None:
    model, added = described["model"], {token["id"]: token for token in described["added_tokens"]}
    by_id = {i: name for name, i in model["vocab"].items()} | {i: token["content"] for i, token in added.items()}
    fillers = [f"⟨unused {i}⟩" for i in range(vocabulary.size)]
    names = [by_id.get(i, filler) for i, filler in enumerate(fillers)]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(described["pre"])
    writer.add_token_list(names)
    writer.add_token_types([_token_type(added.get(i), name == fillers[i]) for i, name in enumerate(names)])
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    writer.add_token_merges(merges or ["⟨ ⟩"])  # a list must not be empty: a pair that no text holds
    writer.add_bos_token_id(vocabulary.start)
    writer.add_eos_token_id(vocabulary.eos)
    writer.add_pad_token_id(vocabulary.eos if vocabulary.pad is None else vocabulary.pad)
    first = (described["post_processor"] or {}).get("single", [{}])[:1]
    writer.add_add_bos_token("SpecialToken" in first[0] if first else False)
    writer.add_add_eos_token(False)
    if templates := described["templates"]:
        writer.add_chat_template([{"name": name, "template": source} for name, source in templates.items()])


def _token_type(added: dict[str, Any] | None, is_filler: bool) -> int:
    """Return llama.cpp's type of a token: it finds those in a text that were added to the vocabulary, as we do."""
    import gguf

    if is_filler:
        return gguf.TokenType.UNUSED
    if added is None:
        return gguf.TokenType.NORMAL
    return gguf.TokenType.CONTROL if added["special"] else gguf.TokenType.USER_DEFINED
