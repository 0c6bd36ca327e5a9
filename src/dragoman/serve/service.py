"""A service: models under names, and coroutines that answer requests to them.

Interfaces such as HTTP call these coroutines. Each runs the same code as the command line in a thread of its own
(splitting, placeholders, numbers, joining), and leaves the model's computations to one engine, which all requests
share.
"""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from dragoman.decode.defaults import BEAM
from dragoman.decode.documents.document import DocumentSummary, translate_document
from dragoman.decode.documents.line_translation import LineSettings, LineTranslator
from dragoman.decode.generator import Generation, Generator
from dragoman.decode.prompt import EncodedPrompt
from dragoman.decode.readers.classifier import Classified, Classifier
from dragoman.decode.readers.embedder import Embedder
from dragoman.decode.readers.input_reader import Reader
from dragoman.decode.request import Request
from dragoman.decode.scoring import ScoredPair
from dragoman.decode.search.beam import Beam
from dragoman.decode.search.search import can_stream
from dragoman.decode.translation import Translation
from dragoman.decode.translator import Progress, Translator
from dragoman.errors import ConfigError
from dragoman.model.caches.cache import Cache, parse_cache
from dragoman.model.interface import SequenceModel
from dragoman.serve.defaults import QUEUE
from dragoman.serve.engine.engine import Engine, EngineStats
from dragoman.serve.engine.memory import cache_memory
from dragoman.serve.engine.requests import BULK, INTERACTIVE, Call, Likeliest, Ticket
from dragoman.serve.errors import Draining, Overloaded, UnknownModel, WrongTask
from dragoman.serve.heap import settle_heap_again
from dragoman.serve.options import GenerateOptions, TranslateOptions
from dragoman.serve.pieces import Piece, PieceStream
from dragoman.serve.served import ServedModel, Task
from dragoman.text.context import ReadContext
from dragoman.text.document import FillableDocument, Slot
from dragoman.text.lines import Pair, PrecedingSentences

__all__ = ["INTERACTIVE", "Call", "GenerateOptions", "Piece", "Service", "ServiceStats", "TranslateOptions"]

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class ServiceStats:
    """A service at a moment, and counts since its start."""

    requests: int
    """Requests that are being answered or wait."""
    answered: dict[str, int]
    """Requests answered, by model."""
    failed: dict[str, int]
    """Requests that ended with an error, by model."""
    refused: int
    """Requests refused because too many waited."""
    engine: EngineStats


