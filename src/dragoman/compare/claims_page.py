"""Page of claims, and gallery of studies, as Markdown: written from results, never by hand."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from dragoman.compare.claim_forms import CANNOT, HOLDS, NOT_HERE, PARTLY, ClaimVerdict
from dragoman.compare.claims import NO_RESULT, Claim
from dragoman.compare.page.charts import number
from dragoman.compare.slips import Slip

PAGES = "../src/dragoman/studies/results"
"""Folder of the studies' pages, as seen from ``docs``."""
MARKS = {HOLDS: "**holds**", PARTLY: "*holds partly*", NOT_HERE: "**does not hold here**", CANNOT: CANNOT}
_SEVERAL = {HOLDS: "hold", PARTLY: "hold partly", NOT_HERE: "do not hold here", CANNOT: "cannot be tested at this size"}
Found = Mapping[str, Any]


def claims_page(
    claims: Sequence[Claim], verdicts: Sequence[ClaimVerdict], results: Mapping[str, Found], slips: Sequence[Slip]
) -> str:  # fmt: skip
    """Return the page: each claim as published, what our study found, and the verdict; then the slips.

    Args:
        claims: claims, in order.
        verdicts: the verdict on each.
        results: results of studies by name.
        slips: slips of write-ups, recomputed.
    """
    waiting = sum(verdict.why == NO_RESULT for verdict in verdicts)
    counted = Counter(verdict.verdict for verdict in verdicts if verdict.why != NO_RESULT)
    summary = ", ".join(f"{counted[name]} {_SEVERAL[name]}" for name in MARKS if counted[name])
    summary += f". {waiting} wait{'s' * (waiting == 1)} for the result of a study" if waiting else ""
    lines = [
        "# Claims, tested",
        "",
        "What public write-ups say of the Transformer, and what our own studies find. Every row is written by",
        "`dragoman claims` from the results of a study that one command repeats; verdicts follow rules and are never",
        "typed. The models here are small and were trained on two cores: a claim that does not hold here may hold",
        "elsewhere. [All studies](studies.md) have a page each.",
        "",
        f"{len(claims)} claims: {summary}.",
        "",
        "| claim as published | its figures | study | our figures | verdict |",
        "|---|---|---|---|---|",
    ]
    lines += [_row(claim, verdict, results) for claim, verdict in zip(claims, verdicts, strict=True)]
    return "\n".join([*lines, "", *_slips(slips), ""])


def _row(claim: Claim, verdict: ClaimVerdict, results: Mapping[str, Found]) -> str:
    study, ours = "", verdict.ours
    if claim.study:
        study = claim.study
        if found := results.get(claim.study):
            study = f"[{claim.study}]({PAGES}/{claim.study}.html)"
            ours += f" ({_machine(found)}, {found['date']})" if ours else ""
    why = f"{MARKS[verdict.verdict]}: {verdict.why}" if verdict.why else MARKS[verdict.verdict]
    note = f". {claim.note}" if claim.note else ""
    cells = (f"{claim.claim} ({claim.source})", claim.printed, study, ours, why + note)
    return f'| <a id="{claim.id}"></a>' + " | ".join(map(cell, cells)) + " |"


def _machine(found: Found) -> str:
    machine = found["machine"]
    return machine["gpu"] or f"{machine['processor']}, {machine['cores']} cores"


def cell(text: str) -> str:
    """Return a text as a cell of a Markdown table."""
    return re.sub(r"\s+", " ", text).replace("|", "\\|").strip()


def _slips(slips: Sequence[Slip]) -> list[str]:
    if not slips:
        return []
    lines = [
        "## Slips, recomputed",
        "",
        "Figures in those write-ups that their own formulas, or the papers they cite, contradict. Each line of",
        "arithmetic is computed when this page is written (`compare/slips.py`).",
        "",
    ]
    for slip in slips:
        lines += [
            f"### {slip.number}. {slip.where}",
            "",
            f"- printed: {slip.printed}",
            f"- follows: {slip.follows}",
            "",
        ]
        lines += ["```text", *slip.arithmetic, "```", ""]
    return lines


# ---- the gallery ------------------------------------------------------------------------------------


def gallery(
    studies: Mapping[str, Found],
    results: Mapping[str, Found],
    claims: Sequence[Claim],
    verdicts: Sequence[ClaimVerdict],
) -> str:
    """Return the page of all studies: question, what was found, the claims it judges, and how to repeat it.

    Args:
        studies: title, question and minutes of each study, by name.
        results: results by name; a study may have none.
        claims: published claims.
        verdicts: the verdict on each.
    """
    lines = [
        "# Studies",
        "",
        "Questions about architectures and recipes, each answered by an experiment that one command repeats:",
        "`dragoman compare NAME`. [Comparing](compare.md) says how they work, and [Claims](claims.md) what they say of",
        "published claims. This page is written by `dragoman claims`.",
        "",
    ]
    for name, study in studies.items():
        lines += [f"## {study['title']}", "", study["question"], ""]
        found = results.get(name)
        if found is None:
            lines += [f"No result yet. To run it: `dragoman compare {name}` ({_minutes(study)}).", ""]
            continue
        lines += _means(found) + _differences(found)
        lines += [
            f"- Claim: {claim.claim.rstrip('.')}. [{_sentence(verdict.verdict)}](claims.md#{claim.id})."
            for claim, verdict in zip(claims, verdicts, strict=True)
            if claim.study == name
        ]
        lines += [
            "",
            f"[The page]({PAGES}/{name}.html), [the numbers]({PAGES}/{name}.json); {len(found['contestants'])} "
            f"contestants, {found['date']}, {_machine(found)}. To repeat it: `{found['command']}`",
            "",
        ]
    return "\n".join(lines)


def _sentence(words: str) -> str:
    return f"{words[0].upper()}{words[1:]}"


def _means(found: Found) -> list[str]:
    """Return the means of each figure that contestants are compared by."""
    lines = []
    for figure in dict.fromkeys(one["figure"] for one in found["verdicts"]):
        known = found["figures"][figure]
        unit = f" ({known['unit']})" if known["unit"] else ""
        means = [f"{name} {number(value['mean'])}" for name, value in known["values"].items()]
        lines.append(f"- {_sentence(figure)}{unit}: {', '.join(means)}.")
    return lines


def _differences(found: Found) -> list[str]:
    shown = [one["words"] for one in found["verdicts"] if one["shown"] != "neither"]
    others = len(found["verdicts"]) - len(shown)
    lines = [f"- {_sentence(words)}." for words in shown[:6]]
    if len(shown) > 6:
        lines.append(f"- ... and {len(shown) - 6} more differences.")
    if others:
        lines.append(f"- No difference was shown for {others} of {len(found['verdicts'])} pairs.")
    if found["failed"]:
        lines.append(f"- {len(found['failed'])} trainings did not finish.")
    return lines


def _minutes(study: Found) -> str:
    return f"about {study['minutes']:g} minutes on two cores" if study["minutes"] else "minutes"
