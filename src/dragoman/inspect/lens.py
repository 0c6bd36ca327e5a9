"""Views of one forward that are not attention: what each layer would already say, how sure the model is, how its search
went, where experts took tokens, and how alike its positions are.

T tokens, L layers, V vocabulary, E experts.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from dragoman.decode.constraints.utf8 import REPLACEMENT, search_whole_characters
from dragoman.decode.search.beam import Beam, BeamCandidates, BeamStrategy
from dragoman.decode.search.ranking import Best
from dragoman.decode.search.rule import Rules
from dragoman.decode.search.search import begin_rules, walk
from dragoman.decode.search.task import Progress
from dragoman.inspect.subject import Inputs, Subject
from dragoman.inspect.trace import Trace
from dragoman.model.positions.position import LearnedEmbedding, SinusoidalEmbedding
from dragoman.model.positions.rotary import Rotary
from dragoman.text.tokens.tokenizer import BOS, EOS

TOP = 5
"""Candidates shown of each distribution."""

Candidates = list[list[tuple[str, float]]]
"""For each position the most probable tokens, with their probabilities."""


@torch.no_grad()
def logit_lens(subject: Subject, seen: Trace, top: int = 3) -> dict[int, Candidates]:
    """Return what the output layer reads from the residual stream after each layer of the decoder, by layer: the
    logit lens (nostalgebraist 2020). The last layer's is the model's own answer.
    """
    model: Any = subject.model
    streams = {
        int(name.split(".")[1]): value
        for name, value in seen.tensors.items()
        if name.startswith("decoder.") and name.endswith(".residual.after")
    }
    norm = getattr(model.decoder, "final_norm", None)
    if norm is None or getattr(model.decoder, "leave", None) is not None:
        return {}
    scaled = getattr(model, "scaled", lambda x: x)
    return {layer: _most(subject, model.logits(scaled(norm(x)))[0], top) for layer, x in streams.items()}


def candidates(subject: Subject, logits: Float[Tensor, "T V"], top: int = TOP) -> Candidates:
    """Return the most probable tokens at each position."""
    return _most(subject, logits, top)


def _most(subject: Subject, logits: Tensor, top: int) -> Candidates:
    value, token = logits.float().softmax(-1).topk(min(top, logits.shape[-1]), dim=-1)
    return [
        list(zip(subject.spell(tokens), values, strict=True))
        for tokens, values in zip(token.tolist(), value.tolist(), strict=True)
    ]


# ---- the search ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SearchNode:
    """One candidate of a step of a beam search."""

    step: int
    parent: int | None
    """Index of the node that it extends; None at the first step."""
    token: str
    log_prob: float
    """Sum of the logarithms of its tokens' probabilities."""
    fate: str
    """``kept``, ``ended``, ``chosen`` as the answer, or why it was dropped."""


class RecordingBeam(BeamStrategy):
    """Beam search that keeps what it proposed at each step."""

    def __init__(self, cfg: Beam, limits: Sequence[int], device: torch.device):
        super().__init__(cfg, limits, device)
        self.proposed: list[Best] = []

    def end(self, candidates: BeamCandidates) -> None:
        super().end(candidates)
        self.proposed.append(Best(candidates.total, candidates.beam, candidates.token))


def beam_tree(subject: Subject, inputs: Inputs, beam: int | None = None) -> list[SearchNode]:
    """Search for a translation again; return every candidate of every step, in their order, with what became of it.

    Args:
        beam: hypotheses of the search; None for as many as ``dragoman translate`` keeps.
    """
    source: Any = inputs.source_ids
    cfg = subject.beam_search(beam)

    def search(numbers: Sequence[int], whole_characters: bool, progress: Progress) -> list[RecordingBeam]:
        return [_recorded(subject, source, cfg, whole_characters=whole_characters)]

    def is_broken(strategy: RecordingBeam) -> bool:
        tokenizer, best = subject.tokenizer, strategy.results()[0][0]
        return tokenizer is not None and REPLACEMENT in tokenizer.decode(best.tokens[:-1])

    [strategy] = search_whole_characters(search, 1, is_broken, draws=cfg.draws)  # as ``translate`` searches
    nodes: list[SearchNode] = []
    rows: list[int | None] = [None]  # node of each row that goes on
    for step, found in enumerate(strategy.proposed):
        last = step + 1 == len(strategy.proposed)
        rows = _grow(nodes, rows, [field.flatten().tolist() for field in found], step, cfg.size, last, subject)
    ended = [node for node in nodes if node.fate == "ended"]
    if ended:
        chosen = max(ended, key=lambda node: cfg.score(node.log_prob, node.step + 1))
        nodes[nodes.index(chosen)] = replace(chosen, fate="chosen: the best for its length")
    return nodes


