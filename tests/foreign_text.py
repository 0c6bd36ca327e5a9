"""Folders of `transformers` with random weights and tokenizers of their own, counted from text.

A tokenizer is made for each family by the class that transformers has for it, with and without a token that begins a
text, so that ids are compared with those of `AutoTokenizer` and greedy answers with those of `generate`.
"""

import itertools
import json
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import foreign
import foreign_pieces
import torch
from tokenizers import Tokenizer as Library
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from dragoman.checkpoint import RunDirectory, load_model
from dragoman.data.material import IdMaterial
from dragoman.decode.constraints.utf8 import Utf8Table
from dragoman.decode.generator import Generator
from dragoman.decode.search.greedy import Greedy
from dragoman.decode.search.search import search
from dragoman.decode.search.strategy import LengthLimit
from dragoman.interchange.importing import import_checkpoint, origin_vocabulary
from dragoman.text.corpus import source_rows
from dragoman.text.lines import Pair
from dragoman.text.tokens.tokenizer import PROMPT_FRAME

TEXTS = (
    "The door is open.", "", " ", "  ", "\n", "\n\n", "\t", "a", " a", "a ", " the light is on ", "two  spaces   three",
    "line one\nline two", "line\r\nline", "tab\there", "don't", "I'll we've they're he'd it's I'm", "DON'T", "'s",
    "12", "1234567890", "3.14159", "1,234.56", "12:30", "2024-05-01", "x = f(y) + 1;", "def f(x):\n    return x",
    "    indented", "\tindented", "if (a && b) { c[0]++; }", "https://example.org/a?b=c", "me@example.org",
    "你好\uff0c世界。",
    "日本語のテキスト", "한국어 문장", "Привет, мир", "مرحبا", "Grüße aus Köln", "naïve café", "e\u0301 and \u00e9",
    "😀", "👩‍👩‍👧", "🇪🇸 flag", "mixed 漢字 and 123 😀", "ALL CAPS TEXT", "CamelCaseWord",
    "snake_case_word", "--- *** ...", "“quotes” — dash",    "\u00a0non-breaking", "end with newline\n",
)  # fmt: skip
"""Fifty texts and one: spaces, line ends, contractions, numbers, code, scripts, emoji."""
CORPUS = [" ".join(TEXTS), "The door is open. The light is on. We don't know what is in the room, and I'll ask."] * 8
ROLES = ("<pad>", "<s>", "</s>", "<unk>", "<mask>", "<|im_start|>", "<|im_end|>")
LONGEST = 8
TRANSLATORS = ("Marian", foreign.TWO_VOCABULARIES, "T5", "umT5", "BART", "mBART", "M2M-100", "Pegasus")
_FROM_PADDING = ("Marian", foreign.TWO_VOCABULARIES, "T5", "umT5", "Pegasus")
"""Translators whose targets begin with padding; those of the others begin with the end."""
PIECES = {"mBART": ("mBART-50", "mBART"), "M2M-100": ("NLLB", "M2M-100"), "Pegasus": ("Pegasus", "Pegasus")}
PIECES |= {"ALBERT": ("ALBERT", "ALBERT with accents"), "DeBERTa-v3": ("DeBERTa-v3", "DeBERTa-v2 by marks")}
"""Tokenizers of ``foreign_pieces`` of these families, where a source begins with its language and where not."""
READERS = ("DistilBERT", "ELECTRA", "ALBERT", "ModernBERT", "DeBERTa-v3")
TIES = 1
"""Texts that SentencePiece cuts in one of two equally likely ways, and `tokenizers` in the other."""


