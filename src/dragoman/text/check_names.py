"""Names of the checks of translations, apart from the checks: the command line lists them without loading these."""

CHECK_NAMES = (
    "placeholders",
    "numbers",
    "punctuation",
    "white space",
    "length",
    "markup",
    "access key",
    "validation",
)
