"""Every test starts from the same seed. ``CHECK_SHAPES=1`` checks the shapes that signatures state, in some tests.

Checking makes a forward pass of a tiny model four times slower. So the suite runs without it, and ``test_shapes.py``
runs one test in 64 with it: which ones is a function of their names, so that new tests join in without being listed.

Property tests draw the same examples on every machine, so that what passed passes again. ``make explore`` draws others,
many more of them, and is how new counterexamples are found; each then becomes a test of its own.
"""

import functools
import gc
import json
import os
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import settings

CHECK_SHAPES = bool(os.environ.get("CHECK_SHAPES"))
if CHECK_SHAPES:  # before the first import of what it decorates
    from jaxtyping import install_import_hook

    install_import_hook(["dragoman.model", "dragoman.data", "dragoman.decode"], "beartype.beartype")

import torch  # noqa: E402

from dragoman import machine  # noqa: E402
from dragoman.config import to_dict  # noqa: E402
from dragoman.decode import precision  # noqa: E402
from dragoman.plan.shapes import tensors_in  # noqa: E402
from dragoman.train import planner, prediction, utilisation  # noqa: E402
from dragoman.train.recipe import RunConfig  # noqa: E402

THRESHOLD = gc.get_threshold()

settings.register_profile("repeat", derandomize=True, deadline=None)
settings.register_profile("explore", max_examples=2000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeat"))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Run files with the most slow tests first, so that no process is left with one when the others have ended.

    Where shapes are checked, keep one test in 64, and those of the check itself.
    """
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])
    if CHECK_SHAPES:
        shares = [[], []]
        for item in items:
            shares["test_shapes" in item.nodeid or zlib.crc32(item.nodeid.encode()) % 64 == 0].append(item)
        config.hook.pytest_deselected(items=shares[False])
        items[:] = shares[True]


def pytest_collection_finish() -> None:
    """Take what is loaded by now out of the garbage collector's rounds, a large heap, and let it come by less often."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


@pytest.fixture
def garbage_collected_as_usual() -> Iterator[None]:
    """Collect garbage as often as Python does by itself, where a test measures memory."""
    here = gc.get_threshold()
    gc.set_threshold(*THRESHOLD)
    yield
    gc.set_threshold(*here)


for kind in (torch.cuda, torch.xpu, torch.mtia):
    if not kind.is_available():  # there, a seed is kept for later, with the stack that set it: half a millisecond
        kind.manual_seed_all = lambda seed: None


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True, scope="session")
def any_machine() -> Iterator[None]:
    """What is left to be measured comes out as on a plain CPU: tests compare in float32 wherever they run.

    No disk is waited for: tests stop processes, not machines. Those of durable files see every call of ``fsync``.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        patch.setattr(machine, "product_seconds", lambda: {"torch": 1.0})
        patch.setattr(precision, "cached_choice", lambda name, measure: measure())
        patch.setattr(utilisation, "peak", lambda *given: 1e11)
        patch.setattr(utilisation, "per_position", once_for_each_kind(utilisation.per_position))
        patch.setattr(prediction, "MEASURE", 0.1)  # seconds for timing the operations of a step
        patch.setattr(prediction.RunCounter, "count", once_for_each_batch(prediction.RunCounter.count))
        patch.setattr(planner, "predict_run", once_for_each_run(planner.predict_run, "model", "task", "train"))
        yield


NOT_COUNTED = ("budget", "schedule", "seed", "validate_every", "report_every", "save_every", "samples", "keep")
"""Settings of a training that do not change what a step computes."""


def once_for_each_batch(count: Callable[..., Any]) -> Callable[..., Any]:
    """Count a step once for all runs that compute the same in it, on the same values: studies of a few tiny models are
    begun a hundred times."""
    found: dict[str, Any] = {}

    @functools.wraps(count)
    def remembered(counter: Any, which: int, *, recording: Any = None, **changes: Any) -> Any:
        cfg = counter.cfg
        train = {name: value for name, value in to_dict(cfg.train).items() if name not in NOT_COUNTED}
        alike = [to_dict(cfg.model), to_dict(cfg.task), to_dict(cfg.start_from), train, to_dict(changes)]
        batch = counter.task_data.batch(counter.sample.batches[which])
        here = [counter.sample.passes, str(counter.device), torch.get_num_threads(), os.environ.get("DRAGOMAN_KERNELS")]
        values = [(str(type(batch)), str(t.dtype), t.tolist()) for t in tensors_in(batch)]
        key = json.dumps([alike, here, values], default=str)
        if recording is not None or key not in found:
            found[key] = count(counter, which, recording=recording, **changes)
        return found[key]

    return remembered


def once_for_each_kind(count: Callable[..., float]) -> Callable[..., float]:
    """Count the operations of a position once for all runs whose model and task differ in numbers alone: most tests
    only read that there is a figure. ``test_utilisation.py`` asks the function itself, which is ``__wrapped__``."""
    found: dict[str, float] = {}

    @functools.wraps(count)
    def remembered(cfg: RunConfig, *others: Any) -> float:
        key = json.dumps([without_numbers(to_dict(part)) for part in (cfg.model, cfg.task)], default=str)
        if key not in found:
            found[key] = count(cfg, *others)
        return found[key]

    return remembered


def without_numbers(plain: Any) -> Any:
    if isinstance(plain, dict):
        return {name: without_numbers(value) for name, value in plain.items()}
    if isinstance(plain, list):
        return [without_numbers(value) for value in plain]
    return 0 if isinstance(plain, int | float) and not isinstance(plain, bool) else plain


def once_for_each_run(predict: Callable[..., Any], *parts: str) -> Callable[..., Any]:
    """Predict what a run costs once for all runs that are alike in these parts and in their first batch: hundreds of
    tests train the same few tiny models, and counting operations on shapes takes as long as training them does."""
    found: dict[str, Any] = {}

    def remembered(cfg: RunConfig, task_data: Any, plan: Any, *others: Any) -> Any:
        alike = [to_dict(getattr(cfg, part)) for part in parts]
        key = json.dumps([alike, task_data.size(plan.at(0)[0]), others], default=str)
        if key not in found:
            found[key] = predict(cfg, task_data, plan, *others)
        return found[key]

    return remembered
