"""A small state on a real database, written flush by flush, and what a test asks of one."""

from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from engine.assemble import open_state
from engine.config import Config, load_config
from engine.decode import Decoder
from engine.state.local import LocalState
from engine.state.peek import FrozenStore
from engine.state.store import Store
from tests.pipelines import START_MS, event, json_of, records_of

Rows = dict[bytes, bytes]

CONFIG = """
[entities.card]
windows = ["1m", "1h"]
aggregates = ["count", "sum.amount", "distinct.merchant"]
[entities.merchant]
windows = ["1h"]
aggregates = ["count"]
[state]
dir = "state"
cache_bytes_max = 33554432
dirty_bytes_max = 8388608
ring_events_max = 4
[state.checkpoints]
dir = "checkpoints"
keep = 2
"""


def configured(folder: Path) -> Config:
    """A configuration in a folder whose state is in `state` and whose checkpoints are in `checkpoints`."""
    (folder / "tidegate.toml").write_text(CONFIG)
    return load_config(folder / "tidegate.toml", {})


@dataclass
class Small:
    """An open state. Partition 0 has one event a second; every flush is of all so far."""

    config: Config
    events: int = 0
    resources_open: ExitStack = field(default_factory=ExitStack)

    def __post_init__(self) -> None:
        self.state: LocalState = open_state(self.config, self.config.feature_spec(), None, self.resources_open)
        self.events = self.state.header.vector.get(0, 0)

    def __enter__(self) -> "Small":
        return self

    def __exit__(self, *_: object) -> None:
        self.resources_open.close()

    @property
    def store(self) -> Store:
        """Its database."""
        store = self.state.store
        assert store is not None
        return store

    def take(self, count: int) -> None:
        """The next events, of a few cards and of merchants that are ever new."""
        numbers = range(self.events, self.events + count)
        values: list[bytes | None] = [
            json_of(event(n, amount=n, event_time=START_MS + 1_000 * n, card=f"c{n % 7}", merchant=f"m{n}"))
            for n in numbers
        ]
        decoder = Decoder(self.config, self.config.feature_spec(), None)
        batch, letters = decoder.decode(records_of(values, offsets=list(numbers)))
        assert letters == []
        self.state.features(self.state.accept(batch))
        self.events += count

    def flush(self, count: int = 40) -> Rows:
        """Takes in so many events and writes everything down; returns all rows."""
        self.take(count)
        self.state.begin_flush({0: self.events})
        self.state.finish_flush()
        return dict(self.store.scan(b""))


def rows_in(folder: Path) -> Rows:
    """All rows of the database in a folder."""
    with FrozenStore(folder) as store:
        return dict(store.scan(b""))
