"""Event files of a run for TensorBoard: ``tensorboard --logdir runs`` shows runs side by side.

runs/NAME/tensorboard/   events.out.tfevents...
"""

from pathlib import Path
from typing import Any

from dragoman.errors import ConfigError
from dragoman.train.events import Event, Finished, Started, StepsReported, Validated

FOLDER = "tensorboard"


def summary_writer() -> Any:
    """Return TensorBoard's writer class.

    Raises:
        ConfigError: TensorBoard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise ConfigError("TensorBoard is not installed: pip install tensorboard (the extra tensorboard)") from None
    return SummaryWriter


class TensorBoardWriter:
    """Write the events of a run; TensorBoard shows them while the run goes on."""

    def __init__(self, folder: Path):
        self.folder, self.open = folder, summary_writer()
        self.writer: Any = None

    def show(self, event: Event) -> None:
        match event:
            case Started(step=step):  # hides what an earlier process wrote of later steps: they are repeated
                self.writer = self.open(str(self.folder / FOLDER), purge_step=step + 1 if step else None)
            case StepsReported():
                self.learned(event)
            case Validated():
                self.validated(event)
            case Finished() if self.writer:
                self.writer.close()

    def learned(self, e: StepsReported) -> None:
        figures = {
            "loss": e.loss,
            "learning rate": e.lr,
            "gradient norm": e.grad_norm,
            "padding share": e.padding,
            "tokens per second": e.tokens_per_second,
            "skipped steps": e.skipped,
        }
        for name, value in figures.items():
            if value is not None:
                self.writer.add_scalar(f"training/{name}", value, e.step)

    def validated(self, e: Validated) -> None:
        for name, value in ({"loss": e.loss, "perplexity": e.perplexity} | e.scores).items():
            self.writer.add_scalar(f"validation/{name}", value, e.step)
        for number, sample in enumerate(e.samples, start=1):
            text = "\n\n".join(
                f"{what}:\n\n{_quoted(content)}"
                for what, content in (
                    ("source", sample.source),
                    ("output", sample.output),
                    ("reference", sample.reference),
                )
            )
            self.writer.add_text(f"sample {number}", text, e.step)
        self.writer.flush()


def _quoted(text: str) -> str:
    """Return ``text`` as a code block, so that none of its characters is read as Markdown."""
    return "".join(f"    {line}\n" for line in text.splitlines())
