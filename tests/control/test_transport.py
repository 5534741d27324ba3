"""What was fetched is delivered, or read again from what is committed."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any
from unittest.mock import AsyncMock

import pytest
from faust.types import TP

from engine.control import transport
from engine.control.transport import _Consumer, _ReadOffsets

A, B, CHANGELOG = TP("a", 0), TP("b", 0), TP("facts-changelog", 0)


class Fetches:
    """Stands for what Faust makes of a fetch: it delivers as much of it as it is told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, records: dict[Any, int], delivered: int) -> None:
        async def fetch(consumer: Any, active: Any, timeout: float) -> dict[Any, list[int]]:
            return {tp: list(range(count)) for tp, count in records.items()}

        async def getmany(consumer: Any, timeout: float) -> AsyncIterator[tuple[Any, int]]:
            found = await consumer._getmany(None, timeout)
            for place in [(tp, offset) for tp, offsets in found.items() for offset in offsets][:delivered]:
                yield place

        monkeypatch.setattr(transport.aiokafka.Consumer, "_getmany", fetch)
        monkeypatch.setattr(transport.aiokafka.Consumer, "getmany", getmany)


def consumer(committed: dict[Any, int | None]) -> Any:
    """One that is not connected to anything."""
    made: Any = object.__new__(_Consumer)
    made._seeks, made._owed = 0, Counter()
    made._committed_offset, made._gap, made._read_offset = committed, {A: "gap", B: "gap"}, _ReadOffsets()
    made.assignment = lambda: {A, B, CHANGELOG}
    made.app = SimpleNamespace(tables=SimpleNamespace(changelog_topics={CHANGELOG.topic}))
    made.seek_wait = AsyncMock()
    made._thread = SimpleNamespace(seek_to_beginning=AsyncMock())
    return made


def drain(made: Any, on_message: Callable[[], None] = lambda: None) -> list[Any]:
    """All that is delivered."""

    async def run() -> list[Any]:
        found = []
        async for place in made.getmany(1.0):
            found.append(place)
            on_message()
        return found

    return asyncio.run(run())


def test_what_is_delivered_is_not_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    Fetches(monkeypatch, {A: 3, B: 2}, 5)
    made = consumer({A: 7, B: 9})
    assert len(drain(made)) == 5
    made.seek_wait.assert_not_awaited()
    assert made._gap == {A: "gap", B: "gap"}


def test_what_is_dropped_midway_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    Fetches(monkeypatch, {A: 3, B: 2, CHANGELOG: 4}, 4)
    made = consumer({A: 7, B: 9})
    assert len(drain(made)) == 4
    made.seek_wait.assert_awaited_once_with({B: 9})
    assert (made._gap, dict(made._read_offset)) == ({A: "gap"}, {B: 9})


def test_it_is_read_from_the_beginning_where_nothing_is_committed(monkeypatch: pytest.MonkeyPatch) -> None:
    Fetches(monkeypatch, {A: 3}, 0)
    made = consumer({A: None, B: 9})
    assert drain(made) == []
    made._thread.seek_to_beginning.assert_awaited_once()
    assert dict(made._read_offset) == {A: None}


def test_what_was_fetched_before_a_seek_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    Fetches(monkeypatch, {A: 3, B: 2}, 5)
    made = consumer({A: 7, B: 9})

    def seek() -> None:
        made._seeks += 1

    assert drain(made, seek) == [(A, 0)]
    made.seek_wait.assert_awaited_once_with({A: 7, B: 9})


def test_the_first_offset_is_one() -> None:
    offsets = _ReadOffsets()
    assert offsets[A] is None
    offsets[A] = 0
    assert offsets[A] == 0
    assert offsets[A]
