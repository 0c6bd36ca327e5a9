"""Configuration of a safety page: what a rule looks for, where, and what happens then.

queue: {kind: file_queue, path: for-people.jsonl}
rules:
- name: passwords
  on: source
  match: {kind: terms, terms: [password, api key]}
  action: {kind: refuse, text: "Please do not send passwords."}
- name: unsure
  match: {kind: confidence, below: 0.4}
  action: {kind: hand_over, text: "A translator will look at this."}
"""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import ConfigDict, PositiveFloat, PositiveInt

from dragoman.config import Fraction, OneOf, config
from dragoman.decode.search.greedy import Greedy
from dragoman.decode.search.search import SearchConfig

# ---- matches ------------------------------------------------------------------------------------------


@config
class TermsConfig:
    """Terms, in upper or lower case, as whole words; in scripts without spaces, anywhere."""

    terms: tuple[str, ...] = ()
    file: str | None = None
    """A text file with further terms, one a line; lines that begin with # are comments."""


@config
class PatternConfig:
    """A regular expression, searched anywhere in the text, by the package ``regex``."""

    pattern: str
    ignore_case: bool = False
    seconds: PositiveFloat = 0.1
    """Longest time for one text. A text that takes longer counts as one that matches."""


@config
class ClassifierConfig:
    """A classifier of ours, and how probable a label must be."""

    run: str
    """Directory of the run."""
    label: str
    above: Fraction = 0.5


@config
class ConfidenceConfig:
    """An answer whose confidence is low; a question has none."""

    below: Fraction


Match = Annotated[TermsConfig | PatternConfig | ClassifierConfig | ConfidenceConfig, OneOf()]

# ---- actions ------------------------------------------------------------------------------------------


@config
class Refuse:
    """No answer; the user gets a text instead."""

    text: str = "This text is not translated here."


@config
class HandOver:
    """No answer; a person gets the text, and the user gets another one."""

    text: str = "A person will look at this text."


@config
class Degrade:
    """An answer by a safer search, with a note for the user."""

    text: str = "This answer may be wrong: check it."
    """The note."""
    search: SearchConfig = Greedy()
    """Search of the answer: greedy, or a beam, draws nothing at random."""


Action = Annotated[Refuse | HandOver | Degrade, OneOf()]

# ---- queues -------------------------------------------------------------------------------------------


@config
class FileQueueConfig:
    """A file of JSON lines, one for each text that is handed over; it is on the disk before the user is told."""

    path: str
    """Relative to the folder of the page."""


@config
class WebhookConfig:
    """An address that is told of each text as well. The file is the record; the address gets a POST, with retries."""

    path: str
    """The same file as of ``file_queue``."""
    url: str
    headers: dict[str, str] = field(default_factory=dict)
    """Further headers, such as one that authorises."""
    attempts: PositiveInt = 8
    seconds: PositiveFloat = 10.0
    """Longest time of one attempt."""


HumanQueue = Annotated[FileQueueConfig | WebhookConfig, OneOf()]

# ---- the page -----------------------------------------------------------------------------------------

Side = Literal["source", "answer"]
STRICT = ConfigDict(extra="forbid", strict=True)


@dataclass(frozen=True, kw_only=True)
class SafetyRule:
    """One rule."""

    name: str
    """Name in decisions and counters."""
    match: Match
    action: Action
    on: Literal["source", "answer", "both"] = "both"
    """Side that is looked at: the text that is asked about, its answer, or both."""
    __pydantic_config__ = STRICT

    def looks_at(self, side: Side) -> bool:
        """Return whether the rule applies to this side."""
        return self.on in (side, "both") and (side == "answer" or not isinstance(self.match, ConfidenceConfig))


@dataclass(frozen=True, kw_only=True)
class SafetyPageConfig:
    """A whole page."""

    rules: tuple[SafetyRule, ...]
    """Applied in this order; the first that refuses or hands over decides."""
    queue: HumanQueue | None = None
    """Where ``hand_over`` puts texts."""
    __pydantic_config__ = STRICT
