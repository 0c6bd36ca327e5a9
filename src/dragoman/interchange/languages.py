"""Language tokens of translators for many languages: their order in vocabularies, and their place around a source.

mBART       X </s> en_XX              mBART-50, M2M-100, NLLB    en_XX X </s>
"""

from collections.abc import Mapping
from typing import Any

MBART = (
    "ar_AR", "cs_CZ", "de_DE", "en_XX", "es_XX", "et_EE", "fi_FI", "fr_XX", "gu_IN", "hi_IN", "it_IT", "ja_XX",
    "kk_KZ", "ko_KR", "lt_LT", "lv_LV", "my_MM", "ne_NP", "nl_XX", "ro_RO", "ru_RU", "si_LK", "tr_TR", "vi_VN",
    "zh_CN",
)  # fmt: skip
"""Languages of mBART, in the order of their entries behind the pieces."""
_FURTHER = (
    "af_ZA", "az_AZ", "bn_IN", "fa_IR", "he_IL", "hr_HR", "id_ID", "ka_GE", "km_KH", "mk_MK", "ml_IN", "mn_MN",
    "mr_IN", "pl_PL", "ps_AF", "pt_XX", "sv_SE", "sw_KE", "ta_IN", "te_IN", "th_TH", "tl_XX", "uk_UA", "ur_PK",
    "xh_ZA", "gl_ES", "sl_SI",
)  # fmt: skip
MBART50 = (*MBART, *_FURTHER)
"""Languages of mBART-50."""
M2M100 = (
    "af", "am", "ar", "ast", "az", "ba", "be", "bg", "bn", "br", "bs", "ca", "ceb", "cs", "cy", "da", "de", "el",
    "en", "es", "et", "fa", "ff", "fi", "fr", "fy", "ga", "gd", "gl", "gu", "ha", "he", "hi", "hr", "ht", "hu", "hy",
    "id", "ig", "ilo", "is", "it", "ja", "jv", "ka", "kk", "km", "kn", "ko", "lb", "lg", "ln", "lo", "lt", "lv", "mg",
    "mk", "ml", "mn", "mr", "ms", "my", "ne", "nl", "no", "ns", "oc", "or", "pa", "pl", "ps", "pt", "ro", "ru", "sd",
    "si", "sk", "sl", "so", "sq", "sr", "ss", "su", "sv", "sw", "ta", "th", "tl", "tn", "tr", "uk", "ur", "uz", "vi",
    "wo", "xh", "yi", "yo", "zh", "zu",
)  # fmt: skip
"""Languages of M2M-100."""
_FIRST = {"MBart": "en_XX", "MBart50": "en_XX", "Nllb": "eng_Latn", "M2M100": "en"}
"""Source language where a folder names none, by the name of the tokenizer's class."""


def language_frame(
    kind: str, settings: Mapping[str, Any], ids: Mapping[str, int], eos: int
) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Return the ids before and after a source; None for a tokenizer whose sources have no language token.

    Args:
        kind: name of the tokenizer's class, without its ending.
        settings: tokenizer_config.json, which may name a source language.
        ids: the id of each entry of the tokenizer.
    """
    if kind not in _FIRST:
        return None
    source = settings.get("src_lang") or _FIRST[kind]
    found = ids.get(f"__{source}__" if kind == "M2M100" else source)
    if found is None:
        return (), (eos,)
    if kind == "MBart" or (kind == "Nllb" and settings.get("legacy_behaviour")):
        return (), (eos, found)
    return (found,), (eos,)
