"""A service: models under names, and coroutines that answer requests to them.

Interfaces such as HTTP call these coroutines. Each runs the same code as the command line in a thread of its own
(splitting, placeholders, numbers, joining), and leaves the model's computations to one engine, which all requests
share.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar

from dragoman.decode.constraints.glossary import Glossary
from dragoman.decode.constraints.repetition import RuleConfig
from dragoman.decode.documents.placeholders import translate_texts
from dragoman.decode.generator import MAX_NEW_TOKENS, EndReason, Generation, Generator
from dragoman.decode.readers.classifier import Classified, Classifier
from dragoman.decode.readers.embedder import Embedder
from dragoman.decode.request import Request, as_request
from dragoman.decode.scoring import ScoredPair
from dragoman.decode.search.beam import Beam
from dragoman.decode.search.search import SearchConfig
from dragoman.decode.translation import Translation
from dragoman.decode.translator import Translator, search_for_beam
from dragoman.serve.errors import Draining, UnknownModel, WrongTask
from dragoman.serve.served import ServedModel, Task
from dragoman.text.lines import Pair

Priority = Literal["interactive", "bulk"]
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Call:
    """How a request is to be treated, whatever it asks for."""

    priority: Priority = "interactive"
    deadline: float | None = None
    """Seconds from now after which no answer is wanted any more."""


@dataclass(frozen=True)
class TranslateOptions:
    """Options of a translation; the defaults are those of ``dragoman translate``."""

    search: SearchConfig = field(default_factory=lambda: search_for_beam(5))
    rules: tuple[RuleConfig, ...] = ()
    glossary: Glossary | None = None
    alignments: bool = False
    check_numbers: bool = True
    tags: tuple[str, ...] = ()


@dataclass(frozen=True)
class GenerateOptions:
    """Options of a continuation; see ``Generator.generate``."""

    search: SearchConfig | None = None
    max_new_tokens: int = MAX_NEW_TOKENS
    stop: tuple[str, ...] = ()
    rules: tuple[RuleConfig, ...] = ()
    seeds: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Piece:
    """A piece of a continuation: text that is final, and the tokens chosen since the piece before."""

    text: str
    tokens: tuple[int, ...] = ()
    log_probs: tuple[float, ...] = ()
    ended: EndReason | None = None
    """Why the continuation ended; None except in the last piece."""


class Service:
    """Models under names, and the requests that run."""

    def __init__(self, models: Sequence[ServedModel], *, cache: str = "preallocated"):
        self.models = {model.name: model for model in models}
        self.cache = cache
        self.running = 0
        """Number of requests that are being answered."""
        self.draining = False
        self._threads = ThreadPoolExecutor(max_workers=64, thread_name_prefix="request")
        self._computing = threading.Lock()

    @classmethod
    def load(
        cls,
        models: Mapping[str, str | Path],
        *,
        memory: int | None = None,
        device: str = "auto",
        precision: str = "auto",
        cache: str = "preallocated",
        queue: int = 1024,
    ) -> "Service":
        """Load runs under names.

        Raises:
            CheckpointError: see ``ServedModel.load``.
            ConfigError: no such device, precision or cache.
        """
        loaded = [ServedModel.load(name, path, device=device, precision=precision) for name, path in models.items()]
        return cls(loaded, cache=cache)

    # ---- requests ----

    async def translate(
        self, model: str, texts: Sequence[str | Request], options: TranslateOptions, call: Call = Call()
    ) -> list[Translation]:
        """Translate each text as ``dragoman translate`` does; a text may have several lines.

        Placeholders survive in texts that are strings. A ``Request``, whose translation is constrained, goes to the
        model as it is.
        """
        return await self._run(lambda: self._translate(self._model(model, "translate", Translator), texts, options))

    async def generate(
        self, model: str, prompts: Sequence[str], options: GenerateOptions, call: Call = Call()
    ) -> list[Generation]:
        """Continue each prompt."""
        generator = self._model(model, "generate", Generator)
        wanted = {"max_new_tokens": options.max_new_tokens, "stop": options.stop, "rules": options.rules}
        return await self._run(
            lambda: generator.generate(prompts, search=options.search, seeds=options.seeds, cache=self.cache, **wanted)
        )

    async def stream(
        self, model: str, prompt: str, options: GenerateOptions, call: Call = Call()
    ) -> AsyncIterator[Piece]:
        """Continue a prompt; yield its text in pieces, as soon as each is final."""
        generator = self._model(model, "generate", Generator)
        wanted = {"max_new_tokens": options.max_new_tokens, "stop": options.stop, "rules": options.rules}
        seeds = None if options.seeds is None else list(options.seeds)
        (generation,) = await self._run(
            lambda: generator.generate([prompt], search=options.search, seeds=seeds, cache=self.cache, **wanted)
        )
        (best, *_) = generation.continuations
        yield Piece(best.text, best.tokens, best.token_log_probs, best.ended)

    async def score(self, model: str, pairs: Sequence[Pair], call: Call = Call()) -> list[ScoredPair]:
        """Score each target as the translation of its source."""
        translator = self._model(model, "translate", Translator)
        return await self._run(lambda: translator.score(pairs))

    async def embed(self, model: str, texts: Sequence[str], call: Call = Call()) -> list[list[float]]:
        """Return a vector for each text."""
        embedder = self._model(model, "embed", Embedder)
        return await self._run(lambda: embedder.embed(texts).tolist())

    async def classify(self, model: str, texts: Sequence[str], call: Call = Call()) -> list[Classified]:
        """Return the label of each text, with all probabilities."""
        classifier = self._model(model, "classify", Classifier)
        return await self._run(lambda: classifier.classify(texts))

    # ---- operations ----

    async def swap(self, name: str, path: str | Path) -> None:
        """Load another run in place of a model; requests that have begun end with the old one."""
        if name not in self.models:
            raise self._unknown(name)
        new = await asyncio.get_running_loop().run_in_executor(None, ServedModel.load, name, path)
        self.models = self.models | {name: new}

    async def drain(self, grace: float) -> bool:
        """Take no more requests; return whether those that run were done within ``grace`` seconds."""
        self.draining = True
        loop = asyncio.get_running_loop()
        end = loop.time() + grace
        while self.running and loop.time() < end:
            await asyncio.sleep(0.02)
        return not self.running

    def close(self) -> None:
        """Stop; requests that still run fail."""
        self.draining = True
        self._threads.shutdown(wait=False, cancel_futures=True)

    # ---- inside ----

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

    async def _run(self, work: Callable[[], Answer]) -> Answer:
        if self.draining:
            raise Draining

        def alone() -> Answer:
            with self._computing:
                return work()

        self.running += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, alone)
        finally:
            self.running -= 1

    def _translate(
        self, translator: Translator, texts: Sequence[str | Request], options: TranslateOptions
    ) -> list[Translation]:
        settings = {
            "rules": options.rules, "glossary": options.glossary, "alignments": options.alignments, "cache": self.cache
        }  # fmt: skip
        translator.check_tags(options.tags)

        def ask(questions: Sequence[str | Request], search: SearchConfig = options.search) -> list[Translation]:
            requests = [as_request(question, tags=options.tags) for question in questions]
            return translator.translate(requests, search=search, **settings)

        def ask_for_more(questions: Sequence[str | Request], _: object) -> list[Translation]:
            size = max(options.search.size, 5)
            return ask(questions, search=Beam(size=size, nbest=size))

        plain = [text for text in texts if isinstance(text, str)]
        bound = [text for text in texts if not isinstance(text, str)]
        rest = {"check_numbers": options.check_numbers, "glossary": options.glossary}
        answers = iter(translate_texts(plain, ask, context=translator.context, require=ask_for_more, **rest))
        answers_of_bound = iter(ask(bound) if bound else [])
        return [next(answers if isinstance(text, str) else answers_of_bound) for text in texts]
