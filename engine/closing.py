"""What is closed when its block ends, well or not."""

from types import TracebackType
from typing import Self


class Closing:
    """Made a context manager by its `close`."""

    def close(self) -> None:
        """Gives up what it holds."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
