"""Continuing text with a language model: one made of bytes, small, and random."""

import contextlib
import itertools
import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_speculative import save_run
from test_speculative import transformer as translating
from torch import nn

from dragoman.cli import main
from dragoman.decode.constraints.repetition import Forbidden, MinimumLength, NoRepeat
from dragoman.decode.detokenizer import TextStream
from dragoman.decode.generator import Generator
from dragoman.decode.search.beam import Beam
from dragoman.decode.search.greedy import Greedy
from dragoman.decode.search.minimum_risk import MinimumBayesRisk
from dragoman.decode.search.sample import Sample
from dragoman.decode.search.speculative import Speculative
from dragoman.errors import ConfigError, DataError
from dragoman.model.attention import AttentionConfig
from dragoman.model.masks.visibility import Causal
from dragoman.model.mlp import FeedForward
from dragoman.model.norm import LayerNorm
from dragoman.model.positions.position import Learned
from dragoman.model.positions.rotary import Rotary
from dragoman.model.tower import BlockConfig, TowerConfig
from dragoman.model.transformer import TransformerConfig
from dragoman.text.tokens.tokenizer import BOS, EOS, Tokenizer
from dragoman.text.tokens.training import Bpe, Bytes

BYTES = Tokenizer.train(Bytes(), [])


def language_model(tokenizer=BYTES, window=None, **model):
    mixer = AttentionConfig(heads=2, visibility=Causal(window=window), position=Rotary())
    block = BlockConfig(mixer=mixer, mlp=FeedForward(hidden=24), norm=LayerNorm())
    cfg = TransformerConfig(
        **{"vocab": len(tokenizer), "dim": 16, "decoder": TowerConfig(depth=2, pattern=(block,)), "tying": "none"}
        | model
    )
    torch.manual_seed(0)
    made = cfg.build().eval()
    nn.init.normal_(made.output.weight, std=0.7)
    return made


class Spelling(Generator):
    """Says a text after its prompt, whatever the prompt."""

    def __init__(self, text, tokenizer=BYTES):
        model = language_model(tokenizer)
        super().__init__(model, tokenizer)
        ids = [*tokenizer.encode(text), EOS]
        decode, self.said = model.decode, 0

        def spell(tokens, state):
            logits = decode(tokens, state)
            if state.length == (tokens.ids if hasattr(tokens, "ids") else tokens).shape[1]:
                self.said = 0
            logits[:, -1] = 50.0 * nn.functional.one_hot(
                torch.tensor(ids[min(self.said, len(ids) - 1)]), logits.shape[-1]
            )
            self.said += 1
            return logits

        model.decode = spell


PROMPTS = ["Once upon a time", "", "a", "Ein anderer, längerer Anfang"]
SEARCHES = {"greedy": Greedy(), "beam": Beam(size=3, nbest=2), "samples": Sample(samples=2), "guessing": Speculative()}
each_search = pytest.mark.parametrize("cfg", SEARCHES.values(), ids=SEARCHES.keys())


@pytest.fixture(scope="module")
def generator():
    return Generator(language_model(), BYTES)


@each_search
@pytest.mark.parametrize("model", [{}, {"window": 3}, {"position": Learned(length=64)}], ids=str)
def test_a_batch_of_prompts_of_any_lengths_is_each_of_them_alone(model, cfg):
    generator = Generator(language_model(**model), BYTES)
    together = generator.generate(PROMPTS, search=cfg, max_new_tokens=12)
    for prompt, found in zip(PROMPTS, together, strict=True):
        [alone] = generator.generate([prompt], search=cfg, max_new_tokens=12)
        assert [c.tokens for c in found.continuations] == [c.tokens for c in alone.continuations]
        assert [c.score for c in found.continuations] == pytest.approx([c.score for c in alone.continuations], abs=1e-4)


def bytes_missing(text):
    """The fewest bytes that make such a beginning of a text a text; None where none do."""
    ends = [bytes(end) for n in range(4) for end in itertools.product((0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF), repeat=n)]
    for end in ends:
        with contextlib.suppress(UnicodeDecodeError):
            return None if "\ufffd" in (text + end).decode() else len(end)
    return None


def goes_on(ids, left):
    """Whether such bytes can be whole characters once ``left`` more of them are there, the last of ``ids`` included."""
    missing = bytes_missing(b"".join(map(BYTES.spelling, ids)))
    return ids[-1] >= EOS and missing is not None and missing < (1 if ids[-1] == EOS else left)


