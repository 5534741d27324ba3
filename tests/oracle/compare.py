"""Feature values beside the oracle's: which must be equal, how nearly, and how many there were."""

from copy import copy
from dataclasses import dataclass, fields

import numpy as np

from engine.config import Config
from engine.state.local import FeatureMatrix
from features.spec import EntitySpec
from tests.build import MINOR_PER_MAJOR, PREDICATES
from tests.oracle.events import Event, Predicates
from tests.oracle.ring import exact_windows, newest_dropped_ms
from tests.oracle.windows import features_of

# Everything else must be equal bit for bit; NaN, which stands for null, equals NaN.
RELATIVE_ERROR_MAX = {"std": 1e-9, "zscore": 1e-9, "ratio": 1e-9, "geo_speed": 1e-9}
EVENT_LEVEL, WINDOWLESS = -2, -1


@dataclass
class Tally:
    """What was compared.

    `overflowed`: values of entities of which more events had been accepted than a ring holds; `forgotten`: of those
    that nothing had been heard of for the TTL. `bits`: values compared with those of another run, exact or not.
    `deleted`: entities that were forgotten and are gone from the store.
    """

    examples: int = 0
    compared: int = 0
    exact: int = 0
    overflowed: int = 0
    overflowed_exact: int = 0
    forgotten: int = 0
    forgotten_exact: int = 0
    bits: int = 0
    deleted: int = 0

    def add(self, other: "Tally") -> None:
        for name in (field.name for field in fields(self)):
            setattr(self, name, getattr(self, name) + getattr(other, name))

    @property
    def exact_share(self) -> float:
        return self.exact / self.compared if self.compared else 0.0


class Comparison:
    """Rows of a feature matrix against a rescan of everything that was accepted before."""

    def __init__(self, config: Config, predicates: Predicates = PREDICATES) -> None:
        self.spec = config.feature_spec()
        self.names = self.spec.names
        self.tally = Tally()
        self._ring_events_max = config.state.ring_events_max
        self._ttl_ms = config.ttl_ms
        self._horizon_past_ms = config.mapping.horizon_past_ms
        self._predicates = predicates
        places = [(EVENT_LEVEL, EVENT_LEVEL, "")] * len(self.names)
        for kind, entity in enumerate(self.spec.entities):
            for aggregate in entity.aggregates:
                for place, window in enumerate(entity.windows if aggregate.windowed else [""]):
                    at = self.names.index(aggregate.feature_name(entity.name, window))
                    places[at] = (kind, place if aggregate.windowed else WINDOWLESS, aggregate.kind)
        self._entities = np.array([entity for entity, _, _ in places])
        self._windows = np.array([window for _, window, _ in places])
        self._errors_max = np.array([RELATIVE_ERROR_MAX.get(kind, 0.0) for _, _, kind in places])

    def counting(self, tally: Tally) -> "Comparison":
        """The same comparison, counted elsewhere."""
        other = copy(self)
        other.tally = tally
        return other

    def exact(self, matrix: FeatureMatrix, row: int) -> np.ndarray:
        """Which of a row's values are flagged exact: bool[columns]."""
        windowed = self._windows < matrix.exact_windows[row][self._entities]
        windowless = matrix.exact_all[row][self._entities] != 0
        exact = np.where(self._windows == WINDOWLESS, windowless, windowed)
        return exact | (self._windows == EVENT_LEVEL)

    def check(self, matrix: FeatureMatrix, row: int, event: Event, before: list[Event]) -> None:
        """Compares whatever of a row is flagged exact; AssertionError says what differs."""
        expected = features_of(event, before, self.spec, MINOR_PER_MAJOR, self._predicates)
        assert matrix.missing[row] == any(event.texts[entity.name] is None for entity in self.spec.entities)
        self.compare(matrix, row, event, expected)
        for kind, entity in enumerate(self.spec.entities):
            same = self._same(entity, event, before)
            ours = self._entities == kind
            values, exact = np.count_nonzero(ours), np.count_nonzero(ours & self.exact(matrix, row))
            if len(same) > self._ring_events_max:
                self.tally.overflowed += int(values)
                self.tally.overflowed_exact += int(exact)
            if same and max(x.time_ms for x in same) <= max(x.time_ms for x in before) - self._ttl_ms:
                self.tally.forgotten += int(values)
                self.tally.forgotten_exact += int(exact)

    def check_promise(self, matrix: FeatureMatrix, row: int, event: Event, before: list[Event]) -> None:
        """Whatever must be exact by the rule of the ring is flagged so: nothing dropped, or not from the window.

        What comes later than the horizon allows, which a decoder would have refused, may find its entity forgotten.
        """
        newest_ms = max(x.time_ms for x in [event, *before])
        if event.time_ms < newest_ms - self._horizon_past_ms:
            return
        for kind, entity in enumerate(self.spec.entities):
            same = self._same(entity, event, before)
            windows, dropped_ms = len(entity.windows), None
            if event.texts[entity.name] is not None:
                windows = exact_windows(event.time_ms, same, entity, self._ring_events_max, self._predicates)
                dropped_ms = newest_dropped_ms(same, entity, self._ring_events_max, self._predicates)
            assert matrix.exact_windows[row, kind] >= windows, (entity.name, event)
            known = all(newest_ms - x.time_ms < self._ttl_ms for x in [event, *before])
            assert matrix.exact_all[row, kind] or dropped_ms is not None or not known, (entity.name, event)

    def _same(self, entity: EntitySpec, event: Event, before: list[Event]) -> list[Event]:
        key = event.texts[entity.name]
        return [] if key is None else [x for x in before if x.texts[entity.name] == key]

    def compare(self, matrix: FeatureMatrix, row: int, event: Event, expected: dict[str, float]) -> None:
        """Compares whatever of a row is flagged exact with these values."""
        values, exact = matrix.values[row], self.exact(matrix, row)
        wanted = np.array([expected[name] for name in self.names])
        self.tally.compared += len(wanted)
        self.tally.exact += int(np.count_nonzero(exact))
        wrong = np.flatnonzero(exact & ~equal(values, wanted, self._errors_max))
        assert not len(wrong), [(self.names[i], float(values[i]), float(wanted[i]), event) for i in wrong]


def equal(values: np.ndarray, wanted: np.ndarray, errors_max: np.ndarray) -> np.ndarray:
    """Element by element: the same bits, both NaN, or, where an error is allowed, near enough: bool[n]."""
    with np.errstate(invalid="ignore"):
        near = (errors_max > 0) & (np.abs(values - wanted) <= errors_max * np.abs(wanted))
    same = np.ascontiguousarray(values).view(np.int64) == np.ascontiguousarray(wanted).view(np.int64)
    return same | (np.isnan(values) & np.isnan(wanted)) | near
