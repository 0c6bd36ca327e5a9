"""What was trained here, opened by others: the same numbers and words there, or one line that says what stands in the
way."""

import dataclasses
import os
import re
import subprocess
import sys

import exported
import foreign
import numpy as np
import pytest
import torch
import torch._dynamo

from dragoman.checkpoint import RunDirectory, load_model
from dragoman.cli import main
from dragoman.config import to_dict
from dragoman.decode.search.greedy import Greedy
from dragoman.decode.search.search import search
from dragoman.decode.search.strategy import LengthLimit
from dragoman.interchange.ctranslate2 import export_ctranslate2, tokens
from dragoman.interchange.exporting import export_huggingface
from dragoman.interchange.importing import import_checkpoint
from dragoman.model.heads import ClassificationHead
from dragoman.model.mamba import Mamba
from dragoman.model.mamba2 import Mamba2
from dragoman.model.masks.visibility import Causal
from dragoman.model.mlp import Gated
from dragoman.model.norm import LayerNorm, RmsNorm
from dragoman.model.positions.position import Alibi, InclusiveSinusoidal, Learned
from dragoman.model.positions.rotary import LinearScaling, Rotary
from dragoman.model.short_convolution import ShortConvolution
from dragoman.model.transformer import TransformerConfig
from dragoman.presets import rewritten2026, vaswani2017
from dragoman.text.tokens.tokenizer import EOS, Tokenizer
from dragoman.text.tokens.training import Bytes

transformers = pytest.importorskip("transformers")
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()


def changed(cfg: TransformerConfig, *, decoder_only: bool = False, **mixer) -> TransformerConfig:
    """``cfg`` with other self-attention in the decoder, or with its decoder alone."""
    (block,) = cfg.decoder.pattern
    block = dataclasses.replace(
        block,
        mixer=dataclasses.replace(block.mixer, **mixer),
        cross=None if decoder_only else block.cross,
    )
    decoder = dataclasses.replace(cfg.decoder, pattern=(block,))
    return dataclasses.replace(cfg, decoder=decoder, encoder=None if decoder_only else cfg.encoder)


def with_feed_forward(cfg: TransformerConfig, mlp: Gated) -> TransformerConfig:
    (block,) = cfg.decoder.pattern
    pattern = (dataclasses.replace(block, mlp=mlp),)
    return dataclasses.replace(cfg, decoder=dataclasses.replace(cfg.decoder, pattern=pattern))


def with_positions_before_norms(position: InclusiveSinusoidal) -> TransformerConfig:
    """The model of 2017 with norms before its sublayers, and other sines."""
    towers = {}
    for side in ("encoder", "decoder"):
        tower = getattr(BASE, side)
        pattern = (dataclasses.replace(tower.pattern[0], placement="pre"),)
        towers[side] = dataclasses.replace(tower, pattern=pattern, final_norm=LayerNorm())
    return dataclasses.replace(BASE, position=position, **towers)


BASE = vaswani2017(dim=18, heads=3, hidden=29, depth=2, dropout=0.0)
MODERN = rewritten2026(dim=24, heads=4, kv_heads=2, hidden=31, depth=2, encoder_depth=1, dropout=0.0)
LANGUAGE_MODEL = dataclasses.replace(changed(MODERN, decoder_only=True), scale_embedding=False, tying="none")
GPT = dataclasses.replace(
    changed(BASE, decoder_only=True),
    position=Learned(length=64),
    scale_embedding=False,
    decoder=dataclasses.replace(
        BASE.decoder,
        pattern=(dataclasses.replace(BASE.decoder.pattern[0], cross=None, placement="pre"),),
        final_norm=LayerNorm(),
    ),
)


def save(cfg: TransformerConfig, path) -> RunDirectory:
    """A run of a model that has learned nothing, over bytes."""
    tokenizer = Tokenizer.train(Bytes(), [])
    model = dataclasses.replace(cfg, vocab=len(tokenizer)).build()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.15)
    config = {"model": to_dict(model.cfg)}
    run = RunDirectory.create(path, config)
    run.write_tokenizers(tokenizer, tokenizer)
    run.save(1, tensors={"model": model.state_dict()}, progress={}, config=config)
    run.close()
    return run


