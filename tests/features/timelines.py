"""Timelines made by hand: where windows begin and end, ties, late events, absent values. Times in seconds.

Each event is (time, amount in minor units, what else differs); they are accepted in the order in which they stand.
"""

from collections.abc import Sequence
from typing import Any

from tests.oracle.events import Event

START_MS = 1_735_689_560_000
HERE, NEAR, FAR = (48.1371, 11.5754), (48.1372, 11.5754), (52.52, 13.405)


def event(time_s: float, amount_minor: int, sequence: int = 0, **changes: Any) -> Event:
    """An event of card a at merchant m1; `merchant`, `city`, `entry_mode`, `card`, `distance_km` and `at` differ."""
    texts = {"card": "a", "merchant": "m1", "city": "x", "entry_mode": "chip"}
    return Event(
        START_MS + round(1_000 * time_s),
        sequence,
        amount_minor,
        texts | {name: changes[name] for name in texts if name in changes},
        {"distance_km": changes.get("distance_km", 1.0)},
        changes.get("at", HERE),
    )


def timeline(*rows: tuple) -> list[Event]:
    """Events from rows of time, amount and a dictionary of changes."""
    return [
        event(time_s, amount, number, **(more[0] if more else {}))
        for number, (time_s, amount, *more) in enumerate(rows)
    ]


EDGES = timeline(
    #   0        10        20 s    a window of 10 s is (t - 10, t]
    #   a--------)b
    #    )a'------b
    #             b---------)c
    (0, 1_000),  # a
    (0.001, 2_000),  # a'
    (10, 100),  # b: a is exactly ten seconds old and out, a' is in
    (20, 150),  # c: b is out
    (20, 150),  # the same once more
)

LATE = timeline(
    #   0      5      10     15
    #   a             b             in order
    #          c                    arrives after b: sees a, not b
    #                        d      sees all three
    #   e                           as old as a, arrives last: sees a
    (0, 100),
    (10, 1_000),
    (5, 300, {"merchant": "m2"}),
    (15, 700, {"merchant": "m2"}),
    (0, 50, {"merchant": "m3"}),
)

TIES = timeline(
    #   all at 5 s; which was last is decided by what is stored of them, not by the order in which they came
    (5, 300, {"merchant": "m1"}),
    (5, 100, {"merchant": "m2"}),
    (5, 300, {"merchant": "m2", "distance_km": None}),
    (5, 300, {"merchant": "m2", "distance_km": 7.0, "at": FAR}),
    (5, -5, {"merchant": None, "at": None}),
    (5, 300, {"merchant": "m1", "entry_mode": "ecom"}),
    (6, 1),
    (5, 300, {"merchant": "m1"}),
    (6, 0),
)

ABSENT = timeline(
    (0, 100, {"merchant": None, "distance_km": None, "at": None}),
    (1, 100, {"card": None}),
    (2, 100, {"merchant": "m1", "distance_km": 0.0}),
    (3, 100, {"merchant": None, "distance_km": -0.0, "at": None}),
    (4, 100, {"merchant": "m1", "distance_km": None}),
    (5, 100, {"merchant": None, "city": None, "entry_mode": None, "distance_km": 250.0}),
    (6, 100, {"card": "b", "merchant": None}),
)

AMOUNTS = timeline(
    (0, 0),
    (1, 0),
    (2, -250, {"entry_mode": "ecom"}),
    (3, 250),
    (4, 10**13),
    (5, -(10**13)),
    (6, 10**13, {"entry_mode": "ecom"}),
    (7, 10**13 - 1),
    (30, 5),
    (31, 5, {"entry_mode": "ecom"}),
    (32, 5),
)

PREDICATES = timeline(
    #   small = below 2.00, ecom by entry mode, far = beyond 100 km
    (0, 199, {"entry_mode": "ecom", "distance_km": 100.0}),
    (1, 200, {"entry_mode": "ecom", "distance_km": 100.1}),
    (2, 150, {"distance_km": 500.0}),
    (3, 9_000, {"merchant": "m2"}),
    (4, 201, {"merchant": "m2", "entry_mode": "ecom", "distance_km": None}),
    (12, 5_000),
    (13, 199, {"merchant": "m3", "entry_mode": None}),
    (70, 1),
)

PLACES = timeline(
    (0, 1, {"at": HERE}),
    (3_600, 1, {"at": FAR}),
    (3_600, 1, {"at": NEAR}),  # no time at all: as if a second
    (3_600.4, 1, {"at": NEAR}),
    (3_601, 1, {"at": None}),
    (3_700, 1, {"at": (-48.1371, -168.4246)}),
    (3_800, 1, {"at": (0.0, 180.0)}),
    (3_900, 1, {"at": (0.0, -180.0)}),
    (4_000, 1, {"at": (90.0, 0.0)}),
    (4_100, 1, {"at": (90.0, 120.0)}),
    (3_650, 1, {"at": HERE}),
)

TIMELINES: dict[str, Sequence[Event]] = {
    "edges": EDGES, "late": LATE, "ties": TIES, "absent": ABSENT, "amounts": AMOUNTS, "predicates": PREDICATES,
    "places": PLACES,
}  # fmt: skip
