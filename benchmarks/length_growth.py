"""Time and memory of training by the length of a text: how each mixer grows, and from where it beats full attention.

    OMP_NUM_THREADS=1 python benchmarks/length_growth.py [--mixers longformer reformer] [--lengths 256 1024 4096]
        [--set 'longformer={window: 256}']

One row of one text goes forward and backward through two layers of a mixer at width 256, in float32, with hardly any
feed-forward. Each measurement is a process of its own: memory is the highest resident size that the system has seen,
less that before the text came; time is the processor time of the best of three passes. A mixer is named by its ``kind``
in run files; ``SETTINGS`` says how each is set, ``--set`` sets it otherwise. The peer is full causal attention by the
fused kernel, which stores no weights either: its memory is linear, too, and its time is not.

Mixers that are not named keep the figures they have: ``results/length_growth.json`` holds all.

A mixer overtakes it at the shortest measured length from which on it is always ahead. The table is
``results/length_growth.md``, drawn in ``length_growth.png`` beside it; by default, all of ``SETTINGS``.
"""

import argparse
import itertools
import json
import platform
import resource
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

import torch
from processor import processor
from smoke import RESULTS, add_smoke, write_results

from dragoman.config import from_dict, load_yaml
from dragoman.machine import keep_memory
from dragoman.model.caches.state import stateless
from dragoman.model.init import Xavier
from dragoman.model.mlp import FeedForward
from dragoman.model.norm import Depths, NoNorm
from dragoman.model.positions.tokens import Positions
from dragoman.model.tower import BlockConfig, Mixer, Tower, TowerConfig

DIM, DEPTH, PASSES = 256, 2, 3
LENGTHS = [256, 512, 1024, 2048, 4096, 8192]
PEER = "attention"
SETTINGS: dict[str, dict] = {
    PEER: {"heads": 4, "position": "rotary", "visibility": "causal"},
    "explicit": {
        "kind": PEER,
        "heads": 4,
        "position": "rotary",
        "visibility": "causal",
        "scorer": {"kind": "capped_dot", "cap": 50},
    },
    "window": {"kind": PEER, "heads": 4, "position": "rotary", "visibility": {"kind": "causal", "window": 256}},
    "longformer": {"heads": 4, "window": 128},
    "big_bird": {"heads": 4, "block": 32, "window": 64, "random_blocks": 2},
    "strided_attention": {"heads": 4, "stride": 64},
    "fixed_attention": {"heads": 4, "stride": 64, "summary": 8},
    "reformer": {"heads": 4, "buckets": 32, "rounds": 2, "chunk": 64},
    "short_convolution": {},
    "mamba": {},
    "mamba2": {},
    "linear_attention": {"heads": 4},
    "gated_delta_net": {"heads": 4},
    "mlstm": {"heads": 4},
    "min_gru": {},
}
"""Settings of each mixer; one that is not here has its defaults. ``explicit`` is attention that no fused kernel of
PyTorch computes, so that it stores B x H x N x N weights."""
LONGEST = {"explicit": 4096}
"""Longest text of a mixer whose memory grows with the square."""
RATIOS = ((4096, 1024), (2048, 512))
"""Lengths that write-ups compare: 16 times the work is said of both, if it grows with the square."""