LIMIT = LengthLimit(tokens=16, ratio=0.0, extra=16)
TEXTS = ["abc", "Guten Tag!", "x"]

# ---- transformers ----------------------------------------------------------------------------------

LAYOUTS = {
    "marian": BASE,
    "llama": LANGUAGE_MODEL,
    "mistral": changed(LANGUAGE_MODEL, visibility=Causal(window=5)),
    "smollm3": with_feed_forward(changed(LANGUAGE_MODEL, visibility=Causal(window=5)), Gated(hidden=31, bias=True)),
    "qwen3": changed(LANGUAGE_MODEL, qk_norm=RmsNorm(), position=Rotary(theta=500_000.0)),
    "gpt2": GPT,
}


@pytest.mark.parametrize("family", LAYOUTS)
@torch.inference_mode()
def test_transformers_opens_what_was_trained_here(family, tmp_path):
    run = save(LAYOUTS[family], tmp_path / "run")
    assert export_huggingface(run.path, tmp_path / "folder") == family
    ours, tokenizer, _ = load_model(run.path)
    their_tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "folder")
    assert [their_tokenizer.pad_token_id, their_tokenizer.bos_token_id, their_tokenizer.eos_token_id] == [0, 1, 2]
    translates = family == "marian"
    opened = transformers.AutoModelForSeq2SeqLM if translates else transformers.AutoModelForCausalLM
    theirs = opened.from_pretrained(tmp_path / "folder").eval()
    for text in TEXTS:
        ids = tokenizer.encode(text)
        assert their_tokenizer(text).input_ids == ([*ids, EOS] if translates else [1, *ids])
        assert their_tokenizer.decode(ids) == text
        source, target = torch.tensor([[*ids, EOS]]), torch.tensor([[1, 40, 50, 60]])
        if translates:
            got, want = ours(target, source), theirs(input_ids=source, decoder_input_ids=target).logits
            said = search(ours, source, Greedy(limit=LIMIT))[0][0].tokens[:-1]
            assert theirs.generate(source, max_new_tokens=15, do_sample=False)[0, 1:].tolist()[: len(said)] == list(
                said
            )
        else:
            got, want = ours(source), theirs(input_ids=source).logits
        torch.testing.assert_close(got, want, rtol=0, atol=2e-5)


@pytest.mark.parametrize("family", LAYOUTS)
def test_what_was_exported_can_be_imported(family, tmp_path):
    run = save(LAYOUTS[family], tmp_path / "run")
    export_huggingface(run.path, tmp_path / "folder")
    import_checkpoint(tmp_path / "folder", tmp_path / "again")
    (ours, one, _), (again, other, _) = load_model(run.path), load_model(tmp_path / "again")
    assert one.encode("Guten Tag!") == other.encode("Guten Tag!")
    source, target = torch.tensor([[9, 8, 7, EOS]]), torch.tensor([[1, 40, 50, 60]])
    arguments = (target, source) if family == "marian" else (target,)
    torch.testing.assert_close(again(*arguments), ours(*arguments), rtol=0, atol=2e-5)


# ---- CTranslate2 -----------------------------------------------------------------------------------

ENGINES = {
    "2017": BASE,
    "2026": MODERN,
    "rotary of neighbours": changed(MODERN, position=Rotary(pairs="neighbours", theta=5000.0)),
    "decoder only": LANGUAGE_MODEL,
    "learned positions": GPT,
    "linear scaling": changed(MODERN, position=Rotary(scaling=LinearScaling(factor=2.0))),
    "alibi": changed(LANGUAGE_MODEL, position=Alibi()),
    "queries and keys with norms": changed(LANGUAGE_MODEL, qk_norm=RmsNorm()),
}


def said_by_the_engine(folder, words: list[str], *, translates: bool) -> list[str]:
    """Greedy, as we search: padding and the beginning are never said, an empty text may be."""
    engine = pytest.importorskip("ctranslate2")
    never = {"beam_size": 1, "suppress_sequences": [["⟨pad⟩"], ["⟨bos⟩"]]}
    if translates:
        translator = engine.Translator(str(folder), compute_type="float32")
        return translator.translate_batch([words], max_decoding_length=15, min_decoding_length=0, **never)[
            0
        ].hypotheses[0]
    generator = engine.Generator(str(folder), compute_type="float32")
    return generator.generate_batch([words], max_length=15, include_prompt_in_result=False, **never)[0].sequences[0]


