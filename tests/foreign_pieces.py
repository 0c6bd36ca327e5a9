"""Folders with nothing but a SentencePiece model, as the families of `transformers` have them."""

import json
import struct
from pathlib import Path
from typing import Any

_T5 = {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}
_ALBERT = {"pad_id": 0, "unk_id": 1, "bos_id": -1, "eos_id": -1, "control_symbols": "[CLS],[SEP],[MASK]"}
_DEBERTA = {
    "pad_id": 0, "bos_id": 1, "eos_id": 2, "unk_id": 3, "pad_piece": "[PAD]", "bos_piece": "[CLS]",
    "eos_piece": "[SEP]", "unk_piece": "[UNK]",
}  # fmt: skip
_BPE = {"model_type": "bpe", "vocab_size": 400}
_LLAMA = _BPE | {
    "vocab_size": 600, "byte_fallback": True, "normalization_rule_name": "identity", "remove_extra_whitespaces": False,
}  # fmt: skip
_CODES = ["eng_Latn", "fra_Latn", "deu_Latn"]
FAIRSEQ = "sentencepiece.bpe.model"
FOLDERS: dict[
    str, tuple[str, dict[str, Any], str, str, dict[str, Any]]
] = {  # file, options of its training, model_type, class, settings of tokenizer_config.json
    "T5": ("spiece.model", _T5, "t5", "T5Tokenizer", {}),
    "ALBERT": ("spiece.model", _ALBERT, "albert", "AlbertTokenizer", {}),
    "ALBERT with accents": ("spiece.model", _ALBERT, "albert", "AlbertTokenizer", {"keep_accents": True}),
    "Pegasus": ("spiece.model", _T5, "pegasus", "PegasusTokenizer", {}),
    "SigLIP": ("spiece.model", _T5, "siglip", "SiglipTokenizer", {}),
    "SigLIP with capitals": ("spiece.model", _T5, "siglip", "SiglipTokenizer", {"do_lower_case": False}),
    "XLM-R": (FAIRSEQ, {}, "xlm-roberta", "XLMRobertaTokenizer", {}),
    "mBART": (FAIRSEQ, {}, "mbart", "MBartTokenizer", {"src_lang": "de_DE"}),
    "mBART-50": (FAIRSEQ, {}, "mbart", "MBart50Tokenizer", {}),
    "M2M-100": (FAIRSEQ, _BPE, "m2m_100", "M2M100Tokenizer", {"src_lang": "fr"}),
    "NLLB": (FAIRSEQ, _BPE, "m2m_100", "NllbTokenizer", {"src_lang": "fra_Latn", "additional_special_tokens": _CODES}),
    "DeBERTa-v3": ("spm.model", _DEBERTA, "deberta-v2", "DebertaV2Tokenizer", {}),
    "DeBERTa-v2 by marks": ("spm.model", _DEBERTA, "deberta-v2", "DebertaV2Tokenizer", {"split_by_punct": True}),
    "LLaMA": ("tokenizer.model", _LLAMA, "llama", "LlamaTokenizer", {}),
}


def make(name: str, folder: Path, corpus: list[str]) -> None:
    """Write a folder, whose model is trained on ``corpus``."""
    import sentencepiece

    file, options, model_type, kind, settings = FOLDERS[name]
    usual = {"vocab_size": 200, "model_type": "unigram", "normalization_rule_name": "nmt_nfkc"}
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus), model_prefix=str(folder / file.removesuffix(".model")),
        hard_vocab_limit=False, character_coverage=0.99, minloglevel=2, **usual | options,
    )  # fmt: skip
    if name == "M2M-100":
        pieces = sentencepiece.SentencePieceProcessor(model_file=str(folder / file))
        names = ["<s>", "<pad>", "</s>", "<unk>", *(pieces.id_to_piece(i) for i in range(3, len(pieces)))]
        (folder / "vocab.json").write_text(json.dumps({name: i for i, name in enumerate(names)}))
    (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": kind} | settings))


def write_pieces(path: Path, words: list[str]) -> None:
    """Write a unigram model of these words: a protocol buffer with a piece for each (text 1, score 2, type 3)."""
    entries = [("<unk>", 0.0, 2), *((word, -1.0 - i, 1) for i, word in enumerate(words))]
    message = b""
    for text, score, kind in entries:
        piece = b"\x0a" + bytes([len(text.encode())]) + text.encode() + b"\x15" + struct.pack("<f", score)
        piece += b"\x18" + bytes([kind])
        message += b"\x0a" + bytes([len(piece)]) + piece
    path.write_bytes(message)
