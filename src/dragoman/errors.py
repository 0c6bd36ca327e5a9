"""Exceptions for mistakes of the user: the command line prints each as one line and exits with 2.

Any other exception is a defect of ours and keeps its traceback.
"""


class UserError(Exception):
    """Mistake that the user can fix. The message names the place, what is wrong there, and what to do."""


class ConfigError(UserError, ValueError):
    """Configuration with an unknown name, a missing value, or a value of the wrong type."""


class VocabularyError(ConfigError):
    """Vocabulary larger than the text yields."""

    def __init__(self, message: str, found: int):
        super().__init__(message)
        self.found = found
        """Number of tokens that the text yields."""


class DataError(UserError, ValueError):
    """Text that cannot be used as it is: the message opens with the file and, where there is one, the line."""


class CheckpointError(UserError):
    """Run directory or checkpoint that is missing, damaged, of another format, or must not be overwritten."""


class OutputError(UserError):
    """File that cannot be written: the message opens with its name."""


class StoppedEarly(UserError):
    """Training that was stopped before anything of a run was there."""


class ProcessLost(UserError):
    """Another of the distributed processes has ended, so that this one cannot continue."""

    def __init__(self, message: str, *, reported_elsewhere: bool = False, exit_code: int = 2):
        super().__init__(message)
        self.reported_elsewhere = reported_elsewhere
        """True where another process reports the reason, so that this one may exit silently."""
        self.exit_code = exit_code
        """Exit code of the command."""
