"""Decoding speed beside CTranslate2 and Hugging Face transformers: the same weights, one interleaved run.

    OMP_NUM_THREADS=1 python benchmarks/decode.py [--rounds 5] [--size small|base]

A post-norm encoder-decoder with random weights (small: 3 + 3 layers, width 256, feed-forward 1,024, 4 heads; base:
6 + 6, 512, 2,048, 8; one vocabulary of 8,000) is written as a run, exported to both peers, and searched for 16 tokens
from sources of 16, greedily and with beam 5, one sentence at a time and 64 together. No row of its output matrix lets a
sentence end, so everyone makes 16 steps. One batch of each contestant follows one of the next; medians over the rounds,
in sentences per CPU second. First-token latency is that of one sentence and one token.

The outputs are compared: in float32, greedy tokens must be the peers' (all but near ties), and our best of a beam must
be among the five of theirs.

Expected: products of the small model are 15 GFLOP for 64 sentences, greedy, and 55 with beam 5. On a core of 255
GFLOP a second in float32, 500 in bfloat16 and 1,000 in 8 bits that is 60, 30 and 15 ms (4,200 sentences a second at
most) and 215, 110 and 55 ms; a third of it again for all else. One sentence is bound by reading the weights of the
decoder, 19, 10 or 5 MB a token, from the cache: 0.3, 0.15 and 0.1 ms. Last, where the time of our 8 bits goes.

Writes ``results/decode_SIZE.md`` beside this file.
"""

import argparse
import gc
import json
import multiprocessing
import platform
import resource
import statistics
import tempfile
import time
from abc import ABC, abstractmethod
from dataclasses import replace
from datetime import date
from pathlib import Path

import torch
from processor import processor
from smoke import add_smoke, write_results
from where import time_of_decoding

from dragoman.checkpoint import RunDirectory, load_model
from dragoman.config import to_dict
from dragoman.decode.precision import prepare_for_inference
from dragoman.decode.search.beam import Beam
from dragoman.decode.search.greedy import Greedy
from dragoman.decode.search.search import search
from dragoman.decode.search.strategy import LengthLimit
from dragoman.interchange.ctranslate2 import export_ctranslate2
from dragoman.interchange.exporting import export_huggingface
from dragoman.machine import keep_memory
from dragoman.presets import vaswani2017
from dragoman.text.tokens.tokenizer import EOS, Tokenizer
from dragoman.text.tokens.training import Words

SIZES = {
    "small": {"dim": 256, "heads": 4, "hidden": 1024, "depth": 3},
    "base": {"dim": 512, "heads": 8, "hidden": 2048, "depth": 6},
    "toy": {"dim": 32, "heads": 4, "hidden": 64, "depth": 1},
}
VOCAB, LENGTH = 8000, 16
WORK = [(64, 1), (64, 5), (1, 1), (1, 5)]
"""Sentences together, and beam."""


def write_run(folder: Path, size: str) -> None:
    """A run with random weights, in which no sentence ends."""
    tokenizer = Tokenizer.train(Words(vocab=VOCAB), [f"w{i}" for i in range(VOCAB)])
    torch.manual_seed(1)
    cfg = replace(vaswani2017(**SIZES[size]), vocab=len(tokenizer))
    model = cfg.build()
    with torch.no_grad():
        model.embed.tokens.weight[: EOS + 1] = 0
    run = RunDirectory.create(folder, {"model": to_dict(cfg)})
    run.write_tokenizers(tokenizer, tokenizer)
    run.save(1, tensors={"model": model.state_dict()}, progress={}, config={"model": to_dict(cfg)}, best=True)
    run.close()


def sources(count: int, number: int) -> torch.Tensor:
    ids = torch.randint(300, VOCAB - 1, (count, LENGTH), generator=torch.Generator().manual_seed(number))
    ids[:, -1] = EOS
    return ids


# ---- the contestants --------------------------------------------------------------------------------


class Contestant(ABC):
    @abstractmethod
    def search(self, source: torch.Tensor, beam: int, tokens: int = LENGTH) -> list[list[list[int]]]:
        """For each sentence the tokens of its ``beam`` best, the best one first."""


