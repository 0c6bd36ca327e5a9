"""Translating real text beside CTranslate2: the same trained model, texts in, texts out, one interleaved run.

    OMP_NUM_THREADS=1 python benchmarks/translate.py RUN [--rounds 3]

The run is exported to CTranslate2. Both sides then translate its test set (sentences end where they end, batches are
made by length), greedily and with beam 5: all of it in batches of 64, and the first hundred texts one by one.
CTranslate2 gets its tokens from our tokenizers and gives them back, so that both do all of the work. Medians over the
rounds, in texts per CPU second; and the share of texts whose translation is the one of dragoman in float32.

Expected: as in ``decode.py``; what batches of unequal texts cost comes on top.

Writes ``results/translate.md`` beside this file.
"""

import argparse
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import torch
from processor import processor
from smoke import add_smoke, run_of, write_results

from dragoman.decode.translator import Translator
from dragoman.interchange.ctranslate2 import export_ctranslate2
from dragoman.text.formats.pairs import JsonLines, read_pairs

BATCH, ALONE = 64, 100
Translate = Callable[[list[str], int, int], list[str]]
"""Texts, how many of them together, beam."""


def ours(run: Path, precision: str) -> Translate:
    translator = Translator.load(run, device="cpu", precision=precision)

    def translate(texts: list[str], together: int, beam: int) -> list[str]:
        if together == 1:
            return [translator.translate([text], beam=beam)[0].text for text in texts]
        longest = max(len(ids) + 1 for ids in translator.source_tokenizer.encode_batch(texts))
        return [t.text for t in translator.translate(texts, beam=beam, batch_tokens=together * longest * beam)]

    return translate


def ctranslate2(run: Path, folder: Path, precision: str) -> Translate:
    import ctranslate2

    engine = ctranslate2.Translator(str(folder), device="cpu", intra_threads=1, inter_threads=1, compute_type=precision)
    tokenizers = Translator.load(run, device="cpu")
    source, target = tokenizers.source_tokenizer, tokenizers.target_tokenizer
    tokens = json.loads(next(folder.glob("*vocabulary.json")).read_text())
    ids = {token: i for i, token in enumerate(tokens)}

    def translate(texts: list[str], together: int, beam: int) -> list[str]:
        rows = [[tokens[i] for i in row] for row in source.encode_batch(texts)]
        groups = [rows] if together > 1 else [[row] for row in rows]
        found = [
            one
            for group in groups
            for one in engine.translate_batch(group, beam_size=beam, max_batch_size=together, max_decoding_length=300)
        ]
        return target.decode_batch([[ids[token] for token in one.hypotheses[0]] for one in found])

    return translate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path, nargs="?")
    parser.add_argument("--rounds", type=int, default=3)
    add_smoke(parser)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with run_of(parser, arguments) as run:
        text = compare(run, 1 if arguments.smoke else arguments.rounds)
    print(text)
    write_results("translate.md", text, smoke=arguments.smoke)


def compare(run: Path, rounds: int) -> str:
    texts = [pair.source for pair in read_pairs(JsonLines(path=str(run / "data" / "test.jsonl")))]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "model"
        export_ctranslate2(run, folder)
        contestants = {
            "dragoman, float32": ours(run, "float32"),
            "dragoman, int8": ours(run, "int8"),
            "CTranslate2, float32": ctranslate2(run, folder, "float32"),
            "CTranslate2, int8": ctranslate2(run, folder, "int8"),
        }
        work = [(BATCH, 1), (BATCH, 5), (1, 1), (1, 5)]
        seconds: dict[tuple[str, int, int], list[float]] = {}
        said: dict[tuple[str, int], list[str]] = {}
        for number in range(rounds + 1):
            for together, beam in work:
                for name, translate in contestants.items():
                    some = texts if together > 1 else texts[:ALONE]
                    began = time.process_time()
                    found = translate(some, together, beam)
                    if together > 1:
                        said[name, beam] = found
                    if number:  # the first round warms up
                        seconds.setdefault((name, together, beam), []).append((time.process_time() - began) / len(some))
    return report(run.name, len(texts), rounds, seconds, said)


def report(run: str, texts: int, rounds: int, seconds: dict, said: dict) -> str:
    lines = [
        "# Translating real text",
        "",
        f"{run}, its {texts:,} held-out texts, in batches of {BATCH} and (the first {ALONE}) one by one; texts per CPU "
        f"second, median of {rounds} interleaved rounds. The same: share of the texts in batches whose translation is "
        "that of dragoman in float32, greedy / beam 5 (length penalties and stop rules differ between the two).",
        "",
        f"{date.today()}; {processor()}, {torch.get_num_threads()} thread(s), Python {platform.python_version()}, "
        f"torch {torch.__version__}.",
        "",
        f"| | {BATCH}, greedy | {BATCH}, beam 5 | 1, greedy | 1, beam 5 | the same |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name in dict.fromkeys(key[0] for key in seconds):
        rates = " | ".join(
            f"{1 / statistics.median(seconds[name, together, beam]):,.0f}"
            for together, beam in ((BATCH, 1), (BATCH, 5), (1, 1), (1, 5))
        )
        same = " / ".join(
            f"{sum(map(str.__eq__, said[name, beam], said['dragoman, float32', beam])) / texts:.1%}" for beam in (1, 5)
        )
        lines.append(f"| {name} | {rates} | {same} |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
