"""An imported reader answers questions: its rows are those of its own tokenizer for a pair of texts."""

import json

import foreign
import pytest
import torch
from tokenizers import Tokenizer

from dragoman.checkpoint import RunDirectory
from dragoman.cli import main
from dragoman.data.spans import as_fields, best_span, selectable
from dragoman.decode.readers.answerer import Answerer
from dragoman.errors import ConfigError
from dragoman.interchange.importing import import_checkpoint, origin_vocabulary
from dragoman.interchange.tokenizer import write_tokenizer

transformers = pytest.importorskip("transformers")

CONTEXT, QUESTION = "w3 w8 w5 w9 w10 w11 w12 w20 w21", "w13 w14 w15"
PAIRS = {
    "BERT": "<bos> $A <eos> $B <eos>",
    "RoBERTa": "<bos> $A <eos> <eos> $B <eos>",
    "nothing": None,
}


OTHER = "<bos> $A <eos> w29 <eos> $B <eos>"


def make(kind, folder, pair=None):
    """A reader at random, and a tokenizer with this template for pairs."""
    torch.manual_seed(0)
    roberta = kind == "RoBERTa"
    if roberta:
        settings = foreign.BERT | foreign.ROBERTA
        model = transformers.RobertaForQuestionAnswering(transformers.RobertaConfig(**settings))
    else:
        model = transformers.BertForQuestionAnswering(transformers.BertConfig(**foreign.BERT))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    model.eval().save_pretrained(folder)
    foreign.write_tokenizer(folder, 31)
    if pair := pair or PAIRS[kind]:
        from tokenizers.processors import TemplateProcessing

        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        ids = [(name, tokenizer.token_to_id(name)) for name in ("<bos>", "<eos>", "w29")]
        tokenizer.post_processor = TemplateProcessing(
            single="<bos> $A <eos>", pair=pair, special_tokens=[pair for pair in ids if pair[1] is not None]
        )
        tokenizer.save(str(folder / "tokenizer.json"))
        settings = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<bos>", "eos_token": "<eos>"}
        (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"pad_token": "<pad>"}))
    return model


@pytest.mark.parametrize("kind", PAIRS)
def test_a_reader_that_was_imported_answers_as_its_library_does(kind, tmp_path):
    theirs = make(kind, tmp_path / "folder").requires_grad_(False)
    run = import_checkpoint(tmp_path / "folder", tmp_path / "run")
    answerer = Answerer.load(run.path)
    (found,) = answerer.ask([(CONTEXT, QUESTION)])
    ((window,),) = answerer.form.windows([(CONTEXT, QUESTION)])

    order = origin_vocabulary(run).order()
    ids = order[torch.tensor([window.ids])]
    inner = Tokenizer.from_file(str(tmp_path / "folder" / "tokenizer.json"))
    if PAIRS[kind]:
        assert ids[0].tolist() == inner.encode(QUESTION, CONTEXT).ids
    types = as_fields(torch.tensor([window.ids])).field if kind != "RoBERTa" else None
    reply = theirs(input_ids=ids, token_type_ids=types)
    logits = torch.stack([reply.start_logits, reply.end_logits], dim=-1)[0]
    best = best_span(logits, torch.tensor(window.ids), 30)
    begin, end = window.characters(best.first, best.last)
    assert found.answer == CONTEXT[begin:end].strip() and found.probability == pytest.approx(best.probability, rel=1e-3)


def test_an_answer_stands_in_the_context_whatever_separates_it_from_the_question():
    for row in ([1, 7, 2, 8, 9, 2, 0], [1, 7, 2, 2, 8, 9, 2, 0], [1, 7, 2, 2, 2, 8, 9, 2]):
        allowed = selectable(torch.tensor([row]))[0]
        chosen = {token for token, may in zip(row, allowed.tolist(), strict=True) if may}
        assert {1, 8, 9} <= chosen and 7 not in chosen and 0 not in chosen and 2 not in chosen


def test_other_tokens_between_question_and_context_are_refused(tmp_path):
    make("BERT", tmp_path / "folder", OTHER)
    run = import_checkpoint(tmp_path / "folder", tmp_path / "run")
    with pytest.raises(ConfigError, match="puts other tokens than the end token between two texts"):
        Answerer.load(run.path)


def test_a_command_answers_with_an_import(tmp_path, capsys):
    make("RoBERTa", tmp_path / "folder")
    assert main(["import", str(tmp_path / "folder"), "--run", str(tmp_path / "run")]) == 0
    (tmp_path / "context.txt").write_text(CONTEXT)
    assert main(["answer", str(tmp_path / "run"), QUESTION, "--context", str(tmp_path / "context.txt")]) == 0
    assert capsys.readouterr().out.strip().splitlines()[-1] in CONTEXT


def test_an_export_keeps_what_stands_between_two_texts(tmp_path):
    make("RoBERTa", tmp_path / "folder")
    run = import_checkpoint(tmp_path / "folder", tmp_path / "run")
    tokenizer = RunDirectory.open(run.path).tokenizers()[0]
    write_tokenizer(tmp_path, tokenizer, origin_vocabulary(run), shape="encoder")
    inner, again = (Tokenizer.from_file(str(tmp_path / name / "tokenizer.json")) for name in ("folder", "."))
    assert again.encode(QUESTION, CONTEXT).ids == inner.encode(QUESTION, CONTEXT).ids