class Ours(Contestant):
    def __init__(self, folder: Path, precision: str):
        self.model = prepare_for_inference(load_model(folder / "run")[0], "cpu", precision)

    def search(self, source: torch.Tensor, beam: int, tokens: int = LENGTH) -> list[list[list[int]]]:
        limit = LengthLimit(tokens=tokens)
        cfg = Greedy(limit=limit) if beam == 1 else Beam(size=beam, nbest=beam, limit=limit)
        return [[list(h.tokens) for h in some] for some in search(self.model, source, cfg)]


class CTranslate2(Contestant):
    def __init__(self, folder: Path, precision: str):
        import ctranslate2

        self.translator = ctranslate2.Translator(
            str(folder / "ctranslate2"), device="cpu", intra_threads=1, inter_threads=1, compute_type=precision
        )
        self.tokens = json.loads((folder / "ctranslate2" / "shared_vocabulary.json").read_text())
        self.ids = {token: i for i, token in enumerate(self.tokens)}

    def search(self, source: torch.Tensor, beam: int, tokens: int = LENGTH) -> list[list[list[int]]]:
        rows = [[self.tokens[i] for i in row[:-1]] for row in source.tolist()]  # it adds the end itself
        found = self.translator.translate_batch(
            rows, beam_size=beam, num_hypotheses=beam, max_batch_size=0, max_decoding_length=tokens
        )
        return [[[self.ids[token] for token in h] for h in one.hypotheses] for one in found]


class HuggingFace(Contestant):
    def __init__(self, folder: Path, dtype: torch.dtype = torch.float32):
        from transformers import MarianMTModel

        self.model = MarianMTModel.from_pretrained(folder / "huggingface").eval().to(dtype)

    @torch.inference_mode()
    def search(self, source: torch.Tensor, beam: int, tokens: int = LENGTH) -> list[list[list[int]]]:
        found = self.model.generate(
            input_ids=source, num_beams=beam, num_return_sequences=beam, max_new_tokens=tokens, do_sample=False
        )
        return found[:, 1:].view(len(source), beam, -1).tolist()


CONTESTANTS = {
    "dragoman, float32": lambda folder: Ours(folder, "float32"),
    "dragoman, bfloat16": lambda folder: Ours(folder, "bfloat16"),
    "dragoman, int8": lambda folder: Ours(folder, "int8"),
    "CTranslate2, float32": lambda folder: CTranslate2(folder, "float32"),
    "CTranslate2, int8": lambda folder: CTranslate2(folder, "int8"),
    "Hugging Face, float32": HuggingFace,
    "Hugging Face, bfloat16": lambda folder: HuggingFace(folder, torch.bfloat16),
}


# ---- what is measured -------------------------------------------------------------------------------


def cpu_seconds(contestant: Contestant, source: torch.Tensor, beam: int, tokens: int = LENGTH) -> float:
    began = time.process_time()
    contestant.search(source, beam, tokens)
    return time.process_time() - began


def speeds(contestants: dict[str, Contestant], rounds: int) -> dict[tuple[str, int, int], float]:
    """Sentences per CPU second of each contestant, batch size and beam; and first tokens, for a beam of 0."""
    seconds: dict[tuple[str, int, int], list[float]] = {}
    for number in range(rounds + 1):
        for batch, beam in [*WORK, (1, 0)]:
            repeats = 1 if batch > 1 else 8
            source = sources(batch, number)
            for name, contestant in contestants.items():
                taken = min(cpu_seconds(contestant, source, beam or 1, LENGTH if beam else 1) for _ in range(repeats))
                if number:  # the first round warms up
                    seconds.setdefault((name, batch, beam), []).append(taken)
    return {key: key[1] / statistics.median(taken) for key, taken in seconds.items()}


