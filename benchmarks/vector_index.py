"""Nearest vectors by the library and by numpy, exactly and approximately: CPU time, and how many are found.

    python benchmarks/vector_index.py

Vectors are made up: sentences of a memory are alike in groups, so each vector is a group's centre with noise, and so
are queries. Prints a table in Markdown.
"""

import argparse
import sys
import time
from collections.abc import Callable
from datetime import date
from typing import TypeVar

import numpy as np
from processor import processor
from smoke import add_smoke, write_results

from dragoman.text import vector_index
from dragoman.text.vector_index import VectorIndex, load_library

T = TypeVar("T")
NEAREST = 32
"""Candidates of a sentence by default."""


def cpu_seconds(do: Callable[[], T]) -> tuple[float, T]:
    began = time.process_time()
    made = do()
    return time.process_time() - began, made


def directed(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def compare(args: argparse.Namespace) -> str:
    draw = np.random.default_rng(1)
    centres = draw.normal(size=(max(1, args.vectors // 50), args.width)).astype(np.float32)

    def some(count: int) -> np.ndarray:
        chosen = centres[draw.integers(len(centres), size=count)]
        return directed(chosen + args.noise * draw.normal(size=chosen.shape).astype(np.float32))

    vectors, queries = some(args.vectors), some(args.queries)
    library, rows, reference = sys.modules.get("faiss") or load_library(), [], None
    for name, faiss, approximate in (("numpy", None, False), ("faiss", library, False), ("faiss", library, True)):
        if faiss is None and name == "faiss":
            continue
        sys.modules["faiss"] = faiss  # None: as if it were not installed
        building, index = cpu_seconds(lambda approximate=approximate: VectorIndex(vectors, approximate=approximate))
        together, found = cpu_seconds(lambda index=index: index.nearest(queries, NEAREST))
        alone, _ = cpu_seconds(lambda index=index: [index.nearest(query[None], NEAREST) for query in queries[:50]])
        reference = reference or found
        hits = sum(len({*a.tolist()} & {*b.tolist()}) for (a, _), (b, _) in zip(found, reference, strict=True))
        rows.append(
            f"| {name}, {'exact' if index.exact else 'approximate'} | {building:.1f} | "
            f"{1000 * together / len(queries):.2f} | {1000 * alone / min(50, len(queries)):.2f} | "
            f"{hits / (len(queries) * min(NEAREST, len(vectors))):.1%} |"
        )
    return "\n".join(
        [
            "# Nearest vectors (benchmarks/vector_index.py)",
            "",
            f"{date.today()}, {processor()}, one thread, on a machine that others use: CPU time. {len(vectors):,} "
            f"vectors of width {args.width} in groups of about 50, {len(queries):,} queries, {NEAREST} nearest.",
            "",
            "| search | s to build | ms for a query, of many | ms for a query alone | found of the nearest |",
            "|---|---|---|---|---|",
            *rows,
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--vectors", type=int, default=300_000)
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--noise", type=float, default=1.0, help="of a vector, relative to its group's centre")
    add_smoke(parser)
    args = parser.parse_args()
    if args.smoke:
        args.vectors, args.queries, vector_index.FEW = 500, 5, 100
    table = compare(args)
    print(table)
    write_results("vector_index.md", table, smoke=args.smoke)


if __name__ == "__main__":
    main()
