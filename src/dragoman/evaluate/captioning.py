"""Evaluation of captions of images: exact match, BLEU and chrF, with those of the most frequent caption beside."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from dragoman.data.captions import CaptionedImage, CaptionTable, captions_by_image, read_captions
from dragoman.decode.generator import Generator
from dragoman.decode.readers.input_reader import Progress
from dragoman.decode.search.greedy import Greedy
from dragoman.errors import DataError
from dragoman.evaluate.metrics import METRICS, Metric, Sacrebleu, counted_by, scores_of
from dragoman.evaluate.outcome import EvaluationResult, Evaluator
from dragoman.text.store import Store
from dragoman.text.tokens.tokenizer import EOS

USED = ("exact_match", "bleu", "chrf")
"""Metrics of captions."""


def metrics_for(references: Sequence[Sequence[str]]) -> dict[str, Metric]:
    """Return the metrics of captions, whose signatures tell the number of references of an image."""
    counts = {len(texts) for texts in references}
    number = counts.pop() if len(counts) == 1 else None
    chosen = {name: METRICS[name] for name in USED}
    return {n: one.with_references(number) if isinstance(one, Sacrebleu) else one for n, one in chosen.items()}


class CaptionEvaluator(Evaluator):
    """Evaluation of models that continue an image with text; search is greedy.

    An image is described once, and all of its captions are references, as for COCO.
    """

    verb = "captioning"

    def load(self, run: str | Path, checkpoint: str, device: str) -> None:
        self.generator = Generator.load(run, checkpoint, device=device)

    def examples(self, named: str | None, kept: str = "test") -> list[CaptionedImage]:
        if named:
            return list(CaptionTable(path=named).read())
        assert self.generator.images is not None, "the run's task was captioning"
        images = Store.open(self.data / kept).columns["image"]
        return read_captions(self.data / f"{kept}.jsonl", images, self.generator.images)

    def evaluate(
        self,
        examples: Sequence[CaptionedImage],
        *,
        baseline: bool = True,
        folder: str | Path | None = None,
        progress: Progress | None = None,
    ) -> EvaluationResult:
        if not examples:
            raise DataError("nothing to evaluate on: the test set has no images")
        shown, references = zip(*captions_by_image(examples), strict=True)
        images, metrics = [one.image for one in shown], metrics_for(references)
        found = self.generator.generate([""] * len(images), images=images, search=Greedy(), progress=progress)
        texts = [one.text.strip() for one in found]
        usual = self.most_frequent() if baseline else None
        counted = counted_by(metrics, texts, references)
        outcome = EvaluationResult(
            scores=scores_of(counted),
            baseline={} if usual is None else scores_of(counted_by(metrics, [usual] * len(images), references)),
            baseline_name="" if usual is None else "most frequent caption",
            outputs=tuple(
                {"image": one.where, "output": text, "reference": captions}
                for one, text, captions in zip(shown, texts, references, strict=True)
            ),
            counted=counted,
        )
        if folder is not None:
            outcome.save(folder)
        return outcome

    def most_frequent(self) -> str | None:
        """Return the most frequent caption of the training images, if these are still there."""
        if not (self.data / "train").is_dir():
            return None
        captions, decode = Store.open(self.data / "train").columns["caption"], self.generator.tokenizer.decode
        rows = (captions[i] for i in range(len(captions)))
        counts = Counter(decode(row) for row in rows if row[-1] == EOS)  # a cut caption is nobody's
        return min(counts, key=lambda caption: (-counts[caption], caption), default=None)
