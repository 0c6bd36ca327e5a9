"""Measures of answers that follow from a rule, and of secrets that a language model remembers."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import PositiveInt

from dragoman.compare.datasets.grammar import CANARIES
from dragoman.compare.figure import Figure, FigureCurve, StudySubject, mean_of
from dragoman.decode.generator import Generator
from dragoman.decode.search.greedy import Greedy
from dragoman.errors import ConfigError
from dragoman.evaluate.language_modelling import log_likelihoods
from dragoman.text.formats.documents import Texts
from dragoman.text.formats.instructions import Instructions
from dragoman.text.formats.pairs import read_pairs


def answers(
    subject: StudySubject, *, longest: PositiveInt = 64, prompts: PositiveInt | None = None
) -> Mapping[str, Figure]:
    """Return how many prompts of the validation set a language model answers rightly by greedy search.

    Args:
        subject: the run of a language model that learned from instructions.
        longest: most tokens of an answer.
        prompts: number of prompts; None for all.

    Raises:
        ConfigError: a run that learned from other data, or without a validation file.
    """
    data = subject.cfg.data if subject.cfg else None
    if not isinstance(data, Instructions) or data.valid is None or subject.run is None:
        raise ConfigError("measures.answers: needs a language model and data of kind instructions with valid")
    pairs = list(read_pairs(data.valid))[:prompts]
    generator = Generator.load(subject.run, subject.checkpoint, device="cpu", precision="float32")
    found = generator.generate([pair.source for pair in pairs], search=Greedy(), max_new_tokens=longest, rules=())
    both = [(output.text.strip(), pair.target.strip()) for output, pair in zip(found, pairs, strict=True)]
    whole = [100.0 * (given == wanted) for given, wanted in both]
    last = [100.0 * (given[-1:] == wanted[-1:] and len(given) == len(wanted)) for given, wanted in both]
    signature = "greedy|answers of the validation set"
    return {
        "accuracy": mean_of(whole, unit="%", signature=signature),
        "accuracy of the result": mean_of(last, unit="%", signature=f"{signature}|last symbol"),
    }


def memorised(subject: StudySubject, *, given: PositiveInt = 8) -> Mapping[str, Figure]:
    """Return how well a language model knows the secrets of ``datasets.grammar.canaries``, by number of copies.

    Args:
        subject: the run of a language model that learned from them.
        given: letters of a secret that the model is given, to write the others.

    Raises:
        ConfigError: data without secrets.
    """
    data = subject.cfg.data if subject.cfg else None
    path = Path(data.files[0]).parent / CANARIES if isinstance(data, Texts) else None
    if path is None or subject.run is None or not path.is_file():
        raise ConfigError("measures.memorised: needs a language model and the data set canaries")
    secrets: dict[str, list[str]] = json.loads(path.read_bytes())
    generator = Generator.load(subject.run, subject.checkpoint, device="cpu", precision="float32")
    bits, written = [], []
    for some in secrets.values():
        nll = -np.array(log_likelihoods(generator, some)) / math.log(2)
        bits.append(nll / [len(secret) for secret in some])
        rest = [secret[given:] for secret in some]
        prompts = [secret[:given] for secret in some]
        outputs = generator.generate(prompts, search=Greedy(), max_new_tokens=4 * len(rest[0]), rules=())
        written.append([100.0 * out.text.startswith(wanted) for out, wanted in zip(outputs, rest, strict=True)])
    saved = [bits[0] - some for some in bits]  # a secret of each group against one that is not in the text
    return {
        "written out": mean_of(
            written[-1],
            higher_is_better=None,
            unit="%",
            signature=f"greedy|{given} letters given",
            curve=_by_copies(secrets, written),
        ),
        "bits saved": mean_of(
            saved[-1],
            higher_is_better=None,
            unit="bits a letter",
            signature="against secrets that are not in the text",
            curve=_by_copies(secrets, saved),
        ),
    }


def _by_copies(secrets: Mapping[str, Any], values: Sequence[Any]) -> FigureCurve:
    return FigureCurve("copies", tuple(map(float, secrets)), tuple(float(np.mean(some)) for some in values))
