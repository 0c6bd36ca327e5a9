"""From a batch of sources to their best translations, in ids. Read this file first.

B sentences, S source length, P prompt length.
"""

import sys
from collections.abc import Iterator, Sequence
from typing import Annotated

import torch
from jaxtyping import Int
from torch import Tensor

from dragoman.config import OneOf
from dragoman.decode.beam import Beam
from dragoman.decode.chance import key
from dragoman.decode.coverage import CoveringBeam
from dragoman.decode.diverse import DiverseBeam
from dragoman.decode.greedy import Greedy
from dragoman.decode.minimum_risk import MinimumBayesRisk
from dragoman.decode.reader import Reader
from dragoman.decode.rules import Rule, Rules
from dragoman.decode.sample import Sample
from dragoman.decode.speculative import Speculative
from dragoman.decode.strategy import Choice, Hypothesis, Strategy
from dragoman.model.cache import DEFAULT
from dragoman.model.interface import SequenceModel, Tokens
from dragoman.model.state import KVPolicy
from dragoman.text.tokenizer import BOS, PAD

SearchConfig = Annotated[Greedy | Beam | DiverseBeam | CoveringBeam | Sample | MinimumBayesRisk | Speculative, OneOf()]


@torch.inference_mode()
def search(
    model: SequenceModel,
    source: Int[Tensor, "B S"],
    cfg: SearchConfig,
    policy: KVPolicy = DEFAULT,
    rules: Sequence[Rule] = (),
    seeds: Sequence[int] | None = None,
) -> list[list[Hypothesis]]:
    """Translate a batch; for each sentence its hypotheses, best first.

    Args:
        model: any family; it is run without dropout.
        source: each row ends with EOS and is padded with PAD.
        cfg: how to search; of minimum Bayes risk decoding only the sampling, for what follows compares texts.
        policy: what attention layers keep of the past.
        rules: what may be said; each made for this batch.
        seeds: for each sentence a number that its samples depend on besides the seed in ``cfg``; without them its ids.

    Raises:
        CheckpointError: the model's logits are not numbers.
    """
    longest, lengths = model.max_length or sys.maxsize, (source != PAD).sum(dim=1).tolist()
    rule = Rules(rules)
    needs = rule.needs or [0] * len(lengths)
    limits = [min(longest, max(cfg.limit.of(n), least + 1)) for n, least in zip(lengths, needs, strict=True)]
    rule.begin(limits)
    strategy = cfg.start(limits, source.device, own_seeds(source) if seeds is None else seeds)
    prompt = source.new_full((len(source), 1), BOS)
    for _ in walk(model, source, prompt, cfg, strategy, policy, rules):
        pass
    return strategy.results()


def walk(
    model: SequenceModel,
    source: Int[Tensor, "B S"] | None,
    prompt: Int[Tensor, "B P"] | Tokens,
    cfg: SearchConfig,
    strategy: Strategy,
    policy: KVPolicy = DEFAULT,
    rules: Sequence[Rule] = (),
) -> Iterator[Choice]:
    """Let ``strategy`` search, which ``cfg`` has started; tell each choice as soon as it is made, but the last,
    which ends the search.

    ``prompt`` is what the target begins with, in front of what is searched for; it ends in the last column.
    """
    rule = Rules(rules)

    def choose(logits: Tensor) -> Choice | None:
        choice = strategy.step(logits, rule.apply(logits))
        if choice:
            rule.follow(choice)
        return choice

    with model.without_dropout():
        # never inference mode while others run: a generator's context would be theirs as well
        with torch.inference_mode(), strategy.watching(model, source):
            if isinstance(cfg, Speculative):
                reader = cfg.reader(model, source, policy, strategy)
            else:
                reader = Reader(model, source, policy, strategy.beams)
            choice = choose(reader.first(prompt))
        while choice:
            yield choice
            with torch.inference_mode(), strategy.watching(model, source):
                choice = choose(reader.next(choice))


def own_seeds(ids: Int[Tensor, "B T"]) -> list[int]:
    """For each row a number that depends on its ids alone, padding left out."""
    return [key([i for i in row if i != PAD]) for row in ids.tolist()]