def byte_pairs() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Return the entries and merges of a byte-level tokenizer, as all its classes take them."""
    inner = Library(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    options = {"special_tokens": [*ROLES], "initial_alphabet": pre_tokenizers.ByteLevel.alphabet()}
    inner.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=360, **options))
    model = json.loads(inner.to_str())["model"]
    return model["vocab"], [tuple(merge) for merge in model["merges"]]


def generic(kind: str, *, begins: bool) -> Any:
    """Return a tokenizer of no class in particular: byte-level, or with ▁ for spaces as LLaMA's and Gemma's."""
    from transformers import PreTrainedTokenizerFast

    vocab, merges = byte_pairs()
    if kind == "bytes":
        inner = Library(models.BPE(vocab, merges))
        inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        inner.decoder = decoders.ByteLevel()
    else:
        inner = Library(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
        inner.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        alphabet = [f"<0x{i:02X}>" for i in range(256)]
        inner.train_from_iterator(
            ["▁" + text.replace(" ", "▁") for text in CORPUS],
            trainers.BpeTrainer(vocab_size=420, special_tokens=[*ROLES, *alphabet], max_token_length=6),
        )
    if begins:
        inner.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    return tokenizer


def own(name: str, *, begins: bool, folder: Path) -> Any:
    """Return a tokenizer of the family's own class."""
    import transformers as t

    vocab, merges = byte_pairs()
    roles = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    match name:
        case "GPT-2":
            extra = {"add_bos_token": True} if begins else {}
            return t.GPT2Tokenizer(vocab, merges, bos_token="<s>", **roles, **extra)
        case "Qwen 2" | "Qwen 3" | "Qwen 3 MoE":
            extra = {"bos_token": "<s>", "add_bos_token": True} if begins else {}
            return t.Qwen2Tokenizer(vocab, merges, **roles, **extra)
        case "RoBERTa" | "BART":
            return t.RobertaTokenizer(vocab, merges, add_prefix_space=not begins)
        case "mBART" | "M2M-100" | "Pegasus" | "ALBERT" | "DeBERTa-v3":
            foreign_pieces.make(PIECES[name][not begins], made(folder), CORPUS)
            return t.AutoTokenizer.from_pretrained(folder)
        case "ModernBERT":  # its published tokenizers have a template in tokenizer.json, and no class of their own
            tokenizer = generic("bytes", begins=False)
            single = {"single": "<s> $A </s>", "special_tokens": [("<s>", 1), ("</s>", 2)]}
            tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(**single)
            return tokenizer
        case "BERT" | "DistilBERT" | "ELECTRA":
            inner = Library(models.WordPiece(unk_token="[UNK]"))
            inner.normalizer, inner.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
            special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
            inner.train_from_iterator(CORPUS, trainers.WordPieceTrainer(vocab_size=300, special_tokens=special))
            return t.BertTokenizer(inner.get_vocab(), do_lower_case=begins)
        case "T5" | "umT5":
            special = ["<pad>", "</s>", "<unk>"]
            trainer = trainers.UnigramTrainer(vocab_size=150, special_tokens=special, unk_token="<unk>")
            inner = Library(models.Unigram())
            inner.pre_tokenizer = pre_tokenizers.Metaspace()
            inner.train_from_iterator(CORPUS, trainer)
            pieces = [tuple(piece) for piece in json.loads(inner.to_str())["model"]["vocab"]]
            return t.T5Tokenizer(pieces, extra_ids=3)
        case "Marian":
            return marian(folder)
        case foreign.TWO_VOCABULARIES:
            return marian(folder, separate=True)
    return generic("metaspace" if name in ("LLaMA", "Gemma 2") else "bytes", begins=begins)


def made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def marian(folder: Path, *, separate: bool = False) -> Any:
    """Return a Marian tokenizer: two SentencePiece models, and a vocabulary for both, or one for each."""
    import sentencepiece
    import transformers

    made(folder)
    names, own = ["</s>", "<unk>"], []
    for side, count in (("source", 140), ("target", 130)) if separate else (("source", 190), ("target", 180)):
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(CORPUS), model_prefix=str(folder / side), vocab_size=count, hard_vocab_limit=False,
            character_coverage=0.98, minloglevel=2, normalization_rule_name="nmt_nfkc",
        )  # fmt: skip
        pieces = sentencepiece.SentencePieceProcessor(model_file=str(folder / f"{side}.model"))
        own.append([*names[:2], *(pieces.id_to_piece(i) for i in range(len(pieces)))])
        (folder / f"{side}.model").rename(folder / f"{side}.spm")
    lists = {"vocab.json": own[0], "target_vocab.json": own[1]} if separate else {"vocab.json": own[0] + own[1]}
    for name, entries in lists.items():
        numbers = {entry: i for i, entry in enumerate(dict.fromkeys([*entries, "<pad>"]))}
        (folder / name).write_text(json.dumps(numbers))
    files = [str(folder / name) for name in ("source.spm", "target.spm", *lists)]
    return transformers.MarianTokenizer(*files, separate_vocabs=separate)


class Case(NamedTuple):
    """A family with a tokenizer: of its own class where it has one, that begins a text or not."""

    name: str
    begins: bool


CASES = [Case(*pair) for pair in itertools.product([*foreign.MODELS, "BERT", "RoBERTa", *READERS], (True, False))]


