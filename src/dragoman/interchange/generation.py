"""Settings of generation that a folder brings and that searches here do not take over: they are noted on import.

``decode/generation_settings.py`` obeys most of them, for models that continue text and for those that translate.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dragoman.interchange.vocabulary import Shape
from dragoman.json_files import read_json

GENERATION_SETTINGS: dict[str, tuple[Any, ...]] = {
    "num_beams": (1,),
    "num_beam_groups": (1,),
    "temperature": (1.0,),
    "top_k": (50, 0),  # the first is what transformers takes where nothing is said
    "top_p": (1.0,),
    "min_p": (),
    "typical_p": (1.0,),
    "repetition_penalty": (1.0,),
    "encoder_repetition_penalty": (1.0,),
    "no_repeat_ngram_size": (0,),
    "encoder_no_repeat_ngram_size": (0,),
    "length_penalty": (1.0,),
    "diversity_penalty": (0.0,),
    "penalty_alpha": (),
    "early_stopping": (False,),
    "min_length": (0,),
    "min_new_tokens": (),
    "bad_words_ids": (),
    "force_words_ids": (),
    "forced_bos_token_id": (),
    "forced_decoder_ids": (),
    "suppress_tokens": (),
    "begin_suppress_tokens": (),
    "sequence_bias": (),
    "exponential_decay_length_penalty": (),
    "guidance_scale": (1.0,),
    "watermarking_config": (),
    "stop_strings": (),
}
"""Settings that change which tokens transformers chooses, each with the values that change nothing. Limits of length
are not among them: every command here has its own."""
SPEECH_SETTINGS: dict[str, tuple[Any, ...]] = {
    "return_timestamps": (False,),
    "no_speech_threshold": (),
    "compression_ratio_threshold": (),
    "logprob_threshold": (),
    "condition_on_prev_tokens": (False,),
}
"""Those that change the answers of a model of speech, and of no other."""
OBEYED = (
    "num_beams", "temperature", "top_k", "top_p", "min_p", "typical_p", "repetition_penalty", "no_repeat_ngram_size",
    "length_penalty", "early_stopping", "min_new_tokens", "bad_words_ids", "suppress_tokens", "stop_strings",
)  # fmt: skip
"""Settings of generation_config.json that hold for a model that continues text."""
OBEYED_IN_TRANSLATION = (*OBEYED[:-1], "min_length", "forced_bos_token_id")
"""Those that hold for a model that translates a source, also where they stand in config.json."""
_BANNED = ("bad_words_ids", "suppress_tokens", "begin_suppress_tokens")


def unused_generation_settings(
    folder: Path, config: Mapping[str, Any], shape: Shape, also: Sequence[str] = (), *, speech: bool = False
) -> list[str]:
    """Return a line about the settings by which transformers would answer otherwise; none where there are none.

    Those that are obeyed for models of this ``shape`` are left out, and those in ``also``.

    Like transformers, read generation_config.json, and config.json only where that is missing.
    """
    path = folder / "generation_config.json"
    said = read_json(path) if path.is_file() else config
    roles = [said.get(name, config.get(name)) for name in ("pad_token_id", "bos_token_id", "decoder_start_token_id")]
    found = []
    obeyed = OBEYED_IN_TRANSLATION if shape == "encoder-decoder" else ()
    if shape == "decoder" and path.is_file():
        obeyed = OBEYED
    for key, neutral in (GENERATION_SETTINGS | (SPEECH_SETTINGS if speech else {})).items():
        value = None if key in obeyed or key in also else said.get(key)
        if value in (None, [], {}, *neutral) or (key in _BANNED and all(i in roles for i in _flat(value))):
            continue
        found.append(f"{key}={str(value)[:40]}")
    if not found:
        return []
    name = path.name if path.is_file() else "config.json"
    several = "are" if len(found) > 1 else "is"
    return [
        f"{name}: {', '.join(found)} {several} kept for exports, and not applied here: choose a search by options such "
        "as --beam, --temperature, --search and --rule"
    ]


def _flat(value: Any) -> Iterator[Any]:
    """Yield the ids in a list of ids or of lists of ids."""
    for entry in value if isinstance(value, list) else [value]:
        yield from _flat(entry) if isinstance(entry, list) else [entry]
