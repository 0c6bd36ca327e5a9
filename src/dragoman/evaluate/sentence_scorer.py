"""Metrics that a program of the user's computes, such as COMET: one number for each sentence, and their mean.

The program reads lines of source, tab, output, tab, reference in UTF-8, and writes a number for each line, in order.
Tabs and line breaks inside a text become spaces.
"""

import math
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from typing import Any

import numpy as np

from dragoman.errors import ConfigError
from dragoman.evaluate.metrics import Metric
from dragoman.text.lines import on_one_line


class SentenceScorer:
    """A program that scores sentences, by the name that its figure has.

    Args:
        name: name of the metric, as it is printed.
        command: the program with its arguments, as a shell would split them; no shell runs it.

    Raises:
        ConfigError: a name or a command is missing, a quote in the command does not end, or there is no such program.
    """

    def __init__(self, name: str, command: str):
        self.name = name
        try:
            self.words = shlex.split(command)
        except ValueError as error:
            raise ConfigError(f"--metric {name}={command}: {str(error).lower()}") from None
        if not name or not self.words:
            raise ConfigError(f"--metric {name}={command}: write NAME=COMMAND, such as comet='python comet_scores.py'")
        if shutil.which(self.words[0]) is None:  # before anything is translated
            raise ConfigError(f"--metric {name}: {self.words[0]}: No such file or directory, or not a program")

    def of(self, sources: Sequence[str]) -> Metric:
        """Return the metric of outputs for these sources."""
        return _ScoredByProgram(self, sources)

    def scores(self, sources: Sequence[str], outputs: Sequence[str], references: Sequence[str]) -> np.ndarray:
        """Return the program's numbers (N,).

        Raises:
            ConfigError: it cannot be started, fails, or answers other than with a number for each line.
        """
        rows = zip(sources, outputs, references, strict=True)
        lines = "".join("\t".join(map(on_one_line, row)) + "\n" for row in rows)
        try:
            done = subprocess.run(self.words, input=lines.encode(), capture_output=True, check=False)
        except OSError as error:
            raise ConfigError(f"--metric {self.name}: {self.words[0]}: {error.strerror}") from None
        if done.returncode:
            last = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["it says nothing"]
            raise ConfigError(f"--metric {self.name}: the program ended with code {done.returncode}: {last[0]}")
        answers = done.stdout.decode(errors="replace").split("\n")
        found = [self._number(answer, row) for row, answer in enumerate(answers, 1) if answer.strip()]
        if len(found) != len(outputs):
            raise ConfigError(f"--metric {self.name}: the program gave {len(found)} numbers for {len(outputs)} lines")
        return np.array(found)

    def _number(self, answer: str, row: int) -> float:
        try:
            number = float(answer)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise ConfigError(f"--metric {self.name}: line {row} of the program's answers is no number: {answer!r}")
        return number


class _ScoredByProgram(Metric):
    """The mean of a program's numbers, which does not say whether higher ones are better."""

    higher_is_better, digits = None, 4

    def __init__(self, scorer: SentenceScorer, sources: Sequence[str]):
        self.scorer, self.sources, self.name = scorer, sources, scorer.name
        self.signature = f"mean|{shlex.join(scorer.words)}"

    def counts(self, outputs: Sequence[Any], references: Sequence[Any]) -> np.ndarray:
        found = self.scorer.scores(self.sources, outputs, references)
        return np.stack([found, np.ones_like(found)], axis=1)

    def value(self, counts: np.ndarray) -> float:
        return float(counts[0] / counts[1])
