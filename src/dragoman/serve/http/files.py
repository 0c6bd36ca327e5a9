"""Files to translate: each is a job that runs beside other requests, and whose result is kept for a while."""

import asyncio
import contextlib
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from dragoman.decode.constraints.glossary import Glossary
from dragoman.decode.multiline import LINE_END
from dragoman.decode.search.search import SearchConfig
from dragoman.decode.translation import Translation
from dragoman.errors import DataError
from dragoman.serve.engine.requests import BULK
from dragoman.serve.errors import Overloaded
from dragoman.serve.http.guarding import AskRows, GuardedDocument, GuardedTranslation, Rows, guard_translations
from dragoman.serve.http.keys import ANYONE, ApiKey
from dragoman.serve.http.problems import Problem, is_refusal, problem_of_any
from dragoman.serve.served import ServedModel
from dragoman.serve.service import Service, TranslateOptions
from dragoman.text.filled.opening import KINDS, document_of
from dragoman.text.lines import PrecedingSentences

if TYPE_CHECKING:
    from dragoman.serve.safety.page import SafetyPage

TEXT = (".txt",)
"""Extensions of files that are translated line by line."""
EXTENSIONS = (*TEXT, *KINDS)
"""Extensions of all files that are translated."""
TOGETHER = 128
"""Texts of a file that are asked for at a time."""
RUNNING = 4
"""Jobs that run at the same time; others wait."""
MOST = 64
"""Jobs that may wait or run."""
PATIENCE = 0.5
"""Seconds after which a job looks whether it is still wanted."""
KEPT = 3600.0
"""Seconds that a result is kept."""
MOST_RESULTS, MOST_BYTES = 1_000, 2 << 30
"""Results that are kept at most, and bytes of all of them together; the oldest go first."""

Answer = TypeVar("Answer")
State = Literal["queued", "running", "done", "failed"]


def extension(name: str) -> str:
    """Return the extension of a file's name, in lower case; files that are compressed are not translated."""
    return PurePath(name).suffix.lower()


@dataclass
class FileJob:
    """A file to translate."""

    id: str
    name: str
    """Name of the file, without its folder."""
    content: bytes | None
    """Content; None once it is translated."""
    model: str
    """Name of the model. The job outlives it where it is swapped."""
    source: str
    """Source language of the model; empty where it is not known."""
    target: str
    """Target language, for documents that do not state it."""
    key: ApiKey = ANYONE
    """Key whose characters the texts count against."""
    glossary: Glossary | None = None
    state: State = "queued"
    done: int = 0
    total: int = 0
    problem: Problem | None = None
    ended: float = 0.0
    """Time at which it ended."""
    size: int = 0
    """Bytes of the result."""
    summary: dict[str, int] = field(default_factory=dict)
    """Number of texts translated, marked for review, left alone and withheld."""
    cancelled: bool = False

    @property
    def result_name(self) -> str:
        """Name of the translated file: with the target language before the extension, and never a folder."""
        path, target = PurePath(self.name), re.sub(r"[/\\]", "_", self.target)
        return f"{path.stem}_{target or 'translated'}{path.suffix}"


class FileJobs:
    """Jobs of a server, with their results in a folder that ends with it."""

    def __init__(
        self, service: Service, safety: "SafetyPage | None" = None, clock: Callable[[], float] = time.monotonic
    ):
        self._service, self._safety, self._clock = service, safety, clock
        self._jobs: dict[str, FileJob] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._running = asyncio.Semaphore(RUNNING)
        self._folder: Path | None = None

    @property
    def open(self) -> int:
        """Number of jobs that wait or run."""
        return len(self._tasks)

    def start(
        self,
        name: str,
        content: bytes,
        model: ServedModel,
        target: str,
        key: ApiKey = ANYONE,
        glossary: Glossary | None = None,
    ) -> FileJob:
        """Start a job.

        Raises:
            Problem: a file of a kind that is not translated, or an empty one.
            Overloaded: too many jobs wait.
        """
        self._forget_old()
        if extension(name) not in EXTENSIONS:
            raise Problem(
                422,
                "unsupported_file",
                f"{name}: files of this kind are not translated; known are {', '.join(EXTENSIONS)}",
            )
        if not content:
            raise Problem(422, "empty_file", f"{name}: the file is empty")
        if len(self._tasks) >= MOST:
            raise Overloaded(len(self._tasks), 30.0)
        job = FileJob(secrets.token_urlsafe(16), name, content, model.name, model.source, target, key, glossary)
        self._jobs[job.id] = job
        self._tasks[job.id] = asyncio.create_task(self._run(job))
        return job

    def get(self, id: str) -> FileJob:
        """Return a job.

        Raises:
            Problem: there is none, or its result was kept long enough.
        """
        self._forget_old()
        if (job := self._jobs.get(id)) is None:
            kept = f"results are kept for {KEPT / 60:.0f} minutes, the newest {MOST_RESULTS:,} of them"
            raise Problem(404, "unknown_file", f"no file {id!r}: {kept}")
        return job

    def result(self, job: FileJob) -> Path:
        """Return the file with the result of a job.

        Raises:
            Problem: it has failed, or is not done.
        """
        if job.problem is not None:
            raise job.problem
        if job.state != "done":
            raise Problem(409, "not_done", f"{job.name}: not translated yet ({job.state})")
        return self._path(job)

    async def wait(self, job: FileJob) -> None:
        """Wait until a job has ended; cancel it if the waiting is cancelled."""
        try:
            if (task := self._tasks.get(job.id)) is not None:
                await asyncio.shield(task)
        except asyncio.CancelledError:
            job.cancelled = True
            raise

    async def finish(self, seconds: float) -> bool:
        """Wait for all jobs; return whether they ended within ``seconds``."""
        if self._tasks:
            await asyncio.wait(list(self._tasks.values()), timeout=seconds)
        return not self._tasks

    def close(self) -> None:
        """Cancel all jobs and delete all results."""
        for job in self._jobs.values():
            job.cancelled = True
        for task in list(self._tasks.values()):
            task.cancel()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    async def _run(self, job: FileJob) -> None:
        try:
            async with self._running:
                job.state = "running"
                content = await asyncio.to_thread(
                    _Translating(self._service, job, asyncio.get_running_loop(), self._safety)
                )
                await asyncio.to_thread(self._path(job).write_bytes, content)
                job.state, job.size = "done", len(content)
        except Exception as error:
            job.state, job.problem = "failed", problem_of_any(error)
        finally:
            job.content, job.ended = None, self._clock()
            self._tasks.pop(job.id, None)

    def _path(self, job: FileJob) -> Path:
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="dragoman-files-"))
        return self._folder / job.id

    def _forget_old(self) -> None:
        count = size = 0
        for id, job in reversed(list(self._jobs.items())):
            if id in self._tasks:
                continue
            count, size = count + 1, size + job.size
            if self._clock() - job.ended > KEPT or count > MOST_RESULTS or size > MOST_BYTES:
                del self._jobs[id]
                if self._folder is not None:
                    with contextlib.suppress(OSError):
                        (self._folder / id).unlink()


