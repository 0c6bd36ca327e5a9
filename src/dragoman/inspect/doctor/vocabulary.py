"""Vocabulary: ids, tables and tokenizers that do not fit one another."""

from collections.abc import Iterator

from torch import Tensor, nn

from dragoman.inspect.doctor.batch import InputBatch
from dragoman.inspect.doctor.finding import DoctorCheck, Finding, NotApplicable, Severity
from dragoman.inspect.doctor.observe import name_of
from dragoman.inspect.doctor.subject import ExaminedModel

SPARE = 128
"""Entries by which a table may be larger than the vocabulary: sizes are rounded up to multiples of 64 or 128."""


def reading_table(model: nn.Module, batch: InputBatch) -> tuple[str, nn.Embedding] | None:
    """Return the embedding that reads the tokens, by watching which one is given them; None where none is."""
    found: list[tuple[str, nn.Embedding]] = []
    hooks = []
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding):

            def hook(module: nn.Embedding, arguments: tuple, name: str = name) -> None:
                ids = arguments[0] if arguments else None
                if isinstance(ids, Tensor) and ids.numel() == batch.value.numel() and _same(ids, batch.value):
                    found.append((name, module))

            hooks.append(module.register_forward_pre_hook(hook))
    try:
        batch.run(model)
    except Exception:  # an id out of range stops the model where it is read
        pass
    finally:
        for each in hooks:
            each.remove()
    return found[0] if found else None


def _same(ids: Tensor, value: Tensor) -> bool:
    return ids.flatten().sort().values.equal(value.flatten().sort().values)


class IdsInRange(DoctorCheck[ExaminedModel]):
    """Ids, labels and special ids that a table has no row for."""

    name = "ids in range"
    asks = "Has every id a row in the table that reads it?"
    compares = False

    def run(self, subject: ExaminedModel) -> Iterator[Finding]:
        yield from out_of_range(subject.model, subject.batch, self)
        yield from self._labels(subject)
        yield from self._special(subject)

    def _labels(self, subject: ExaminedModel) -> Iterator[Finding]:
        labels = subject.batch.answers
        if labels is None or labels.is_floating_point() or labels.ndim != subject.clean.ndim - 1:
            return
        classes, most = subject.clean.shape[-1], int(labels.max())
        if most >= classes:
            yield self.finding(
                Severity.error,
                "labels are out of range",
                evidence=f"the largest label is {most}, the output has {classes} entries",
                numbers={"largest": most, "entries": classes},
                cause="labels counted from 1, or an output layer of another vocabulary",
                remedy="count labels from 0, or make the output layer as large as the vocabulary",
                where="(data)",
            )

    def _special(self, subject: ExaminedModel) -> Iterator[Finding]:
        cfg = getattr(subject.model, "config", None)
        size = getattr(cfg, "vocab_size", None)
        if not isinstance(size, int):
            return
        ids = {name: getattr(cfg, f"{name}_token_id", None) for name in ("pad", "bos", "eos", "decoder_start")}
        bad = {name: i for name, i in ids.items() if isinstance(i, int) and not 0 <= i < size}
        if bad:
            name, value = next(iter(bad.items()))
            yield self.finding(
                Severity.warning,
                "special ids are out of range",
                evidence=f"{name} is {value}, the vocabulary has {size} entries",
                numbers={name: value, "entries": size},
                cause="a configuration with the defaults of another vocabulary",
                remedy=f"set {name}_token_id to the tokenizer's",
                where="(model)",
            )


def out_of_range(model: nn.Module, batch: InputBatch, check: DoctorCheck) -> Iterator[Finding]:
    """Yield a finding where the batch holds ids that the embedding has no row for; works on a model that fails."""
    if not batch.is_ids:
        return
    table = reading_table(model, batch)
    if table is None:
        return
    name, embedding = table
    low, high = int(batch.value.min()), int(batch.value.max())
    if low < 0 or high >= embedding.num_embeddings:
        yield check.finding(
            Severity.error,
            "ids are out of range",
            evidence=f"ids from {low} to {high}, the embedding has {embedding.num_embeddings} rows",
            numbers={"smallest": low, "largest": high, "rows": embedding.num_embeddings},
            cause="a tokenizer with more entries than the embedding, tokens added later, or labels' -100 among inputs",
            remedy="resize the embedding to the tokenizer, and pad inputs with the id of padding",
            where=name_of(name),
        )


class VocabularyFits(DoctorCheck[ExaminedModel]):
    """Sizes of tokenizer, embedding and output layer."""

    name = "vocabulary"
    asks = "Do tokenizer, embedding and output layer have the same size?"
    compares = False

    def run(self, subject: ExaminedModel) -> Iterator[Finding]:
        if not subject.batch.is_ids:
            raise NotApplicable("it reads no ids")
        table = reading_table(subject.model, subject.batch)
        if table is None:
            raise NotApplicable("no embedding was seen that reads the tokens")
        name, embedding = table
        yield from self._tokenizer(subject, name, embedding.num_embeddings)
        writes = subject.batch.causal and subject.answers_positions
        if writes and subject.clean.shape[-1] != embedding.num_embeddings and subject.batch.labels is not None:
            outputs, rows = subject.clean.shape[-1], embedding.num_embeddings
            yield self.finding(
                Severity.warning,
                "output layer and embedding have unlike sizes",
                evidence=f"{outputs} outputs, {rows} rows in {name}",
                numbers={"outputs": outputs, "rows": rows},
                cause="one of the two was resized alone",
                remedy="give both the size of the vocabulary; ids beyond the outputs can be read and never written",
                where=name_of(name),
            )

    def _tokenizer(self, subject: ExaminedModel, name: str, rows: int) -> Iterator[Finding]:
        tokenizers = subject.facts.tokenizer
        each = tokenizers[-1] if isinstance(tokenizers, tuple | list) else tokenizers
        if each is None:
            return
        size = len(each)
        if size > rows or rows > size + SPARE:
            yield self.finding(
                Severity.error if size > rows else Severity.note,
                "the vocabulary does not fit the embedding",
                evidence=f"the tokenizer has {size} entries, {name} has {rows} rows",
                numbers={"tokenizer": size, "rows": rows},
                cause="a tokenizer of another model, or tokens added without resizing",
                remedy="resize the embedding to the tokenizer, or take the tokenizer that it was trained with",
                where=name_of(name),
            )
