"""Losses of finished runs: on their validation text, and of language models by token, byte and word."""

from collections.abc import Mapping

from dragoman.compare.figure import Figure, StudySubject, scored
from dragoman.decode.generator import Generator
from dragoman.evaluate.language_modelling import context_of, documents_for, evaluate, metrics
from dragoman.journal import Journal


def loss(subject: StudySubject) -> Mapping[str, Figure]:
    """Return the validation loss, per token or label and without smoothing, of the checkpoint."""
    assert subject.run is not None, "a study that trains"
    lines = [line for line in Journal(subject.run / "metrics.jsonl").lines() if line["kind"] == "valid"]
    values = [line["loss"] for line in lines if line["loss"] is not None]
    if not values:
        return {}
    value = values[-1] if subject.checkpoint == "last" else min(values)
    how = "validation text, mean negative log-likelihood of a token or label in nats"
    return {"validation loss": Figure(value, higher_is_better=False, signature=f"{how}; {subject.checkpoint} weights")}


def perplexity(subject: StudySubject) -> Mapping[str, Figure]:
    """Return the perplexity of a language model per token, byte and word, and bits per byte, on what it held out."""
    assert subject.run is not None and subject.cfg is not None, "a study that trains"
    generator = Generator.load(subject.run, subject.checkpoint)
    documents = documents_for(subject.run, None, generator.tokenizer)
    found = evaluate(generator, documents, context=context_of({"task": {"context": _context(subject)}}))
    drawn = found.documents if len(found.documents) > 1 else found.pieces  # of one document only its parts can be drawn
    known = metrics(found.context)
    return {known[name].name: scored(known[name], drawn) for name in found.scores}


def _context(subject: StudySubject) -> int:
    return getattr(getattr(subject.cfg, "task", None), "context", 1024)
