"""HTML around translation: the texts of a page, and the page with their translations in place.

A page is divided as an HTML document is; see ``text/filled/html_document.py``.
"""

import re
from collections.abc import Sequence
from dataclasses import replace

from dragoman.decode.translation import Candidate, Translation
from dragoman.text.document import Filling, Slot
from dragoman.text.filled.html_document import HtmlDocument


class HtmlText:
    """HTML that a request holds.

    Raises:
        DataError: a NUL in it.
    """

    def __init__(self, source: str):
        self.source = source
        self._document = HtmlDocument(source.encode(), "html")

    @property
    def slots(self) -> list[Slot]:
        """Texts to translate, in order."""
        return self._document.slots

    def filled(self, row: int, translations: Sequence[Translation]) -> Translation:
        """Return the translation of the whole, from those of its slots.

        Its warnings are theirs, and its confidence is the lowest one. The candidates of a page of one text stay.
        """
        candidates = self._candidates(translations) if len(translations) == 1 else (self._combined(translations),)
        warnings = [re.sub(r"^row \d+", f"row {row}", warning) for one in translations for warning in one.warnings]
        confidence = min((one.confidence for one in translations), default=1.0)
        return Translation(row, self.source, candidates, tuple(dict.fromkeys(warnings)), confidence)

    def _candidates(self, translations: Sequence[Translation]) -> tuple[Candidate, ...]:
        [only] = translations
        return tuple(
            replace(one, text=self._with([one.text]), alignment=None, parts=one.answers(only.source))
            for one in only.candidates
        )

    def _combined(self, translations: Sequence[Translation]) -> Candidate:
        best = [one.candidates[0] for one in translations]
        return Candidate(
            text=self._with([one.text for one in best]),
            score=sum(one.score for one in best),
            log_prob=sum(one.log_prob for one in best),
            tokens=tuple(token for one in best for token in one.tokens),
            token_log_probs=tuple(log_prob for one in best for log_prob in one.token_log_probs),
            truncated=any(one.truncated for one in best),
            confidence=min((one.confidence for one in translations), default=1.0),
            parts=tuple(
                part for one, whole in zip(best, translations, strict=True) for part in one.answers(whole.source)
            ),
        )

    def _with(self, texts: Sequence[str]) -> str:
        """Return the page with these texts; where one is as it was, so is the page."""
        pairs = enumerate(zip(self.slots, texts, strict=True))
        content = self._document.fill({i: Filling(text) for i, (slot, text) in pairs if text != slot.text})
        return content.decode(self._document.text_file.encoding)
