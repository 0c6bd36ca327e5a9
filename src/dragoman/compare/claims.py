"""Published claims, and what the results of studies say of each: by rule, never by hand.

A claim names a study and a test, which reads the study's results (``claim_forms.py``).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dragoman.compare.claim_forms import CANNOT, ClaimTest, ClaimVerdict, Found, named_by_form
from dragoman.compare.results import read_results
from dragoman.config import config, from_dict, load_yaml
from dragoman.errors import ConfigError

NO_RESULT = "the study has no result yet"


# ---- claims ---------------------------------------------------------------------------------------


@config
class Claim:
    """A claim as it was published."""

    id: str
    claim: str
    """Claim in words."""
    source: str
    """Where it was published."""
    printed: str = ""
    """Its figures, as printed."""
    study: str | None = None
    """Study that tests it."""
    test: ClaimTest | None = None
    cannot: str = ""
    """Needs of a test, where none is possible at this size."""
    note: str = ""
    """Sentence that is always added."""


def read_claims(path: Path) -> list[Claim]:
    """Return the claims of a file.

    Raises:
        ConfigError: no such file, no claim in it, a claim that is there twice, one with neither a test nor a reason,
            or a test that lacks something.
    """
    given = load_yaml(path)
    if not given:
        raise ConfigError(f"{path}: no claim in it")
    for number, one in enumerate(given if isinstance(given, list) else ()):
        try:
            named_by_form(one.get("test") if isinstance(one, dict) else None)
        except ValueError as wrong:
            raise ConfigError(f"{path}: {one.get('id', number)}: test: {wrong}") from None
    claims = list(from_dict(tuple[Claim, ...], given, where=str(path)))
    seen: set[str] = set()
    for claim in claims:
        if claim.id in seen:
            raise ConfigError(f"{path}: {claim.id} is there twice")
        seen.add(claim.id)
        if bool(claim.cannot) == bool(claim.study and claim.test):
            raise ConfigError(f"{path}: {claim.id}: give study and test, or cannot, the reason why there is none")
        if claim.test and (wrong := claim.test.mistake):
            raise ConfigError(f"{path}: {claim.id}: test: {wrong}")
    return claims


def read_all_results(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the results in a folder by the name of the study.

    Raises:
        DataError: a file that is no result of a study.
    """
    return {path.stem: read_results(path) for path in sorted(folder.glob("*.json"))}


# ---- verdicts -------------------------------------------------------------------------------------


def judge(claim: Claim, results: Mapping[str, Found]) -> ClaimVerdict:
    """Return the verdict on a claim by the results of studies, by their names."""
    if claim.cannot or claim.test is None:
        return ClaimVerdict(CANNOT, "", claim.cannot)
    found = results.get(str(claim.study))
    if found is None:
        return ClaimVerdict(CANNOT, "", NO_RESULT)
    try:
        return claim.test.verdict(found)
    except KeyError as missing:
        return ClaimVerdict(CANNOT, "", f"the study's result has no {missing.args[0]}")
