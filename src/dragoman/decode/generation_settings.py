"""Settings of generation that came with an imported model, and what of them is obeyed: its generation_config.json.

They apply where a user chooses no search. As in transformers, a folder of a language model that does not say
``do_sample`` is answered with greedy search, and one that samples without a ``top_k`` with 50. A translator whose
folder says neither ``num_beams`` nor ``do_sample`` keeps the search of this package.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dragoman.config import from_dict, kind_of, to_dict
from dragoman.decode.constraints.first_token import FirstToken
from dragoman.decode.constraints.repetition import CountPenalty, RepetitionPenalty, RuleConfig
from dragoman.decode.origin import origin_folder
from dragoman.decode.search.greedy import Greedy
from dragoman.decode.search.sample import Sample
from dragoman.decode.search.search import SearchConfig
from dragoman.errors import CheckpointError, ConfigError
from dragoman.json_files import read_json
from dragoman.text.tokens.tokenizer import Tokenizer

FILE = "generation_config.json"
_TOP_K = 50
_UNUSED: dict[str, tuple[Any, ...]] = {
    "num_beam_groups": (1,),
    "diversity_penalty": (0.0,),
    "penalty_alpha": (0.0,),
    "encoder_repetition_penalty": (1.0,),
    "encoder_no_repeat_ngram_size": (0,),
    "min_length": (0,),
    "force_words_ids": (),
    "forced_bos_token_id": (),
    "forced_eos_token_id": (),
    "forced_decoder_ids": (),
    "begin_suppress_tokens": (),
    "sequence_bias": (),
    "exponential_decay_length_penalty": (),
    "epsilon_cutoff": (0.0,),
    "eta_cutoff": (0.0,),
    "guidance_scale": (1.0,),
    "watermarking_config": (),
}
"""Settings that change answers and are not obeyed, each with the values that change nothing."""
_OF_TRANSLATORS = ("min_length", "forced_bos_token_id", "forced_eos_token_id")
"""Settings that are obeyed where a source is translated: there every answer counts from the same token."""
_SEARCHES = {"num_beams", "do_sample"}


@dataclass(frozen=True)
class GenerationSettings:
    """Settings of generation by which a model is answered where its user chooses none."""

    search: SearchConfig | None = None
    """None: the default of whoever generates."""
    rules: tuple[RuleConfig, ...] = ()
    stop: tuple[str, ...] = ()
    max_new_tokens: int | None = None
    unused: tuple[str, ...] = ()
    """Settings of the file that change answers in transformers and are not obeyed here, such as ``min_length=5``."""
    where: str = ""
    """The file; empty where there is none."""

    @property
    def first_token(self) -> FirstToken | None:
        """First token of every answer, where a rule gives one."""
        return next((rule for rule in self.rules if isinstance(rule, FirstToken)), None)

    def with_sampling(self, given: Mapping[str, Any]) -> "GenerationSettings":
        """Return the settings with single settings of sampling (``temperature``, ``top_k``, ..., ``samples``) replaced.

        All others hold, rules and stop strings too. A temperature of 0 is greedy search; a seed alone makes no search
        one that samples.

        Raises:
            ConfigError: a wrong value.
        """
        own = self.search
        if not given or (given.keys() == {"seed"} and own is not None and not isinstance(own, Sample)):
            return self
        drawn = from_dict(Sample, to_dict(own if isinstance(own, Sample) else Sample()) | dict(given), "sampling")
        greedy = given.get("temperature") == 0 and drawn.samples == 1
        return replace(self, search=Greedy() if greedy else drawn)

    def with_rules(self, stated: Sequence[RuleConfig]) -> "GenerationSettings":
        """Return the settings with ``stated`` rules, each instead of those of its kind; one that changes nothing
        (``RepetitionPenalty(factor=1)``) switches its kind off."""
        kinds = {type(rule) for rule in stated}
        kept = [rule for rule in self.rules if type(rule) not in kinds]
        return replace(self, rules=(*kept, *(rule for rule in stated if rule not in _NEUTRAL)))

    def without_limit(self) -> "GenerationSettings":
        """Return the settings of a translator: limits of length are those of its search, so that a limit of the file is
        one that is not applied."""
        if self.max_new_tokens is None:
            return self
        return replace(self, max_new_tokens=None, unused=(*self.unused, f"max_new_tokens={self.max_new_tokens}"))

    def __str__(self) -> str:
        """Say what is obeyed and what is not, in one line."""
        said = [] if self.search is None else [_shown(self.search)]
        said += map(_shown, self.rules)
        said += [f"stop at {text!r}" for text in self.stop]
        said += [] if self.max_new_tokens is None else [f"at most {self.max_new_tokens} new tokens"]
        unused = f"; not applied: {', '.join(self.unused)}" if self.unused else ""
        return f"{', '.join(said)} (the model's {Path(self.where).name}){unused}"


def _shown(cfg: Any) -> str:
    plain = to_dict(cfg)
    usual = to_dict(Sample()) if isinstance(cfg, Sample) else {}
    fields = (
        f"{key} {value}" for key, value in plain.items() if key not in ("kind", "limit") and value != usual.get(key)
    )
    return " ".join([kind_of(type(cfg)), *fields])


_NEUTRAL = (RepetitionPenalty(factor=1.0), CountPenalty())
"""Rules that change nothing."""
NO_SETTINGS = GenerationSettings()


def read_generation_settings(run: str | Path, tokenizer: Tokenizer, *, translates: bool = False) -> GenerationSettings:
    """Return the settings that came with an imported run; those of no file for any other.

    Of a model that ``translates``, they may be in config.json, where there is no generation_config.json.

    Raises:
        CheckpointError: a file that cannot be read, or a setting of the wrong type.
    """
    path = origin_folder(run) / FILE
    if translates and not path.is_file():
        path = path.with_name("config.json")
    if not path.is_file():
        return NO_SETTINGS
    stated = {key: value for key, value in read_json(path).items() if value is not None}
    try:
        unused = [
            f"{key}={str(stated[key])[:40]}"
            for key, plain in _UNUSED.items()
            if _matters(stated.get(key), plain) and not (translates and key in _OF_TRANSLATORS)
        ]
        search, more = _search(stated, str(path)) if not translates or _SEARCHES & stated.keys() else (None, [])
        rules, most = _rules(stated, tokenizer, str(path))
        if translates:
            rules = (*rules, *_rules_of_translators(stated, tokenizer, str(path)))
            unused += [f"stop_strings={str(stated['stop_strings'])[:40]}"] if stated.get("stop_strings") else []
        stop = _texts(stated.get("stop_strings"), f"{path}: stop_strings")
        limit = stated.get("max_new_tokens")
        if limit is not None and (not isinstance(limit, int) or limit < 1):
            raise ConfigError(f"{path}: max_new_tokens: a whole number from 1 up is expected, got {limit!r}")
    except (TypeError, ValueError) as error:
        said = str(error) if isinstance(error, ConfigError) else f"{path}: {error}"
        raise CheckpointError(f"{said}: mend the file, or remove it to use the defaults here") from None
    return GenerationSettings(search, rules, () if translates else stop, limit, (*unused, *more, *most), str(path))


def _matters(value: Any, plain: tuple[Any, ...]) -> bool:
    return value not in (None, False, [], {}, *plain)


def _search(stated: Mapping[str, Any], where: str) -> tuple[SearchConfig, list[str]]:
    """Return the search, and what of its settings it does not obey."""
    beams, drawn = stated.get("num_beams", 1), stated.get("do_sample", False)
    if not isinstance(beams, int) or beams < 1:
        raise ConfigError(f"{where}: num_beams: a whole number from 1 up is expected, got {beams!r}")
    if drawn:
        unused = [f"num_beams={beams} with do_sample"] if beams > 1 else []
        names = {"temperature": "temperature", "top_p": "top_p", "min_p": "min_p", "typical_p": "typical"}
        given = {ours: stated[theirs] for theirs, ours in names.items() if theirs in stated}
        given = {name: value for name, value in given.items() if name == "temperature" or value not in (0, 1)}
        top_k = stated.get("top_k", _TOP_K)
        plain = {"kind": "sample", **given, "top_k": top_k if top_k != 0 else None}
        return from_dict(SearchConfig, plain, where=where), unused
    if beams == 1:
        return from_dict(SearchConfig, "greedy", where=where), []
    stop = {False: "heuristic", True: "early", "never": "certain"}.get(stated.get("early_stopping", False))
    penalty = {"kind": "average", "alpha": max(0.0, float(stated.get("length_penalty", 1.0)))}
    unused = [] if stop else [f"early_stopping={stated['early_stopping']}"]
    unused += [f"length_penalty={alpha}"] if (alpha := stated.get("length_penalty", 1.0)) < 0 else []
    if (factor := stated.get("repetition_penalty", 1.0)) != 1.0:
        unused.append(f"repetition_penalty={factor} on log-probabilities (it acts on logits)")
    plain = {"kind": "beam", "size": beams, "penalty": penalty, "stop": stop or "full"}
    return from_dict(SearchConfig, plain, where=where), unused


def _rules(stated: Mapping[str, Any], tokenizer: Tokenizer, where: str) -> tuple[tuple[RuleConfig, ...], list[str]]:
    """Return the rules in the order of transformers, and what none of them obeys."""
    banned, unused = _banned(stated, tokenizer, where)
    known: list[tuple[str, Any, dict[str, Any]]] = [
        ("repetition_penalty", 1.0, {"kind": "repetition_penalty", "factor": stated.get("repetition_penalty")}),
        ("no_repeat_ngram_size", 0, {"kind": "no_repeat", "tokens": stated.get("no_repeat_ngram_size")}),
        ("min_new_tokens", 0, {"kind": "minimum_length", "tokens": stated.get("min_new_tokens")}),
    ]
    given = [(key, plain) for key, neutral, plain in known if stated.get(key, neutral) != neutral]
    given += [("suppress_tokens", {"kind": "forbidden", "tokens": banned})] if banned else []
    return tuple(from_dict(RuleConfig, plain, where=f"{where}: {key}") for key, plain in given), unused


def _rules_of_translators(stated: Mapping[str, Any], tokenizer: Tokenizer, where: str) -> tuple[RuleConfig, ...]:
    """Return the rules that hold where a source is translated."""
    least, first = stated.get("min_length", 0), stated.get("forced_bos_token_id")
    rules = []
    if not isinstance(least, int):
        raise ConfigError(f"{where}: min_length: a whole number is expected, got {least!r}")
    if least > 1:  # their count includes the token that a translation starts from
        rules.append({"kind": "minimum_length", "tokens": least - 1})
    if first is not None:
        if not isinstance(first, int) or not 0 <= first < len(tokenizer):
            raise ConfigError(f"{where}: forced_bos_token_id: an id of the vocabulary is expected, got {first!r}")
        [token] = tokenizer.to_our_ids([first])
        rules += [{"kind": "first_token", "token": token}] if token > tokenizer.bos else []
    return tuple(from_dict(RuleConfig, plain, where=where) for plain in rules)


def _banned(stated: Mapping[str, Any], tokenizer: Tokenizer, where: str) -> tuple[list[int], list[str]]:
    """Return our ids of tokens that are never chosen, and words of several tokens, which no rule forbids."""
    words = [*stated.get("bad_words_ids", ()), *([i] for i in stated.get("suppress_tokens", ()))]
    if not all(isinstance(word, list) and all(isinstance(i, int) for i in word) for word in words):
        raise ConfigError(f"{where}: bad_words_ids or suppress_tokens: lists of ids are expected")
    known = range(len(tokenizer))
    single = [word[0] for word in words if len(word) == 1 and word[0] in known]
    longer = [word for word in words if len(word) > 1]
    ours = sorted({i for i in tokenizer.to_our_ids(single) if i >= tokenizer.eos})
    return ours, [f"bad_words_ids of several tokens ({len(longer)})"] if longer else []


def _texts(stated: Any, where: str) -> tuple[str, ...]:
    texts: Sequence[Any] = [stated] if isinstance(stated, str) else stated or ()
    if not isinstance(texts, list | tuple) or not all(isinstance(text, str) and text for text in texts):
        raise ConfigError(f"{where}: a list of texts is expected, got {stated!r}")
    return tuple(texts)