def file_name(given: str | None) -> str:
    """Return the name of an uploaded file without any folder.

    Raises:
        Problem: it has none.
    """
    name = (given or "").replace("\\", "/").rpartition("/")[2].strip()
    if not name or "\0" in name:
        raise Problem(422, "invalid_request", "file: must have a name, whose extension tells its kind", param="file")
    return name


class _Translating:
    """Translates one file in a thread, by requests to the service."""

    def __init__(self, service: Service, job: FileJob, loop: asyncio.AbstractEventLoop, safety: "SafetyPage | None"):
        self.service, self.job, self.loop, self.safety = service, job, loop, safety
        self.options = TranslateOptions(glossary=job.glossary)

    def __call__(self) -> bytes:
        """Return the translated file."""
        return self._lines() if extension(self.job.name) in TEXT else self._document()

    def _lines(self) -> bytes:
        """Translate each line of a text; line ends stay."""
        job = self.job
        assert job.content is not None
        try:
            text = job.content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = job.content.count(b"\n", 0, error.start) + 1
            raise DataError(f"{job.name}:{line}: not UTF-8: save it as UTF-8") from None
        lines, ends = LINE_END.split(text), LINE_END.findall(text)
        read = list(self.service.context_of(job.model).in_lines(lines))
        distinct = list(dict.fromkeys(each for each in read if each[0].strip()))
        job.total, found = len(distinct), dict[tuple[str, PrecedingSentences], GuardedTranslation]()
        for start in range(0, len(distinct), TOGETHER):
            some = distinct[start : start + TOGETHER]
            asked = partial(guard_translations, self.safety, [line for line, _ in some], self._asker(some))
            found |= zip(some, self._paid(sum(len(line) for line, _ in some), asked), strict=True)
            job.done = len(found)
        withheld = sum(one.withheld for one in found.values())
        flagged = sum(one.needs_review() for one in found.values())
        job.summary = {"filled": len(found) - withheld, "flagged": flagged - withheld, "left": 0, "withheld": withheld}
        translated = (found[each].translation.text if each in found else each[0] for each in read)
        return "".join(line + end for line, end in zip(translated, [*ends, ""], strict=True)).encode()

    def _asker(self, lines: list[tuple[str, PrecedingSentences]]) -> AskRows:
        async def ask(rows: Rows, search: SearchConfig | None) -> list[Translation]:
            options = self.options if search is None else replace(self.options, search=search)
            return await self.service.translate_lines(self.job.model, [lines[row] for row in rows], options, BULK)

        return ask

    def _document(self) -> bytes:
        """Fill in the missing translations of a document, as ``dragoman translate`` does."""
        job = self.job
        assert job.content is not None
        content = job.content
        named = {"source": job.source or None, "target": job.target or None}
        document = document_of(lambda: content, job.name, kind=extension(job.name), **named)
        characters = sum(len(slot.text) for slot in document.slots if not slot.filled)

        def report(done: int, total: int) -> None:
            job.done, job.total = done, total

        guarded = document if self.safety is None else GuardedDocument(document, self.safety)
        work = partial(self.service.fill, job.model, guarded, self.options, progress=report, call=BULK)
        made = self._paid(characters, work)
        withheld = guarded.withheld if isinstance(guarded, GuardedDocument) else 0
        job.summary = {"filled": made.filled - withheld, "flagged": made.flagged, "left": made.left}
        job.summary |= {"withheld": withheld}
        return made.content

    def _paid(self, characters: int, work: Callable[[], Coroutine[Any, Any, Answer]]) -> Answer:
        """Count characters against the key and wait for the service; give them back where it refuses.

        Raises:
            Problem: the key has used up its characters, or nobody waits for the file any more.
        """
        self.job.key.count_characters(characters)
        try:
            return self._wait(work())
        except Exception as error:
            if is_refusal(error):
                self.job.key.give_back(characters)
            raise

    def _wait(self, work: Coroutine[Any, Any, Answer]) -> Answer:
        """Wait for the service, from this thread.

        Raises:
            Problem: nobody waits for the file any more.
        """
        waiting = asyncio.run_coroutine_threadsafe(work, self.loop)
        while True:
            try:
                return waiting.result(timeout=PATIENCE)
            except TimeoutError:
                if self.job.cancelled:  # the loop may have ended, and would never answer
                    waiting.cancel()
                    raise Problem(410, "cancelled", f"{self.job.name}: not wanted any more") from None
