"""A process that dies at the n-th thing it does to the file system, and does nothing after it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

# What pathlib, shutil and engine.state.durable come down to.
CALLS = ("link", "rename", "mkdir", "fsync", "unlink", "rmdir")


class Death(BaseException):
    """Nobody catches this, as nobody catches a power cut."""


@contextmanager
def dying(at: int) -> Iterator[list[str]]:
    """Counts these calls and raises Death in place of number `at` and of all that follow; yields those made."""
    made: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        for name in CALLS:
            patch.setattr(os, name, _counted(name, getattr(os, name), made, at))
        yield made


def _counted(name, call, made, at):
    def counted(*arguments, **keywords):
        if len(made) >= at:
            raise Death
        made.append(name)
        return call(*arguments, **keywords)

    return counted
