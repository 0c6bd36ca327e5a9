"""A translator learns a new domain: what it gains there, and what it forgets of the old one.

    python benchmarks/domain_adaptation.py FOLDER --train OLD.en,OLD.de --valid ... --test ... [--to de]

The old domain is yours (captions, news); the new one is the interface strings of Home Assistant, which travel in its
package on PyPI. One small translator learns the old domain; from there the same number of steps is made in several
ways, and each is scored on both test sets. Runs stay in FOLDER, and one that was stopped goes on. Prints a table in
Markdown.
"""

import argparse
import itertools
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import sacrebleu
from smoke import TESTS, add_smoke

from dragoman import Translator
from dragoman.config import load_yaml, to_dict
from dragoman.text.formats.pairs import guess_source, read_pairs
from dragoman.text.lines import Pair
from dragoman.train import recipe
from dragoman.train.run import resume, start

RECIPE = Path(recipe.__file__).parents[1] / "recipes" / "home-assistant.yaml"
WAYS: dict[str, tuple[bool, float, dict[str, Any]]] = {
    #                                 mix in  peak   besides the earlier run
    "all weights": (False, 1.5e-3, {}),
    "adapters of rank 16": (False, 4e-3, {"lora": {"rank": 16, "alpha": 32.0, "targets": ["*"]}}),
    "all weights, old text mixed in": (True, 1.5e-3, {}),
    "the same, {by:,} further pieces": (True, 1.5e-3, {"vocabulary": {"kind": "extended"}}),
}


def learn(path: Path, plain: dict[str, Any]) -> float:
    """Train the run at ``path``, as far as it has not been; CPU seconds."""
    began = time.process_time()
    for _ in (resume(path) if path.exists() else start(recipe.load(plain), path)).events():
        pass
    return time.process_time() - began


def scores(run: Path, pairs: list[Pair]) -> str:
    """BLEU and chrF of greedy translations."""
    said = [t.text for t in Translator.load(run, checkpoint="last").translate([p.source for p in pairs], beam=1)]
    references = [[pair.target for pair in pairs]]
    return f"{sacrebleu.corpus_bleu(said, references).score:.1f} / {sacrebleu.corpus_chrf(said, references).score:.1f}"


def settings(steps: int, peak: float) -> dict[str, Any]:
    return {
        "budget": {"kind": "steps", "steps": steps},
        "schedule": {"kind": "warmup_stable_decay", "peak": peak, "warmup": max(1, steps // 10), "decay": 0.5},
        "batch_tokens": 1024,
        "average": 0.999,
        "validate_every": max(1, steps // 4),
        "samples": 0,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path, nargs="?")
    for name in ("train", "valid", "test"):
        parser.add_argument(f"--{name}", help="pairs of the old domain, as dragoman train takes them")
    parser.add_argument("--to", default="de", help="target language, as Home Assistant names it")
    parser.add_argument("--steps", type=int, default=400, help="of each adaptation")
    parser.add_argument("--base-steps", type=int, default=2500)
    parser.add_argument("--pieces", type=int, default=1000, help="that the vocabulary is extended by")
    parser.add_argument("--sentences", type=int, default=200, help="of each test set that are scored")
    add_smoke(parser)
    args = parser.parse_args()
    if args.smoke:
        with tempfile.TemporaryDirectory() as folder:
            print(compare(toy(args, Path(folder)), toy_domain(Path(folder))))
    elif args.folder and args.train and args.valid and args.test:
        print(compare(args, home_assistant(args.to)))
    else:
        parser.error("name a folder, --train, --valid and --test, or give --smoke")


def home_assistant(to: str) -> dict[str, Any]:
    data = load_yaml(RECIPE)["data"]
    data["train"][0]["target"] = f"*/translations/{to}.json"
    return data


def toy(args: argparse.Namespace, folder: Path) -> argparse.Namespace:
    """Set the smallest sizes, on the toy language of the tests."""
    sys.path.append(str(TESTS))
    from tiny_run import write_pairs

    args.folder, args.steps, args.base_steps, args.sentences, args.pieces = folder / "runs", 2, 2, 2, 10
    lines = write_pairs(folder / "old.tsv").read_text().splitlines(keepends=True)
    for name, some in (("train", lines[20:]), ("valid", lines[:10]), ("test", lines[10:20])):
        (folder / f"{name}.tsv").write_text("".join(some))
        setattr(args, name, str(folder / f"{name}.tsv"))
    return args


def toy_domain(folder: Path) -> dict[str, Any]:
    from tiny_run import write_pairs

    pairs = write_pairs(folder / "new.tsv", 120)
    return {"train": [{"kind": "table", "path": str(pairs)}], "hold_out": {"test": 3, "valid": 10, "near": None}}


def compare(args: argparse.Namespace, new: dict[str, Any]) -> str:
    """Return the table: each way, what it scores on both domains, and what it took."""
    old = {name: to_dict(guess_source(getattr(args, name))) for name in ("train", "valid", "test")}
    base = args.folder / "base"
    given = {"train": [old["train"]], "valid": old["valid"], "test": old["test"]}
    first = {"preset": "transformer-tiny", "data": given, "train": settings(args.base_steps, 3e-3)}
    runs = {"before": (base, learn(base, first))}
    for number, (name, (mixed, peak, more)) in enumerate(WAYS.items()):
        if "vocabulary" in more:
            name, more = name.format(by=args.pieces), {"vocabulary": more["vocabulary"] | {"by": args.pieces}}
        data = new | {"train": [*new["train"], *([old["train"]] if mixed else [])]}
        path = args.folder / f"way-{number}"
        plain = {"init": {"run": str(base)} | more, "data": data, "train": settings(args.steps, peak)}
        runs[name] = path, learn(path, plain)

    tests = {"old": list(read_pairs(guess_source(args.test)))}
    tests["new"] = list(read_pairs(guess_source(str(args.folder / "way-0" / "data" / "test.jsonl"))))
    some = {name: list(itertools.islice(pairs, args.sentences)) for name, pairs in tests.items()}
    lines = [
        "| what learned | old domain, BLEU / chrF | new domain, BLEU / chrF | CPU minutes |",
        "|---|---:|---:|---:|",
    ]
    for name, (path, seconds) in runs.items():
        lines.append(f"| {name} | {scores(path, some['old'])} | {scores(path, some['new'])} | {seconds / 60:.1f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
