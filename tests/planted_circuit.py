"""A model with a circuit that was planted: two layers of attention learn to continue a repeated text.

Only one head of each layer may learn it, so that which heads carry it is known by construction. The others speak, too,
as they were drawn, but more softly."""

from functools import cache

import torch
import torch.nn.functional as F

from dragoman import inspect
from dragoman.inspect.contrast import MeasuredAnswer
from dragoman.model.attention import AttentionConfig
from dragoman.model.masks.visibility import Causal
from dragoman.model.mlp import NoFeedForward
from dragoman.model.norm import RmsNorm
from dragoman.model.positions.rotary import Rotary
from dragoman.model.tower import BlockConfig, TowerConfig
from dragoman.model.transformer import Transformer, TransformerConfig

V, T, HEADS, CHANNELS, STEPS = 16, 16, 4, 16, 300
PREVIOUS, INDUCTION = ("decoder.0.mixer.heads", 1), ("decoder.1.mixer.heads", 2)


def repeated(count: int, draw: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of T tokens, which begin again after a length of their own; and these lengths (count, 1)."""
    tokens = torch.rand(count, V, generator=draw).argsort(dim=1)
    lengths = torch.randint(4, 9, (count, 1), generator=draw)
    return tokens.gather(1, torch.arange(T)[None] % lengths), lengths


@cache
def planted() -> Transformer:
    """Train the model once; all heads but two are silent while it learns, and speak afterwards."""
    torch.manual_seed(0)
    attention = AttentionConfig(heads=HEADS, head_dim=CHANNELS, visibility=Causal(), position=Rotary(theta=100.0))
    block = BlockConfig(mixer=attention, mlp=NoFeedForward(), norm=RmsNorm())
    tower = TowerConfig(depth=2, pattern=(block,), final_norm=RmsNorm())
    model = TransformerConfig(vocab=V, dim=48, decoder=tower).build()
    silent = inspect.ablation(
        inspect.Site(place, heads=tuple(head for head in range(HEADS) if head != mine))
        for place, mine in (PREVIOUS, INDUCTION)
    )
    optimizer, draw = torch.optim.Adam(model.parameters(), lr=8e-3, betas=(0.9, 0.98)), torch.Generator().manual_seed(1)
    model.train()
    for step in range(STEPS):
        optimizer.param_groups[0]["lr"] = 8e-3 * min(1.0, 1.5 * (1 - step / STEPS))
        ids, lengths = repeated(32, draw)
        with inspect.watching(model, write=silent):
            logits = model(ids[:, :-1])
        known = torch.arange(1, T)[None] > lengths
        loss = F.cross_entropy(logits[known], ids[:, 1:][known])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for block, (_, mine) in zip(model.decoder.blocks, (PREVIOUS, INDUCTION), strict=True):
        softer = torch.full((HEADS,), 0.3)
        softer[mine] = 1.0
        with torch.no_grad():
            block.mixer.out.weight *= softer.repeat_interleave(CHANNELS)
    return model.eval()


def contrasts(count: int = 12, *, swapped: bool = False) -> list[inspect.Contrast]:
    """Texts a b c d a b, of which b is followed by c; in the corrupt ones the first b is another token. Swapped, they
    ask which heads the answer cannot do without."""
    ids, lengths = repeated(count, torch.Generator().manual_seed(2))
    found = []
    for row, length in zip(ids, lengths[:, 0].tolist(), strict=True):
        clean = row[: length + 2]
        corrupt = clean.clone()
        corrupt[1] = (set(range(V)) - set(clean.tolist())).pop()
        answer = MeasuredAnswer(clean[2:3], torch.tensor([length + 1]))
        order = (corrupt, clean) if swapped else (clean, corrupt)
        both = (inspect.Inputs((one[None],), tokens=tuple(map(str, one.tolist()))) for one in order)
        found.append(inspect.Contrast(planted(), *both, answer))
    return found