def agreement(contestants: dict[str, Contestant]) -> dict[str, tuple[float, float]]:
    """Of 64 sentences, the share whose greedy tokens are ours in float32, and whose five best hold our best one."""
    source, kept = sources(64, 99), LENGTH - 1  # our last token is an end that the limit forces
    ours = contestants["dragoman, float32"]
    greedy, best = ([some[0][:kept] for some in ours.search(source, beam)] for beam in (1, 5))
    found = {}
    for name, contestant in contestants.items():
        same = [some[0][:kept] == mine for some, mine in zip(contestant.search(source, 1), greedy, strict=True)]
        five = [mine in [h[:kept] for h in some] for some, mine in zip(contestant.search(source, 5), best, strict=True)]
        found[name] = sum(same) / len(same), sum(five) / len(five)
    return found


def peak_memory(name: str, folder: Path) -> float:
    """What a process of its own takes for loading and searching 64 sentences with beam 5, in MB, libraries left out."""
    torch.set_num_threads(1)
    CONTESTANTS[name](folder).search(sources(1, 1), 1)  # loads libraries, and is thrown away
    gc.collect()
    before = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    contestant = CONTESTANTS[name](folder)
    contestant.search(sources(64, 1), 5)
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return (int(peak.split()[1]) * 1024 - before) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", choices=["small", "base"], default="small")
    add_smoke(parser)
    arguments = parser.parse_args()
    size, rounds = ("toy", 1) if arguments.smoke else (arguments.size, arguments.rounds)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_run(folder / "run", size)
        export_ctranslate2(folder / "run", folder / "ctranslate2")
        export_huggingface(folder / "run", folder / "huggingface")
        memory = {name: 0.0 for name in CONTESTANTS} if arguments.smoke else peaks(folder)
        keep_memory()  # for everyone: a setting of the process
        contestants = {name: build(folder) for name, build in CONTESTANTS.items()}
        agreed = agreement(contestants)
        for name in ("CTranslate2, float32", "Hugging Face, float32"):
            assert min(agreed[name]) >= 0.95, f"{name} says something else: {agreed[name]}"
        measured = speeds(contestants, rounds)
        ours = contestants["dragoman, int8"]
        assert isinstance(ours, Ours)
        where = "In int8. " + time_of_decoding(ours.model, 64, LENGTH, lambda: ours.search(sources(64, 1), 1))
    text = report(size, rounds, measured, agreed, memory, where)
    print(text)
    write_results(f"decode_{size}.md", text, smoke=arguments.smoke)


def peaks(folder: Path) -> dict[str, float]:
    """Return the median of three processes: what the allocator gets from the first search varies."""
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        found = {name: [pool.apply(peak_memory, (name, folder)) for _ in range(3)] for name in CONTESTANTS}
    return {name: statistics.median(some) for name, some in found.items()}


def report(size: str, rounds: int, measured: dict, agreed: dict, memory: dict[str, float], where: str) -> str:
    parts = SIZES[size]
    lines = [
        f"# Decoding speed, {size}",
        "",
        f"{parts['depth']} + {parts['depth']} layers, width {parts['dim']}, feed-forward {parts['hidden']:,}, "
        f"{parts['heads']} heads, vocabulary {VOCAB:,}, random weights; {LENGTH} tokens from sources of {LENGTH}; "
        f"median of {rounds} interleaved rounds, in sentences per CPU second (times {LENGTH} for tokens). Agreement: "
        "greedy tokens the same as dragoman's in float32 / dragoman's best of beam 5 among the five.",
        "",
        f"{date.today()}; {processor()}, {torch.get_num_threads()} thread(s), Python {platform.python_version()}, "
        f"torch {torch.__version__}.",
        "",
        "| | 64, greedy | 64, beam 5 | 1, greedy | 1, beam 5 | first token, ms | peak memory, MB | agreement |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name in CONTESTANTS:
        rates = " | ".join(f"{measured[name, batch, beam]:,.0f}" for batch, beam in WORK)
        same, five = agreed[name]
        lines.append(
            f"| {name} | {rates} | {1000 / measured[name, 1, 0]:.2f} | {memory[name]:,.0f} | {same:.0%} / {five:.0%} |"
        )
    return "\n".join([*lines, "", where, ""])


if __name__ == "__main__":
    main()
