"""Characters that files spell as escapes of UTF-16: ``\\ud83d\\ude00`` for one beyond U+FFFF."""


def joined_surrogates(text: str) -> str:
    """Return a text with each pair of surrogates as the character that it stands for, and half of a pair as U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
