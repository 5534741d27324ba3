"""A state under test beside all that was ever sent to it.

Whatever is sent is accepted or not as the dedupe oracle says, and every value flagged exact must be the window
oracle's. A flush, a restart or a crash may come between any two batches; after a crash what the store does not know of
is sent once more, in the same order, and must give the same bits.
"""

import itertools
from collections.abc import Iterable

import numpy as np

from engine.config import Config
from engine.state.header import state_fingerprint
from engine.state.keys import DEDUPE, HEADER
from engine.state.local import FeatureMatrix, LocalState
from features.blob import newest_of
from tests.build import MINOR_PER_MAJOR, PREDICATES, batch_of
from tests.memory_store import MemoryStore
from tests.oracle.compare import RELATIVE_ERROR_MAX, Comparison, Tally, equal
from tests.oracle.dedupe import Remembered
from tests.oracle.events import Event, text_hash
from tests.oracle.windows import reading_at

# (values, exact windows, exact_all) of one event, as bytes.
Bits = tuple[bytes, bytes, bytes]


class Setting:
    """A configuration and what is derived from it once for many runs."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.spec = config.feature_spec()
        self.comparison = Comparison(config)
        self.fingerprint = state_fingerprint(config, "")


class Run:
    """`sent`: every event, duplicates too; `accepted`: those that changed the state; `bits`: what each was given."""

    def __init__(
        self, setting: Setting, tally: Tally, *, store: MemoryStore | None = None, unseen: Iterable[Event] = ()
    ) -> None:
        """`unseen`: accepted long ago, and nowhere in the state."""
        self.store = store or MemoryStore()
        self.tally = tally
        self.unseen = list(unseen)
        self.sent: list[Event] = []
        self.accepted: list[Event] = []
        self.bits: dict[int, Bits] = {}
        self._remembered: dict[int, Remembered] = {}
        self._open(setting)

    def _open(self, setting: Setting) -> None:
        self.setting, self.config, self.spec = setting, setting.config, setting.spec
        self.comparison = setting.comparison.counting(self.tally)
        self.state = LocalState(self.config, self.spec, setting.fingerprint, self.store)

    def send(self, events: list[Event], *, compared: bool = True, promised: bool = False) -> None:
        """One batch; with `promised` also checks that no value is flagged inexact without need.

        Without `compared` the oracle is not asked: for runs whose bits are compared with another's.
        """
        new = [event for event in events if self._accept(event)]
        batch = self.state.accept(batch_of(events, self.spec))
        assert batch.event_ids == [event.event_id for event in new]
        assert batch.offsets.tolist() == [event.offset for event in new]
        matrix = self.state.features(batch)
        for row, event in enumerate(new):
            before = [*self.unseen, *self.accepted]
            if compared:
                self.comparison.check(matrix, row, event, before)
            if promised:
                self.comparison.check_promise(matrix, row, event, before)
            self.bits[event.sequence] = bits_of(matrix, row)
            self.accepted.append(event)
        self.sent += events

    def _accept(self, event: Event) -> bool:
        """Whether the event is new to its partition; the config's horizon is in event time."""
        state = self.config.state
        known = self._remembered.setdefault(
            event.partition,
            Remembered(state.dedupe_entries_max, state.dedupe_horizon_ms, self.config.mapping.late_after_ms),
        )
        accepted, _ = known.accept(event.event_id, event.time_ms)
        return accepted

    def send_in(self, events: list[Event], cuts: Iterable[int], *, promised: bool = False) -> None:
        """Batches that end at the cuts."""
        for batch in batches(events, cuts):
            self.send(batch, promised=promised)

    @property
    def vector(self) -> dict[int, int]:
        """The next offset of each partition."""
        return {event.partition: event.offset + 1 for event in self.sent}

    def flush(self) -> None:
        """Writes all that is known."""
        self.state.begin_flush(self.vector)
        self.state.finish_flush()

    def restart(self, setting: Setting | None = None) -> None:
        """Writes everything and begins again from the store."""
        self.flush()
        self._open(setting or self.setting)
        assert self.state.header.vector == self.vector

    def crash(self) -> None:
        """Begins again from what the last finished flush wrote, and sends the rest once more."""
        self._open(self.setting)
        vector = self.state.header.vector
        rest = [event for event in self.sent if event.offset >= vector.get(event.partition, 0)]
        for batch in batches(rest, range(0, len(rest), 3)):
            accepted = self.state.accept(batch_of(batch, self.spec))
            again = [event for event in batch if event.sequence in self.bits]
            assert accepted.offsets.tolist() == [event.offset for event in again]
            matrix = self.state.features(accepted)
            for row, event in enumerate(again):
                assert bits_of(matrix, row) == self.bits[event.sequence], event
            self.tally.bits += len(again) * len(self.comparison.names)

    def look(self, entity_name: str, key: str, at_ms: int) -> None:
        """Compares a look at one entity with what the oracle reads at that moment."""
        look = self.state.look(entity_name, text_hash(entity_name, key), at_ms)
        same = [x for x in (*self.unseen, *self.accepted) if x.texts[entity_name] == key]
        if look is None:
            # Never seen here, or forgotten.
            return
        assert look.at_ms == at_ms
        entity = next(entity for entity in self.spec.entities if entity.name == entity_name)
        wanted = reading_at(at_ms, same, entity, MINOR_PER_MAJOR, PREDICATES)
        assert look.values.keys() == wanted.keys()
        assert [row[0] for row in look.ring] == sorted(row[0] for row in look.ring)
        inexact = set(look.inexact)
        compared = [
            (aggregate.feature_name(entity_name, window if aggregate.windowed else ""), aggregate.kind)
            for aggregate in entity.aggregates
            for window in (entity.windows if aggregate.windowed else ["all"])
            if f"{entity_name}.{window}" not in inexact
        ]
        self.tally.compared += len(compared)
        self.tally.exact += len(compared)
        found = np.array([look.values[name] for name, _ in compared])
        expected = np.array([wanted[name] for name, _ in compared])
        errors_max = np.array([RELATIVE_ERROR_MAX.get(kind, 0.0) for _, kind in compared])
        wrong = np.flatnonzero(~equal(found, expected, errors_max))
        assert not len(wrong), [(compared[i][0], found[i], expected[i]) for i in wrong]

    def check_deletion(self) -> None:
        """Every entity that the store has left was heard of after what is forgotten, once it was looked through."""
        self.flush()
        self.flush()
        left = self.entities()
        for blob in left.values():
            assert newest_of(np.frombuffer(blob, np.uint8)) > self.state.header.forgotten_ms
        heard_of = {(entity.name, event.texts[entity.name]) for entity in self.spec.entities for event in self.accepted}
        self.tally.deleted += len({name for name in heard_of if name[1] is not None}) - len(left)

    def entities(self) -> dict[bytes, bytes]:
        """What is stored of entities."""
        return {key: value for key, value in self.store.rows.items() if key[:1] not in (HEADER, DEDUPE)}


def bits_of(matrix: FeatureMatrix, row: int) -> Bits:
    """All that is said of one event."""
    return matrix.values[row].tobytes(), matrix.exact_windows[row].tobytes(), matrix.exact_all[row].tobytes()


def batches(events: list[Event], cuts: Iterable[int]) -> list[list[Event]]:
    """The events in batches that end at the cuts."""
    bounds = sorted({0, len(events), *(cut for cut in cuts if 0 < cut < len(events))})
    return [events[start:stop] for start, stop in itertools.pairwise(bounds)]
