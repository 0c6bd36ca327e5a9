"""A language model served under load, beside llama.cpp's server: the same weights, one interleaved run.

    python benchmarks/serve_lm.py --llama-python PYTHON [--seconds 8] [--rounds 2] [--precision float32 int8]

A LLaMA of 16 million parameters with random weights (8 layers, width 384, vocabulary 6,000) is written as a run and
exported to GGUF. Both servers answer ``/v1/completions`` as streams: 64 tokens after a prompt of 5 to 40 words, the
likeliest each. They run on one core, the clients on another. 1, 8 and 64 clients each send a prompt when the last one
is answered. Rounds alternate between the servers.

``--llama-python`` is the Python of an environment with ``pip install 'llama-cpp-python[server]'``, which builds
llama.cpp for this processor. ``llama_cpp.server`` answers one request after the other. Without it only ours is
measured.

Expected: rows of a batch share the reading of the weights, so that many clients get far more tokens together than one.

Writes ``results/serve_lm.md`` beside this file.
"""

import argparse
import asyncio
import contextlib
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path

import torch
from processor import processor
from serve import free_port
from smoke import add_smoke, write_results

from dragoman.checkpoint import RunDirectory
from dragoman.config import to_dict
from dragoman.interchange.gguf import export_gguf
from dragoman.model.mlp import Gated
from dragoman.model.positions.rotary import Rotary
from dragoman.presets.language import llama
from dragoman.text.tokens.tokenizer import EOS, Tokenizer
from dragoman.text.tokens.training import Bpe

CLIENTS, NAME = (1, 8, 64), "lm"
QUANTIZED = {"float32": None, "int8": "q8_0"}
"""What llama.cpp calls each precision; None for float32."""


@dataclass(frozen=True)
class Setting:
    """Sizes of the model and of its answers."""

    dim: int = 384
    depth: int = 8
    heads: int = 6
    hidden: int = 1024
    vocab: int = 6000
    tokens: int = 64


TOY = Setting(dim=32, depth=1, heads=2, hidden=64, vocab=400, tokens=4)


# ---- the model --------------------------------------------------------------------------------------


def words(number: int) -> list[str]:
    """Return made-up words."""
    draw = random.Random(1)
    return [
        "".join(draw.choice("bdfklmnprstv") + draw.choice("aeiou") for _ in range(draw.randint(1, 4)))
        for _ in range(number)
    ]


def prompts(number: int) -> list[str]:
    """Return prompts of 5 to 40 words."""
    draw, known = random.Random(2), words(3000)
    return [" ".join(draw.choices(known, k=draw.randint(5, 40))) for _ in range(number)]


def write_run(folder: Path, s: Setting) -> int:
    """Write a run with random weights in which no text ends; return the number of its parameters."""
    text = words(30_000)
    tokenizer = Tokenizer.train(Bpe(vocab=s.vocab), [" ".join(text[i : i + 20]) for i in range(0, len(text), 20)])
    torch.manual_seed(1)
    cfg = llama(
        dim=s.dim, depth=s.depth, heads=s.heads, mlp=Gated(hidden=s.hidden), position=Rotary(), tied=True, eps=1e-5
    )
    cfg = replace(cfg, vocab=len(tokenizer))
    model = cfg.build()
    with torch.no_grad():
        model.embed.tokens.weight[: EOS + 1] = 0
        model.embed.tokens.weight.mul_(5)  # so that the likeliest token stands out, as it does in a trained model
    config = {"task": {"kind": "language_modelling"}, "model": to_dict(cfg)}
    run = RunDirectory.create(folder, config)
    run.write_tokenizers(tokenizer, tokenizer)
    run.save(1, tensors={"model": model.state_dict()}, progress={}, config=config, best=True)
    run.close()
    return sum(p.numel() for p in model.parameters())


# ---- clients ----------------------------------------------------------------------------------------


@dataclass
class Load:
    """What one load of requests showed."""

    seconds: float = 0.0
    delays: list[float] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    """Seconds to the first token of each answer."""
    texts: dict[str, str] = field(default_factory=dict)
    """Answers by their prompts."""

    def percentile(self, share: float) -> float:
        return sorted(self.delays)[min(len(self.delays) - 1, int(share * len(self.delays)))]


async def ask(port: int, prompt: str, tokens: int, load: Load) -> None:
    """Send a prompt, and read the stream."""
    began, first, text = time.perf_counter(), None, ""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    asked = {"model": NAME, "prompt": prompt, "max_tokens": tokens, "temperature": 0, "stream": True, "top_k": 1}
    body = json.dumps(asked).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    writer.write(head.encode() + b"\r\nConnection: close\r\n\r\n" + body)
    status = await reader.readline()
    if b" 200 " not in status:
        raise RuntimeError((status + await reader.read()).decode())
    while line := await reader.readline():
        if line.startswith(b"data: {"):
            text += json.loads(line[6:])["choices"][0].get("text") or ""
            first = first or (text and time.perf_counter() - began)
        elif line.startswith(b"data: [DONE]"):
            break
    writer.close()
    load.delays.append(time.perf_counter() - began)
    load.first.append(first or load.delays[-1])
    load.texts[prompt] = text


async def closed_loop(port: int, clients: int, tokens: int, seconds: float) -> Load:
    """Each client sends a prompt when its last one is answered."""
    load, end, given = Load(), time.perf_counter() + seconds, prompts(400)
    draw = random.Random(clients)

    async def send() -> None:
        while time.perf_counter() < end:
            await ask(port, draw.choice(given), tokens, load)

    began = time.perf_counter()
    await asyncio.gather(*(send() for _ in range(clients)))
    load.seconds = time.perf_counter() - began
    return load


