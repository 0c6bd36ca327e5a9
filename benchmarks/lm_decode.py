"""Writing text one token at a time beside Hugging Face, CTranslate2, llama.cpp: the same weights, one interleaved run.

    OMP_NUM_THREADS=1 python benchmarks/lm_decode.py [--rounds 3] [--llama-python PYTHON]

A LLaMA of 42 million parameters with random weights (8 layers, width 512, 8 heads, feed-forward 1,408, vocabulary
32,000, output tied) is written as a run, exported to both peers, and goes on greedily from a prompt of 4 tokens for
200, one text at a time. Medians over the rounds, in tokens per CPU second; and how many of the 200 tokens are those of
dragoman in float32, up to the first that is not.

Expected: a token reads every weight once, 168 MB in float32, 84 in bfloat16, 42 in 8 bits; at the 20 GB a second or so
that one core gets from memory that is 120, 240 and 480 tokens a second, for everyone who does nothing else.

``--llama-python`` is the Python of an environment with ``pip install llama-cpp-python gguf``, which builds llama.cpp
for this processor; without it llama.cpp is left out. It is a process of its own (``peers/llama_peer.py``) that counts
its own CPU seconds.

Writes ``results/lm_decode.md`` beside this file.
"""

import argparse
import json
import platform
import statistics
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import torch
from processor import processor
from smoke import add_smoke, write_results

from dragoman.checkpoint import RunDirectory, load_model
from dragoman.config import to_dict
from dragoman.decode.precision import prepare_for_inference
from dragoman.decode.search.ranking import first_largest
from dragoman.interchange.ctranslate2 import export_ctranslate2
from dragoman.interchange.exporting import export_huggingface
from dragoman.machine import keep_memory
from dragoman.model.mlp import Gated
from dragoman.model.positions.rotary import Rotary
from dragoman.presets.language import llama
from dragoman.text.tokens.tokenizer import EOS, Tokenizer
from dragoman.text.tokens.training import Words

PROMPT = [501, 602, 703, 804]


@dataclass(frozen=True)
class Setting:
    dim: int = 512
    depth: int = 8
    heads: int = 8
    hidden: int = 1408
    vocab: int = 32_000
    tokens: int = 200


TOY = Setting(dim=32, depth=1, heads=4, hidden=64, vocab=1000, tokens=8)


def write_run(folder: Path, s: Setting) -> int:
    """A run with random weights, in which no text ends; its parameters, each counted once."""
    tokenizer = Tokenizer.train(Words(vocab=s.vocab), [f"w{i}" for i in range(s.vocab)])
    torch.manual_seed(1)
    cfg = llama(
        dim=s.dim, depth=s.depth, heads=s.heads, mlp=Gated(hidden=s.hidden), position=Rotary(), tied=True, eps=1e-5
    )
    cfg = replace(cfg, vocab=len(tokenizer))
    model = cfg.build()
    with torch.no_grad():
        model.embed.tokens.weight[: EOS + 1] = 0
        model.embed.tokens.weight.mul_(5)  # so that the likeliest token stands out, as it does in a trained model
    run = RunDirectory.create(folder, {"model": to_dict(cfg)})
    run.write_tokenizers(tokenizer, tokenizer)
    run.save(1, tensors={"model": model.state_dict()}, progress={}, config={"model": to_dict(cfg)}, best=True)
    run.close()
    return sum(p.numel() for p in model.parameters())


class Contestant(ABC):
    @abstractmethod
    def write(self, tokens: int) -> list[int]:
        """The likeliest ``tokens`` after the prompt."""

    def timed(self, tokens: int) -> tuple[float, list[int]]:
        """CPU seconds, and what was written."""
        began = time.process_time()
        said = self.write(tokens)
        return time.process_time() - began, said

    def close(self) -> None:
        return


class Ours(Contestant):
    def __init__(self, folder: Path, precision: str):
        self.model = prepare_for_inference(load_model(folder / "run")[0], "cpu", precision)

    @torch.inference_mode()
    def write(self, tokens: int) -> list[int]:
        state, given, said = self.model.start(None), torch.tensor([PROMPT]), []
        for _ in range(tokens):
            given = first_largest(self.model.decode(given, state)[:, -1])[:, None]
            said.append(int(given))
        return said


class HuggingFace(Contestant):
    def __init__(self, folder: Path, dtype: torch.dtype):
        from transformers import AutoModelForCausalLM

        self.model = AutoModelForCausalLM.from_pretrained(folder / "huggingface").eval().to(dtype)

    @torch.inference_mode()
    def write(self, tokens: int) -> list[int]:
        ids = torch.tensor([PROMPT])
        found = self.model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=tokens, do_sample=False, use_cache=True
        )
        return found[0, len(PROMPT) :].tolist()


