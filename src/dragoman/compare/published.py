"""The pages that are written from results: of the claims, and of all studies."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dragoman import durable
from dragoman.compare.claim_forms import ClaimVerdict
from dragoman.compare.claims import Claim
from dragoman.compare.claims_page import claims_page, gallery
from dragoman.compare.slips import slips
from dragoman.compare.study import read_study, shipped


def write_claims(
    path: Path, claims: Sequence[Claim], verdicts: Sequence[ClaimVerdict], results: Mapping[str, Any]
) -> None:
    """Write the page of claims."""
    durable.replace(path, claims_page(claims, verdicts, results, slips()).encode())


def write_gallery(
    path: Path, claims: Sequence[Claim], verdicts: Sequence[ClaimVerdict], results: Mapping[str, Any]
) -> None:
    """Write the page of all studies."""
    studies = {name: read_study(name) for name in shipped()}
    plain = {
        name: {"title": one.title, "question": one.question, "minutes": one.minutes} for name, one in studies.items()
    }
    durable.replace(path, gallery(plain, results, claims, verdicts).encode())
