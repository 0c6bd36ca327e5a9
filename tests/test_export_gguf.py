"""Language models as GGUF files: the numbers read back, the answers of llama.cpp, and what is refused."""

import json
import re
from dataclasses import replace
from typing import Any, get_args

import exported
import foreign_text
import numpy as np
import pytest
import torch
from tokenizers import Regex, pre_tokenizers

from dragoman.checkpoint import load_model
from dragoman.cli import main
from dragoman.errors import ConfigError
from dragoman.interchange import exporting
from dragoman.interchange.gguf import FILE, as_neighbours, export_gguf
from dragoman.interchange.importing import import_checkpoint
from dragoman.model.masks.visibility import Causal
from dragoman.model.mlp import Activation
from dragoman.text.tokens.tokenizer import Tokenizer
from dragoman.text.tokens.training import Bpe, Unigram

gguf = pytest.importorskip("gguf")

NAMES = {"lm-small": "llama", "llama-3.2-1b": "llama", "qwen2-0.5b": "llama", "qwen3-0.6b": "qwen3", "palm": "llama"}


def as_halves(rows: torch.Tensor, heads: int) -> torch.Tensor:
    """Undo ``as_neighbours``."""
    return rows.unflatten(0, (heads, -1, 2)).transpose(1, 2).flatten(0, 2).contiguous()


@pytest.fixture(scope="module", params=NAMES)
def pair(request, tmp_path_factory):
    """A run, and the folder of its export."""
    base = tmp_path_factory.mktemp("gguf")
    run = exported.save_preset(request.param, base / "run")
    assert export_gguf(run.path, base / "folder", check=False) == NAMES[request.param]
    return run.path, base / "folder" / FILE, NAMES[request.param]


def test_tensors_read_back_are_those_of_the_run(pair):
    run, path, architecture = pair
    model: Any = load_model(run)[0]
    mixer, scale = model.cfg.decoder.pattern[0].mixer, model.cfg.dim**0.5 if model.cfg.scale_embedding else 1.0
    reader = gguf.GGUFReader(path)
    found = {t.name: torch.from_numpy(np.array(t.data)).view(*reversed(t.shape.tolist())) for t in reader.tensors}
    torch.testing.assert_close(found["token_embd.weight"], model.embed.tokens.weight * scale, rtol=0, atol=0)
    for i, block in enumerate(model.decoder.blocks):
        q, k = found[f"blk.{i}.attn_q.weight"], found[f"blk.{i}.attn_k.weight"]
        if architecture == "llama":
            q, k = as_halves(q, mixer.heads), as_halves(k, mixer.key_value_heads)
        assert torch.equal(q, block.mixer.q.weight) and torch.equal(k, block.mixer.k.weight)
        assert torch.equal(found[f"blk.{i}.attn_output.weight"], block.mixer.out.weight)
        assert torch.equal(found[f"blk.{i}.ffn_down.weight"], block.mlp.out.weight)
    assert torch.equal(found["output_norm.weight"], model.decoder.final_norm.weight)


def test_llama_cpp_writes_the_same_greedy_ids(pair):
    llama_cpp = pytest.importorskip("llama_cpp")
    run, path, _ = pair
    model, tokenizer, _ = load_model(run)
    opened = llama_cpp.Llama(str(path), n_ctx=64, type_k=0, type_v=0, n_threads=1, logits_all=True, verbose=False)
    for text in ("abc", " Guten Tag!", "x"):
        ids = [1, *tokenizer.encode(text)]
        assert opened.tokenize(text.encode(), add_bos=True) == ids
        for _ in range(8):
            wanted = model(torch.tensor([ids]))[0, -1]
            opened.reset()
            opened.eval(ids)
            logits = torch.from_numpy(opened.scores[len(ids) - 1].copy())
            torch.testing.assert_close(logits, wanted.detach(), rtol=0, atol=1e-4)
            ids.append(int(wanted.argmax()))


def test_rows_in_the_order_of_llama_cpp_and_back_are_the_same():
    rows = torch.randn(6 * 8, 5)
    assert torch.equal(as_halves(as_neighbours(rows, 6), 6), rows)
    pairs = as_neighbours(torch.arange(8.0), 1)  # channel 0 turns with channel 4
    assert pairs.tolist() == [0, 4, 1, 5, 2, 6, 3, 7]


def test_a_trained_vocabulary_reads_text_as_here(tmp_path):
    llama_cpp = pytest.importorskip("llama_cpp")
    texts = ["the cat sees the red house", "don't we'll see 12,50 cats", "the houses, the cats"] * 9
    tokenizer = Tokenizer.train(Bpe(vocab=285), texts)
    cfg = exported.small_config("lm-small", len(tokenizer))
    run = exported.save_run(cfg, tmp_path / "run", tokenizer=tokenizer)
    export_gguf(run.path, tmp_path / "folder")
    opened = llama_cpp.Llama(str(tmp_path / "folder" / FILE), vocab_only=True, verbose=False)
    for text in (*texts[:3], "Grüße an 3 Leute: 12,50 €!", "漢字  two"):
        # a space stands before the first word here, which llama.cpp leaves to whoever asks
        assert opened.tokenize(f" {text}".encode(), add_bos=False) == tokenizer.encode(text)


