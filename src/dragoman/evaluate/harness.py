"""A language model for the evaluation harness of EleutherAI (lm-eval), which brings some thousands of tasks.

    from lm_eval import simple_evaluate
    from dragoman.evaluate.harness import harness_model

    simple_evaluate(model=harness_model("runs/my-model"), tasks=["arc_easy"])

lm-eval fetches the data of its tasks; nothing else here does.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dragoman.decode.generator import MAX_NEW_TOKENS, Generator
from dragoman.decode.search.greedy import Greedy
from dragoman.decode.search.sample import Sample
from dragoman.errors import ConfigError
from dragoman.evaluate.language_modelling import log_likelihoods
from dragoman.evaluate.multiple_choice import likelihoods


def harness_model(run: str | Path | Generator, checkpoint: str | int = "best", **options: Any) -> Any:
    """Return a model that ``lm_eval.simple_evaluate`` takes.

    Args:
        run: the run of a language model, or a generator.
        checkpoint: ``best``, ``last``, a step number, or the name of a checkpoint.
        options: as in ``Generator.load``.

    Raises:
        ConfigError: lm-eval is not installed.
        CheckpointError: no such run, or one whose model continues no text.
    """
    try:
        from lm_eval.api.model import LM  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise ConfigError("tasks of the harness need lm-eval: pip install lm-eval (the extra harness)") from None

    class _HarnessModel(_Requests, LM):
        """A model with the methods that tasks of lm-eval call."""

    made: Any = _HarnessModel()
    made.generator = run if isinstance(run, Generator) else Generator.load(run, checkpoint, **options)
    return made


class _Requests:
    """Answers to the requests of the harness, whose arguments are in ``args``."""

    generator: Generator

    def loglikelihood(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """Return the log-probability of each continuation, and whether greedy search would write it."""
        return [(each.log_prob, each.greedy) for each in likelihoods(self.generator, [r.args[:2] for r in requests])]

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        """Return the log-probability of each text."""
        return log_likelihoods(self.generator, [request.args[0] for request in requests])

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """Return the continuation of each prompt, up to the first of its stop strings."""
        return [self._generated(*request.args[:2]) for request in requests]

    def _generated(self, prompt: str, settings: dict[str, Any]) -> str:
        until, temperature = settings.get("until") or (), settings.get("temperature") or 0.0
        stop = [text for text in ([until] if isinstance(until, str) else until) if text]
        drawn = settings.get("do_sample") and temperature
        search = Sample(temperature=temperature, top_p=settings.get("top_p")) if drawn else Greedy()
        most = int(settings.get("max_gen_toks") or MAX_NEW_TOKENS)
        return self.generator.generate([prompt], search=search, max_new_tokens=most, stop=stop)[0].text
