"""Arguments of commands: standard input, a file, or text. One rule for every command that takes any of them.

1. Nothing, or ``-``, is standard input.
2. The name of something that exists is that file, pipe or device; a folder is refused.
3. Anything that looks like a file name is an error if there is no such file: a word without white space that begins
with ``/``, ``./``, ``../`` or ``~/``, or that has a known extension (``.txt``, ``.po``, ``.json``, ...).
4. Anything else is text.
"""

import os
from collections.abc import Sequence

from dragoman.errors import ConfigError, DataError

RULE = (
    "The name of a file that exists, or - for standard input; anything else is text, unless it looks like the name of "
    "a file (notes.txt, ./notes), which is then an error."
)
"""Short form of the rule, for help texts."""
STDIN = "-"
_BEGINNINGS = ("/", "./", "../", "~/")


def is_file(argument: str | None) -> bool:
    """Return True if an argument names a file, pipe or device; False for text or standard input.

    Raises:
        DataError: it names a folder, or looks like the name of a file that does not exist.
    """
    if argument is None or argument == STDIN:
        return False
    if os.path.isdir(argument):  # unlike Path.is_dir, no error for an impossible name
        raise DataError(f"{argument}: is a folder: name a file in it, or several")
    if os.path.lexists(argument):
        return True
    if _looks_like_a_name(argument):
        raise DataError(f"{argument}: no such file (if this is text, give it on standard input)")
    return False


def _looks_like_a_name(argument: str) -> bool:
    from dragoman.text.formats.kinds import is_known

    one_word = len(argument.split()) == 1 and argument.strip() == argument
    return one_word and (argument.startswith(_BEGINNINGS) or is_known(argument))


def check_several(arguments: Sequence[str]) -> None:
    """Check that several arguments are all files.

    Raises:
        ConfigError: one of them is not a file, or standard input is given twice.
        DataError: as ``is_file``.
    """
    for argument in arguments:
        if argument != STDIN and not is_file(argument):
            raise ConfigError(
                f"{argument!r}: no such file: several arguments are several files; put a text of several words in "
                "quotes"
            )
    if list(arguments).count(STDIN) > 1:
        raise ConfigError("-: standard input can be read once only")


def lines_of_text(argument: str) -> list[str]:
    """Return the lines of an argument that is text.

    Raises:
        DataError: it is not valid text.
    """
    if "\0" in argument:
        raise DataError("the argument holds a NUL, which is not text: remove it")
    try:
        argument.encode()
    except UnicodeEncodeError:
        raise DataError(f"{argument!a}: the argument is not UTF-8: set a UTF-8 locale, or give a file") from None
    lines = argument.removesuffix("\n").split("\n")
    return [line.removesuffix("\r") for line in lines]