@pytest.mark.parametrize("kind", ["f16", "q8_0"])
def test_numbers_are_rounded_only_where_asked(kind, tmp_path):
    run = exported.save_preset("lm-tiny", tmp_path / "run")
    export_gguf(run.path, tmp_path / "folder", quantization=kind)
    kinds = {tensor.tensor_type.name for tensor in gguf.GGUFReader(tmp_path / "folder" / FILE).tensors}
    assert kinds <= {"F32", "F16", "Q8_0"} and kind.upper() in kinds | {"Q8_0"}


REFUSED = {
    "a mixer": ("mamba-small", r"mamba.*the nearest preset that can be exported so is [\w.-]+"),
    "positions": ("lm-small-2019", r"the nearest preset that can be exported so is [\w.-]+"),
    "a translator": ("transformer-small", r"decoders like LLaMA"),
    "a classifier": ("classifier-tiny", r"decoders like LLaMA"),
    "recurrence": ("lstm-lm-small", r"model\.kind: recurrent.*nearest preset"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_llama_cpp_has_not_is_refused_with_the_setting_and_a_preset(case, tmp_path, capsys):
    name, message = REFUSED[case]
    run = exported.save_preset(name, tmp_path / "run")
    assert main(["export", str(run.path), "--to", "gguf", "-o", str(tmp_path / "folder")]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and re.search(message, said), said
    assert not (tmp_path / "folder").exists()


def test_a_vocabulary_without_merges_is_refused(tmp_path, capsys):
    tokenizer = Tokenizer.train(Unigram(vocab=275), ["the cat sees the red house", "the houses, the cats"] * 9)
    run = exported.save_run(exported.small_config("lm-small", len(tokenizer)), tmp_path / "run", tokenizer=tokenizer)
    assert main(["export", str(run.path), "--to", "gguf", "-o", str(tmp_path / "folder")]) == 2
    assert "tokenizer: Unigram: llama.cpp reads a byte-level BPE" in capsys.readouterr().err


def test_the_chat_templates_of_a_run_are_in_its_file(tmp_path):
    run = exported.save_preset("lm-tiny", tmp_path / "run")
    (run.path / "chat_template.jinja").write_text("OWN")
    (run.path / "additional_chat_templates").mkdir()
    (run.path / "additional_chat_templates" / "tool_use.jinja").write_text("OWN TOOLS")
    export_gguf(run.path, tmp_path / "folder", check=False)
    fields = gguf.GGUFReader(tmp_path / "folder" / FILE).fields
    assert fields["tokenizer.chat_template"].contents() == "OWN"
    assert fields["tokenizer.chat_template.tool_use"].contents() == "OWN TOOLS"


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    """A run imported from a Qwen 3 folder with a long context, an added token that is not special, and free rows."""
    pytest.importorskip("transformers")
    base = tmp_path_factory.mktemp("imported")
    tokenizer, model = foreign_text.make(foreign_text.Case("Qwen 3", False), base / "folder")
    tokenizer.add_tokens(["<tool_call>"])
    tokenizer.save_pretrained(base / "folder")
    model.resize_token_embeddings(len(tokenizer) + 2)
    model.config.max_position_embeddings = 32_768
    model.save_pretrained(base / "folder")
    return import_checkpoint(base / "folder", base / "run"), tokenizer


def test_the_length_and_the_kinds_of_tokens_are_those_of_the_imported_folder(imported, tmp_path):
    run, tokenizer = imported
    export_gguf(run.path, tmp_path / "folder", check=False)
    fields = gguf.GGUFReader(tmp_path / "folder" / FILE).fields
    assert fields["qwen3.context_length"].contents() == 32_768
    kinds = [gguf.TokenType(kind) for kind in fields["tokenizer.ggml.token_type"].contents()]
    names = fields["tokenizer.ggml.tokens"].contents()
    added = {i: token.special for i, token in tokenizer.added_tokens_decoder.items()}
    for i, kind in enumerate(kinds):  # as convert_hf_to_gguf.py of llama.cpp has them
        plain = gguf.TokenType.NORMAL if i < len(tokenizer) else gguf.TokenType.UNUSED
        of_added = {True: gguf.TokenType.CONTROL, False: gguf.TokenType.USER_DEFINED}
        assert kind == (of_added[added[i]] if i in added else plain), names[i]


@pytest.mark.parametrize("as_it_came", [True, False])
def test_a_folder_states_the_length_that_an_import_stated(imported, as_it_came, tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "_is_as_it_came", lambda *_: as_it_came)
    exporting.export_huggingface(imported[0].path, tmp_path / "folder", check=False)
    assert json.loads((tmp_path / "folder" / "config.json").read_text())["max_position_embeddings"] == 32_768


PIECE = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CUTS = {
    "as GPT-2": ([pre_tokenizers.ByteLevel(add_prefix_space=False)], "gpt-2"),
    "as SmolLM": ([pre_tokenizers.Digits(True), pre_tokenizers.ByteLevel(add_prefix_space=False)], "smollm"),
    "as Qwen 2": (
        [pre_tokenizers.Split(Regex(PIECE), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)],
        "qwen2",
    ),
    "runs of digits": ([pre_tokenizers.Digits(False), pre_tokenizers.ByteLevel(add_prefix_space=False)], None),
    "nothing": ([pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)], None),
    "punctuation": ([pre_tokenizers.Punctuation(), pre_tokenizers.ByteLevel(add_prefix_space=False)], None),
    "twice": ([pre_tokenizers.Split(Regex(PIECE), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False)], None),
    "what is between": (
        [pre_tokenizers.Split(Regex(PIECE), "removed", invert=True), pre_tokenizers.ByteLevel(False, use_regex=False)],
        None,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CUTS)
def test_text_is_cut_in_a_way_that_llama_cpp_has_or_refused(case, tmp_path):
    parts, name = CUTS[case]
    tokenizer = Tokenizer.train(Bpe(vocab=275), ["the cat sees the red house", "the houses, the cats"] * 9)
    tokenizer.inner.pre_tokenizer = pre_tokenizers.Sequence(parts)
    run = exported.save_run(exported.small_config("lm-small", len(tokenizer)), tmp_path / "run", tokenizer=tokenizer)
    if name is None:
        with pytest.raises(ConfigError, match=r"llama\.cpp has no name for a tokenizer that cuts text by"):
            export_gguf(run.path, tmp_path / "folder", check=False)
        return
    export_gguf(run.path, tmp_path / "folder", check=False)
    fields = gguf.GGUFReader(tmp_path / "folder" / FILE).fields
    assert fields["tokenizer.ggml.pre"].contents() == name


def refusal(cfg, folder, capsys) -> str:
    """The one line that says why a model is not exported."""
    run = exported.save_run(cfg, folder / "run")
    assert main(["export", str(run.path), "--to", "gguf", "-o", str(folder / "folder"), "--no-check"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and not (folder / "folder").exists(), said
    return said


def with_parts(name: str, parts: dict[str, dict[str, Any]], depth: int = 1) -> Any:
    """The model of a preset, with other fields of some parts of its last block."""
    cfg: Any = exported.small_config(name, 259)
    [block] = cfg.decoder.pattern
    changed = replace(block, **{part: replace(getattr(block, part), **fields) for part, fields in parts.items()})
    pattern = (*(block,) * (depth - 1), changed)
    return replace(cfg, decoder=replace(cfg.decoder, depth=depth, pattern=pattern))


OTHER_ACTIVATIONS = [name for name in get_args(Activation) if name != "silu"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("activation", OTHER_ACTIVATIONS)
def test_an_activation_that_llama_cpp_does_not_compute_is_refused(name, activation, tmp_path, capsys):
    """A file cannot name an activation: with any other than SiLU it would be that of another model."""
    said = refusal(with_parts(name, {"mlp": {"activation": activation}}), tmp_path, capsys)
    assert f"model.decoder.pattern.0.mlp.activation: {activation}" in said or "no name in transformers" in said, said


@pytest.mark.parametrize("name", ["lm-small", "qwen3-0.6b"])
def test_ids_that_are_never_generated_are_refused(name, tmp_path, capsys):
    said = refusal(replace(exported.small_config(name, 259), suppressed=(5, 9)), tmp_path, capsys)
    assert "model.suppressed" in said


@pytest.mark.parametrize("part", ["mixer", "mlp"])
def test_biases_that_qwen_3_of_llama_cpp_has_not_are_refused(part, tmp_path, capsys):
    said = refusal(with_parts("qwen3-0.6b", {part: {"bias": True}}), tmp_path, capsys)
    assert f"model.decoder.pattern.0.{part}.bias" in said


@pytest.mark.parametrize("name", ["qwen2-0.5b", "qwen3-0.6b"])
def test_a_window_is_refused_wherever_it_is(name, tmp_path, capsys):
    cfg = with_parts(name, {"mixer": {"visibility": Causal(window=4)}}, depth=2)
    assert "model.decoder.pattern.1.mixer.visibility: a window is not written" in refusal(cfg, tmp_path, capsys)