def make(case: Case, folder: Path) -> tuple[Any, Any]:
    """Write a folder; return their tokenizer as `AutoTokenizer` opens it, and their model."""
    import transformers

    tokenizer = own(case.name, begins=case.begins, folder=folder.parent / "pieces")
    behind = 108 if type(tokenizer).__name__ == "M2M100Tokenizer" else 0  # languages, and more rows than entries
    sizes: dict[str, Any] = {"vocab_size": len(tokenizer) + behind, "pad_token_id": tokenizer.pad_token_id}
    sizes |= {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    if case.name in TRANSLATORS:
        sizes |= {
            "decoder_start_token_id": tokenizer.pad_token_id if case.name in _FROM_PADDING else tokenizer.eos_token_id
        }
    if case.name == "Marian":
        sizes |= {"decoder_vocab_size": len(tokenizer)}
    if case.name == foreign.TWO_VOCABULARIES:
        start = tokenizer.target_encoder["<pad>"]
        sizes |= {"decoder_vocab_size": len(tokenizer.target_encoder), "decoder_start_token_id": start}
        sizes |= {
            "pad_token_id": min(start, tokenizer.pad_token_id)
        }  # a row of both sides, though it is none's padding
    torch.manual_seed(0)
    model = resized(case.name, transformers, sizes)
    with torch.no_grad():
        for parameter in filter(lambda p: p.requires_grad, model.parameters()):
            parameter.add_(torch.randn_like(parameter) * 0.15)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return transformers.AutoTokenizer.from_pretrained(folder), model


def resized(name: str, transformers: Any, sizes: dict[str, Any]) -> Any:
    """Return the first model of a family in ``foreign`` with another vocabulary."""
    first = (foreign.MODELS | foreign.ENCODERS)[name][0](transformers)
    config = first.config
    for key, value in sizes.items():
        setattr(config, key, value)
    config.max_position_embeddings = 256
    if name == "GPT-2":
        config.n_positions = 256
    model = type(first)(config).eval()
    if hasattr(model, "set_experts_implementation"):
        model.set_experts_implementation("eager")
    return model


def our_ids(run: Path, case: Case, texts: tuple[str, ...]) -> list[list[int]]:
    """Return the ids that a command of ours would give to the model for each text, in their order."""
    directory = RunDirectory.open(run)
    vocabulary = origin_vocabulary(directory)
    assert vocabulary is not None
    order = vocabulary.of_source.order().tolist()
    tokenizer = directory.tokenizers()[0]
    if case.name in foreign.ENCODERS:
        rows = [row.tolist() for row in IdMaterial(tokenizer, 512).rows(texts, texts)]
    elif case.name in TRANSLATORS:
        rows = source_rows(tokenizer, [Pair(text, "") for text in texts])
    else:
        rows = [tokenizer.frame(PROMPT_FRAME).around(ids) for ids in tokenizer.encode_batch(texts)]
    return [[order[i] for i in row] for row in rows]


@torch.inference_mode()
def same_answers(run: Path, theirs: Any, tokenizer: Any, case: Case, texts: tuple[str, ...]) -> tuple[int, int]:
    """Return how many greedy answers (of encoders: outputs, to 1e-4) are theirs, and of how many texts."""
    directory = RunDirectory.open(run)
    vocabulary = origin_vocabulary(directory)
    assert vocabulary is not None
    order, good, count = vocabulary.order(), 0, 0
    never = [i for i in (vocabulary.pad, vocabulary.bos) if i is not None]
    inverse = vocabulary.of_source.order().argsort()
    generator = None if case.name in foreign.ENCODERS or case.name in TRANSLATORS else Generator(*load_model(run)[::2])
    model: Any = foreign.load_encoder(run) if generator is None else None
    for text in texts:
        ids = torch.tensor([tokenizer(text).input_ids], dtype=torch.long)
        if not ids.shape[1]:
            continue
        count += 1
        if case.name in foreign.ENCODERS:
            ours = model(inverse[ids])
            wanted = theirs(input_ids=ids).logits
            wanted = wanted[..., order[order < vocabulary.size]] if wanted.shape[-1] == vocabulary.size else wanted
            good += bool((ours - wanted).abs().max() < 1e-4)
            continue
        out = theirs.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, num_beams=1, max_new_tokens=LONGEST,
            suppress_tokens=never or None, pad_token_id=vocabulary.eos if vocabulary.pad is None else vocabulary.pad,
        )[0].tolist()  # fmt: skip
        if generator is None:
            said = out[1:]
            said = said[: said.index(vocabulary.eos)] if vocabulary.eos in said else said
            limit = LengthLimit(tokens=LONGEST + 1, ratio=0.0, extra=LONGEST + 1)
            found = search(model, inverse[ids], Greedy(limit=limit))[0][0].tokens[:-1]
        else:
            said = out[ids.shape[1] :]
            # a model at random writes bytes that are no text, which ours never does: compare without that rule
            with mock.patch.object(Utf8Table, "of", return_value=None):
                found = generator.generate([text], search=Greedy(), max_new_tokens=LONGEST)[0].continuations[0].tokens
        good += order[list(found)].tolist() == said
    return good, count


def count(case: Case, folder: Path, texts: tuple[str, ...] = TEXTS) -> dict[str, tuple[int, int]]:
    """Return how many texts are read as the same ids after import, answered the same, and read the same by
    `AutoTokenizer` after an export that writes the tokenizer anew."""
    import transformers

    from dragoman.interchange import exporting

    tokenizer, theirs = make(case, folder / "folder")
    import_checkpoint(folder / "folder", folder / "run")
    wanted = [tokenizer(text).input_ids for text in texts]
    ours = our_ids(folder / "run", case, texts)
    found = {"ids": (sum(a == b for a, b in zip(ours, wanted, strict=True)), len(texts))}
    found["answers"] = same_answers(folder / "run", theirs, tokenizer, case, texts)
    for name in ("given back", "written anew"):
        if case.name == "Marian" and name == "written anew":
            continue  # it has two tokenizers, and what is written has one
        with mock.patch.object(exporting, "_is_as_it_came", wraps=exporting._is_as_it_came) as as_it_came:
            if name == "written anew":
                as_it_came.side_effect = lambda *_: False
            exporting.export_huggingface(folder / "run", folder / name)
        again = transformers.AutoTokenizer.from_pretrained(folder / name)
        found[name] = (sum(again(text).input_ids == b for text, b in zip(texts, ours, strict=True)), len(texts))
    return found
