"""Search: from a batch of sources to their best translations, in ids. Read this file first.

B sentences, S source length, P prompt length.
"""

import sys
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import torch
from jaxtyping import Int
from torch import Tensor

from dragoman.config import OneOf, choices
from dragoman.decode.arguments import check_kind
from dragoman.decode.search.beam import Beam, BeamStrategy
from dragoman.decode.search.coverage import CoveringBeam
from dragoman.decode.search.diverse import DiverseBeam
from dragoman.decode.search.greedy import Greedy, GreedyStrategy
from dragoman.decode.search.minimum_risk import MinimumBayesRisk
from dragoman.decode.search.ranking import likeliest_tokens
from dragoman.decode.search.rng import key
from dragoman.decode.search.rule import Rule, Rules, only
from dragoman.decode.search.sample import Sample
from dragoman.decode.search.session import DecoderSession
from dragoman.decode.search.speculative import Speculative
from dragoman.decode.search.strategy import Choice, Hypothesis, Strategy
from dragoman.model.caches.cache import DEFAULT
from dragoman.model.caches.state import KVPolicy
from dragoman.model.inference.native import NativeTransformer
from dragoman.model.inference.slots import Slots, StepKernel
from dragoman.model.interface import DecodingState, SequenceModel, Tokens
from dragoman.text.tokens.tokenizer import BOS, EOS, PAD

SearchConfig = Annotated[Greedy | Beam | DiverseBeam | CoveringBeam | Sample | MinimumBayesRisk | Speculative, OneOf()]


def check_search(given: Any) -> SearchConfig:
    """Return a search that a program gives.

    Raises:
        TypeError: it is none.
    """
    return check_kind(given, "search", tuple(choices(SearchConfig)), what="a search such as Beam(size=4)")


def plain_search(cfg: SearchConfig) -> SearchConfig:
    """Return the search whose answers ``cfg`` gives: of a speculative search the one that it speeds up."""
    return cfg.search if isinstance(cfg, Speculative) else cfg


def beams_of(cfg: SearchConfig) -> int:
    """Return the hypotheses of each text."""
    return plain_search(cfg).size


def can_stream(cfg: SearchConfig) -> bool:
    """Return whether the tokens of a search are final as they are chosen: of greedy search, and of one sample."""
    plain = plain_search(cfg)
    return isinstance(plain, Greedy) or (isinstance(plain, Sample) and plain.samples == 1)


@torch.inference_mode()
def search(
    model: SequenceModel,
    source: Int[Tensor, "B S"],
    cfg: SearchConfig,
    policy: KVPolicy = DEFAULT,
    rules: Sequence[Rule] = (),
    seeds: Sequence[int] | None = None,
) -> list[list[Hypothesis]]:
    """Translate a batch; return the hypotheses of each sentence, best first.

    Args:
        model: any family; it is run without dropout.
        source: each row ends with EOS and is padded with PAD.
        cfg: how to search. Of minimum Bayes risk decoding only the sampling runs here, because the rest compares texts.
        policy: what attention layers cache of the past.
        rules: constraints on the tokens, each started for this batch.
        seeds: a number for each sentence, which its samples depend on besides the seed in ``cfg``; by default derived
            from its ids.

    Raises:
        CheckpointError: the model's logits are not numbers.
    """
    batch = start_batch(model, source, cfg, policy, rules, seeds)
    with model.without_dropout():
        while batch.advance():
            pass
    return batch.strategy.results()


def walk(
    model: SequenceModel,
    source: Tensor | None,
    prompt: Int[Tensor, "B P"] | Tokens,
    cfg: SearchConfig,
    strategy: Strategy,
    policy: KVPolicy = DEFAULT,
    rules: Sequence[Rule] = (),
) -> Iterator[Choice]:
    """Run ``strategy``, which ``cfg`` has started. Yield each choice as it is made, except the last, which ends the
    search.

    ``prompt`` is the beginning of the target. It ends in the last column.
    """
    batch = SearchBatch(model, source, prompt, cfg, strategy, policy, rules)
    with model.without_dropout():
        while choice := batch.step():
            yield choice


def start_batch(
    model: SequenceModel,
    source: Int[Tensor, "B S"],
    cfg: SearchConfig,
    policy: KVPolicy = DEFAULT,
    rules: Sequence[Rule] = (),
    seeds: Sequence[int] | None = None,
    lengths: Sequence[int] | None = None,
) -> "SearchBatch":
    """Return a batch that has not made a step; the arguments are those of ``search``.

    Args:
        lengths: of the sources, where they are known.
    """
    limits = begin_rules(Rules(rules), cfg, model, lengths or (source != PAD).sum(dim=1).tolist())
    if seeds is None:
        seeds = own_seeds(source) if cfg.draws else ()
    strategy = cfg.start(limits, source.device, seeds)
    return SearchBatch(model, source, source.new_full((len(source), 1), BOS), cfg, strategy, policy, rules)


def begin_rules(rule: Rules, cfg: SearchConfig, model: SequenceModel, lengths: Sequence[int]) -> list[int]:
    """Let the rules begin; return the most tokens of each translation, given the lengths of the sources."""
    least = [1 + max(rule.min_tokens, needed) for needed in rule.needs or [0] * len(lengths)]
    longest = model.max_length or sys.maxsize
    limits = [min(longest, max(cfg.limit.of(n), fewest)) for n, fewest in zip(lengths, least, strict=True)]
    rule.begin(limits)
    return limits


