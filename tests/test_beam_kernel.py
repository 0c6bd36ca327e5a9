"""A step of beam search in C equals its slow twin in PyTorch."""

from typing import get_args

import pytest
import torch
from by_kernels import needed

from dragoman.decode.search import backpointers
from dragoman.decode.search import beam as beams
from dragoman.decode.search.beam import Beam, BeamStrategy, StopRule
from dragoman.decode.search.length_penalty import Average, Gnmt, NoPenalty
from dragoman.errors import CheckpointError
from dragoman.text.tokens.tokenizer import EOS

VOCABULARY = 23


def run(
    cfg: Beam, limits: list[int], seed: int, *, ties: bool, ruled: bool, joined: bool = False, continued: bool = False
) -> list:
    """Search in random logits; return every choice, and the hypotheses."""
    strategy, draw, seen = cfg.start(limits, torch.device("cpu")), torch.Generator().manual_seed(seed), []
    if continued:
        strategy.continue_text((5, 9))
    step = 0
    while True:
        rows = strategy.total.numel()
        logits = 3 * torch.randn(rows, VOCABULARY, generator=draw)
        logits[:, EOS] += 2
        logits = logits.round() if ties else logits
        forbidden = torch.rand(logits.shape, generator=draw) < 0.5 if ruled else torch.zeros_like(logits).bool()
        ranked = logits.masked_fill(forbidden, -torch.inf) if ruled else logits
        over = torch.rand(rows, generator=draw) < 0.2 if continued and step else None
        if over is not None:
            end = torch.full((VOCABULARY,), -torch.inf).index_fill(0, torch.tensor(EOS), 0.0)
            logits, ranked = (torch.where(over[:, None], end, each) for each in (logits, ranked))
        choice = strategy.step(logits, ranked, over)
        if choice is None:
            return [seen, strategy.results()]
        seen.append([None if field is None else field.tolist() for field in choice])
        step += 1
        if joined and step == 2:
            other = cfg.start([4, 9], torch.device("cpu"))
            if continued:
                other.continue_text((5, 9))
            logits = 3 * torch.randn(2, VOCABULARY, generator=draw)
            other.step(logits, logits)
            strategy.join(other)


@needed
@pytest.mark.parametrize("stop", get_args(StopRule))
@pytest.mark.parametrize(("ties", "ruled", "joined"), [(False, False, True), (True, False, False), (True, True, True)])
@pytest.mark.parametrize("continued", [False, True])
def test_the_kernel_chooses_as_its_slow_twin_does(monkeypatch, stop, ties, ruled, joined, continued):
    ended = 0
    for seed, (size, nbest, penalty) in enumerate(
        [(1, 1, Average()), (2, 2, NoPenalty()), (5, 1, Average()), (5, 5, Gnmt()), (8, 3, Average(alpha=0.5))]
    ):
        cfg, limits = Beam(size=size, nbest=nbest, penalty=penalty, stop=stop), [1, 2, 7, 12, 12, 5]
        settings = {"ties": ties, "ruled": ruled, "joined": joined, "continued": continued}
        fast = run(cfg, limits, seed, **settings)
        with monkeypatch.context() as patch:
            patch.setattr(beams, "kernels_read", lambda *_: False)
            patch.setattr(backpointers, "available", lambda: False)
            assert run(cfg, limits, seed, **settings) == fast
        ended += sum(len(found) for found in fast[1])
    assert ended > 5 * len(limits)


@needed
def test_the_kernel_is_used_for_plain_beams_alone(monkeypatch):
    used = []
    real = beams.beam_step
    monkeypatch.setattr(beams, "beam_step", lambda *given: used.append(True) or real(*given))
    run(Beam(), [5], 0, ties=False, ruled=False)
    assert used
    used.clear()

    class Other(BeamStrategy):
        """It may override what the kernel would do."""

    logits = torch.randn(1, VOCABULARY)
    Other(Beam(), [5], torch.device("cpu")).step(logits, logits)
    assert not used


@needed
def test_logits_that_are_no_numbers_are_an_error_by_the_kernel_too():
    strategy = Beam().start([3, 3], torch.device("cpu"))
    while strategy.step(*2 * [torch.full((strategy.total.numel(), VOCABULARY), torch.nan)]):
        pass
    with pytest.raises(CheckpointError, match="NaN"):
        strategy.results()
