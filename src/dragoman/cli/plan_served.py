"""The serving part of ``dragoman plan``."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dragoman.cli.plan_counted import cluster_of
from dragoman.cli.plan_subject import PlanSubject
from dragoman.errors import ConfigError

if TYPE_CHECKING:
    from dragoman.plan.parameters import Parameters
    from dragoman.plan.serving import ServingCount


@dataclass(frozen=True)
class ServingPlan:
    """Plan of a server: what was counted, and what follows from it."""

    subject: PlanSubject
    parameters: "Parameters"
    count: "ServingCount"
    users: int
    beams: int
    context: int
    cache: str
    precision: str
    cluster: Any
    seconds: float | None
    """Predicted seconds of one token for every row on one device; None without hardware, and where one device does not
    hold the whole."""
    prompt_seconds: float | None
    """Predicted seconds of reading all prompts; None where ``seconds`` is."""

    def record(self) -> dict[str, Any]:
        """Return the plan as plain data."""
        found, times = self.count, {}
        if self.seconds is not None:
            times = {"tokens_per_second": found.rows / self.seconds, "prompt_seconds": self.prompt_seconds}
        return {
            "name": self.subject.name,
            "parameters": {"total": self.parameters.total, "active": self.parameters.active},
            "users": self.users,
            "beams": self.beams,
            "context": self.context,
            "memory": {
                "weights": found.weights,
                "cache": found.cache,
                "workspace": found.workspace,
                "total": found.total,
            },
            "cache_per_row": found.cache / found.rows,
            "flops": {"prompt": found.prompt.flops(), "step": found.step.flops()},
        } | times


def plan_serving(
    subject: PlanSubject,
    *,
    users: int,
    context: int,
    beams: int,
    cache: str | None,
    precision: str,
    hardware: str | None,
) -> ServingPlan:
    """Count what serving takes.

    Raises:
        ConfigError: the model writes no text, or takes none of that length; an unknown cache, precision or hardware.
    """
    import torch

    from dragoman.config import unknown
    from dragoman.machine import full_dtype_name
    from dragoman.model.caches.cache import DEFAULT, parse_cache
    from dragoman.model.interface import SequenceConfig
    from dragoman.plan.parameters import count_parameters
    from dragoman.plan.serving import BITS, count_serving
    from dragoman.plan.synthetic import longest_text

    if not isinstance(subject.model, SequenceConfig):
        raise ConfigError(f"--serve: {subject.name} writes no text: leave it out")
    precision = full_dtype_name(precision)
    if precision not in BITS:
        raise ConfigError(unknown("--weights", precision, BITS))
    policy = DEFAULT if cache is None else parse_cache(cache)
    longest = longest_text(subject.model)
    if longest is not None and context > longest:
        raise ConfigError(f"--context: {context:,} tokens, and this model takes at most {longest:,}")
    cluster, model = cluster_of(hardware), subject.outline()
    parameters = count_parameters(model)
    gpu = cluster is not None and cluster.device.kind != "cpu"
    found = count_serving(
        model,  # pyright: ignore[reportArgumentType]
        users=users,
        context=context,
        policy=policy,
        beams=beams,
        precision=precision,  # pyright: ignore[reportArgumentType]
        device=torch.device("cuda" if gpu else "cpu"),
    )
    times: list[float | None] = [None, None]
    if cluster is not None and found.total <= cluster.device.memory:
        from dragoman.plan.duration import predict

        times = [predict(part.operations, cluster.device).seconds for part in (found.step, found.prompt)]
    return ServingPlan(
        subject, parameters, found, users, beams, context, str(policy), precision, cluster, times[0], times[1]
    )
