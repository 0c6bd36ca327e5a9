"""Output of ``dragoman data``: tables, bars, examples."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dragoman.cli.terminal import console

if TYPE_CHECKING:
    from rich.table import Table

    from dragoman.text.cleaning.summary import SideSummary, Summary
    from dragoman.text.lines import Pair

BAR = 24
"""Characters in the longest bar of a histogram."""
FREQUENT = 30
"""Number of characters shown."""


def _table(*columns: str) -> "Table":
    """Return a table without lines; the first column left-aligned, the others right-aligned."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for i, column in enumerate(columns):
        table.add_column(column, justify="right" if i else "left")
    return table


# ---- removed, split and mixed pairs ---------------------------------------------------------------


def show_removed(
    report: object, removed: Mapping[str, int], examples: "Mapping[str, Sequence[tuple[Pair, ...]]]"
) -> None:
    """Show a row for each rule, then examples of removed pairs; near duplicates with the pair they are like."""
    from rich.markup import escape

    table = _table("rule", "removed")
    for rule, count in removed.items():
        table.add_row(rule, f"{count:,}" if count else "[dim]0[/dim]")
    screen = console()
    screen.print(table)
    for rule, shown in examples.items():
        for group in shown:
            first, *others = dict.fromkeys(map(_shortened, group))
            screen.print(f"[dim]{rule}:[/dim] {escape(first)}", soft_wrap=True)
            for other in others:
                screen.print(f"[dim]  is like[/dim] {escape(other)}", soft_wrap=True)
    screen.print(str(report), soft_wrap=True, markup=False)


def _shortened(pair: "Pair") -> str:
    return " | ".join(text if len(text) <= 70 else f"{text[:67]}..." for text in (pair.source, pair.target))


def show_split(read: int, sizes: Mapping[str, int], removed: Mapping[str, int]) -> None:
    table = _table("", "pairs")
    for name, count in sizes.items():
        table.add_row(name, f"{count:,}")
    for why, count in removed.items():
        table.add_row(f"left out: {why}", f"{count:,}")
    table.add_row("read", f"{read:,}")
    console().print(table)


def show_mixture(names: Sequence[str], sizes: Sequence[int], taken: Sequence[int]) -> None:
    from rich.markup import escape

    table = _table("source", "pairs", "taken", "share", "times")
    for name, size, count in zip(names, sizes, taken, strict=True):
        table.add_row(escape(name), f"{size:,}", f"{count:,}", f"{count / sum(taken):.1%}", f"{count / size:.2f}")
    console().print(table)


# ---- summaries ------------------------------------------------------------------------------------


def show_summary(summary: "Summary") -> None:
    from dragoman.text.cleaning.summary import percentile, total

    screen = console()
    counts = _table("", "source", "target")
    sides = (summary.source, summary.target)
    rows: list[tuple[str, list[int]]] = [
        ("different texts", [side.different for side in sides]),
        ("empty", [side.empty for side in sides]),
        ("characters", [total(side.lengths) for side in sides]),
        ("  in a text: median", [percentile(side.lengths, 0.5) for side in sides]),
        ("  in a text: 99% have at most", [percentile(side.lengths, 0.99) for side in sides]),
        ("  in a text: longest", [percentile(side.lengths, 1.0) for side in sides]),
        ("words between spaces", [total(side.words) for side in sides]),
        ("different characters", [len(side.characters) for side in sides]),
    ]
    for name, numbers in rows:
        counts.add_row(name, *(f"{number:,}" for number in numbers))
    screen.print(
        _pairs_table(summary), "", counts, "", _lengths_table(summary), "", _ratio_table(summary), "", sep="\n"
    )
    for name, side in (("source", summary.source), ("target", summary.target)):
        screen.print(f"[bold]{name}[/bold] {_letters(side)}", soft_wrap=True)


def _pairs_table(summary: "Summary") -> "Table":
    table = _table("pairs", f"{summary.pairs:,}", "")
    for name, count in (
        ("duplicates", summary.duplicates),
        ("copies (both sides the same)", summary.copies),
        ("conflicts (another target for a known source)", summary.conflicts),
        ("untidy (cleaning would change spaces or accents)", summary.untidy),
    ):
        table.add_row(name, f"{count:,}", f"{count / max(1, summary.pairs):.1%}")
    return table


def _lengths_table(summary: "Summary") -> "Table":
    from dragoman.text.cleaning.summary import histogram

    table = _table("words", "source", "", "target", "")
    bars = [{(low, high): count for low, high, count in histogram(s.words)} for s in (summary.source, summary.target)]
    table.columns[2].justify = table.columns[4].justify = "left"
    for low, high in max(bars, key=len):
        cells = []
        for side in bars:
            count = side.get((low, high), 0)
            cells += [f"{count:,}", _bar(count, max(side.values(), default=1))]
        table.add_row(f"{low}" if low == high else f"{low} to {high}", *cells)
    return table


def _ratio_table(summary: "Summary") -> "Table":
    from dragoman.text.cleaning.summary import RATIOS

    table = _table("target / source, in characters", "pairs", "")
    table.columns[2].justify = "left"
    edges = ["", *(f"{edge:g}" for edge in RATIOS), ""]
    for i, count in enumerate(summary.ratios):
        low, high = edges[i], edges[i + 1]
        name = f"{low} to {high}" if low and high else f"below {high}" if high else f"{low} and more"
        table.add_row(name, f"{count:,}", _bar(count, max(summary.ratios)))
    table.add_row(f"mean {summary.ratio:.2f}; deviation of its logarithm {summary.deviation:.2f}", "", "")
    return table


def _bar(count: int, longest: int) -> str:
    eighths = -(-count * BAR * 8 // max(1, longest))  # rounded up, so that every count above 0 is visible
    return "█" * (eighths // 8) + ("" if eighths % 8 == 0 else chr(0x2590 - eighths % 8))


def _letters(side: "SideSummary") -> str:
    from rich.markup import escape

    scripts = side.scripts()
    shares = ", ".join(f"{name} {_share(count, scripts)}" for name, count in scripts.most_common()) or "no letters"
    frequent = " ".join("␠" if c == " " else c for c, _ in side.characters.most_common(FREQUENT))
    return f"{shares}; most frequent: {escape(frequent)}"


def _share(count: int, of: Counter[str]) -> str:
    share = count / of.total()
    return f"{share:.1%}" if share >= 0.001 else f"({count:,})"


def record(summary: "Summary") -> dict[str, Any]:
    """Return the same figures for JSON."""

    def side(side: "SideSummary") -> dict[str, Any]:
        return {
            "different": side.different,
            "empty": side.empty,
            "characters_in_a_text": {str(length): side.lengths[length] for length in sorted(side.lengths)},
            "words_in_a_text": {str(length): side.words[length] for length in sorted(side.words)},
            "scripts": dict(side.scripts().most_common()),
            "characters": dict(side.characters.most_common()),
        }

    from dragoman.text.cleaning.summary import RATIOS

    return {
        "pairs": summary.pairs,
        "duplicates": summary.duplicates,
        "copies": summary.copies,
        "conflicts": summary.conflicts,
        "untidy": summary.untidy,
        "ratio": {
            "mean": summary.ratio,
            "log_deviation": summary.deviation,
            "edges": list(RATIOS),
            "pairs": summary.ratios,
        },
        "source": side(summary.source),
        "target": side(summary.target),
    }
