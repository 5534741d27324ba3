"""Work beside the loop that nobody waits for at the end: a thread for each call, and none of them holds up an exit."""

import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any


class Background(Executor):
    """Unlike a pool's, its threads are daemons, for a model that is still being tried has nothing to lose."""

    def __init__(self, name: str) -> None:
        """`name` is that of its threads."""
        self._name = name

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Calls in a new thread. The future has an OSError where the machine has no thread to spare."""
        done: Future[Any] = Future()

        def run() -> None:
            try:
                done.set_result(fn(*args, **kwargs))
            except BaseException as error:  # noqa: BLE001 - whoever asks for the result has it raised there
                done.set_exception(error)

        try:
            threading.Thread(target=run, name=self._name, daemon=True).start()
        except RuntimeError as error:
            done.set_exception(OSError(str(error)))
        return done