@torch.no_grad()
def test_a_greedy_continuation_is_the_argmax_loop_without_a_cache(generator):
    for found in generator.generate(PROMPTS, search=Greedy(), max_new_tokens=9):
        ids = start = [BOS, *BYTES.encode(found.prompt)]
        while (left := 9 - (len(ids) - len(start))) and ids[-1] != EOS:
            ranked = generator.model(torch.tensor([ids]))[0, -1].argsort(descending=True).tolist()
            ids = [*ids, next(token for token in ranked if goes_on([*ids[len(start) :], token], left))]
        [best] = found.continuations
        assert list(best.tokens) == ids[len(start) :]
        assert best.ended == ("end" if ids[-1] == EOS else "length")
        p = generator.model(torch.tensor([[*start, *best.tokens[:-1]]]))[0, len(start) - 1 :].log_softmax(-1)
        assert best.log_prob == pytest.approx(p.gather(1, torch.tensor([best.tokens]).T).sum().item(), abs=1e-3)


@pytest.mark.parametrize("cfg", [Greedy(), Sample(), Speculative(), Sample(temperature=2.0)], ids=lambda c: c.kind)
def test_the_pieces_of_a_stream_are_the_text(generator, cfg):
    for prompt, found in zip(PROMPTS, generator.generate(PROMPTS, search=cfg, max_new_tokens=16), strict=True):
        pieces = list(generator.stream(prompt, search=cfg, max_new_tokens=16))
        assert "".join(pieces) == found.text and all(pieces)


TEXT = "ça va: 你好, 🦜! <end> and more"


def test_a_stream_never_holds_half_a_character():
    generator = Spelling(TEXT)
    assert list(generator.stream("x", search=Greedy())) == list(TEXT)


def test_a_continuation_stops_before_the_first_stop_string_and_shows_none_of_it():
    generator = Spelling(TEXT)
    [found] = generator.generate(["x"], search=Greedy(), stop=["absent", "<end>", "and"])
    assert found.text == TEXT.partition("<end>")[0] and found.continuations[0].ended == "stop"
    assert len(found.continuations[0].tokens) < len(BYTES.encode(TEXT))
    pieces = list(generator.stream("x", search=Greedy(), stop=["<end>"]))
    assert pieces == list(found.text)
    wanted = TEXT.partition(" and")[0]
    assert generator.generate(["x"], search=Greedy(), stop=" and")[0].text == wanted  # not before its first character
    assert "".join(generator.stream("x", search=Greedy(), stop=" and")) == wanted
    assert "".join(generator.stream("x", search=Greedy(), stop=["<end>?"])) == TEXT  # what only began like it is shown


BPE = Tokenizer.train(Bpe(vocab=270), ["the the them there this that on only one " * 3])


@settings(max_examples=50)
@given(
    st.text(max_size=8),
    st.lists(st.integers(EOS + 1, len(BPE) - 1), max_size=20),
    st.lists(st.text("the on", min_size=1, max_size=3), max_size=2),
)
def test_text_grows_to_the_whole_in_whole_characters(prompt, ids, stops):
    context = BPE.encode(prompt)
    expected = BPE.decode(context + ids)[len(BPE.decode(context)) :]
    stream = TextStream(BPE, context, stops)
    pieces = [stream.add(token) for token in ids]
    whole = "".join(pieces) + stream.rest()
    ends = [at for at in map(expected.find, stops) if at >= 0]
    assert whole == expected[: min(ends, default=len(expected))]
    assert all(whole.startswith(shown) for shown in itertools.accumulate(pieces))


def test_rules_count_the_prompt_as_said(generator):
    for found in generator.generate(["abcab"], search=Sample(samples=5), rules=[NoRepeat(tokens=1)], max_new_tokens=20):
        for continuation in found.continuations:
            said = [*BYTES.encode("abcab"), *continuation.tokens]
            assert len(set(continuation.tokens)) == len(continuation.tokens)
            assert len(set(said)) == len(set(BYTES.encode("abcab"))) + len(continuation.tokens)


def test_a_stream_under_rules_that_allow_nothing_is_an_error(generator):
    asked = {"search": Greedy(), "rules": [Forbidden(tokens=tuple(range(len(BYTES))))]}
    with pytest.raises(ConfigError, match="the rules forbid every possible continuation"):
        list(generator.stream("abc", **asked))


@each_search
def test_no_end_of_the_model_comes_before_the_minimum_length(generator, cfg):
    ends = list(range(EOS + 1, len(BYTES), 3))  # so many that a text soon ends
    asked = {"search": cfg, "ends": ends, "max_new_tokens": 20}
    short = generator.generate(PROMPTS, **asked)
    assert min(len(one.tokens) for found in short for one in found.continuations) < 14
    for found in generator.generate(PROMPTS, rules=[MinimumLength(tokens=14)], **asked):
        assert all(len(one.tokens) > 14 and not {EOS, *ends} & {*one.tokens[:14]} for one in found.continuations)