# ---- servers ----------------------------------------------------------------------------------------


@contextlib.contextmanager
def server(command: Sequence[str], port: int, core: int) -> Iterator[None]:
    """Run a server on one core, and wait until it answers."""
    process = subprocess.Popen(
        [*command, "--port", str(port)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
    )
    try:
        while True:
            if process.poll() is not None:
                raise RuntimeError(f"{command[:3]}: the server has ended with {process.returncode}")
            with contextlib.suppress(OSError):
                asyncio.run(ask(port, "ba", 1, Load()))
                break
            time.sleep(0.1)
        yield
    finally:
        process.terminate()
        process.wait(30)


def commands(folder: Path, precision: str, llama_python: str | None) -> dict[str, list[str]]:
    """Return the command of each server."""
    found = {"dragoman": [sys.executable, "-m", "dragoman", "serve", f"{NAME}={folder / 'run'}"]}
    found["dragoman"] += ["--precision", precision]
    if llama_python:
        gguf = folder / precision
        export_gguf(folder / "run", gguf, quantization=QUANTIZED[precision], check=False)
        options = ["--model", str(gguf / "model.gguf"), "--model_alias", NAME, "--n_ctx", "512", "--n_threads", "1"]
        options += ["--n_threads_batch", "1", "--interrupt_requests", "False", "--host", "127.0.0.1"]
        found["llama.cpp"] = [llama_python, "-m", "llama_cpp.server", *options]
    return found


def measure(
    folder: Path, precision: str, s: Setting, seconds: float, rounds: int, clients: Sequence[int], python: str | None
) -> str:
    """Return the table of one precision."""
    cores = sorted(os.sched_getaffinity(0))
    found: dict[tuple[str, int], list[Load]] = {}
    with contextlib.ExitStack() as stack:
        ports = {}
        for name, command in commands(folder, precision, python).items():
            ports[name] = free_port()
            stack.enter_context(server(command, ports[name], cores[0]))
        os.sched_setaffinity(0, {cores[-1]})
        for _ in range(rounds):
            for n in clients:
                for name, port in ports.items():
                    load = asyncio.run(closed_loop(port, n, s.tokens, seconds))
                    found.setdefault((name, n), []).append(load)
    os.sched_setaffinity(0, cores)
    return "\n".join([*table(found, s), "", *agreement(found)])


def table(found: dict[tuple[str, int], list[Load]], s: Setting) -> list[str]:
    lines = [
        "| clients | server | requests/s | tokens/s | p50 ms | p95 ms | p99 ms | first token, p50 ms |",
        "|---:|---|---:|---:|---:|---:|---:|---:|",
    ]
    for (name, n), loads in sorted(found.items(), key=lambda item: (item[0][1], item[0][0])):
        rate = statistics.median(len(one.delays) / one.seconds for one in loads)
        middle = [statistics.median(1000 * one.percentile(share) for one in loads) for share in (0.5, 0.95, 0.99)]
        first = 1000 * statistics.median(statistics.median(one.first) for one in loads)
        delays = " | ".join(f"{ms:,.0f}" for ms in middle)
        lines.append(f"| {n} | {name} | {rate:.1f} | {rate * s.tokens:,.0f} | {delays} | {first:,.0f} |")
    return lines


def agreement(found: dict[tuple[str, int], list[Load]]) -> list[str]:
    """Say how many prompts got the same answer in every load, and from both servers."""
    answers: dict[str, dict[str, set[str]]] = {}
    for (name, _), loads in found.items():
        for load in loads:
            for prompt, text in load.texts.items():
                answers.setdefault(name, {}).setdefault(prompt, set()).add(text)
    steady = sum(len(texts) == 1 for texts in answers["dragoman"].values())
    lines = [
        f"Prompts that `dragoman serve` answered alike in every load: {steady} of {len(answers['dragoman'])}.",
    ]
    if theirs := answers.get("llama.cpp"):
        both = answers["dragoman"].keys() & theirs.keys()
        same = sum(answers["dragoman"][prompt] == theirs[prompt] for prompt in both)
        lines.append(f"Prompts that both servers answered with the same text: {same} of {len(both)}.")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--precision", nargs="+", default=["float32", "int8"], choices=QUANTIZED)
    parser.add_argument("--llama-python", help="of an environment with llama-cpp-python[server]")
    add_smoke(parser)
    given = parser.parse_args()
    torch.set_num_threads(1)
    s, seconds, rounds, clients = Setting(), given.seconds, given.rounds, CLIENTS
    if given.smoke:
        s, seconds, rounds, clients = TOY, 0.2, 1, (1, 4)
    with tempfile.TemporaryDirectory() as folder:
        parameters = write_run(Path(folder) / "run", s)
        parts = [
            "# A language model served under load",
            f"{date.today()}; {processor()}, one core for the server and one for the clients, load "
            f"{os.getloadavg()[0]:.1f} before, Python {platform.python_version()}, torch {torch.__version__}; "
            f"{parameters / 1e6:.1f} million parameters, {s.tokens} tokens an answer; medians of {rounds} alternating "
            f"rounds of {seconds:g} s.",
        ]
        for precision in given.precision[: 1 if given.smoke else None]:
            parts.append(f"## {precision}")
            parts.append(measure(Path(folder), precision, s, seconds, rounds, clients, given.llama_python))
            print("\n\n".join(parts[-2:]), flush=True)
    write_results("serve_lm.md", "\n\n".join(parts), smoke=given.smoke)


if __name__ == "__main__":
    main()