def _recorded(subject: Subject, source: Tensor, cfg: Beam, *, whole_characters: bool) -> RecordingBeam:
    """Return the search for translations of a source (1, S), made to its end."""
    model: Any = subject.model
    rules = subject.rules(source, whole_characters=whole_characters)
    limits = begin_rules(Rules(rules), cfg, model, [source.shape[1]])
    strategy = RecordingBeam(cfg, limits, source.device)
    for _ in walk(model, source, source.new_full((1, 1), BOS), cfg, strategy, rules=rules):
        pass
    return strategy


def _grow(
    nodes: list[SearchNode],
    rows: list[int | None],
    found: list[list[Any]],
    step: int,
    beam: int,
    last: bool,
    subject: Subject,
) -> list[int | None]:
    """Append the candidates of a step to ``nodes``; return the node of each row that goes on."""
    kept: list[int | None] = []
    for rank, (score, row, token) in enumerate(zip(*found, strict=True)):
        if score == -np.inf:
            continue
        if token == EOS:
            fate = "ended" if rank < beam else f"dropped: an end must be among the {beam} best of its step"
        elif len(kept) < beam:
            fate = "dropped: the search was over" if last else "kept"
            kept.append(len(nodes))
        else:
            fate = f"dropped: {beam} better ones in this step"
        nodes.append(SearchNode(step, rows[row], subject.spell([token])[0], score, fate))
    return kept


# ---- experts and positions ----------------------------------------------------------------------------


def routing(seen: Trace) -> dict[str, Float[np.ndarray, "T E"]]:
    """Return the probability of each expert for each token, by layer."""
    return {
        name.removesuffix(".feed_forward.routing"): value[0].float().softmax(-1).detach().cpu().numpy()
        for name, value in seen.tensors.items()
        if name.endswith(".routing")
    }


@torch.no_grad()
def position_views(model: Any, longest: int = 64) -> dict[str, dict[str, Any]]:
    """Return how alike positions are, by what they are: cosines of their vectors, or a curve over distances."""
    found: dict[str, dict[str, Any]] = {}
    for name, part in model.named_modules():
        if isinstance(part, SinusoidalEmbedding):
            vectors = part.sinusoids(torch.arange(longest)[None])[0]
            found[name] = {"kind": "sinusoidal", "similarity": _cosines(vectors)}
        elif isinstance(part, LearnedEmbedding):
            vectors = part.weight[part.offset : part.offset + min(longest, part.length)]
            found[name] = {"kind": "learned", "similarity": _cosines(vectors)}
        elif type(part).__name__ == "LearnedGridEmbedding":
            found[name] = {
                "kind": "learned, by patches",
                "similarity": _cosines(next(part.parameters()).flatten(0, -2)),
            }
    for name, cfg in _rotary(model):
        found[name] = {"kind": "rotary", "curve": rotary_decay(cfg[0], cfg[1], longest).tolist()}
    return found


def _cosines(vectors: Tensor) -> list[list[float]]:
    unit = torch.nn.functional.normalize(vectors.float(), dim=-1)
    return (unit @ unit.T).cpu().numpy().round(3).tolist()


def _rotary(model: Any) -> list[tuple[str, tuple[int, float]]]:
    """Return the name of each kind of rotary positions, with channels of a head and base."""
    found = {}
    for name, part in model.named_modules():
        position = getattr(getattr(part, "cfg", None), "position", None)
        if isinstance(position, Rotary) and hasattr(part, "head_dim"):
            found.setdefault((part.head_dim, position.theta), name)
    return [(name, key) for key, name in found.items()]


def rotary_decay(channels: int, theta: float, longest: int) -> Float[np.ndarray, " longest"]:
    """Return the bound of a score's size over distances, relative to distance 0: the mean size of the partial sums of
    the rotations (Su et al., arXiv:2104.09864, section 3.4.3)."""
    frequency = theta ** (-np.arange(0, channels, 2) / channels)
    turns = np.exp(1j * np.arange(longest)[:, None] * frequency)
    size = np.abs(np.cumsum(turns, axis=1)).mean(1)
    return size / size[0]
