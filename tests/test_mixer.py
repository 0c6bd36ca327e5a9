"""A mixer is one file and one line: one that is defined here, nowhere else, goes through all that mixers go through.

It is a running average per channel: a state that sums up the past, and no columns of it.
"""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from variants import D, assert_equal, ids

from dragoman.config import config
from dragoman.decode.precision import prepare_for_inference
from dragoman.decode.search.beam import Beam
from dragoman.decode.search.greedy import Greedy
from dragoman.decode.search.sample import Sample
from dragoman.decode.search.search import search
from dragoman.decode.verify.checks import run_checks
from dragoman.decode.verify.writing import WritingVerifier, random_beginnings, random_rows
from dragoman.errors import ConfigError
from dragoman.model.attention import AttentionConfig
from dragoman.model.caches.state import LayerState
from dragoman.model.interface import Tokens
from dragoman.model.linear import Linear
from dragoman.model.masks.visibility import Causal, Full
from dragoman.model.mixer import MixerConfig, MixerLayer
from dragoman.model.mlp import FeedForward
from dragoman.model.norm import LayerNorm
from dragoman.model.tower import BlockConfig, TowerConfig
from dragoman.model.transformer import Transformer, TransformerConfig
from dragoman.text.tokens.tokenizer import Tokenizer
from dragoman.text.tokens.training import Bytes

# ---- the one file ----------------------------------------------------------------------------------------


@config
class RunningAverage(MixerConfig):
    """h = decay h + (1 - decay) x for each channel, from the first token of a text on."""

    visibility = Causal(window=2)  # the token before tells whether this one begins another text

    def build(self, dim):
        return RunningAverageLayer(dim)


class RunningAverageLayer(MixerLayer):
    visibility = RunningAverage.visibility

    def __init__(self, dim):
        super().__init__()
        self.decay, self.out = nn.Parameter(torch.zeros(dim)), Linear(dim, dim)

    @staticmethod
    def context(new, seen, scheme, real, dtype):
        """Which tokens begin a text, and which are padding."""
        return new.pos == 0, real

    def forward(self, x, context, state):
        begins, real = context
        h, decay, found = x.new_zeros(len(x), x.shape[2]) if state.h is None else state.h, self.decay.sigmoid(), []
        for t in range(x.shape[1]):
            now = decay * h.masked_fill(begins[:, t, None], 0) + (1 - decay) * x[:, t]
            h = now if real is None else torch.where(real[:, t, None], now, h)
            found.append(h)
        if state.remembers:
            state.h = h
        return self.out(torch.stack(found, dim=1))

    def new_state(self, policy):
        return Sum(policy.remembers)


class Sum(LayerState):
    def __init__(self, remembers):
        self.remembers, self.h = remembers, None

    def reorder(self, rows):
        self.h = None if self.h is None else self.h.index_select(0, rows)

    def join(self, other):
        self.h = torch.cat([self.h, other.h])

    @property
    def nbytes(self):
        return 0 if self.h is None else self.h.nbytes


# ---- what it goes through --------------------------------------------------------------------------------

TOKENIZER = Tokenizer.train(Bytes(), [])


def model(*, translates: bool = False) -> Transformer:
    attention = AttentionConfig(heads=2, visibility=Causal())
    across = AttentionConfig(heads=2, visibility=Full())

    def block(mixer, cross):
        made = BlockConfig(mixer=attention, cross=cross, mlp=FeedForward(hidden=32), norm=LayerNorm())
        object.__setattr__(made, "mixer", mixer)  # in the place of the one line, its name in the union ``Mixer``
        return made

    def tower(*mixers, cross=None):
        return TowerConfig(depth=2, pattern=tuple(block(m, cross) for m in mixers), final_norm=LayerNorm())

    cfg = TransformerConfig(
        vocab=len(TOKENIZER),
        dim=D,
        encoder=tower(RunningAverage()) if translates else None,
        decoder=tower(RunningAverage(), attention, cross=across if translates else None),
    )
    torch.manual_seed(0)
    built = cfg.build()
    with torch.no_grad():
        for parameter in built.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    return built.eval()


def test_it_learns():
    learner, text = model().train(), ids(4, 9)
    optimizer, losses = torch.optim.Adam(learner.parameters(), 1e-2), []
    for _ in range(15):
        loss = F.cross_entropy(learner(text[:, :-1]).flatten(0, 1), text[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in learner.parameters())
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2


@torch.no_grad()
def test_pieces_padding_and_packed_texts_change_nothing():
    plain, text = model().double(), ids(2, 9)
    state = plain.start(None)
    assert_equal(torch.cat([plain.decode(piece, state) for piece in text.split([4, 1, 1, 3], dim=1)], 1), plain(text))
    front = F.pad(text, (3, 0))
    assert_equal(plain(Tokens(front, front != 0))[:, 3:], plain(text))
    packed = Tokens(text[:1], segment=torch.tensor([[0] * 4 + [1] * 5]))
    assert_equal(plain(packed), torch.cat([plain(text[:1, :4]), plain(text[:1, 4:])], dim=1))


@pytest.mark.parametrize("cfg", [Greedy(), Beam(size=3, nbest=3), Sample(seed=1)], ids=["greedy", "beam", "sample"])
def test_a_search_finds_the_same_alone_and_in_a_batch(cfg):
    translator, sources = model(translates=True), ids(5, 6)
    together = search(translator, sources, cfg)
    if not isinstance(cfg, Sample):
        for source, wanted in zip(sources, together, strict=True):
            (alone,) = search(translator, source[None], cfg)
            assert [h.tokens for h in alone] == [h.tokens for h in wanted]
    assert len(together) == 5


@pytest.mark.parametrize("translates", [True, False])
def test_it_is_verified(translates):
    rows = (random_rows if translates else random_beginnings)(len(TOKENIZER), 3, 8)
    verifier = WritingVerifier(model(translates=translates), TOKENIZER, rows, beam=2, max_new_tokens=12)
    checks = list(run_checks(verifier))
    assert [check for check in checks if not check.passed] == []
    assert {check.name for check in checks if check.skipped} == {"compiled"}


@torch.no_grad()
def test_it_is_made_ready_and_decoded_by_pytorch(caplog):
    plain, text = model(), ids(2, 6)
    with caplog.at_level("INFO"):
        ready = prepare_for_inference(copy.deepcopy(plain), "cpu", "float32")
    assert "for model.decoder.pattern.0.mixer: running_average" in caplog.text
    torch.testing.assert_close(ready(text), plain(text), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_a_state_that_sums_up_the_past_says_that_it_cannot_go_back():
    state = (plain := model()).start(None)
    state.allow_rewind(2)
    plain.decode(ids(1, 4), state)
    with pytest.raises(ConfigError, match="Sum cannot take tokens back, as speculative decoding must"):
        state.rewind(1)