class CTranslate2(Contestant):
    def __init__(self, folder: Path, precision: str):
        import ctranslate2

        where = folder / "ctranslate2"
        self.engine = ctranslate2.Generator(str(where), device="cpu", intra_threads=1, compute_type=precision)
        self.names = json.loads((where / "vocabulary.json").read_text())

    def write(self, tokens: int) -> list[int]:
        found = self.engine.generate_batch(
            [[self.names[i] for i in PROMPT]], max_length=tokens, sampling_topk=1, include_prompt_in_result=False
        )
        return found[0].sequences_ids[0]


class LlamaCpp(Contestant):
    def __init__(self, folder: Path, python: str, numbers: str):
        command = [python, str(Path(__file__).parent / "peers" / "llama_peer.py"), str(folder / "huggingface"), numbers]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )

    def timed(self, tokens: int) -> tuple[float, list[int]]:
        assert self.process.stdin and self.process.stdout
        print(tokens, file=self.process.stdin, flush=True)
        seconds, said = json.loads(self.process.stdout.readline())
        return seconds, said

    def write(self, tokens: int) -> list[int]:
        return self.timed(tokens)[1]

    def close(self) -> None:
        self.process.communicate(timeout=20)


CONTESTANTS = {
    "dragoman, float32": lambda folder: Ours(folder, "float32"),
    "dragoman, bfloat16": lambda folder: Ours(folder, "bfloat16"),
    "dragoman, int8": lambda folder: Ours(folder, "int8"),
    "CTranslate2, float32": lambda folder: CTranslate2(folder, "float32"),
    "CTranslate2, int8": lambda folder: CTranslate2(folder, "int8"),
    "Hugging Face, float32": lambda folder: HuggingFace(folder, torch.float32),
    "Hugging Face, bfloat16": lambda folder: HuggingFace(folder, torch.bfloat16),
}


def alike(a: list[int], b: list[int]) -> int:
    """Tokens at the beginning that are the same."""
    return next((i for i, pair in enumerate(zip(a, b, strict=False)) if pair[0] != pair[1]), min(len(a), len(b)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--llama-python", help="of an environment with llama-cpp-python and gguf")
    add_smoke(parser)
    arguments = parser.parse_args()
    setting, rounds = (TOY, 1) if arguments.smoke else (Setting(), arguments.rounds)
    torch.set_num_threads(1)
    keep_memory()  # for everyone: a setting of the process
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        parameters = write_run(folder / "run", setting)
        export_ctranslate2(folder / "run", folder / "ctranslate2")
        export_huggingface(folder / "run", folder / "huggingface")
        contestants = {name: build(folder) for name, build in CONTESTANTS.items()}
        if arguments.llama_python:
            for numbers in ("float32", "bfloat16", "int8"):
                contestants[f"llama.cpp, {numbers}"] = LlamaCpp(folder, arguments.llama_python, numbers)
        seconds: dict[str, list[float]] = {name: [] for name in contestants}
        said: dict[str, list[int]] = {}
        for contestant in contestants.values():
            contestant.write(8)  # warms up
        for _ in range(rounds):
            for name, contestant in contestants.items():
                taken, said[name] = contestant.timed(setting.tokens)
                seconds[name].append(taken)
        for contestant in contestants.values():
            contestant.close()
    lines = [
        "# Decoding speed of a language model",
        "",
        f"{parameters / 1e6:.0f} million parameters ({setting.depth} layers, width {setting.dim}, feed-forward "
        f"{setting.hidden:,}, {setting.heads} heads, vocabulary {setting.vocab:,}), random weights; {setting.tokens} "
        f"tokens greedily, one text at a time; median of {rounds} "
        "interleaved rounds. Agreement: tokens up to the first that is not dragoman's in float32.",
        "",
        f"{date.today()}; {processor()}, {torch.get_num_threads()} thread(s), Python {platform.python_version()}, "
        f"torch {torch.__version__}.",
        "",
        "| | tokens per CPU second | agreement |",
        "|---|---:|---:|",
    ]
    for name, taken in seconds.items():
        same = alike(said[name], said["dragoman, float32"])
        lines.append(f"| {name} | {setting.tokens / statistics.median(taken):,.0f} | {same} of {setting.tokens} |")
    text = "\n".join([*lines, ""])
    print(text)
    write_results("lm_decode.md", text, smoke=arguments.smoke)


if __name__ == "__main__":
    main()
