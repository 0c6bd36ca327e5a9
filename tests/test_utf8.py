"""No answer holds half a character, whatever a model that was never trained would say."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_constraints import SHORT, TOKENIZERS, untrained
from test_generator import bytes_missing, language_model

from dragoman.decode.constraints.repetition import NoRepeat
from dragoman.decode.constraints.utf8 import REPLACEMENT, Utf8Rule, Utf8Table
from dragoman.decode.generator import Generator
from dragoman.decode.request import Request
from dragoman.decode.search.beam import Beam
from dragoman.decode.search.greedy import Greedy
from dragoman.decode.search.minimum_risk import MinimumBayesRisk
from dragoman.decode.search.sample import Sample
from dragoman.decode.search.search import search
from dragoman.decode.search.speculative import Speculative
from dragoman.decode.search.strategy import LengthLimit
from dragoman.model.interface import Tokens
from dragoman.text.tokens.framing import FrameTemplate
from dragoman.text.tokens.tokenizer import BOS, EOS, PAD, Tokenizer
from dragoman.text.tokens.training import Bpe


def table_of(tokenizer):
    table = Utf8Table.of(tokenizer, torch.device("cpu"))
    assert table is not None
    return table


BYTES = table_of(TOKENIZERS["bytes"])
SEARCHES = {
    "greedy": Greedy(limit=SHORT),
    "beam": Beam(size=4, nbest=4, limit=SHORT),
    "samples": Sample(samples=4, temperature=3.0, limit=SHORT),
    "nucleus": Sample(top_p=0.9, temperature=2.0, limit=SHORT),
    "risk": MinimumBayesRisk(),
}


@settings(max_examples=300)
@given(
    st.lists(st.one_of(st.integers(0, 255), st.sampled_from([0xE0, 0xED, 0xF0, 0xF4, 0xC3, 0x80, 0xBF])), max_size=6)
)
def test_the_automaton_goes_on_exactly_where_python_can_still_decode_something(given_bytes):
    vocabulary = {TOKENIZERS["bytes"].spelling(token): token for token in range(len(TOKENIZERS["bytes"]))}
    state = 0
    for end, byte in enumerate(given_bytes, 1):
        state = int(BYTES.after[state, vocabulary[bytes([byte])]])
        missing = bytes_missing(bytes(given_bytes[:end]))
        assert (state < 0) == (missing is None)
        if state < 0:
            return
        assert (state == 0) == (missing == 0)


@pytest.mark.parametrize("name", ["bpe", "bytes"])
@pytest.mark.parametrize("cfg", SEARCHES.values(), ids=SEARCHES.keys())
def test_no_search_writes_half_a_character(name, cfg):
    for seed in range(3):
        for found in untrained(TOKENIZERS[name], seed).translate(["low", "the battery", "é → 日本"], search=cfg):
            assert REPLACEMENT not in "".join(c.text for c in found.candidates)


@pytest.mark.parametrize("most", range(1, 6))
def test_the_length_limit_ends_no_text_inside_a_character(most):
    limit = LengthLimit(tokens=most, ratio=0.0, extra=most)
    for cfg in (Greedy(limit=limit), Beam(size=3, nbest=3, limit=limit), Sample(samples=8, limit=limit)):
        for found in untrained(TOKENIZERS["bytes"], seed=1).translate(["low", "batería"], search=cfg):
            assert all(len(c.tokens) <= most and REPLACEMENT not in c.text for c in found.candidates)


def test_a_text_begins_as_told_and_goes_on_in_whole_characters():
    for prefix in ("é", "日", "la → ", "x"):
        [found] = untrained(TOKENIZERS["bytes"]).translate([Request("low", prefix)], search=Greedy(limit=SHORT))
        assert found.text.startswith(prefix.strip()) and REPLACEMENT not in found.text


def test_tokens_that_a_person_demands_are_written_even_if_they_are_no_text():
    [half] = [t for t in range(3, 259) if TOKENIZERS["bytes"].spelling(t) == b"\x80"]
    [found] = untrained(TOKENIZERS["bytes"]).translate([Request("low", prefix_ids=(half,))], search=Greedy(limit=SHORT))
    assert found.candidates[0].tokens[0] == half


def test_a_text_that_is_one_already_is_not_changed_by_the_rule():
    translator = untrained(TOKENIZERS["bpe"], seed=2)
    source = torch.tensor([[*TOKENIZERS["bpe"].encode("the battery"), EOS]])
    plain = search(translator.model, source, Greedy(limit=SHORT))
    table = table_of(TOKENIZERS["bpe"])
    ruled = search(translator.model, source, Greedy(limit=SHORT), rules=[Utf8Rule(table, 1)])
    if REPLACEMENT not in TOKENIZERS["bpe"].decode(plain[0][0].tokens):
        assert plain[0][0].tokens == ruled[0][0].tokens
    assert REPLACEMENT not in TOKENIZERS["bpe"].decode(ruled[0][0].tokens)


def test_a_sentence_comes_out_the_same_alone_and_among_others_that_are_searched_anew():
    translator = untrained(TOKENIZERS["bytes"], seed=3)
    texts = ["low", "the battery", "x", "é", "replace the batteries"]
    for cfg in (Greedy(limit=SHORT), Beam(size=3, limit=SHORT), Sample(samples=2, top_p=0.8, limit=SHORT)):
        together = translator.translate(texts, search=cfg)
        alone = [translator.translate([text], search=cfg)[0] for text in texts]
        assert [t.candidates[0].tokens for t in together] == [t.candidates[0].tokens for t in alone]


@pytest.mark.parametrize(
    "cfg", [Greedy(), Beam(size=3, nbest=3), Sample(samples=3), Speculative()], ids=lambda c: c.kind
)
@pytest.mark.parametrize("most", [1, 2, 3, 9])
def test_language_models_continue_in_whole_characters(cfg, most):
    for found in Generator(language_model(), TOKENIZERS["bytes"]).generate(
        ["a", "", "é"], search=cfg, max_new_tokens=most
    ):
        assert all(REPLACEMENT not in continuation.text for continuation in found.continuations)


def test_a_stream_is_whole_characters_and_ends_with_one():
    generator = Generator(language_model(), TOKENIZERS["bytes"])
    for most in range(1, 12):
        assert REPLACEMENT not in "".join(generator.stream("a", search=Sample(temperature=3.0), max_new_tokens=most))


@pytest.mark.parametrize(
    "cfg",
    [Greedy(), Speculative(), Sample(temperature=0.0), Speculative(search=Sample(temperature=0.0))],
    ids=["greedy", "speculative", "temperature 0", "speculative at temperature 0"],
)
def test_an_imported_model_chooses_as_its_original_does_and_its_text_leaves_out_what_is_no_character(cfg):
    model, tokenizer = language_model(), copy.copy(TOKENIZERS["bytes"])
    tokenizer.__dict__["template"] = FrameTemplate((), (), {})  # as imported tokenizers have one
    generator, broken = Generator(model, tokenizer), 0
    for prompt in ("a", "bc", "é", "The door"):
        ids = tokenizer.encode(prompt)
        for _ in range(9):
            logits = model.logits(model.hidden(Tokens(torch.tensor([ids]))))[0, -1]
            logits[[PAD, BOS]] = -torch.inf
            ids.append(int(logits.argmax()))
            if ids[-1] == EOS:
                break
        [found] = generator.generate([prompt], search=cfg, max_new_tokens=9)
        written = len(tokenizer.encode(prompt))
        chosen = list(found.continuations[0].tokens)
        assert chosen[: len(ids) - written] == ids[written:]
        broken += REPLACEMENT in tokenizer.decode(ids)
        assert REPLACEMENT not in found.text
        assert "".join(generator.stream(prompt, search=cfg, max_new_tokens=9)) == found.text
    assert broken, "else this shows nothing"


def test_a_row_that_other_rules_leave_nothing_else_still_goes_on():
    generator = Generator(language_model(), TOKENIZERS["bytes"])
    [found] = generator.generate(["a"], search=Greedy(), max_new_tokens=60, rules=[NoRepeat(tokens=1)])
    assert len(found.continuations[0].tokens) > 1


def test_the_replacement_character_itself_has_no_way_through():
    tokenizer = Tokenizer.train(Bpe(vocab=262), [f"{REPLACEMENT}a{REPLACEMENT}b"] * 30)
    table = table_of(tokenizer)
    whole = [t for t in range(EOS + 1, len(tokenizer)) if REPLACEMENT.encode() in tokenizer.spelling(t)]
    assert whole and (table.after[:, whole] < 0).all()
    assert {PAD, BOS, EOS}.isdisjoint(table.never.tolist())