def resident() -> float:
    """Return the highest resident size so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def measure(mixer: dict, length: int) -> dict[str, float]:
    """Measure in this process: milliseconds of a pass, and MB on top of what was there before."""
    keep_memory()
    torch.manual_seed(0)
    block = BlockConfig(mixer=from_dict(Mixer, mixer), mlp=FeedForward(hidden=16), norm=NoNorm())
    tower = Tower(TowerConfig(depth=DEPTH, pattern=(block,)), DIM, Depths(0, DEPTH), Xavier(), is_encoder=False)
    tower.train()
    once(tower, 32)  # what is loaded and compiled at first use
    before, best = resident(), float("inf")
    for _ in range(PASSES):
        began = time.process_time()
        once(tower, length)
        best = min(best, time.process_time() - began)
    return {"ms": best * 1e3, "MB": resident() - before}


def once(tower: Tower, length: int) -> None:
    x = torch.randn(1, length, DIM, requires_grad=True)
    tower(x, Positions(torch.arange(length)[None]), tower.new_state(stateless)).square().mean().backward()
    tower.zero_grad()


def in_a_process(mixer: dict, length: int) -> dict[str, float]:
    command = [sys.executable, __file__, "--one", json.dumps(mixer), str(length)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def overtakes(found: dict[int, dict[str, float]], peer: dict[int, dict[str, float]], what: str) -> str:
    """Return the shortest length from which on this is always ahead of the peer."""
    first = None
    for length in sorted(found, reverse=True):
        if found[length][what] >= peer[length][what]:
            break
        first = length
    return "never here" if first is None else f"{first:,}"


def tables(found: dict[str, dict[int, dict[str, float]]], settings: dict[str, dict]) -> list[str]:
    lengths = sorted(found[PEER])
    ratios = [pair for pair in RATIOS if set(pair) <= set(lengths)]
    lines = []
    for what, title in {"ms": "Processor time of a pass, ms", "MB": "Peak memory of a pass, MB"}.items():
        head = ["mixer", *(f"{length:,}" for length in lengths), *(f"{a:,} : {b:,}" for a, b in ratios)]
        head.append("ahead of attention from")
        lines += [f"## {title}", "", f"| {' | '.join(head)} |", f"|---|{'---:|' * (len(head) - 1)}"]
        for name, by_length in found.items():
            row = [f"{by_length[length][what]:,.0f}" if length in by_length else "" for length in lengths]
            row += [f"{by_length[a][what] / by_length[b][what]:.1f}" if a in by_length else "" for a, b in ratios]
            ahead = "" if name == PEER else overtakes(by_length, found[PEER], what)
            lines.append(f"| {name} | {' | '.join(row)} | {ahead} |")
        lines.append("")
    lines += ["## Settings", ""]
    return [*lines, *(f"- {name}: {json.dumps(settings[name])}" for name in found)]


def with_earlier(found: dict, settings: dict[str, dict]) -> tuple[dict, dict[str, dict]]:
    """Add the figures of mixers that were measured before, and keep all of them."""
    path = RESULTS / "length_growth.json"
    earlier = json.loads(path.read_text()) if path.exists() else {"found": {}, "settings": {}}
    kept = {name: {int(n): value for n, value in rows.items()} for name, rows in earlier["found"].items()}
    found, settings = kept | found, earlier["settings"] | settings
    path.write_text(json.dumps({"found": found, "settings": settings}, indent=1) + "\n")
    return found, settings


def draw(found: dict[str, dict[int, dict[str, float]]], path: Path) -> None:
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, 2, figsize=(13, 5))
    styles = itertools.product(["-", "--"], [f"C{i}" for i in range(10)])
    looks = {name: {"linestyle": line, "color": colour} for name, (line, colour) in zip(found, styles, strict=False)}
    looks[PEER] = {"color": "black", "linewidth": 2.5}
    for panel, (what, title) in zip(panels, {"ms": "processor time, ms", "MB": "peak memory, MB"}.items(), strict=True):
        for name, by_length in found.items():
            lengths = sorted(by_length)
            values = [by_length[n][what] for n in lengths]
            panel.plot(lengths, values, marker="o", markersize=4, label=name, **looks[name])
        panel.set(xscale="log", yscale="log", xlabel="tokens", ylabel=title, xticks=lengths, xticklabels=lengths)
        panel.minorticks_off()
        panel.grid(alpha=0.3)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="center right")
    figure.tight_layout(rect=(0, 0, 0.87, 1))
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mixers", nargs="+", default=[name for name in SETTINGS if name != PEER], metavar="KIND")
    parser.add_argument("--lengths", nargs="+", type=int, default=LENGTHS, metavar="TOKENS")
    parser.add_argument("--set", nargs="+", default=[], metavar="KIND={...}", help="other settings of a mixer")
    parser.add_argument("--one", nargs=2, metavar=("MIXER", "LENGTH"), help=argparse.SUPPRESS)
    add_smoke(parser)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(measure(json.loads(given.one[0]), int(given.one[1]))))
        return
    settings = dict(SETTINGS)
    for change in given.set:
        name, _, value = change.partition("=")
        settings[name] = settings.get(name, {}) | load_yaml(value, where="--set")
    names = list(dict.fromkeys([PEER, *given.mixers]))
    settings = {name: {"kind": name} | settings.get(name, {}) for name in names}
    found: dict[str, dict[int, dict[str, float]]] = {name: {} for name in names}
    for length in [64, 128] if given.smoke else given.lengths:
        for name in [
            name for name in names if length <= LONGEST.get(name, length)
        ]:  # one after the other at each length, so that all meet the machine in the same state
            here = measure if given.smoke else in_a_process
            found[name][length] = here(settings[name], length)
            print(f"{length:>6} {name:<20} {found[name][length]}", flush=True)
    if not given.smoke:
        found, settings = with_earlier(found, settings)
    where = f"{processor()}, {torch.get_num_threads()} thread"
    head = [
        "# Growth with the length of a text",
        "",
        f"{DEPTH} layers at width {DIM}, one text, forward and backward, float32. {date.today()}; {where}, Python "
        f"{platform.python_version()}, torch {torch.__version__}.",
        "",
    ]
    text = "\n".join([*head, *tables(found, settings), ""])
    print(text)
    write_results("length_growth.md", text, smoke=given.smoke)
    if not given.smoke:
        draw(found, RESULTS / "length_growth.png")


if __name__ == "__main__":
    main()
