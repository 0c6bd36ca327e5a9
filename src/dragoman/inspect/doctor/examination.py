"""The examination: every check in its order, on one model and one batch."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from dragoman.config import unknown
from dragoman.errors import ConfigError
from dragoman.inspect.doctor.batch import BatchError, as_batch
from dragoman.inspect.doctor.caching import CacheAgrees
from dragoman.inspect.doctor.corners import CornerCases
from dragoman.inspect.doctor.data import TokenizerRoundTrip, TrainTestOverlap
from dragoman.inspect.doctor.depth import DepthFlow, MissingNorm
from dragoman.inspect.doctor.finding import DoctorCheck, Finding, NotApplicable, Report, Severity, SkippedCheck
from dragoman.inspect.doctor.guess import guess_batch
from dragoman.inspect.doctor.heads import HeadsIdle, ScoresUnscaled
from dragoman.inspect.doctor.leaks import FutureLeak, PaddingLeak
from dragoman.inspect.doctor.micro_batches import MicroBatches
from dragoman.inspect.doctor.positions import PositionsIgnored, PositionsMisplaced
from dragoman.inspect.doctor.rows import BatchSize, PaddingSide, RowsDepend
from dragoman.inspect.doctor.subject import ExaminedModel, TrainingFacts
from dragoman.inspect.doctor.training import DropoutAlive, LabelsFit, LearningRates, LossFalls
from dragoman.inspect.doctor.vocabulary import IdsInRange, VocabularyFits, out_of_range
from dragoman.inspect.doctor.weights import DataTypes, EmbeddingsTied, ParametersReached

CHECKS: tuple[type[DoctorCheck[ExaminedModel]], ...] = (
    DropoutAlive,
    FutureLeak,
    PaddingLeak,
    RowsDepend,
    BatchSize,
    PaddingSide,
    CacheAgrees,
    PositionsIgnored,
    PositionsMisplaced,
    MissingNorm,
    DepthFlow,
    ScoresUnscaled,
    HeadsIdle,
    EmbeddingsTied,
    ParametersReached,
    DataTypes,
    CornerCases,
    IdsInRange,
    VocabularyFits,
    LabelsFit,
    LossFalls,
    MicroBatches,
    LearningRates,
    TrainTestOverlap,
    TokenizerRoundTrip,
)
"""All checks, in the order in which they run. Those that compare need a model that is not random: that comes first."""

RANK = {Severity.error: 0, Severity.warning: 1, Severity.note: 2}
Progress = Callable[[int, int], None]


def examine(
    model: nn.Module,
    batch: Any = None,
    *,
    causal: bool | None = None,
    pad: int | None = None,
    batch_dim: int | None = None,
    checks: Sequence[str] | None = None,
    progress: Progress | None = None,
    facts: TrainingFacts | None = None,
    **more: Any,
) -> Report:
    """Test a model for wiring mistakes, and report what was found with its evidence.

    Args:
        batch: a tensor, a tuple of arguments (labels last), a dictionary of arguments by name, or an ``InputBatch``;
            None to guess one for models of `transformers`, of PyTorch, and of this package.
        causal: True for a model that predicts the next token; None to infer it.
        pad: id of padding; None for that of the embedding.
        batch_dim: dimension of the rows, 0 or 1.
        checks: names of checks; None for all.
        progress: called with the number of checks done and in all.
        more: fields of ``TrainingFacts``: ``loss``, ``optimizer``, ``scheduler``, ``tokenizer``, ``train``, ...

    The model, its mode, its gradients and the generator of random numbers are left as they were.

    Raises:
        BatchError: a batch that cannot be guessed or used; the message says what to pass.
    """
    if isinstance(model, torch.jit.ScriptModule):
        raise BatchError("a TorchScript module cannot be watched: examine the module that it was made from")
    facts = facts or TrainingFacts(**more)
    with _undisturbed(model):
        whole = (
            guess_batch(model) if batch is None else as_batch(model, batch, causal=causal, pad=pad, batch_dim=batch_dim)
        )
        if batch is None and causal is not None:
            whole = as_batch(model, whole, causal=causal)
        subject = ExaminedModel(model, whole, facts, given=batch)
        broken = list(_first_run(subject))
        chosen = [] if broken else [check for check in CHECKS if checks is None or check.name in checks]
        return _report(subject, chosen, broken, progress)


def check_names(names: Sequence[str] | None) -> None:
    """Check that there are checks of these names.

    Raises:
        ConfigError: there are not; the message lists all.
    """
    known = [check.name for check in CHECKS]
    for name in names or ():
        if name not in known:
            raise ConfigError(unknown("--check", name, known))


def _report(
    subject: ExaminedModel,
    chosen: Sequence[type[DoctorCheck[ExaminedModel]]],
    findings: list[Finding],
    progress: Progress | None,
) -> Report:
    passed, skipped = [], []
    for done, kind in enumerate(chosen, 1):
        found, reason = _made(kind(), subject)
        findings += found
        if reason is not None:
            skipped.append(SkippedCheck(kind.name, reason))
        elif not found:
            passed.append(kind.name)
        if progress:
            progress(done, len(chosen))
    if not chosen:
        skipped = [SkippedCheck(kind.name, "the model does not run on this batch") for kind in CHECKS]
    return Report(
        model=type(subject.model).__name__,
        parameters=sum(p.numel() for p in subject.model.parameters()),
        findings=tuple(sorted(findings, key=lambda finding: RANK[finding.severity])),
        passed=tuple(passed),
        skipped=tuple(skipped),
    )


def _made(check: DoctorCheck[ExaminedModel], subject: ExaminedModel) -> tuple[list[Finding], str | None]:
    """Return what a check found, and why it was left out if it was."""
    if check.compares and not bool(torch.isfinite(subject.clean).all()):
        return [], "its outputs are not finite"
    torch.manual_seed(0)
    found: list[Finding] = []
    try:
        found.extend(check.run(subject))
    except NotApplicable as reason:
        return found, None if found else str(reason)
    except Exception as error:  # a stranger's model may raise anything on inputs that it was not made for
        return found, None if found else f"the model raised {_line(error)}"
    return found, None


def _first_run(subject: ExaminedModel) -> Iterator[Finding]:
    """Run the model once; yield why it cannot be run where that is a finding.

    Raises:
        BatchError: the model does not take this batch.
    """
    try:
        _ = subject.clean
    except NotApplicable as reason:
        raise BatchError(f"{type(subject.model).__name__}: {reason}") from None
    except Exception as error:
        found = list(out_of_range(subject.model, subject.batch, IdsInRange()))
        if not found:
            guessed = "a guessed batch: pass --inputs MODULE:FUNCTION" if subject.given is None else "this batch"
            raise BatchError(f"{type(subject.model).__name__} does not run on {guessed}: {_line(error)}") from None
        yield from found
        return
    if subject.facts.loss is not None:
        try:
            float(subject.loss(subject.model))
        except Exception as error:
            raise BatchError(f"the loss cannot be computed on this batch: {_line(error)}") from None


def _line(error: Exception) -> str:
    """Return an error as one line."""
    return f"{type(error).__name__}: " + (str(error).strip().splitlines() or [""])[0][:200]


@contextmanager
def _undisturbed(model: nn.Module) -> Iterator[None]:
    """Put the model into evaluation mode, and restore all that an examination changes."""
    modes = [(module, module.training) for module in model.modules()]
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    devices = sorted({p.device.index or 0 for p in model.parameters() if p.is_cuda})
    fast = torch.backends.mha.get_fastpath_enabled()
    try:
        with (
            torch.inference_mode(False),
            torch.enable_grad(),
            torch.random.fork_rng(devices=devices),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            torch.backends.mha.set_fastpath_enabled(False)  # nested tensors have no positions to look at
            torch.manual_seed(0)
            model.eval()
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        for module, training in modes:
            module.training = training
        with torch.no_grad():
            for name, buffer in model.named_buffers():
                if name in buffers and buffer.shape == buffers[name].shape:
                    buffer.copy_(buffers[name])
