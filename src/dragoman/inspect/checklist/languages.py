# ruff: noqa: RUF001  (apostrophes as they are printed)
"""Words of some languages that a checklist needs: to recognise the language, negate a sentence, and change a gender.

Small tables on purpose: they cover the commonest forms, and a sentence that has none of them is left out of the count.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class LanguageWords:
    """Words of one language."""

    name: str
    function: frozenset[str]
    """Its commonest words, by which it is recognised."""
    negations: frozenset[str]
    """Words that deny; a final * stands for any ending."""
    swaps: tuple[tuple[str, str], ...] = ()
    """Patterns and replacements, of which the first that applies negates a sentence, or undoes its negation."""
    genders: tuple[tuple[str, str], ...] = ()
    """Sentences about a man, and the same about a woman."""

    def denies(self, text: str) -> bool:
        """Return whether a text holds a negation."""
        words = re.findall(r"[^\W\d_]+(?:['’]t\b)?", text.casefold())
        endings = tuple(word[:-1] for word in self.negations if word.endswith("*"))
        return any(
            word in self.negations or word.endswith(("n't", "n’t")) or word.startswith(endings) for word in words
        )

    def negated(self, text: str) -> str | None:
        """Return the text with its negation added or removed; None where no rule applies."""
        for pattern, replacement in self.swaps:
            changed, count = re.subn(pattern, replacement, text, count=1)
            if count and changed != text:
                return " ".join(changed.split())
        return None


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_JOBS = ("doctor", "nurse", "engineer", "teacher", "cook", "pilot", "cleaner", "judge", "student", "neighbour")
_ENGLISH_GENDERS = (
    *((f"The {job} said that he is tired.", f"The {job} said that she is tired.") for job in _JOBS),
    ("My brother is a teacher.", "My sister is a teacher."),
    ("He is a good friend.", "She is a good friend."),
)

LANGUAGES: dict[str, LanguageWords] = {
    "en": LanguageWords(
        "English",
        _words("the of and to in is for that on with this are be not your you it as from by an or was has"),
        _words("not no never cannot without none nothing nobody neither nor"),
        (
            (r"\b[Cc]annot\b", "can"),
            (r"(?i)\b(is|are|was|were|do|does|did|has|have|had|would|should|could|must|need)n['’]t\b", r"\1"),
            (r"\b(is|are|was|were|will|would|should|could|must|can|may|has|have|had) not\b", r"\1"),
            (r"\b([Dd]o|[Dd]oes|[Dd]id) not ", ""),
            (r"\b[Nn]ever\b", "always"),
            (r"\b(is|are|was|were|will|would|should|could|must|can|may)\b(?! not)", r"\1 not"),
        ),
        _ENGLISH_GENDERS,
    ),
    "de": LanguageWords(
        "German",
        _words("der die das und ist nicht ein eine zu mit auf für von den dem sich wird werden im auch es"),
        _words("nicht kein* nie niemals ohne weder nichts niemand"),
        (
            (r"\b([Kk])ein(e[nmrs]?)?\b", r"ein\2"),
            (r" nicht\b", ""),
            (r"\b(ist|sind|war|waren|kann|können|wird|werden|darf|soll|muss)\b", r"\1 nicht"),
        ),
        (
            ("Er ist müde.", "Sie ist müde."),
            ("Der Arzt sagt, dass er kommt.", "Die Ärztin sagt, dass sie kommt."),
            ("Mein Bruder ist Lehrer.", "Meine Schwester ist Lehrerin."),
            ("Der Mann liest ein Buch.", "Die Frau liest ein Buch."),
            ("Der Junge spielt.", "Das Mädchen spielt."),
            ("Ein Koch steht in der Küche.", "Eine Köchin steht in der Küche."),
        ),
    ),
    "es": LanguageWords(
        "Spanish",
        _words("el la los las de que y en un una es para con por no se del al su lo como está"),
        _words("no nunca ningún ninguna ninguno sin tampoco nada jamás ni nadie"),
        (
            (r"\b[Nn]o (?=\w)", ""),
            (r"\b[Nn]unca\b", "siempre"),
            (r"\b(es|está|son|están|puede|pueden|fue|ha|han|hay|debe|será)\b", r"no \1"),
        ),
        (
            ("Él está cansado.", "Ella está cansada."),
            ("El médico dice que viene.", "La médica dice que viene."),
            ("Mi hermano es profesor.", "Mi hermana es profesora."),
            ("El hombre lee un libro.", "La mujer lee un libro."),
            ("El niño juega.", "La niña juega."),
            ("Un cocinero está en la cocina.", "Una cocinera está en la cocina."),
        ),
    ),
    "fr": LanguageWords(
        "French",
        _words("le la les de des et est un une pour dans que en du ne pas sur avec il elle au ce qui"),
        _words("ne pas jamais aucun aucune sans rien ni non personne"),
        (
            (r"\bn(?:e |['’])(\w+) pas\b", r"\1"),
            (r"\best\b", "n’est pas"),
            (r"\b(sont|peut|peuvent|doit|sera)\b", r"ne \1 pas"),
        ),
        (
            ("Il est fatigué.", "Elle est fatiguée."),
            ("Mon frère est professeur.", "Ma sœur est professeure."),
            ("L’homme lit un livre.", "La femme lit un livre."),
            ("Le garçon joue.", "La fille joue."),
            ("Un cuisinier est dans la cuisine.", "Une cuisinière est dans la cuisine."),
        ),
    ),
    "it": LanguageWords(
        "Italian",
        _words("il la di che e un una per non con del della sono è in i le si da al come"),
        _words("non mai nessun* senza niente né nulla"),
        ((r"\b[Nn]on ", ""), (r"\b(è|sono|può|possono|deve|ha|hanno)\b", r"non \1")),
        (
            ("Lui è stanco.", "Lei è stanca."),
            ("Mio fratello è maestro.", "Mia sorella è maestra."),
            ("Il ragazzo gioca.", "La ragazza gioca."),
        ),
    ),
    "pt": LanguageWords(
        "Portuguese",
        _words("o a os as de que e em um uma para com não do da no na por se é"),
        _words("não nunca nenhum* sem nada nem jamais"),
        ((r"\b[Nn]ão ", ""), (r"\b(é|está|são|pode|podem|deve|foi|tem)\b", r"não \1")),
        (
            ("Ele está cansado.", "Ela está cansada."),
            ("Meu irmão é professor.", "Minha irmã é professora."),
            ("O menino brinca.", "A menina brinca."),
        ),
    ),
    "nl": LanguageWords(
        "Dutch",
        _words("de het een en van is in op te dat voor met niet zijn aan er om ook als"),
        _words("niet geen nooit zonder niets niemand noch"),
        ((r" niet\b", ""), (r"\b[Gg]een\b", "een"), (r"\b(is|zijn|was|kan|kunnen|moet|wordt)\b", r"\1 niet")),
        (("Hij is moe.", "Zij is moe."), ("Mijn broer is leraar.", "Mijn zus is lerares.")),
    ),
}
ENOUGH = 0.06
"""Fewest words of a text that are common ones of its language; elsewhere it is another."""


def recognise(texts: Iterable[str]) -> str | None:
    """Return the code of the language of some texts; None for one that is not in the table."""
    words = [word for text in texts for word in re.findall(r"[^\W\d_]+", text.casefold())]
    if not words:
        return None
    shares = {code: sum(word in known.function for word in words) / len(words) for code, known in LANGUAGES.items()}
    best = max(shares, key=shares.__getitem__)
    return best if shares[best] >= ENOUGH else None
