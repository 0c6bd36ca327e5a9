"""The counted parts of ``dragoman plan``: parameters, work, memory of training, and the cost of a budget of tokens."""

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from dragoman.cli.plan_subject import PlanSubject
from dragoman.errors import ConfigError

if TYPE_CHECKING:
    from dragoman.machine import Precision
    from dragoman.plan.parameters import Parameters
    from dragoman.plan.training import TrainingCount
    from dragoman.plan.training_memory import TrainingMemory

USUAL_MFU = 0.4
"""Share of the peak that large runs reach, as published: 30 to 55%."""


@dataclass(frozen=True)
class PlanOptions:
    """Options of the command, checked."""

    hardware: str | None = None
    tokens: float | None = None
    mfu: float | None = None
    batch_tokens: int | None = None
    length: int | None = None
    data: str | None = None


@dataclass(frozen=True)
class TrainingPlan:
    """Plan of a training: what was counted, and what follows from it."""

    subject: PlanSubject
    parameters: "Parameters"
    count: "TrainingCount"
    memory: "TrainingMemory"
    rows: int
    """Texts of a micro-batch."""
    length: int
    """Tokens of each."""
    batch_tokens: int
    """Tokens of a micro-batch."""
    precision: str
    cluster: Any
    question: PlanOptions
    seconds: float | None
    """Predicted seconds of a step on one device, of its counted operations; None without hardware."""

    @property
    def accumulate(self) -> int:
        """Micro-batches of a step."""
        return self.subject.cfg.train.accumulate

    @property
    def tokens(self) -> int:
        """Tokens of a step, in all its micro-batches."""
        return self.accumulate * self.batch_tokens

    @property
    def flops_per_token(self) -> float:
        """FLOPs of learning from a token, forward and backward, without those of activation checkpointing."""
        return self.count.counted.learned_flops / self.tokens

    @property
    def reached(self) -> float | None:
        """Share of the device's peak that the predicted step reaches; None without hardware."""
        if self.seconds is None:
            return None
        return self.count.counted.learned_flops / (self.seconds * self.cluster.device.speed(self.precision))

    @property
    def mfu(self) -> float:
        """Share of the peak at which a budget is computed: the given one, else the predicted step's, where that is a
        measured one or less than what large runs reach."""
        if self.question.mfu:
            return self.question.mfu
        measured = self.cluster.device.name == "here"
        return self.reached if self.reached and (measured or self.reached < USUAL_MFU) else USUAL_MFU

    def record(self) -> dict[str, Any]:
        """Return the plan as plain data."""
        counted, parameters = self.count.counted, self.parameters
        found = {
            "name": self.subject.name,
            "parameters": asdict(parameters) | {"hidden": parameters.hidden},
            "batch": {
                "rows": self.rows,
                "length": self.length,
                "accumulate": self.accumulate,
                "tokens": self.tokens,
            },
            "precision": self.precision,
            "flops": {
                "forward": counted.flops(backward=False),
                "backward": counted.flops(backward=True),
                "recomputed": counted.recomputed,
                "per_token": self.flops_per_token,
                "by_part": counted.by_part(),
            },
            "memory": asdict(self.memory) | {"total": self.memory.total},
        }
        if self.seconds is not None:
            found["step_seconds"] = self.seconds
        if budget := budget_of(self):
            found["budget"] = budget
        return found