class Service:
    """Models under names, and the requests that run."""

    def __init__(
        self, models: Sequence[ServedModel], *, memory: int | None = None, cache: str | Cache = "preallocated",
        queue: int = QUEUE,
    ):  # fmt: skip
        """
        Args:
            models: names are unique.
            memory: most bytes that the process may take, weights included; None for most of what is free.
            cache: layout and storage of the caches of models that write.
            queue: most requests that are answered or wait at a time.

        Raises:
            ConfigError: an unknown cache, or less memory than the models themselves take.
        """
        policy = parse_cache(cache) if isinstance(cache, str) else cache
        if not isinstance(policy, Cache):
            raise ConfigError(f"cache {policy}: a service needs one of key/value caches: choose another")
        self.models = {model.name: model for model in models}
        writers = [model.writer for model in models if model.writer]
        self.engine = Engine(cache_memory(memory, [model.model for model in models]), policy, len(writers))
        self.loading: dict[str, str] = {}
        """How models are loaded that replace others."""
        self.draining, self.queue, self.requests = False, queue, 0
        self.answered, self.failed, self.refused = Counter[str](), Counter[str](), 0
        self._rate, self._last = 0.0, time.monotonic()
        self._threads = ThreadPoolExecutor(max_workers=queue, thread_name_prefix="request")
        for writer in writers:
            self.engine.add(writer)

    @classmethod
    def load(
        cls,
        models: Mapping[str, str | Path],
        *,
        memory: int | None = None,
        device: str = "auto",
        precision: str = "auto",
        cache: str = "preallocated",
        queue: int = QUEUE,
    ) -> "Service":
        """Load runs under names.

        Raises:
            CheckpointError: see ``ServedModel.load``.
            ConfigError: no such device, precision or cache, or too little memory.
        """
        loaded = [ServedModel.load(name, path, device=device, precision=precision) for name, path in models.items()]
        service = cls(loaded, memory=memory, cache=cache, queue=queue)
        service.loading = {"device": device, "precision": precision}
        return service

    # ---- requests ----

    async def translate(
        self, model: str, texts: Sequence[str | Request], options: TranslateOptions, call: Call = INTERACTIVE
    ) -> list[Translation]:
        """Translate each text as ``dragoman translate`` does; a text may have several lines.

        Placeholders survive in texts that are strings. A ``Request``, whose translation is constrained, goes to the
        model as it is.
        """
        self._model(model, "translate", Translator)
        return await self._run(model, lambda ticket: self._lines(model, options, ticket).translate(texts), call)

    async def translate_lines(
        self,
        model: str,
        lines: Sequence[tuple[str, PrecedingSentences]],
        options: TranslateOptions,
        call: Call = INTERACTIVE,
    ) -> list[Translation]:
        """Translate lines of a text as ``dragoman translate`` does, each with what is read before it (see
        ``context_of``)."""
        self._model(model, "translate", Translator)
        texts, contexts = [line for line, _ in lines], [before for _, before in lines]

        def work(ticket: Ticket) -> list[Translation]:
            return list(self._lines(model, options, ticket).stream(texts, contexts=contexts))

        return await self._run(model, work, call)

    def context_of(self, model: str) -> ReadContext:
        """Return how much of a text a translator reads before each line."""
        return self._model(model, "translate", Translator).context

    async def translate_slots(
        self, model: str, documents: Sequence[Sequence[Slot]], options: TranslateOptions, call: Call = INTERACTIVE
    ) -> list[Translation]:
        """Translate the slots of documents as ``fill`` does; return the translations of all, in order."""
        self._model(model, "translate", Translator)

        def work(ticket: Ticket) -> list[Translation]:
            return self._lines(model, options, ticket).translate_slots(documents)

        return await self._run(model, work, call)

    async def fill(
        self,
        model: str,
        document: FillableDocument,
        options: TranslateOptions,
        *,
        redo: bool = False,
        flag_below: float | None = None,
        progress: Progress | None = None,
        call: Call = BULK,
    ) -> DocumentSummary:
        """Translate the missing entries of a document in place, as ``dragoman translate`` does with a file."""
        self._model(model, "translate", Translator)

        def work(ticket: Ticket) -> DocumentSummary:
            lines = self._lines(model, options, ticket)
            return translate_document(
                document,
                lines.ask,
                redo=redo,
                flag_below=flag_below,
                progress=progress,
                require=lines.ask_nbest,
                context=lines.translator.context,
                check_numbers=options.check_numbers,
                glossary=options.glossary,
            )

        return await self._run(model, work, call)

    async def generate(
        self, model: str, prompts: Sequence[str | EncodedPrompt], options: GenerateOptions, call: Call = INTERACTIVE
    ) -> list[Generation]:
        """Continue each prompt."""
        generator = self._model(model, "generate", Generator)
        wanted = {name: getattr(options, name) for name in ("search", "max_new_tokens", "stop", "ends", "rules")}

        def work(ticket: Ticket) -> list[Generation]:
            shared = generator.using(self.engine.searcher(ticket))
            return shared.generate(prompts, seeds=options.seeds, cache=self._policy(generator.model), **wanted)

        return await self._run(model, work, call)

    async def stream(
        self, model: str, prompt: str | EncodedPrompt, options: GenerateOptions, call: Call = INTERACTIVE
    ) -> AsyncIterator[Piece]:
        """Continue a prompt; yield its text in pieces, as soon as each is final.

        Raises:
            ConfigError: a search with several hypotheses, whose text is not known until the end.
            Overloaded, Draining: the request is not taken.
        """
        generator = self._model(model, "generate", Generator)
        endings = options.stop, options.ends
        policy = self._policy(generator.model)
        job = generator.job(options.search, options.max_new_tokens, endings, options.rules, policy)
        if not can_stream(job.cfg):
            raise ConfigError("search: only greedy search and one sample can be streamed: choose one of them")
        row = job.encode(prompt, 1)
        loop, chosen = asyncio.get_running_loop(), asyncio.Queue[tuple[int, float, Likeliest] | None]()

        def listen(_: int, token: int, log_prob: float, likeliest: Likeliest) -> None:
            loop.call_soon_threadsafe(chosen.put_nowait, (token, log_prob, likeliest))

        def work(ticket: Ticket) -> Any:
            task = job.task([row], options.seeds, whole_characters=not job.as_original)
            return self.engine.searcher(ticket, listen, options.likeliest)(task, len(row))[0][0]

        running = asyncio.ensure_future(self._run(model, work, call))
        running.add_done_callback(lambda _: chosen.put_nowait(None))  # however it ends, even before it begins
        try:
            pieces = PieceStream(job, row)
            while (one := await chosen.get()) is not None:
                if piece := pieces.add(*one):
                    yield piece
            yield pieces.last(job.to_continuation(row, await running).ended)
        finally:
            running.cancel()

    async def score(self, model: str, pairs: Sequence[Pair], call: Call = INTERACTIVE) -> list[ScoredPair]:
        """Score each target as the translation of its source."""
        translator = self._model(model, "translate", Translator)

        def work(ticket: Ticket) -> list[ScoredPair]:
            return translator.using(self.engine.searcher(ticket), self.engine.turns.take).score(pairs)

        return await self._run(model, work, call)

    async def embed(self, model: str, texts: Sequence[str], call: Call = INTERACTIVE) -> list[list[float]]:
        """Return a vector for each text."""
        embedder = self._model(model, "embed", Embedder)
        return await self._run(model, lambda ticket: self._shared(embedder, ticket).embed(texts).tolist(), call)

    async def classify(self, model: str, texts: Sequence[str], call: Call = INTERACTIVE) -> list[Classified]:
        """Return the label of each text, with all probabilities."""
        classifier = self._model(model, "classify", Classifier)
        return await self._run(model, lambda ticket: self._shared(classifier, ticket).classify(texts), call)

    @contextmanager
    def place(self, call: Call) -> Iterator[Call]:
        """Take a place of the queue for a request, and give it back at the end.

        A request that asks models several times takes it once, and passes the call that this yields to each of them.

        Raises:
            Draining: the service is about to end.
            Overloaded: all places are taken.
        """
        if call.admitted:
            yield call
            return
        if self.draining:
            raise Draining
        if self.requests >= self.queue:
            self.refused += 1
            raise Overloaded(self.requests, self._seconds_until_free())
        self.requests += 1
        try:
            yield replace(call, admitted=True)
        finally:
            self.requests -= 1
            self._note_rate()

    # ---- operations ----

    async def swap(self, name: str, path: str | Path) -> None:
        """Load a run in place of a model, even the same run again; requests that have begun end with the old one.

        Raises:
            UnknownModel: there is no model of this name.
            CheckpointError: see ``ServedModel.load``; the old model stays.
        """
        if name not in self.models:
            raise self._unknown(name)
        loop = asyncio.get_running_loop()
        new = await loop.run_in_executor(None, partial(ServedModel.load, name, path, **self.loading))
        if new.writer:
            await loop.run_in_executor(None, self.engine.add, new.writer)
        old, self.models = self.models[name], self.models | {name: new}
        if old.writer:
            await loop.run_in_executor(None, self.engine.retire, old.writer)
        del old
        await loop.run_in_executor(None, settle_heap_again)

    async def drain(self, grace: float) -> bool:
        """Take no more requests; return whether those that run were done within ``grace`` seconds."""
        self.draining = True
        loop = asyncio.get_running_loop()
        end = loop.time() + grace
        while self.requests and loop.time() < end:
            await asyncio.sleep(0.02)
        return not self.requests

    def close(self) -> None:
        """Stop; requests that still run fail."""
        self.draining = True
        self.engine.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def stats(self) -> ServiceStats:
        """Return the counts of this moment."""
        counts = dict(self.answered), dict(self.failed)
        return ServiceStats(self.requests, *counts, self.refused, self.engine.stats())

    # ---- inside ----

    def _policy(self, model: SequenceModel) -> Any:
        return self.engine.writers[model].policy

    def _model(self, name: str, task: Task, kind: type[Answer]) -> Answer:
        """Return what answers for the model ``name``.

        Raises:
            UnknownModel: there is none of this name.
            WrongTask: it has another task.
        """
        if name not in self.models:
            raise self._unknown(name)
        served = self.models[name]
        if not isinstance(served.model, kind):
            raise WrongTask(f"model {name} is for the task {served.task}, not {task}")
        return served.model

    def _unknown(self, name: str) -> UnknownModel:
        return UnknownModel(f"model {name}", ", ".join(self.models))

    async def _run(self, model: str, work: Callable[[Ticket], Answer], call: Call) -> Answer:
        """Answer a request in a thread of its own.

        If the coroutine is cancelled, because the client is gone, its rows leave their batch at the next step.
        """
        with self.place(call):
            ticket, answered = Ticket(call), False
            try:
                answer = await asyncio.get_running_loop().run_in_executor(self._threads, work, ticket)
                answered = True
                return answer
            finally:
                (self.answered if answered else self.failed)[model] += 1
                if not answered:
                    ticket.cancel()
                    self.engine.wake()

    def _note_rate(self) -> None:
        """Keep a moving average of the requests that end in a second."""
        now = time.monotonic()
        seconds, self._last = max(1e-6, now - self._last), now
        self._rate += (1 / seconds - self._rate) * min(1.0, seconds / 5)

    def _seconds_until_free(self) -> float:
        return min(60.0, max(1.0, self.requests / 4 / self._rate if self._rate > 0 else 1.0))

    def _shared(self, reader: Reader, ticket: Ticket) -> Reader:
        return reader.using(lambda rows: self.engine.read(reader, rows, ticket))

    def _lines(self, model: str, options: TranslateOptions, ticket: Ticket) -> LineTranslator:
        """Return the translator of the command line, which leaves the search to the engine."""
        translator, search = self._model(model, "translate", Translator), options.search
        translator.check_tags(options.tags)
        settings = LineSettings(
            run=self.models[model].path,
            search=search,
            beam=search.size if isinstance(search, Beam) else BEAM,
            rules=options.rules,
            cache=self._policy(translator.model),
            glossary=options.glossary,
            tags=options.tags,
            alignments=options.alignments,
            check_numbers=options.check_numbers,
        )
        return LineTranslator(settings, translator.using(self.engine.searcher(ticket), self.engine.turns.take))
