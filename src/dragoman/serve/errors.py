"""Errors of a service: each says in one sentence what its client can do."""

from dragoman.errors import UserError


class Overloaded(UserError):
    """More requests wait than the queue holds."""

    def __init__(self, waiting: int, retry_after: float):
        super().__init__(f"{waiting} requests wait already: try again in {retry_after:.0f} s")
        self.retry_after = retry_after
        """Seconds until a place is likely to be free."""


class Draining(UserError):
    """The service is about to end and takes no more requests."""

    def __init__(self) -> None:
        super().__init__("the service is shutting down and takes no more requests: try again in a few seconds")


class TooLarge(UserError):
    """A request that needs more memory than the service has for all requests together."""

    def __init__(self, needed: int, available: int):
        super().__init__(
            f"this request needs {needed / 1e6:.1f} MB of cache and the service has {available / 1e6:.1f} MB: "
            "send a shorter text or a lower limit of tokens, or start the service with a larger --memory"
        )
        self.needed, self.available = needed, available


class DeadlinePassed(UserError):
    """A request that was not done in the time that its client gave it."""

    def __init__(self, seconds: float):
        super().__init__(f"not done within the deadline of {seconds:g} s: give it more time, or send less text")


class Cancelled(Exception):
    """A request that nobody waits for any more; its thread ends with this."""


class UnknownModel(UserError):
    """A model or a language pair that the service does not have."""

    def __init__(self, what: str, known: str):
        super().__init__(f"{what} is not served here; there are: {known}")


class WrongTask(UserError):
    """A request to a model that has another task."""