def plan_training(subject: PlanSubject, question: PlanOptions, *, rows: int | None = None) -> TrainingPlan:
    """Count a step of training.

    Raises:
        ConfigError: sizes that do not fit one another, or unknown hardware.
    """
    import torch

    from dragoman.machine import choose_products
    from dragoman.plan.here import kept_code, step_here
    from dragoman.plan.parameters import count_parameters
    from dragoman.plan.profile import HERE
    from dragoman.plan.replay import RecordedStep
    from dragoman.plan.synthetic import batch_for
    from dragoman.plan.training import count_training
    from dragoman.plan.training_memory import training_memory
    from dragoman.train.distributed.parallel import Sharded
    from dragoman.train.prediction import update_seconds

    cluster = cluster_of(question.hardware)
    gpu = cluster is not None and cluster.device.kind != "cpu"
    here = cluster is not None and cluster.device.name == HERE and not gpu
    precision, train = precision_of(subject, gpu, here=here), subject.cfg.train
    length = question.length or subject.usual_length()
    most = question.batch_tokens or train.batch_tokens
    if rows is None and most < length:
        if question.batch_tokens:
            raise ConfigError(f"--batch-tokens: {most:,} is less than one text of {length:,} tokens: see --length")
        most = length
    batch = batch_for(subject.model, subject.task, rows=rows or most // length, length=length)
    products = choose_products(train.products, torch.device("cpu"), precision) if here else train.products
    outline = subject.outline(products=products)
    parameters, recording = count_parameters(outline), RecordedStep.empty()
    count = count_training(
        outline,
        subject.task.loss,
        [batch.content] * train.accumulate,
        device=torch.device("cuda" if gpu else "cpu"),
        precision=getattr(torch, precision),
        optimizer=train.optimizer.build,
        observe=recording.observe if here else None,
    )
    devices = cluster.count if cluster else 1
    sharded = devices > 1 and isinstance(train.parallel, Sharded)
    memory = training_memory(count, averaged=train.average is not None, devices=devices, sharded=sharded)
    if here:
        memory = replace(memory, workspace=memory.workspace + kept_code(recording, precision, 0))
    measured = here and question.mfu is None  # its operations are run here, one by one
    seconds = (
        step_here(recording, precision).seconds + update_seconds(count, averaged=train.average is not None)
        if measured
        else step_seconds(count, cluster, precision, question.mfu)
    )
    return TrainingPlan(
        subject, parameters, count, memory, batch.rows, length, batch.tokens, precision, cluster, question, seconds
    )


def cluster_of(hardware: str | None) -> Any:
    """Return the devices that ``--hardware`` names; None where it is not given.

    Raises:
        ConfigError: unknown hardware.
    """
    if hardware is None:
        return None
    from dragoman.plan.hardware import parse

    return parse(hardware)


def precision_of(subject: PlanSubject, gpu: bool, *, here: bool = False) -> "Precision":
    """Return the precision of products: as configured; where that is left to the machine, bfloat16 on GPUs, and as
    measured where it is the machine ``here``."""
    wanted = subject.cfg.train.precision
    if here:
        import torch

        from dragoman.machine import choose_precision

        return choose_precision(wanted, torch.device("cpu"))
    return ("bfloat16" if gpu else "float32") if wanted == "auto" else wanted


def step_seconds(count: "TrainingCount", cluster: Any, precision: str, mfu: float | None) -> float | None:
    """Return the seconds of a step on one device; None without hardware."""
    if cluster is None:
        return None
    from dragoman.plan.duration import predict

    operations = [*count.counted.operations, *(count.update.operations if count.update else ())]
    return predict(operations, cluster.device, precision=precision, mfu=mfu).seconds


def budget_of(plan: TrainingPlan) -> dict[str, Any] | None:
    """Return what a budget of tokens costs, by each formula; None without one."""
    from dragoman.plan import envelope

    tokens = plan.question.tokens
    if tokens is None:
        return None
    active = plan.parameters.active
    work = {
        "6ND": envelope.training_flops(active, tokens),
        "8ND": envelope.training_flops(active, tokens, recomputed=True),
        "counted": plan.flops_per_token * tokens,
    }
    found: dict[str, Any] = {"tokens": tokens, "flops": work}
    if plan.cluster is None:
        return found
    from dragoman.plan.duration import bill

    mfu = plan.mfu
    speed = plan.cluster.speed(plan.precision)
    bills = {name: bill(envelope.seconds(flops, speed=speed, mfu=mfu), plan.cluster) for name, flops in work.items()}
    found |= {
        "mfu": mfu,
        "seconds": {name: bill.seconds for name, bill in bills.items()},
        "device_hours": {name: bill.device_hours for name, bill in bills.items()},
        "kwh": {name: bill.kwh for name, bill in bills.items()},
        "dollars": {name: bill.dollars for name, bill in bills.items()},
    }
    return found
