"""What a person did wrong, as exceptions: the command line prints one line of them and exits with 2.

Everything else that is raised is a defect of ours and keeps its traceback.
"""


class UserError(Exception):
    """Something its user can mend. The message names the place, what is wrong there, and what to do."""


class ConfigError(UserError, ValueError):
    """A configuration that names something unknown, misses something, or holds a value of the wrong type."""


class VocabularyError(ConfigError):
    """A vocabulary larger than the text yields."""

    def __init__(self, message: str, found: int):
        super().__init__(message)
        self.found = found
        """Tokens that it yields."""


class DataError(UserError, ValueError):
    """Text that cannot be used as it is: the message opens with the file and, where there is one, the line."""


class CheckpointError(UserError):
    """A run directory or checkpoint that is missing, damaged, of another format, or not to be overwritten."""


class OutputError(UserError):
    """A file that cannot be written: the message opens with its name."""


class ProcessLost(UserError):
    """Another of several processes is gone, so that this one cannot go on."""

    def __init__(self, message: str, *, reported_elsewhere: bool = False):
        super().__init__(message)
        self.reported_elsewhere = reported_elsewhere
        """Another process says why, so that this one may leave without a word."""