@pytest.mark.parametrize("stop", [" ###", "###", "# the", " "])
def test_a_stop_string_at_the_beginning_of_an_answer_ends_it_at_once(stop):
    tokenizer = Tokenizer.train(Bpe(vocab=278), ["the cat sat on the mat ### and the dog ### sat on the cat"] * 20)
    text = "### the cat sat on the mat and the dog"
    [found] = Spelling(text, tokenizer).generate(["the dog"], search=Greedy(), max_new_tokens=40, stop=[stop])
    assert found.text == (" " + text).partition(stop)[0]
    assert found.continuations[0].ended == "stop" and len(found.continuations[0].tokens) <= 2


@pytest.mark.parametrize("cfg", [Beam(size=4, nbest=4), Sample(samples=4)], ids=str)
@pytest.mark.parametrize("end", [{"ends": [40, 60]}, {"stop": ["a", "b", "1"]}, {"max_new_tokens": 5}], ids=str)
@torch.no_grad()
def test_what_ends_an_answer_besides_the_model_counts_in_no_score(cfg, end, generator):
    together = generator.generate(PROMPTS, search=cfg, **{"max_new_tokens": 12} | end)
    for prompt, found in zip(PROMPTS, together, strict=True):
        scores = [one.score for one in found.continuations]
        assert scores == sorted(scores, reverse=True)
        for one in found.continuations:
            ids = torch.tensor([[BOS, *BYTES.encode(prompt), *one.tokens]])
            p = generator.model(ids[:, :-1])[0, -len(one.tokens) :].log_softmax(-1)
            log_probs = p.gather(1, torch.tensor([one.tokens]).T)[:, 0]
            assert one.token_log_probs == pytest.approx(log_probs.tolist(), abs=1e-4)
            assert one.score == pytest.approx(log_probs.mean().item(), abs=1e-4)
            assert one.ended != "length" or len(one.tokens) == end.get("max_new_tokens", 12)


@each_search
def test_an_end_that_is_no_token_of_the_model_changes_nothing(generator, cfg):
    asked = {"search": cfg, "rules": [MinimumLength(tokens=2)], "max_new_tokens": 5}
    plain, unknown = (generator.generate(PROMPTS, ends=ends, **asked) for ends in ((), (99_999,)))
    assert [one.tokens for found in plain for one in found.continuations] == [
        one.tokens for found in unknown for one in found.continuations
    ]


def test_a_stop_string_ends_a_text_that_has_not_its_minimum_length():
    rules = [MinimumLength(tokens=6)]
    [found] = Spelling("one two three").generate(["x"], search=Greedy(), stop=["e"], rules=rules, max_new_tokens=20)
    assert found.text == "on" and found.continuations[0].ended == "stop"


def test_seeds_are_of_a_request(generator):
    cfg = {"search": Sample(), "max_new_tokens": 20}
    a, b, c = generator.generate(["x", "x", "x"], seeds=[1, 2, 1], **cfg)
    assert a == c != b
    assert "".join(generator.stream("x", seed=2, **cfg)) == b.text
    d, e = generator.generate(["x", "x"], **cfg)
    assert d == e


def test_a_model_with_learned_positions_says_as_much_as_it_can_read():
    generator = Generator(language_model(position=Learned(length=10)), BYTES)
    generator.model.output.weight.data[EOS] = 0
    generator.model.output.weight.data[EOS + 1] *= 9
    for found in generator.generate(["abc", "abcdefghi"], search=Greedy()):
        ended = found.continuations[0]
        assert ended.ended == "end" or 1 + len(found.prompt) + len(ended.tokens) == max(10, 1 + len(found.prompt) + 1)
    with pytest.raises(DataError, match="prompt 2: 11 tokens, and the model reads 10: shorten it"):
        generator.generate(["a", "a" * 10])


def test_what_makes_no_sense_is_refused(generator):
    with pytest.raises(ConfigError, match="greedy search and one sample"):
        generator.stream("x", search=Beam())
    with pytest.raises(ConfigError, match="minimum Bayes risk"):
        generator.generate(["x"], search=MinimumBayesRisk())
    with pytest.raises(ConfigError, match="stop: an empty text"):
        generator.generate(["x"], stop=[""])
    with pytest.raises(DataError, match="prompt 1: character 2"):
        generator.generate(["x\ud800"])
    with pytest.raises(ConfigError, match=r"this model translates.*dragoman translate"):
        Generator(translating(len(BYTES)), BYTES)


# ---- the command -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs")
    return {
        "RUN": save_run(path / "language", language_model(), BYTES),
        "TRANSLATOR": save_run(path / "translator", translating(len(BYTES)), BYTES),
    }


def run(runs, capsys, *arguments):
    capsys.readouterr()
    code = main([runs.get(argument, argument) for argument in arguments])
    return code, *capsys.readouterr()


