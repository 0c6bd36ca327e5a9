"""Limits of what one request may ask for."""

from collections.abc import Sequence
from dataclasses import dataclass

from dragoman.serve.defaults import CHARACTERS, FILE_BYTES, TEXTS
from dragoman.serve.http.problems import Problem


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Largest request that is accepted."""

    characters: int = CHARACTERS
    """Most characters of all texts of a request together."""
    texts: int = TEXTS
    """Most texts of a request."""
    body_bytes: int = 4 << 20
    """Most bytes of a body that is no upload."""
    file_bytes: int = FILE_BYTES
    """Most bytes of an uploaded file."""
    candidates: int = 20
    """Most translations of a text, or continuations of a prompt."""
    new_tokens: int = 4096
    """Most tokens of a continuation."""
    seconds_to_send: float = 30.0
    """Seconds within which a client has to send a request, and to take each piece of the answer."""

    def check(self, texts: Sequence[str]) -> None:
        """Check the texts of a request.

        Raises:
            Problem: too many, or too long together.
        """
        if len(texts) > self.texts:
            raise Problem(
                413, "too_many_texts", f"{len(texts):,} texts: a request may have {self.texts:,}: send several"
            )
        total = sum(map(len, texts))
        if total > self.characters:
            raise Problem(
                413,
                "too_large",
                f"{total:,} characters: a request may have {self.characters:,}: send several, or a file",
                limit=self.characters,
                count=total,
            )

    def check_candidates(self, wanted: int, field: str) -> None:
        """Check how many answers to each text a request asks for.

        Raises:
            Problem: too many.
        """
        if wanted > self.candidates:
            raise Problem(422, "invalid_request", f"{field}: at most {self.candidates}, got {wanted}", param=field)
