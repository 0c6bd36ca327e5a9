"""Harm of the classic wiring mistakes, each measured by a short seeded training beside the same one without it.

    OMP_NUM_THREADS=1 python benchmarks/museum.py [--only no_causal_mask unscaled] [--steps 400] [--seeds 3]

The models are the strangers' ones of ``tests/museum``: a GPT of two layers and width 32 that repeats eight random
letters after a separator, and a translator on nn.Transformer that reverses words of two to five letters. Learning takes
Adam with a linear warm-up of a tenth and a linear decline, unless the exhibit is about these. Accuracy is of letters
written one by one, each from what was written before, on texts that training never saw; that is why a leak, which makes
the training loss look better, shows as harm here.

Results are written to ``results/museum.md``, the curves of the training loss to ``docs/museum/``. ``--only``
replaces the rows of those exhibits; without names it writes the page ``docs/museum.md`` anew.
"""

import argparse
import math
import platform
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import torch
import torch.nn.functional as F
from smoke import RESULTS, TESTS, add_smoke, write_results
from torch import Tensor, nn

sys.path.insert(0, str(TESTS))  # before this folder: this file has the name of the package there

from museum.strangers import LAYERS, VOCAB, TinyGPT, Translator17
from museum_page import write_page

CURVES = Path(__file__).parents[1] / "docs" / "museum"
LETTERS, SEPARATOR, COPIES, WORD, ROWS = 20, 1, 8, 5, 32
FIRST = 3
"""Smallest id of a letter; 0 is padding, 1 the separator, 2 the beginning."""


@dataclass(frozen=True)
class Curve:
    """Outcome of one training."""

    losses: list[float]
    accuracy: float
    """Share of letters that are written right."""
    other: float = math.nan
    """Accuracy in another way of running, where the exhibit is about that."""


@dataclass(frozen=True)
class Trial:
    """One exhibit: how it is trained with the mistake and without."""

    bug: str
    says: str
    """Folklore, as one hears it."""
    train: Callable[..., Curve]
    plain: dict
    """Options of the training without the mistake."""
    wrong: dict


# ---- tasks -------------------------------------------------------------------------------------------


def letters(rows: int, length: int, draw: torch.Generator) -> Tensor:
    return torch.randint(FIRST, FIRST + LETTERS, (rows, length), generator=draw)


def copies(rows: int, draw: torch.Generator) -> Tensor:
    """Return texts (rows, 17): eight letters, the separator, the same letters."""
    text = letters(rows, COPIES, draw)
    return torch.cat([text, torch.full((rows, 1), SEPARATOR), text], dim=1)


def rate(step: int, steps: int, peak: float, shape: str) -> float:
    warm = min(1.0, (step + 1) / (steps / 10))
    down = 1 - step / steps
    return peak * {"usual": min(warm, down / 0.9), "no_warm_up": down, "constant": warm}[shape]


def learn(
    model: nn.Module, loss: Callable[[int], Tensor], steps: int, peak: float, shape: str, clip: float | None = None
) -> list[float]:
    """Train; return the loss of each step. NaN ends it."""
    optimizer, losses = torch.optim.Adam(model.parameters(), lr=peak), []
    model.train()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rate(step, steps, peak, shape)
        optimizer.zero_grad()
        value = loss(step)
        losses.append(float(value.detach()))
        if not math.isfinite(losses[-1]):
            return losses + [math.nan] * (steps - step - 1)
        value.backward()
        if clip:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
    model.eval()
    return losses


def train_copies(
    seed: int,
    steps: int,
    *,
    bug: str | None = None,
    layers: int = 2,
    peak: float = 3e-3,
    shape: str = "usual",
    post: bool = False,
    shift: bool = True,
    parts: str = "sum",
    cached: bool = False,
) -> Curve:
    """Train a GPT to repeat letters, and let it write."""
    torch.manual_seed(seed)
    model: nn.Module = PostNormGPT(layers) if post else TinyGPT(bug, layers=layers)
    draw = torch.Generator().manual_seed(1000 + seed)

    def loss(step: int) -> Tensor:
        text = copies(ROWS, draw)
        logits = model(text[:, :-1])[0]
        labels = text[:, 1:] if shift else text[:, :-1]
        return F.cross_entropy(logits[:, COPIES:].flatten(0, 1), labels[:, COPIES:].flatten())

    losses = learn(model, loss, steps, peak, shape)
    test = copies(64, torch.Generator().manual_seed(77))
    accuracy = statistics.mean(written(model, part) for part in test.split(ROWS))  # no more rows than in training
    return Curve(losses, accuracy, written_with_cache(model, test) if cached else math.nan)


