"""Texts in, translations out: as many, in the same order, whatever the texts are."""

import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import torch

from dragoman.checkpoint import load_model
from dragoman.decode.beam import Beam
from dragoman.decode.forced import batches_by_length, padded
from dragoman.decode.greedy import Greedy
from dragoman.decode.scoring import ScoredPair, score_pairs
from dragoman.decode.search import SearchConfig, search
from dragoman.decode.segment import Part, segment
from dragoman.decode.strategy import Hypothesis
from dragoman.decode.translation import Candidate, Translation
from dragoman.errors import ConfigError, DataError
from dragoman.model.interface import SequenceModel
from dragoman.text.clean import normalise
from dragoman.text.lines import Pair
from dragoman.text.tokenizer import EOS, Tokenizer

__all__ = ["Candidate", "Progress", "Translation", "Translator", "of_size"]

LONGEST = 1000
"""Characters of a text taken at once, as many as cleaning leaves in a training text unless told otherwise."""
BATCH_TOKENS = 4096
"""Source tokens translated at a time, padding included, times the hypotheses of each."""
CHUNK = 4096
"""Texts read at a time from a stream, and translated in batches of like length."""

Progress = Callable[[int, int], None]
"""Called with what is done and what there is to do."""

# ---- the translator --------------------------------------------------------------------------------


class Translator:
    """A trained model with its tokenizers."""

    def __init__(self, model: SequenceModel, source_tokenizer: Tokenizer, target_tokenizer: Tokenizer):
        self.model = model
        self.source_tokenizer, self.target_tokenizer = source_tokenizer, target_tokenizer

    @classmethod
    def load(cls, run: str | Path, which: str | int = "best", *, device: str = "auto") -> "Translator":
        """The translator that a run has trained.

        Args:
            run: a run directory, or one of its checkpoints.
            which: ``best``, ``last``, a step, or the name of a checkpoint.
            device: as torch names it; ``auto`` is the GPU if there is one.

        Raises:
            CheckpointError: no such run or checkpoint, or a damaged one.
            ConfigError: no such device.
        """
        model, source_tokenizer, target_tokenizer = load_model(run, which)
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            return cls(model.to(device), source_tokenizer, target_tokenizer)
        except (RuntimeError, AssertionError) as error:
            raise ConfigError(f"device {device}: {str(error).splitlines()[0]}") from None

    def translate(
        self,
        texts: Sequence[str],
        *,
        beam: int = 5,
        search: SearchConfig | None = None,
        batch_tokens: int = BATCH_TOKENS,
        longest: int = LONGEST,
        progress: Progress | None = None,
    ) -> list[Translation]:
        """Translate each text; as many translations as texts, in their order.

        White space and control characters, line ends among them, count as one space, as they did in training; a text of
        nothing else has the translation "". No translation holds a line end. A text that is too long is translated in
        parts and says so in its ``warnings``.

        Args:
            texts: sentences, or anything else, one translation for each.
            beam: hypotheses kept; 1 is greedy search.
            search: a search in full, instead of ``beam``.
            batch_tokens: source tokens translated at a time, padding included, times the hypotheses of each.
            longest: characters of a text taken at once; a limit of the model itself holds besides.
            progress: called with how many distinct texts, or parts of long ones, are done, and of how many.

        Raises:
            DataError: half of a surrogate pair in a text, which no tokenizer can take; the message names the row.
            CheckpointError: a model whose output is not numbers.
        """
        if isinstance(texts, str):
            raise TypeError("texts: a list of strings is wanted, for one text [text]")
        cfg = search or of_size(beam)
        return _Job(self, cfg, batch_tokens, longest).translate(texts, 1, progress)

    def stream(
        self,
        texts: Iterable[str],
        *,
        beam: int = 5,
        search: SearchConfig | None = None,
        batch_tokens: int = BATCH_TOKENS,
        longest: int = LONGEST,
        chunk: int = CHUNK,
    ) -> Iterator[Translation]:
        """As ``translate``, for texts without end: reads ``chunk`` of them, yields their translations, and goes on."""
        job = _Job(self, search or of_size(beam), batch_tokens, longest)
        texts, row = iter(texts), 1
        while some := list(itertools.islice(texts, chunk)):
            yield from job.translate(some, row)
            row += len(some)

    def score(
        self, pairs: Sequence[Pair], *, batch_tokens: int = BATCH_TOKENS, progress: Progress | None = None
    ) -> list[ScoredPair]:
        """How likely the model finds each target as the translation of its source; in their order.

        Both sides are normalised as texts are before they are translated, and cut by the tokenizers as in training. The
        log-probability of a translation that search found, in the tokens it was found in, is the same in both places.

        Args:
            pairs: of source and target.
            batch_tokens: tokens of both sides read at a time, padding included.
            progress: called with the pairs done and their number.

        Raises:
            DataError: a pair with a side that is longer than the model can take; the message names the row.
            CheckpointError: a model whose output is not numbers.
        """
        sides = self.source_tokenizer, self.target_tokenizer
        return score_pairs(self.model, *sides, pairs, batch_tokens=batch_tokens, progress=progress)