class SearchBatch:
    """Sentences that are searched together: the decoder's session and the strategy that chooses its tokens."""

    def __init__(
        self,
        model: SequenceModel,
        source: Tensor | None,
        prompt: Int[Tensor, "B P"] | Tokens,
        cfg: SearchConfig,
        strategy: Strategy,
        policy: KVPolicy,
        rules: Sequence[Rule],
    ):
        self.model, self.source, self.prompt, self.policy = model, source, prompt, policy
        self.cfg, self.strategy, self.rule = cfg, strategy, Rules(rules)
        self.choice: Choice | None = None
        """The choice made last; None before the first step and after the last."""
        self.steps = 0
        self.session: DecoderSession | None = None
        self.likeliest_count = 0
        """Number of the most probable tokens of each row that are noted at each step."""
        self.likeliest: list[tuple[tuple[int, float], ...]] = []
        """Those of the last step, with their log-probabilities."""

    def step(self) -> Choice | None:
        """Let the model read the tokens chosen last, and choose the next; None once all sentences have hypotheses."""
        # Inference mode is left after each step: it would also hold for the code that consumes the generator.
        with torch.inference_mode(), self.strategy.forward_context(self.model, self.source):
            read = self.opened().first(self.prompt) if self.choice is None else self.opened().next(self.choice)
            logits, complete = self.rule.given(read), self.rule.complete()
            self.likeliest = likeliest_tokens(logits, self.likeliest_count, EOS) if self.likeliest_count else []
            ranked = self.rule.apply(logits)
            if complete is not None:
                unchanged, logits = ranked is logits, only(EOS, complete, logits)
                ranked = logits if unchanged else only(EOS, complete, ranked)
            self.choice = self.strategy.step(logits, ranked, complete)
            self.steps += 1
            if self.choice:
                self.rule.follow(self.choice)
        return self.choice

    def advance(self, most: int = sys.maxsize, few: int = 0) -> Choice | None:
        """Make up to ``most`` steps at once where that is possible, else one; return the last choice as ``step`` does.

        It ends when no more than ``few`` sentences are left.
        """
        several_ends = len(self.strategy.ends) > 1
        if type(self.strategy) not in WALKING or several_ends or self.likeliest_count or self.rule.rules:
            return self.step()  # others open the session in a context of their own
        with torch.inference_mode():
            session = self.opened()
            model = walking_model(session)
            if model is None or (self.choice is None and _ids_of(self.prompt).shape[1] > 1):
                return self.step()
            assert isinstance(session.state, Slots)
            token = _ids_of(self.prompt)[:, 0] if self.choice is None else session.arranged(self.choice)
            made, self.choice = self.strategy.walk(model, session.state, token, most, few)
            self.steps += made
        return self.choice

    def opened(self) -> DecoderSession:
        """Return the decoder's session; it begins when it is first needed."""
        if self.session is None and isinstance(self.cfg, Speculative):
            self.session = self.cfg.session(self.model, self.source, self.policy, self.strategy)
        elif self.session is None:
            self.session = DecoderSession(self.model, self.source, self.policy, self.strategy.beams)
        return self.session

    def continue_from(self, state: DecodingState) -> None:
        """Begin with a state that has read the beginning of the prompt, which is one row."""
        self.session = DecoderSession(self.model, self.source, self.policy, self.strategy.beams, state)
        self.prompt = Tokens(_only_row(self.prompt)[:, state.length :])

    @property
    def unread(self) -> int:
        """Number of tokens of the prompt that the model has not read."""
        return _only_row(self.prompt).shape[1]

    def read_ahead(self, tokens: int) -> bool:
        """Let the model read up to ``tokens`` more of the prompt, which is one row; return whether only its last token
        is left for the first step."""
        ids = _only_row(self.prompt)
        count = min(tokens, ids.shape[1] - 1)
        if count > 0:
            with torch.inference_mode():
                self.model.decode(Tokens(ids[:, :count]), self.opened().state)
            self.prompt = Tokens(ids[:, count:])
        return ids.shape[1] - count <= 1

    def join(self, other: "SearchBatch") -> None:
        """Append the sentences of ``other``, as if both batches had made their last step together.

        Both must have made at least one step.
        """
        assert self.choice is not None and other.choice is not None
        with torch.inference_mode():
            tokens = torch.cat([self.choice.tokens, other.choice.tokens])
            self.opened().join(other.opened(), self.choice, other.choice)
            self.strategy.join(other.strategy)
            self.rule.join(other.rule)
            self.choice = Choice(None, None, tokens)


WALKING = (GreedyStrategy, BeamStrategy)
"""Searches of which a kernel makes several steps in one call."""


def walking_model(session: DecoderSession) -> StepKernel | None:
    """Return the model whose kernels can make several steps of a search; None where each step is made by itself."""
    model, state = session.model, session.state
    if type(session) is not DecoderSession or not isinstance(model, NativeTransformer):
        return None
    known = isinstance(state, Slots) and not state.rewindable and model.logit_cap is None
    return model.native_decoder if known else None


def _ids_of(prompt: Int[Tensor, "B P"] | Tokens) -> Int[Tensor, "B P"]:
    return prompt.ids if isinstance(prompt, Tokens) else prompt


def _only_row(prompt: Int[Tensor, "1 P"] | Tokens) -> Int[Tensor, "1 P"]:
    ids = _ids_of(prompt)
    assert len(ids) == 1, "a prompt is read in parts where it is alone in its batch"
    return ids


def own_seeds(ids: Int[Tensor, "B T"]) -> list[int]:
    """Return a number for each row that depends on its ids alone, not on its padding."""
    return [key([i for i in row if i != PAD]) for row in ids.tolist()]
