"""CTranslate2 behind HTTP, with batches made of whatever waits: the peer of ``benchmarks/serve.py``.

    python benchmarks/peers/ctranslate2_server.py RUN EXPORTED --port 8001 --precision int8 --beam 5

One thread translates: it takes all texts that wait, at most ``MOST``, and starts again when all of them are done. Our
tokenizers give it its tokens and read those that it returns. The server is the same (uvicorn with starlette).
"""

import argparse
import asyncio
import json
import queue
import threading
from pathlib import Path

import ctranslate2
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from dragoman.checkpoint import RunDirectory

MOST = 64
"""Most texts translated together."""


class Batches:
    """Translates what waits, in one thread."""

    def __init__(self, run: Path, exported: Path, precision: str, beam: int):
        self.engine = ctranslate2.Translator(
            str(exported), device="cpu", intra_threads=1, inter_threads=1, compute_type=precision
        )
        self.beam = beam
        self.source, self.target = RunDirectory.open(run).tokenizers()
        self.tokens = json.loads(next(exported.glob("*vocabulary.json")).read_text())
        self.ids = {token: i for i, token in enumerate(self.tokens)}
        self.waiting: queue.SimpleQueue = queue.SimpleQueue()
        threading.Thread(target=self.run, daemon=True).start()

    def run(self) -> None:
        while True:
            taken = [self.waiting.get()]
            while len(taken) < MOST and not self.waiting.empty():
                taken.append(self.waiting.get())
            rows = [[self.tokens[i] for i in row] for row in self.source.encode_batch([text for text, _, _ in taken])]
            results = self.engine.translate_batch(rows, beam_size=self.beam, max_batch_size=MOST)
            ids = [[self.ids[token] for token in result.hypotheses[0]] for result in results]
            for (_, loop, future), text in zip(taken, self.target.decode_batch(ids), strict=True):
                loop.call_soon_threadsafe(future.set_result, text)

    async def translate(self, text: str) -> str:
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        self.waiting.put((text, loop, future))
        return await future


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("exported", type=Path)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--beam", type=int, default=5)
    given = parser.parse_args()
    batches = Batches(given.run, given.exported, given.precision, given.beam)

    async def translate(request: Request) -> JSONResponse:
        return JSONResponse({"translations": [{"text": await batches.translate((await request.json())["text"])}]})

    app = Starlette(routes=[Route("/api/translate", translate, methods=["POST"])])
    uvicorn.run(app, port=given.port, log_level="error", access_log=False)


if __name__ == "__main__":
    main()
