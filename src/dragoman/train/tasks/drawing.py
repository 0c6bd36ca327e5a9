"""Plan of the pairs that each step of a translation learns from, following ``data.mixture`` and ``data.order``."""

import numpy as np

from dragoman.config import at, kind_of
from dragoman.data.batch import Batches
from dragoman.data.corruption import MASK
from dragoman.data.mixture import Concatenate, Stages
from dragoman.data.order import EasyFirst, Shuffled
from dragoman.data.rounds import Rounds
from dragoman.errors import ConfigError, DataError
from dragoman.text.context import SEPARATOR
from dragoman.text.corpus import ParallelCorpus
from dragoman.text.formats.pairs import names_of, tags_of
from dragoman.text.tokens.tokenizer import Tokenizer, tag_mark
from dragoman.train.budget import Minutes
from dragoman.train.progress import RunProgress
from dragoman.train.recipe import PairsConfig, RunConfig
from dragoman.train.tasks.task_data import Spent


def check(cfg: RunConfig, data: PairsConfig) -> None:
    """Check that mixture and order fit the sources and the budget.

    Raises:
        ConfigError: the mixture names other sources, or needs the run's length, unknown in minutes.
    """
    names = names_of(data.train)
    with at("data.train"):
        marks(data)
    with at("data.mixture"):
        data.mixture.check(names)
    with at("data.segmentation"):
        data.segmentation.check((cfg.tokenizer, cfg.target_tokenizer or cfg.tokenizer))
    for path, choice in (("data.mixture", data.mixture), ("data.order", data.order)):
        if isinstance(choice, Stages | EasyFirst) and isinstance(cfg.train.budget, Minutes):
            raise ConfigError(
                f"{path}: {kind_of(type(choice))} needs the number of steps in the run, which a budget of minutes "
                "fixes too late: give train.budget in steps or epochs"
            )


def check_remaining(data: PairsConfig, left: dict[str, int]) -> None:
    """Check that every source of the mixture has pairs left.

    Raises:
        DataError: the mixture draws from a source with no pairs left.
    """
    for name in names_of(data.train):
        if not isinstance(data.mixture, Concatenate) and data.mixture.used(name) and not left.get(name):
            raise DataError(
                f"data.mixture: no pair of {name!r} is left to train on: see what data.cleaning removes (dragoman data "
                "clean), or leave the source out"
            )


def marks(data: PairsConfig) -> list[str]:
    """Return the special tokens that tokenizers of the source need."""
    return [*map(tag_mark, _tags(data)), *data.context.marks, *data.retrieval.marks, *data.noise.marks]


def check_marks(data: PairsConfig, tokenizer: Tokenizer) -> None:
    """Check that the tokenizer has the special tokens that the data need.

    Raises:
        ConfigError: it lacks a tag, a separator or the mask token, because it was trained without them.
    """
    with at("data.context"):
        if data.context.marks:
            tokenizer.mark(*SEPARATOR)
    with at("data.retrieval"):
        for mark in data.retrieval.marks:
            tokenizer.mark(mark)
    with at("data.noise"):
        if data.noise.marks:
            tokenizer.mark(*MASK)
    with at("data.train"):
        for tag in _tags(data):
            tokenizer.tag(tag)


def _tags(data: PairsConfig) -> list[str]:
    given = (*data.train, *(source for source in (data.valid, data.test) if source is not None))
    return list(dict.fromkeys(tag for source in given for tag in tags_of(source)))


def plan(cfg: RunConfig, data: PairsConfig, corpus: ParallelCorpus, spent: Spent | None = None) -> Batches | Rounds:
    """Return the batches of every step; ``spent`` as in ``TaskData.plan``. Concatenated sources in shuffled order need
    no drawing in rounds."""
    train, lengths, mixture, order = cfg.train, corpus.lengths, data.mixture, data.order
    if isinstance(mixture, Concatenate) and isinstance(order, Shuffled):
        return Batches(lengths, train.batch_tokens, train.seed, train.accumulate)
    sizes = {name: size for name, size in corpus.sources.items() if mixture.used(name)}
    if isinstance(mixture, Concatenate):
        sizes, pools = {"all": len(corpus)}, [np.arange(len(corpus))]
    else:
        pools = [np.array(rows) for rows in corpus.rows_of(list(sizes))]
    difficulty = order.difficulties(corpus)
    pools = [rows[np.argsort(difficulty[rows], kind="stable")] for rows in pools]
    one_pass = Batches(lengths[np.concatenate(pools)], train.batch_tokens, train.seed, train.accumulate)
    done = spent or RunProgress.beginning(train.budget, one_pass.steps_per_epoch).spent
    return Rounds(
        lengths,
        pools,
        shares=lambda step: mixture.shares(sizes, done(step)),
        available=lambda step: order.available(done(step)),
        steps_per_epoch=one_pass.steps_per_epoch,
        tokens=train.batch_tokens,
        seed=train.seed,
        accumulate=train.accumulate,
    )