def test_a_prompt_is_continued_at_once_or_as_it_comes(runs, capsys):
    options = ["--max-new-tokens", "9", "--temperature", "0.7", "--top-k", "40", "--top-p", "0.9", "--seed", "3"]
    code, whole, _ = run(runs, capsys, "generate", "RUN", "Once upon", *options)
    assert code == 0 and whole.startswith("Once upon") and len(whole) > 12
    assert run(runs, capsys, "generate", "RUN", "Once upon", "--stream", *options)[:2] == (0, whole)
    record = json.loads(run(runs, capsys, "generate", "RUN", "Once upon", "--format", "json", *options)[1])
    assert record["prompt"] + record["continuations"][0]["text"] + "\n" == whole


def test_a_translation_is_searched_for_as_options_say(runs, capsys):
    draw = ["translate", "TRANSLATOR", "abc", "--seed", "1", "--sample", "3"]
    first, again = (run(runs, capsys, *draw) for _ in range(2))
    assert first == again and first[0] == 0 and all(line.startswith("1\t") for line in first[1].splitlines())
    full = run(runs, capsys, *draw[:3], "--search", "sample: {samples: 3, seed: 1}")
    assert full[1] == first[1]
    greedy = run(runs, capsys, *draw[:3], "--beam", "1")
    assert run(runs, capsys, *draw[:3], "--search", "speculative")[1] == greedy[1]
    assert run(runs, capsys, *draw[:3], "--beam", "1", "--rule", "no_repeat: {tokens: 1}")[1] != greedy[1]


MISTAKES = {
    "unknown search": (["translate", "TRANSLATOR", "a", "--search", "sampel"], "Did you mean 'sample'?"),
    "unknown setting": (["generate", "RUN", "a", "--search", "sample: {top_q: 1}"], "--search: no 'top_q' here"),
    "unknown rule": (["generate", "RUN", "a", "--rule", "no_repeats"], "Did you mean 'no_repeat'?"),
    "a share above 1": (["generate", "RUN", "a", "--top-p", "1.5"], "sampling.top_p: must be less than or equal to 1"),
    "sampling a beam": (["generate", "RUN", "a", "--search", "beam", "--top-k", "3"], "--top-k: for sampling, but"),
    "a beam and a search": (["translate", "TRANSLATOR", "a", "--search", "greedy", "--beam", "4"], "--beam: chooses"),
    "a beam and samples": (["translate", "TRANSLATOR", "a", "--sample", "3", "--beam", "4"], "and --sample another"),
    "a beam to evaluate": (["evaluate", "TRANSLATOR", "--search", "greedy", "--beam", "4"], "--beam: chooses"),
    "a beam to augment": (["augment", "distill", "TRANSLATOR", "a", "-o", "b.tsv", "--beam", "2", "--top-p", "0.5"],
        "--beam: chooses beam search, and --top-p"),
    "a column of a sentence": (["translate", "TRANSLATOR", "a b", "--column", "0"], "--column: is for files with"),
    "passages of no file": (["generate", "RUN", "a", "--top-passages", "2"], "--top-passages: is for --passages"),
    "answers of no file": (["answer", "RUN", "a", "--top-passages", "2"], "--top-passages: is for --passages"),
    "chat as text": (["generate", "RUN", "--chat", "x", "--as", "text"], "--as: conversations are JSON lines"),
    "following one": (["evaluate", "TRANSLATOR", "--follow", "--checkpoint", "last"], "--checkpoint: cannot be used"),
    "following in JSON": (["evaluate", "RUN", "--follow", "--format", "json"], "--format: cannot be used with --fol"),
    "following two": (["evaluate", "RUN", "--follow", "--against", "RUN"], "--against: cannot be used with --follow"),
    "nbest of a sample": (["translate", "TRANSLATOR", "a", "--sample", "3", "--nbest", "2"], "--nbest: is for --beam"),
    "streaming a beam": (["generate", "RUN", "a", "--stream", "--search", "beam"], "only greedy search and one sample"),
    "streaming a file": (["generate", "RUN", "--stream"], "--stream: writes the text of one prompt"),
    "a translator": (["generate", "TRANSLATOR", "a"], "writes another: use `dragoman translate`"),
    "no run": (["generate", "absent", "a"], "absent: no such run directory"),
    "an empty stop": (["generate", "RUN", "a", "--stop", ""], "stop: an empty text occurs everywhere"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_and_exit_2(mistake, runs, capsys):
    arguments, message = MISTAKES[mistake]
    code, out, err = run(runs, capsys, *arguments)
    assert (code, out) == (2, "") and message in err
    assert err.startswith("dragoman: ") and err.count("\n") == 1
