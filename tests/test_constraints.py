"""Constraints on what is said, kept by models that were never trained and would say anything."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_search import Recurrent, sources
from test_translator import parrot

from dragoman.decode.constraints.beginning import Beginning, ForcedBeginning
from dragoman.decode.constraints.vocabulary import SpelledVocabulary
from dragoman.decode.request import Request
from dragoman.decode.search.beam import Beam
from dragoman.decode.search.greedy import Greedy
from dragoman.decode.search.search import search
from dragoman.decode.search.strategy import LengthLimit
from dragoman.decode.translator import Translator
from dragoman.errors import DataError
from dragoman.text.tokens.tokenizer import Tokenizer
from dragoman.text.tokens.training import Bpe, Bytes, Words

TEXTS = ["the battery is low", "low battery: replace the batteries", "la batería está baja", "naïve café — 日本語"] * 20
TOKENIZERS = {
    "bpe": Tokenizer.train(Bpe(vocab=290), TEXTS),
    "bytes": Tokenizer.train(Bytes(), []),
    "words": Tokenizer.train(Words(vocab=265), TEXTS),
}
SHORT = LengthLimit(tokens=12, ratio=0.0, extra=12)


def untrained(tokenizer, seed=0, sharpness=0.7):
    return Translator(Recurrent(len(tokenizer), seed=seed, sharpness=sharpness), tokenizer, tokenizer)


each_tokenizer = pytest.mark.parametrize("name", TOKENIZERS)
each_search = pytest.mark.parametrize(
    "cfg", [Greedy(limit=SHORT), Beam(size=3, nbest=3, limit=SHORT)], ids=["greedy", "beam"]
)

# ---- beginnings ------------------------------------------------------------------------------------

PREFIXES = ["la", "la bat", "batería está", "¿日", "é", "x: ", "a  b", "", " low"]


@each_tokenizer
@each_search
def test_a_translation_begins_with_its_prefix_whatever_the_model_would_say(name, cfg):
    for seed in range(3):
        asked = [Request("the battery", prefix) for prefix in PREFIXES]
        for request, found in zip(asked, untrained(TOKENIZERS[name], seed).translate(asked, search=cfg), strict=True):
            for candidate in found.candidates:
                assert candidate.text.startswith(" ".join(request.prefix.split()))


@settings(max_examples=25)
@given(st.text(st.sampled_from("ab é日"), max_size=8), st.integers(0, 3))
def test_any_characters_can_be_a_prefix(prefix, seed):
    [found] = untrained(TOKENIZERS["bpe"], seed).translate([Request("low", prefix)], search=Greedy(limit=SHORT))
    assert found.text.startswith(" ".join(prefix.split()))


@each_search
def test_the_beginning_of_its_own_translation_does_not_change_it_in_ids_and_in_characters(cfg):
    translator = untrained(TOKENIZERS["bytes"])
    for free in translator.translate(["low", "the battery", "x y z"], search=cfg):
        best = free.candidates[0]
        for length in (1, len(best.tokens) // 2, len(best.tokens)):
            [forced] = translator.translate([Request(free.source, prefix_ids=best.tokens[:length])], search=cfg)
            assert forced.candidates[0].tokens[:length] == best.tokens[:length]
            if isinstance(cfg, Greedy):
                assert forced.candidates[0].tokens == best.tokens
                assert forced.score == pytest.approx(free.score, abs=1e-5)


def test_a_word_that_a_prefix_begins_may_be_ended_by_the_token_the_model_would_use():
    tokenizer = TOKENIZERS["words"]
    vocabulary = SpelledVocabulary(tokenizer)
    [battery] = tokenizer.encode("battery")
    assert battery in vocabulary.towards(vocabulary.spelt("bat"))
    assert {tokenizer.spelling(t) for t in vocabulary.towards(b" the")} == {b" ", b" the"}


def test_a_sentence_without_a_prefix_is_not_changed_by_its_neighbours():
    translator = untrained(TOKENIZERS["bpe"])
    texts = ["low", "the battery", "x y z"]
    for cfg in (Greedy(limit=SHORT), Beam(size=4, limit=SHORT)):
        alone = translator.translate(texts, search=cfg)
        mixed = translator.translate(
            [*texts, Request("low", "baj"), Request("the battery", prefix_ids=(9, 8))], search=cfg
        )
        assert [t.candidates[0].tokens for t in mixed[:3]] == [t.candidates[0].tokens for t in alone]


def test_log_probabilities_of_a_forced_beginning_are_the_models_own():
    model, batch = Recurrent(30), sources(30, 4)
    vocabulary = SpelledVocabulary(TOKENIZERS["bytes"])
    for cfg in (Greedy(limit=SHORT), Beam(size=3, limit=SHORT)):
        rule = ForcedBeginning([Beginning((7, 9))] * 4, vocabulary, torch.device("cpu"))
        for source, [found] in zip(batch, search(model, batch, cfg, rules=[rule]), strict=True):
            given = torch.tensor([[1, *found.tokens[:-1]]])
            with torch.no_grad():
                p = model(given, source[source != 0][None])[0].log_softmax(-1)
            assert found.tokens[:2] == (7, 9)
            expected = p.gather(1, torch.tensor([found.tokens]).T)[:, 0].tolist()
            assert found.token_log_probs == pytest.approx(expected, abs=1e-5)


def test_a_long_text_begins_as_told_in_its_first_part_only():
    [found] = parrot().translate([Request("One is here. Two is there. Three", "Uno")], longest=15)
    assert found.text.startswith("Uno") and found.text.count("Uno") == 1


def test_prefixes_that_cannot_be_said_are_refused_with_their_row():
    translator = untrained(TOKENIZERS["bytes"])
    with pytest.raises(DataError, match=r"row 2: prefix_ids: 999 is no token"):
        translator.translate(["low", Request("low", prefix_ids=(999,))])
    translator.model.max_length = 8
    with pytest.raises(DataError, match="row 1: its prefix and terms take up to 10 tokens, the model takes 8"):
        translator.translate([Request("low", "x" * 10)])
