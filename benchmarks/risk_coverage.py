"""Errors left when doubtful translations go to review: confidence of the search, and with signs of a weak explanation.

    python benchmarks/risk_coverage.py RUN [--fit 400] [--test 600] [--good 70 40]

Both are logistic regressions, fitted on validation pairs and measured on test pairs: one on what the search provides,
as ``dragoman calibrate`` does, one also on how far attributions disagree and how much the source explains. An error is
a translation whose chrF is below ``--good``. Intervals are from a paired bootstrap over the test pairs. Prints a table
in Markdown.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from smoke import add_smoke, run_of, write_results

from dragoman.decode.confidence import features
from dragoman.decode.request import request_for
from dragoman.decode.translator import Translator, search_for_beam
from dragoman.evaluate.calibrate import fit_logistic
from dragoman.evaluate.given import pairs_for
from dragoman.evaluate.metrics import METRICS
from dragoman.evaluate.risk_coverage import risk_coverage
from dragoman.inspect.doubt import EXPLANATION_FEATURES, explanation_features
from dragoman.inspect.subject import Subject

KEPT = (0.9, 0.8, 0.7, 0.5)
DRAWS = 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, nargs="?")
    parser.add_argument("--fit", type=int, default=400, help="validation pairs to fit on")
    parser.add_argument("--test", type=int, default=600, help="test pairs to measure on")
    parser.add_argument("--good", type=float, nargs="+", default=[70.0, 40.0], help="chrF from which it is no error")
    add_smoke(parser)
    given = parser.parse_args()
    with run_of(parser, given) as run:
        sizes = (4, 3) if given.smoke else (given.fit, given.test)
        parts = [collected(run, name, size) for name, size in zip(("valid", "test"), sizes, strict=True)]
    text = "\n\n".join(table(*parts, good) for good in given.good)
    print(text)
    write_results("risk_coverage.md", text, smoke=given.smoke)


Part = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Features of the search (N, 5), those of the explanation (N, 5), and each translation's chrF (N)."""


def collected(run: Path, kept: str, size: int) -> Part:
    pairs = pairs_for(run, None, kept=kept)[:size]
    found = Translator.load(run).translate(list(map(request_for, pairs)), search=search_for_beam(5))
    metric = METRICS["chrf"]
    chrf = [metric.value(row) for row in metric.counts([t.text for t in found], [pair.target for pair in pairs])]
    subject = Subject.open(run)
    rows = []
    for i, translation in enumerate(found):
        best = translation.candidates[0]
        explained = np.zeros(len(EXPLANATION_FEATURES))
        if best.tokens and not best.parts:  # one that was put together from several is judged by the search alone
            explained = explanation_features(subject, translation.source, best.tokens)
        rows.append((features(translation.source, best), explained))
        if i % 100 == 99:
            print(f"{kept}: {i + 1} of {len(found)}", file=sys.stderr, flush=True)
    search, explanation = (np.array([row[i] for row in rows]) for i in (0, 1))
    return search, explanation, np.array(chrf)


def certainty(fit: tuple[np.ndarray, np.ndarray], x: np.ndarray) -> np.ndarray:
    weights = fit_logistic(*fit)
    return x @ weights[:-1] + weights[-1]


def table(valid: Part, test: Part, good: float) -> str:
    wrong, right = test[2] < good, valid[2] >= good
    sure = {
        "mean log-probability": test[0][:, 0],
        "confidence of the search": certainty((valid[0], right), test[0]),
        "explanation alone": certainty((valid[1], right), test[1]),
        "search and explanation": certainty((np.hstack(valid[:2]), right), np.hstack(test[:2])),
    }
    lines = [
        f"Fitted on {len(valid[2]):,} pairs, measured on {len(wrong):,}; an error is a translation with chrF below "
        f"{good:g}: {wrong.mean():.1%} of all.",
        "",
        "| ranked by | area | " + " | ".join(f"errors of {kept:.0%} kept" for kept in KEPT) + " |",
        "|---|---|" + "---|" * len(KEPT),
    ]
    for name, scores in sure.items():
        curve = risk_coverage(scores, wrong)
        cells = " | ".join(f"{curve.risk_at(kept):.1%}" for kept in KEPT)
        lines.append(f"| {name} | {curve.area:.4f} | {cells} |")
    best = risk_coverage(-wrong.astype(float), wrong)
    lines.append(f"| an oracle | {best.area:.4f} | " + " | ".join(f"{best.risk_at(kept):.1%}" for kept in KEPT) + " |")
    low, high = gain(sure["confidence of the search"], sure["search and explanation"], wrong)
    lines += ["", f"Area saved by the explanation beside the search: {low:+.4f} to {high:+.4f} (95%)."]
    return "\n".join(lines)


def gain(before: np.ndarray, after: np.ndarray, wrong: np.ndarray) -> tuple[float, float]:
    """Return the interval of the difference of the areas, positive where the second is better."""
    draw = np.random.default_rng(0)
    found = []
    for _ in range(DRAWS):
        rows = draw.integers(len(wrong), size=len(wrong))
        found.append(risk_coverage(before[rows], wrong[rows]).area - risk_coverage(after[rows], wrong[rows]).area)
    low, high = np.quantile(found, [0.025, 0.975])
    return float(low), float(high)


if __name__ == "__main__":
    main()
