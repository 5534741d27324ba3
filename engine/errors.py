"""The ways things go wrong; whoever catches one knows what to do by its class alone."""

from typing import Self


class TidegateError(Exception):
    """Base of every error that Tidegate raises on purpose; its text is one line that a user can act on."""

    exit_code = 1


class ConfigError(TidegateError):
    """A setting, file or argument is wrong. Names the key, the value and what is allowed. Exit code 2."""

    exit_code = 2


class MissingTopicError(ConfigError):
    """There is no such topic, or a broker that has just started does not know of it yet. Exit code 2."""


class PoisonError(TidegateError):
    """One input record cannot become an event: it goes to the dead letters and the batch goes on.

    `reason` is one of `engine.events.REASONS`.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason

    def alone(self) -> Self:
        """Itself, without the frames and errors that it came up in.

        Those hold the batch, which holds what is wrong with it: such a cycle stays in memory for a long time.
        """
        self.__traceback__ = self.__context__ = self.__cause__ = None
        return self


class RetriableError(TidegateError):
    """Something outside did not answer this time; the same step may be tried again. Exit code 3 where nobody does."""

    exit_code = 3


class FencedError(TidegateError):
    """Somebody else did what is ours alone to do: stop without touching anything. Exit code 4."""

    exit_code = 4


class FatalError(TidegateError):
    """Going on would lose or corrupt something: stop at once and say why. Exit code 5."""

    exit_code = 5