@torch.no_grad()
def written(model: nn.Module, test: Tensor) -> float:
    """Return the share of letters that the model writes right, reading all that is written again for each."""
    text = test[:, : COPIES + 1]
    for _ in range(COPIES):
        text = torch.cat([text, model(text)[0][:, -1].argmax(-1, keepdim=True)], dim=1)
    return float((text[:, COPIES + 1 :] == test[:, COPIES + 1 :]).float().mean())


@torch.no_grad()
def written_with_cache(model: nn.Module, test: Tensor) -> float:
    """Return the same with keys and values kept."""
    logits, past = model(test[:, : COPIES + 1])
    found = []
    for _ in range(COPIES):
        found.append(logits[:, -1].argmax(-1, keepdim=True))
        logits, past = model(found[-1], past=past)
    return float((torch.cat(found, dim=1) == test[:, COPIES + 1 :]).float().mean())


class PostNormGPT(nn.Module):
    """A GPT with norms after the sum, on nn.TransformerEncoder; called as TinyGPT is."""

    def __init__(self, layers: int):
        super().__init__()
        self.wte, self.wpe = nn.Embedding(VOCAB, 32), nn.Embedding(32, 32)
        for table in (self.wte, self.wpe):
            nn.init.normal_(table.weight, std=0.3)
        layer = nn.TransformerEncoderLayer(32, 4, 128, dropout=0.1, activation="gelu", batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.head = nn.Linear(32, VOCAB)

    def forward(self, idx: Tensor) -> tuple[Tensor]:
        T = idx.shape[1]
        x = self.wte(idx) + self.wpe(torch.arange(T))
        hidden = torch.ones(T, T).triu(1).bool()
        return (self.head(self.encoder(x, mask=hidden)),)


def train_reversals(seed: int, steps: int, *, bug: str | None = None, parts: str = "sum") -> Curve:
    """Train a translator on nn.Transformer to reverse words of unlike length; ``other`` is accuracy alone."""
    torch.manual_seed(seed)
    model = Translator17(bug)
    draw = torch.Generator().manual_seed(1000 + seed)

    def loss(step: int) -> Tensor:
        source, target = reversals(ROWS, draw)
        return summed(model, source, target, parts)

    losses = learn(model, loss, steps, 4e-3, "usual")
    source, target = reversals(64, torch.Generator().manual_seed(77))
    return Curve(losses, translated(model, source, target), translated_alone(model, source[:16], target[:16]))


def reversals(rows: int, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return words padded with 0, and the same backwards after a beginning."""
    source, target = torch.zeros(rows, WORD, dtype=torch.long), torch.zeros(rows, WORD + 1, dtype=torch.long)
    target[:, 0] = 2
    for row in range(rows):
        length = int(torch.randint(2, WORD + 1, (), generator=draw))
        word = letters(1, length, draw)[0]
        source[row, :length], target[row, 1 : length + 1] = word, word.flip(0)
    return source, target


def summed(model: nn.Module, source: Tensor, target: Tensor, parts: str) -> Tensor:
    """Return the loss: over letters, over padding too, or as the mean of the means of eight parts."""
    logits, labels = model(source, target[:, :-1]), target[:, 1:]
    each = F.cross_entropy(logits.transpose(1, 2), labels, reduction="none")
    real = (labels != 0).float()
    if parts == "padding":
        return each.mean()
    if parts == "means":
        order = real.sum(1).argsort()  # short texts together, as batching by length does
        sums, counts = (each * real).sum(1)[order].view(8, -1).sum(1), real.sum(1)[order].view(8, -1).sum(1)
        return (sums / counts).mean()
    return (each * real).sum() / real.sum()


@torch.no_grad()
def translated(model: nn.Module, source: Tensor, target: Tensor) -> float:
    text = target[:, :1]
    for _ in range(WORD):
        text = torch.cat([text, model(source, text)[:, -1, FIRST:].argmax(-1, keepdim=True) + FIRST], dim=1)
    real = target[:, 1:] != 0
    return float((text[:, 1:] == target[:, 1:])[real].float().mean())


def translated_alone(model: nn.Module, source: Tensor, target: Tensor) -> float:
    """Return the accuracy of texts one by one, without any padding."""
    found = []
    for row in range(len(source)):
        length = int((source[row] != 0).sum())
        found += [translated(model, source[row : row + 1, :length], target[row : row + 1])] * length
    return statistics.mean(found)


# ---- exhibits ----------------------------------------------------------------------------------------


def gpt(bug: str, says: str, plain: dict | None = None, **wrong: object) -> Trial:
    return Trial(bug, says, train_copies, plain or {}, {"bug": bug} | (plain or {}) | wrong)


def training(bug: str, says: str, wrong: dict, plain: dict | None = None) -> Trial:
    return Trial(bug, says, train_copies, plain or {}, wrong)


def pairs(bug: str, says: str, **wrong: object) -> Trial:
    return Trial(bug, says, train_reversals, {}, wrong or {"bug": bug})


TRIALS = [
    gpt("no_causal_mask", "without a causal mask the loss is too good and the model cannot write"),
    gpt("mask_off_by_one", "one place too far is as bad as no mask"),
    gpt("mask_turned_around", "a mask turned around hides what is needed"),
    gpt("mask_after_softmax", "a mask after the softmax leaks a little"),
    gpt("heads_by_view", "a view instead of a transpose mixes positions"),
    gpt("no_positions", "attention without positions is a bag of words"),
    gpt("positions_after_norm", "positions must be added before the layers, not after the norm"),
    gpt("positions_inside", "positions must be added before the first layer", {"layers": 4}),
    gpt("positions_too_loud", "positions drown tokens that are not multiplied by sqrt(D)"),
    gpt("positions_along_rows", "positions along the rows of the batch"),
    gpt("no_norm", "without norms deep models do not train", {"layers": 6}),
    gpt("no_norm_before_mlp", "both sublayers need a norm", {"layers": 6}),
    gpt("no_final_norm", "layers that normalize what they read need a final norm"),
    gpt("unscaled", "unscaled scores saturate the softmax"),
    gpt("saturated", "saturated scores pass on no gradient"),
    gpt("dead_heads", "queries of zero never learn"),
    gpt("softmax_over_queries", "a softmax over the wrong dimension"),
    gpt("dropout_functional", "dropout that stays on in evaluation"),
    gpt("copied_embedding", "untied embeddings learn more slowly"),
    gpt("detached", "an embedding that no gradient reaches"),
    gpt("cache_positions", "positions that start again with a cache", {"cached": True}),
    gpt("cache_mask", "a causal mask made for the new token alone", {"cached": True}),
    training("labels_not_shifted", "labels that are not shifted teach copying", {"shift": False}),
    training("no_warm_up", "norms after the sum need a warm-up", {"post": True, "layers": 6, "shape": "no_warm_up"},
             {"post": True, "layers": 6}),
    training("no_warm_up_pre_norm", "so does every Transformer", {"layers": 6, "shape": "no_warm_up"}, {"layers": 6}),
    training("constant_rate", "a constant rate ends worse", {"shape": "constant", "peak": 6e-3}, {"peak": 6e-3}),
    training("deep_post_norm", "48 layers with norms after the sum do not train", {"layers": 48, "post": True},
             {"layers": 48}),
    pairs("no_padding_masks", "attention to padding spoils answers"),
    pairs("no_memory_mask", "cross-attention has a padding mask of its own"),
    pairs("float_padding_mask", "a mask of real numbers hides nothing"),
    pairs("no_target_mask", "without its mask the decoder reads the answer"),
    pairs("loss_counts_padding", "a loss over padding learns to write padding", parts="padding"),
    pairs("mean_of_means", "means of micro-batches weigh long texts too little", parts="means"),
]  # fmt: skip


def steps_of(trial: Trial, steps: int) -> int:
    """Return the steps of a trial: twice as many for words, which are harder."""
    return max(2, round(steps * (2 if trial.train is train_reversals else 1)))


def seeds_of(trial: Trial, seeds: int) -> range:
    """Return the seeds of a trial: fewer where a training takes long."""
    most = 1 if trial.bug == "deep_post_norm" else 2 if trial.train is train_reversals else seeds
    return range(min(seeds, most))


# ---- results -----------------------------------------------------------------------------------------


def last(curve: Curve) -> float:
    """Return the mean loss of the last tenth."""
    return statistics.mean(curve.losses[-max(1, len(curve.losses) // 10) :])


def spread(values: Sequence[float]) -> str:
    if any(map(math.isnan, values)):
        return "diverged" if all(map(math.isnan, values)) else "diverged in part"
    return f"{statistics.mean(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def percent(values: Sequence[float]) -> str:
    return f"{statistics.mean(values):.0%} ({min(values):.0%} to {max(values):.0%})"


def row(trial: Trial, right: list[Curve], wrong: list[Curve]) -> str:
    accuracies = [c.accuracy for c in right], [c.accuracy for c in wrong]
    if trial.plain.get("cached"):
        accuracies = [c.other for c in right], [c.other for c in wrong]
    found = verdict(*accuracies)
    cells = [
        f"[{trial.bug}](../../docs/museum/{trial.bug}.svg)",
        trial.says,
        spread([last(c) for c in right]),
        spread([last(c) for c in wrong]),
        percent(accuracies[0]),
        percent(accuracies[1]),
        found,
    ]
    return "| " + " | ".join(cells) + " |"


def verdict(right: Sequence[float], wrong: Sequence[float]) -> str:
    """Return whether the accuracies of all seeds are apart, and by how much."""
    gap = statistics.mean(right) - statistics.mean(wrong)
    if min(right) > max(wrong) and gap > 0.02:
        return "true" if gap > 0.2 else "a little"
    if min(wrong) > max(right) and gap < -0.02:
        return "the opposite"
    return "not at this size"


HEAD = [
    "| mistake | folklore | last loss, right | with it | letters right | with it | here |",
    "|---|---|---|---|---|---|---|",
]


def draw_curves(trial: Trial, right: list[Curve], wrong: list[Curve]) -> str:
    """Return the training losses as an SVG: grey as it should be, red with the mistake."""
    width, height, edge = 360, 150, 26
    every = [v for c in (*right, *wrong) for v in c.losses if math.isfinite(v)]
    top = min(max(every), 8.0)
    lines = []
    for curves, colour in ((right, "#777"), (wrong, "#c22")):
        for curve in curves:
            smooth = smoothed(curve.losses)
            points = [
                f"{edge + i * (width - edge - 6) / max(1, len(smooth) - 1):.0f},"
                f"{6 + (height - edge - 6) * (1 - min(v, top) / top):.0f}"
                for i, v in enumerate(smooth)
                if math.isfinite(v)
            ]
            lines.append(f'<polyline points="{" ".join(points)}" fill="none" stroke="{colour}" stroke-width="1.3"/>')
    text = (
        f'<text x="{edge}" y="{height - 6}" font-size="11" fill="#777">training loss, '
        f'{len(right[0].losses)} steps: right, <tspan fill="#c22">{trial.bug}</tspan></text>'
        f'<text x="2" y="14" font-size="10" fill="#777">{top:.1f}</text>'
        f'<text x="2" y="{height - edge}" font-size="10" fill="#777">0</text>'
    )
    frame = f'<path d="M{edge} 6V{height - edge}H{width - 6}" fill="none" stroke="#999"/>'
    title = f"<title>{trial.bug}: training loss with and without the mistake</title>"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'font-family="sans-serif" role="img">{title}{frame}{"".join(lines)}{text}</svg>\n'
    )


def smoothed(losses: Sequence[float], points: int = 60) -> list[float]:
    size = max(1, len(losses) // points)
    return [statistics.mean(losses[i : i + size]) for i in range(0, len(losses), size)]


def merged(rows: list[str]) -> list[str]:
    """Return the rows of the table that is there, with these in the place of theirs, in the order of the exhibits."""
    path = RESULTS / "museum.md"
    known = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    by_bug = {line.split("]")[0][3:]: line for line in (*known, *rows) if line.startswith("| [")}
    return [by_bug[trial.bug] for trial in TRIALS if trial.bug in by_bug]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=[trial.bug for trial in TRIALS], default=None)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=3)
    add_smoke(parser)
    given = parser.parse_args()
    if given.smoke:
        given.steps, given.seeds, given.only = 2, 1, given.only or ["no_causal_mask", "no_memory_mask"]
    torch.set_num_threads(1)
    torch.backends.mha.set_fastpath_enabled(False)  # its nested tensors warn
    rows: list[str] = []
    plain: dict[str, list[Curve]] = {}
    for trial in TRIALS:
        if given.only is not None and trial.bug not in given.only:
            continue
        steps = steps_of(trial, given.steps)
        key = f"{trial.train.__name__} {trial.plain} {steps}"
        if key not in plain:
            plain[key] = [trial.train(seed, steps, **trial.plain) for seed in seeds_of(trial, given.seeds)]
        wrong = [trial.train(seed, steps, **trial.wrong) for seed in seeds_of(trial, given.seeds)]
        rows.append(row(trial, plain[key], wrong))
        print(rows[-1], flush=True)
        if not given.smoke:
            CURVES.mkdir(exist_ok=True)
            (CURVES / f"{trial.bug}.svg").write_text(draw_curves(trial, plain[key], wrong), encoding="utf-8")
    rows = merged(rows)
    text = "\n".join(
        [
            "# Harm of the museum's mistakes",
            "",
            f"Written by `benchmarks/museum.py` on {date.today()} ({platform.machine()}, torch {torch.__version__}, "
            f"one thread): {given.steps} steps of {ROWS} texts, mean (least to most) of "
            f"{given.seeds} seeds (words: two, and twice the steps; 48 layers: one). "
            f"Letters are written one by one; a guess is right in {1 / LETTERS:.0%}. A claim is "
            "true here where every seed with the mistake is worse than every seed without, by more than 20 points of "
            f"accuracy; a little, by more than 2. Models have 2 to {LAYERS * 2} layers of width 32 unless said.",
            "",
            *HEAD,
            *rows,
        ]
    )
    print("\n".join(HEAD[:2]))
    if not given.smoke:
        write_page({line.split("]")[0][3:]: [cell.strip() for cell in line.split("|")[1:-1]] for line in rows})
    write_results("museum.md", text, smoke=given.smoke)


if __name__ == "__main__":
    main()