def said_by_us(model, ids: list[int]) -> tuple[int, ...]:
    if model.cfg.encoder is not None:
        return search(model, torch.tensor([[*ids, EOS]]), Greedy(limit=LIMIT))[0][0].tokens[:-1]
    return foreign.continued(model, torch.tensor(ids), Greedy(limit=LIMIT))[0].tokens[:-1]


@pytest.mark.parametrize("name", ENGINES)
def test_ctranslate2_says_the_same(name, tmp_path):
    run = save(ENGINES[name], tmp_path / "run")
    export_ctranslate2(run.path, tmp_path / "folder")
    model, tokenizer, _ = load_model(run.path)
    names, translates = tokens(tokenizer), model.cfg.encoder is not None
    for text in TEXTS:
        ids = tokenizer.encode(text)
        theirs = said_by_the_engine(tmp_path / "folder", [names[i] for i in ids], translates=translates)
        assert [names[i] for i in said_by_us(model, ids)] == theirs


@pytest.mark.parametrize("name, size", [("Marian", 1), ("BART", 0), ("GPT-2", 0), ("LLaMA", 0), ("Mistral", 1),
                                        ("Qwen 2", 0), ("Qwen 3", 1)])  # fmt: skip
def test_ctranslate2_takes_what_was_imported(name, size, tmp_path):
    pair = foreign.pair(name, size, tmp_path)
    export_ctranslate2(pair.run, tmp_path / "engine")
    names = tokens(load_model(pair.run)[1])
    for prompt in pair.texts(3):
        ids = pair.inverse[prompt].tolist()
        theirs = said_by_the_engine(tmp_path / "engine", [names[i] for i in ids], translates=pair.translates)
        assert [names[i] for i in said_by_us(pair.ours, ids)] == theirs


# ---- what cannot be said ---------------------------------------------------------------------------