def of_size(beam: int) -> SearchConfig:
    """The search that ``beam`` is short for."""
    return Greedy() if beam == 1 else Beam(size=beam)


# ---- the work --------------------------------------------------------------------------------------


class _Job:
    """How to translate; and the steps of doing so."""

    def __init__(self, translator: Translator, cfg: SearchConfig, batch_tokens: int, longest: int):
        self.cfg, self.batch_tokens, self.longest = cfg, batch_tokens, longest
        self.model, self.source_tokenizer = translator.model, translator.source_tokenizer
        self.target_tokenizer = translator.target_tokenizer
        self.device = next(translator.model.parameters()).device

    def translate(self, texts: Sequence[str], first_row: int, progress: Progress | None = None) -> list[Translation]:
        parts = [self.parts(text, row) for row, text in enumerate(texts, first_row)]
        distinct = list(dict.fromkeys(part.text for some in parts for part in some))  # a text that recurs is done once
        answers = dict(zip(distinct, self.answers(distinct, progress), strict=True))
        return [
            self.joined(row, text, some, [answers[part.text] for part in some])
            for row, (text, some) in enumerate(zip(texts, parts, strict=True), first_row)
        ]

    def parts(self, text: str, row: int) -> list[Part]:
        """What is translated of a text: all of it at once, if it is not too long; nothing, if it says nothing."""
        if half := _SURROGATE.search(text):
            raise DataError(
                f"row {row}: character {half.start() + 1} is \\u{ord(half[0]):04x}, half of a surrogate pair: "
                "read the text as UTF-8 (or UTF-16), without the error handler 'surrogateescape'"
            )
        tidy = normalise(text)
        return segment(tidy, self.fits) if tidy else []

    def fits(self, text: str) -> bool:
        most = self.model.max_length
        if len(text) > self.longest or most is None:
            return len(text) <= self.longest
        return len(self.source_tokenizer.encode(text)) < most  # one place is for EOS

    def answers(self, texts: list[str], progress: Progress | None) -> list[tuple[Candidate, ...]]:
        """The translations of each text, translated in batches of like length, the longest first."""
        rows = [[*ids, EOS] for ids in self.source_tokenizer.encode_batch(texts)]
        found: list[tuple[Candidate, ...]] = [()] * len(rows)
        done = 0
        for batch in batches_by_length([len(row) for row in rows], self.batch_tokens // self.cfg.size):
            results = search(self.model, padded([rows[i] for i in batch], self.device), self.cfg)
            for i, candidates in zip(batch, self.readable(results), strict=True):
                found[i] = candidates
            done += len(batch)
            if progress:
                progress(done, len(rows))
        return found

    def readable(self, results: list[list[Hypothesis]]) -> list[tuple[Candidate, ...]]:
        hypotheses = [h for some in results for h in some]
        texts = iter(self.target_tokenizer.decode_batch([h.tokens[:-1] for h in hypotheses]))
        return [
            _distinct(
                Candidate(normalise(next(texts)), h.score, h.log_prob, h.tokens, h.token_log_probs, h.cut) for h in some
            )
            for some in results
        ]

    def joined(self, row: int, source: str, parts: list[Part], answers: list[tuple[Candidate, ...]]) -> Translation:
        if not parts:
            return Translation(row, source, (Candidate("", 0.0, 0.0, (), (), cut=False),))
        warnings = []
        if len(parts) > 1:
            answers = [(self.in_one(parts, [candidates[0] for candidates in answers]),)]
            warnings.append(f"row {row}: too long to be translated at once: cut into {len(parts)} parts")
        if answers[0][0].cut:
            warnings.append(f"row {row}: the translation was ended by force at the length limit")
        return Translation(row, source, answers[0], tuple(warnings), answers[0][0].mean_probability)

    def in_one(self, parts: list[Part], best: list[Candidate]) -> Candidate:
        text = "".join(c.text + part.glue for part, c in zip(parts, best, strict=True))
        log_prob, tokens = sum(c.log_prob for c in best), sum((c.tokens for c in best), ())
        return Candidate(
            text=normalise(text),
            score=self.cfg.score(log_prob, len(tokens)),
            log_prob=log_prob,
            tokens=tokens,
            token_log_probs=sum((c.token_log_probs for c in best), ()),
            cut=any(c.cut for c in best),
        )


def _distinct(candidates: Iterable[Candidate]) -> tuple[Candidate, ...]:
    """The same text may be found in several tokenisations: the best of them stands for it."""
    first: dict[str, Candidate] = {}
    for candidate in candidates:
        first.setdefault(candidate.text, candidate)
    return tuple(first.values())


_SURROGATE = re.compile("[\ud800-\udfff]")
