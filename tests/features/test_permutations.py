"""All orders in which up to six events can come: the state is the same to the byte, and exact values are exact.

Rings hold four events, so that of six two are dropped, whichever way they come.
"""

import itertools
from collections.abc import Callable, Sequence
from functools import cache

import pytest

from engine.config import Config
from engine.state.keys import DEDUPE, HEADER
from engine.state.local import LocalState
from tests.build import MINOR_PER_MAJOR, PREDICATES, batch_of, full_config
from tests.features.timelines import FAR, event
from tests.memory_store import MemoryStore
from tests.oracle.compare import Comparison, Tally
from tests.oracle.events import Event
from tests.oracle.windows import features_of

Expected = Callable[[int, frozenset[int]], dict[str, float]]

AGGREGATES = [
    "count", "sum.amount", "std.amount", "min.amount.small", "max.amount.prior", "distinct.merchant",
    "distinct.merchant.ecom", "is_new.merchant", "is_new.distance_km", "since_last", "since_last.small", "since_first",
    "last.amount", "last.merchant", "last.distance_km.far", "geo_speed", "count.far", "count.ecom",
]  # fmt: skip

SETS: dict[str, Sequence[tuple]] = {
    "spread": [
        (0, 100), (4, 300, {"merchant": "m2"}), (9, 150), (14, 700, {"entry_mode": "ecom"}),
        (19, 100, {"merchant": "m3", "distance_km": 200.0}), (24, 250, {"at": FAR}),
    ],
    # Which of the tied ones the ring drops is decided by what is stored of them.
    "ties": [
        (5, 100), (5, 100, {"merchant": "m2"}), (5, 100, {"entry_mode": "ecom"}), (5, 150, {"at": FAR}),
        (5, 100), (5, 100, {"distance_km": 300.0}),
    ],
    "ties at the edge": [
        (0, 100), (0, 200, {"merchant": "m2"}), (0, 300), (10, 100), (10, 200, {"merchant": "m2"}), (10, 300),
    ],
    # Alike in time, amount and every column, but not in what holds for them.
    "predicates": [
        (5, 100, {"merchant": None}), (5, 100, {"merchant": None, "entry_mode": "ecom"}), (5, 100, {"merchant": None}),
        (5, 100, {"merchant": None, "entry_mode": "ecom"}), (5, 100, {"merchant": None, "entry_mode": "ecom"}),
        (5, 100, {"merchant": None}),
    ],
    # The newest time moves on by days, so that tiles widen in whatever order they were made.
    "days": [
        (0, 100), (3, 300, {"merchant": "m2"}), (70, 150), (5_000, 700), (90_000, 100), (700_000, 250),
    ],
    "one and the same": [(7, 100)] * 6,
    "two cards": [
        (0, 100), (1, 100, {"card": "b"}), (2, 100, {"merchant": "m2"}), (3, 500, {"card": "b", "merchant": "m2"}),
        (3, 100), (0, 700, {"merchant": None}),
    ],
}  # fmt: skip


@cache
def config_of(horizon_past: str) -> Config:
    return full_config(("5s", "10s"), 4, AGGREGATES, merchant_windows=("5s", "30s"), horizon_past=horizon_past)


def oracle_for(events: list[Event], comparison: Comparison) -> Expected:
    """The oracle's values by event and by which came before: each asked for once, not once for every order."""

    @cache
    def expected(sequence: int, before: frozenset[int]) -> dict[str, float]:
        earlier = [x for x in events if x.sequence in before]
        return features_of(events[sequence], earlier, comparison.spec, MINOR_PER_MAJOR, PREDICATES)

    return expected


def entities_after(
    config: Config, events: list[Event], comparison: Comparison, expected: Expected
) -> dict[bytes, bytes]:
    """What is stored after the events, whose exact values are compared on the way."""
    store = MemoryStore()
    state = LocalState(config, comparison.spec, "f", store)
    matrix = state.features(batch_of(events, comparison.spec))
    for row, one in enumerate(events):
        before = frozenset(x.sequence for x in events[:row])
        comparison.compare(matrix, row, one, expected(one.sequence, before))
    state.begin_flush({})
    state.finish_flush()
    return {key: value for key, value in store.rows.items() if key[:1] not in (HEADER, DEDUPE)}


@pytest.mark.parametrize("name", SETS)
def test_all_orders_leave_the_same_state(name: str) -> None:
    assert_all_orders(name, config_of("1000d"), same_state=True)


@pytest.mark.parametrize("name", SETS)
def test_in_all_orders_exact_values_are_exact_though_entities_are_forgotten(name: str) -> None:
    """What is forgotten, and is then heard of again, depends on who moved the clock on meanwhile."""
    assert_all_orders(name, config_of("1s"), same_state=False)


def assert_all_orders(name: str, config: Config, *, same_state: bool) -> None:
    tally = Tally()
    comparison = Comparison(config).counting(tally)
    rows = SETS[name]
    for count in range(1, len(rows) + 1):
        events = [event(row[0], row[1], at, **(row[2] if len(row) > 2 else {})) for at, row in enumerate(rows[:count])]

        expected = oracle_for(events, comparison)
        stored = entities_after(config, events, comparison, expected)
        for order in itertools.permutations(events):
            found = entities_after(config, list(order), comparison, expected)
            assert not same_state or found == stored, order
    assert tally.exact > tally.compared / 2