REFUSED = {
    "alibi": (changed(MODERN, position=Alibi()), "ctranslate2", r"model\.decoder\.pattern\.0\.mixer\.position: alibi"),
    "a window": (
        changed(MODERN, visibility=Causal(window=4)),
        "ctranslate2",
        r"model\.decoder\.pattern\.0\.mixer\.visibility\.window: 4",
    ),
    "another eps": (
        dataclasses.replace(MODERN, decoder=dataclasses.replace(MODERN.decoder, final_norm=RmsNorm(eps=1e-5))),
        "ctranslate2",
        "model: norms with different eps",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_said_is_refused_with_its_place(name, tmp_path, capsys):
    cfg, layout, message = REFUSED[name]
    run = save(cfg, tmp_path / "run")
    assert main(["export", str(run.path), "--to", layout, "-o", str(tmp_path / "folder")]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and re.search(message, said), said
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize("layout", ["huggingface", "onnx"])
def test_a_quantization_that_a_format_has_not_is_refused_and_not_left_out(layout, tmp_path, capsys):
    command = ["export", str(tmp_path / "run"), "--to", layout, "-o", str(tmp_path / "folder")]
    assert main([*command, "--quantization", "int8"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and f"--quantization: for --to ctranslate2 or gguf, not {layout}" in said
    assert not (tmp_path / "folder").exists()


WITH_CODE = {
    "alibi in marian": (changed(BASE, position=Alibi()), r"model\.decoder\.pattern\.0\.mixer\.position"),
    "the 2026 encoder-decoder": (MODERN, r"^model\.\S+: .* cannot be expressed in a Hugging"),
    "an id that is never generated": (dataclasses.replace(LANGUAGE_MODEL, suppressed=(5,)), r"model\.suppressed: \[5"),
    "a feed-forward's biases in qwen3": (
        with_feed_forward(changed(LANGUAGE_MODEL, qk_norm=RmsNorm()), Gated(hidden=31, bias=True)),
        r"model\.decoder\.pattern\.0\.mlp\.bias",
    ),
    "a translator with such an id": (dataclasses.replace(BASE, suppressed=(5, 9)), r"model\.suppressed: \[5, 9\]"),
}


@pytest.mark.parametrize("name", WITH_CODE)
def test_what_no_layout_holds_is_written_with_its_code_and_the_setting_to_blame_is_named(name, tmp_path, capsys):
    cfg, message = WITH_CODE[name]
    run = save(cfg, tmp_path / "run")
    assert main(["export", str(run.path), "--to", "huggingface", "-o", str(tmp_path / "folder")]) == 0
    said = capsys.readouterr().out
    assert re.search(message, said), said
    assert "trust_remote_code=True" in said and "the same answers" in said
    code = sorted(path.name for path in (tmp_path / "folder").iterdir() if path.suffix == ".py" or path.is_dir())
    assert re.fullmatch(r"configuration_dragoman\.py modeling_dragoman\.py network_dragoman_\w+\.py", " ".join(code))


def test_a_bias_of_the_layout_suppresses_what_the_bias_of_the_model_does(tmp_path):
    cfg = dataclasses.replace(BASE, output_bias=True, suppressed=(5,))
    assert export_huggingface(save(cfg, tmp_path / "run").path, tmp_path / "folder") == "marian"
    theirs = transformers.AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "folder").eval()
    assert theirs(input_ids=torch.tensor([[9, EOS]]), decoder_input_ids=torch.tensor([[1, 8]])).logits[0, -1, 5] < -9e3


@pytest.mark.parametrize("offset", [0, 1, 2, 5])
def test_sines_that_begin_behind_padding_are_those_of_m2m_and_others_come_with_their_code(offset, tmp_path):
    """transformers numbers positions of M2M-100 from the id of padding on, which is 0 for a model trained here."""
    cfg = with_positions_before_norms(InclusiveSinusoidal(offset=offset))
    run = save(cfg, tmp_path / "run")
    assert export_huggingface(run.path, tmp_path / "folder") == ("m2m_100" if offset == 1 else "dragoman")


@pytest.mark.parametrize("offset", [0, 1, 2, 5])
def test_learned_positions_of_an_encoder_begin_behind_padding_wherever_they_began(offset, tmp_path, capsys):
    cfg = exported.small_config("roberta-base", 259)
    position = Learned(length=60, offset=offset)
    head = ClassificationHead(classes=3, activation="tanh")
    cfg = dataclasses.replace(cfg, inputs=dataclasses.replace(cfg.inputs, position=position), head=head)
    run = exported.save_run(cfg, tmp_path / "run")
    assert main(["export", str(run.path), "--to", "huggingface", "-o", str(tmp_path / "folder")]) == 0
    said = capsys.readouterr().out
    assert f"in the layout of {'roberta' if offset else 'bert'}" in said and "the same answers" in said


def test_a_folder_is_never_overwritten(tmp_path, capsys):
    run = save(BASE, tmp_path / "run")
    for layout in ("huggingface", "ctranslate2"):
        arguments = ["export", str(run.path), "--to", layout, "-o", str(tmp_path / layout)]
        assert main(arguments) == 0
        assert main(arguments) == 2
        assert "choose another with -o" in capsys.readouterr().err


def test_a_beginning_that_learned_apart_from_the_end_is_not_lost(tmp_path, capsys):
    pair = foreign.pair("GPT-2", 0, tmp_path)
    run = RunDirectory.open(pair.run, write=True)
    content = run.load("last")
    content.tensors["model"]["embed.tokens.weight"][1] += 1
    run.save(1, tensors=content.tensors, progress={}, config=content.config)
    run.close()
    assert main(["export", str(pair.run), "--to", "huggingface", "-o", str(tmp_path / "again")]) == 2
    assert "row 1 of embed.tokens.weight, which begins a text, has learned apart" in capsys.readouterr().err


# ---- ONNX ------------------------------------------------------------------------------------------


def export_graphs(run, folder) -> None:
    """Where nobody checks shapes, for they are symbols while a model is traced: else, in another process."""
    words = ["export", str(run), "--to", "onnx", "-o", str(folder)]
    if os.environ.get("CHECK_SHAPES"):
        subprocess.run([sys.executable, "-m", "dragoman", *words], check=True)
        return
    with torch._dynamo.config.patch(fake_tensor_cache_enabled=False):  # the same graphs, made sooner
        assert main(words) == 0


@pytest.mark.slow
def test_onnx_steps_say_the_same(tmp_path):
    """Token by token from a past without columns on; batch and lengths are others than those of the example."""
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    small = rewritten2026(dim=8, heads=2, kv_heads=1, hidden=8, depth=1, dropout=0.0)
    run = save(small, tmp_path / "run")
    export_graphs(run.path, tmp_path / "graphs")
    encoder, step = (runtime.InferenceSession(tmp_path / "graphs" / f"{name}.onnx") for name in ("encoder", "step"))
    model, tokenizer, _ = load_model(run.path)
    source = torch.nn.utils.rnn.pad_sequence(
        [torch.tensor([*tokenizer.encode(text), EOS]) for text in TEXTS], batch_first=True
    )
    keep = source != 0
    (memory,) = encoder.run(None, {"ids": source.numpy(), "keep": keep.numpy()})
    past, token, target = memory[:, :, :, :, :0], torch.ones(len(TEXTS), 1, dtype=torch.long), []
    for _ in range(5):
        target.append(token)
        given = {"token": token.numpy(), "past": past, "memory": memory, "keep": keep.numpy()}
        logits, past = step.run(None, given)
        want = model(torch.cat(target, dim=1), source)[:, -1]
        torch.testing.assert_close(torch.from_numpy(logits), want.detach(), rtol=0, atol=1e-5)
        token = want.argmax(dim=1, keepdim=True)
    merged = runtime.InferenceSession(tmp_path / "graphs" / "decoder.onnx")
    whole, nothing = torch.cat(target, dim=1), memory[:, :, :, :, :0]
    for cut in (1, 3):  # the same in one piece, and in two
        found, past = [], nothing
        for part in (whole[:, :cut], whole[:, cut:]):
            mask = np.ones((len(TEXTS), past.shape[4] + part.shape[1]), dtype=bool)
            given = {"ids": part.numpy(), "mask": mask, "past": past, "memory": memory, "keep": keep.numpy()}
            logits, past = merged.run(None, given)
            found.append(torch.from_numpy(logits))
        torch.testing.assert_close(torch.cat(found, dim=1), model(whole, source).detach(), rtol=0, atol=1e-5)


def test_onnx_refuses_what_loops_over_tokens(tmp_path, capsys):
    pytest.importorskip("onnxscript")
    run = exported.save_preset("gru", tmp_path / "run")
    assert main(["export", str(run.path), "--to", "onnx", "-o", str(tmp_path / "graphs")]) == 2
    said = capsys.readouterr().err
    assert "model.encoder: recurrent" in said and "nearest preset" in said
    assert not (tmp_path / "graphs").exists()


def with_mixers(*mixers):
    """Return the language model with these mixers in its layers."""
    (block,) = LANGUAGE_MODEL.decoder.pattern
    blocks = tuple(dataclasses.replace(block, mixer=mixer) for mixer in mixers)
    return dataclasses.replace(LANGUAGE_MODEL, decoder=dataclasses.replace(LANGUAGE_MODEL.decoder, pattern=blocks))


STATES = {
    "four kinds": lambda: with_mixers(
        ShortConvolution(), LANGUAGE_MODEL.decoder.pattern[0].mixer, Mamba(kernel=2), Mamba2(head_dim=4)
    ),
    "lstm": lambda: exported.small_config("lstm-lm-small", 259),
}
"""Language models that keep something else than keys and values, or beside them."""


@pytest.mark.slow
@pytest.mark.parametrize("name", STATES)
def test_onnx_states_of_any_kind_say_the_same(name, tmp_path):
    """Greedy, in rows of their own."""
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    run = save(STATES[name](), tmp_path / "run")
    export_graphs(run.path, tmp_path / "graphs")
    begin, step = (runtime.InferenceSession(tmp_path / "graphs" / f"{name}.onnx") for name in ("begin", "step"))
    model, _, _ = load_model(run.path)
    ids = torch.ones(3, 1, dtype=torch.long)
    logits, *state = begin.run(None, {"token": ids.numpy()})
    names = [entry.name for entry in step.get_inputs()[1:]]
    for _ in range(6):
        want = model(ids)[:, -1].detach()
        torch.testing.assert_close(torch.from_numpy(logits), want, rtol=0, atol=1e-5)
        ids = torch.cat([ids, want.argmax(dim=1, keepdim=True)], dim=1)
        logits, *state = step.run(None, {"token": ids[:, -1:].numpy()} | dict(zip(names, state, strict=True)))
