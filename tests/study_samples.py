"""A study small enough to be run many times in a test, and results of studies as JSON has them."""

from typing import Any

STUDY: dict[str, Any] = {
    "title": "Widths",
    "question": "Is a wider model better?",
    "base": {
        "preset": "transformer-tiny",
        "tokenizer": "bytes",
        "model": {"dim": 8, "encoder": {"depth": 1}, "decoder": {"depth": 1}},
        "train": {"batch_tokens": 400, "precision": "float32", "products": "torch"},
    },
    "data": {"kind": "copy", "pairs": 40, "words": 2},
    "contestants": {"narrow": {"model.decoder.pattern.*.mlp.hidden": 8}, "wide": {"train.schedule.peak": 0.01}},
    "budget": {"steps": 2},
    "seeds": 2,
    "measures": ["loss"],
}


def verdict(a: str, b: str, difference: float, half: float, shown: str, **more: Any) -> dict[str, Any]:
    """A comparison by BLEU."""
    interval = [difference - half, difference + half]
    known = {"figure": "BLEU", "a": a, "b": b, "difference": difference, "interval": interval, "shown": shown}
    return known | {"detectable": 2 * half, "p": 0.01, "p_adjusted": 0.01, "words": f"{a}, {b}: {shown}"} | more


def value(mean: float, half: float) -> dict[str, Any]:
    """A mean with its interval."""
    return {"mean": mean, "low": mean - half, "high": mean + half, "each": [mean], "seeds": 3}


def results(**more: Any) -> dict[str, Any]:
    """Results of a study of two contestants, A and B."""
    figures = {
        "BLEU": {
            "unit": "",
            "higher_is_better": True,
            "signature": "",
            "values": {"A": value(30, 1), "B": value(28, 1)},
            "curve": {
                "x_title": "words",
                "x": [10, 80, 200],
                "y": {"A": [31, 20, 9], "B": [29, None, 7]},
                "intervals": {"A": [[30, 32], [19, 21], [2, 16]], "B": [[28, 30], None, None]},
            },
        }
    }
    runs = [{"contestant": name, "seed": seed, "finished": True, "failure": ""} for name in "AB" for seed in (1, 2)]
    known = {"format": 1, "figures": figures, "verdicts": [verdict("A", "B", 2, 1, "a")], "runs": runs, "failed": []}
    machine = {"gpu": "", "processor": "a processor", "cores": 2}
    return known | {"machine": machine, "date": "2026-01-01", "contestants": [{"name": "A"}, {"name": "B"}]} | more
