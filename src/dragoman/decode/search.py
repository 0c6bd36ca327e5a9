"""From a batch of sources to their best translations, in ids. Read this file first.

B sentences, S source length.
"""

from collections.abc import Sequence
from typing import Annotated

import torch
from jaxtyping import Int
from torch import Tensor

from dragoman.config import OneOf
from dragoman.decode.beam import Beam
from dragoman.decode.greedy import Greedy
from dragoman.decode.rules import Rule, Rules
from dragoman.decode.strategy import Choice, Hypothesis
from dragoman.model.interface import SequenceModel
from dragoman.model.state import KVPolicy, growing
from dragoman.text.tokenizer import BOS, PAD

SearchConfig = Annotated[Greedy | Beam, OneOf()]


@torch.inference_mode()
def search(
    model: SequenceModel,
    source: Int[Tensor, "B S"],
    cfg: SearchConfig,
    policy: KVPolicy = growing,
    rules: Sequence[Rule] = (),
) -> list[list[Hypothesis]]:
    """Translate a batch; for each sentence its hypotheses, best first.

    Args:
        model: any family; it is run without dropout.
        source: each row ends with EOS and is padded with PAD.
        cfg: how to search.
        policy: what attention layers keep of the past.
        rules: what may be said; each made for this batch.

    Raises:
        CheckpointError: the model's logits are not numbers.
    """
    training = model.training
    model.eval()
    try:
        return _search(model, source, cfg, policy, Rules(rules))
    finally:
        model.train(training)


def _search(
    model: SequenceModel, source: Tensor, cfg: SearchConfig, policy: KVPolicy, rules: Rule
) -> list[list[Hypothesis]]:
    longest = model.max_length or cfg.limit.tokens
    limits = [min(longest, cfg.limit.of(length)) for length in (source != PAD).sum(dim=1).tolist()]
    strategy = cfg.start(limits, source.device)
    state = model.start(source, policy)

    def choose(tokens: Tensor) -> Choice | None:
        logits = model.decode(tokens, state)[:, -1]
        return strategy.step(logits, rules.apply(logits))

    choice = choose(source.new_full((len(source), 1), BOS))
    if choice and strategy.beams > 1:
        state.expand(strategy.beams)
    while choice:
        rules.follow(choice)
        if choice.keep is not None:
            state.select(choice.keep)
        if choice.rows is not None:
            state.reorder(choice.rows)
        choice = choose(choice.tokens[:, None])
    return strategy.results()
