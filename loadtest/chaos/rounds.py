"""What is done to whom, in which order: drawn from a seed before anything runs."""

import random
from dataclasses import dataclass
from typing import Literal

Kind = Literal["kill", "freeze", "kill_broker"]

# What a round of each kind takes, about: session timeout, the start of the next standby, the broker's start.
ROUND_S = {"kill": 10.0, "freeze": 12.0, "kill_broker": 20.0}
DELAY_S_MAX = 1.0
INSIDE_SHARE = 0.75


@dataclass(frozen=True, slots=True)
class Round:
    """One blow. `inside`: while a transaction is seen to be open, otherwise whenever work is uncommitted.

    `delay_s`: how long all goes well before. `at_once`: whether the killed worker starts again before the other has
    taken over, and so may get the lease itself, or only then.
    """

    kind: Kind
    inside: bool
    delay_s: float
    at_once: bool


def plan(kills: int, freezes: int, broker_kills: int, seed: int) -> list[Round]:
    """The rounds of a run, in an order of their own for each seed.

    >>> [blow.kind for blow in plan(2, 1, 1, seed=3)] == [blow.kind for blow in plan(2, 1, 1, seed=3)]
    True
    """
    rng = random.Random(seed)
    counts: dict[Kind, int] = {"kill": kills, "freeze": freezes, "kill_broker": broker_kills}
    kinds = [kind for kind, count in counts.items() for _ in range(count)]
    rng.shuffle(kinds)
    return [
        Round(kind, rng.random() < INSIDE_SHARE, rng.uniform(0.0, DELAY_S_MAX), rng.random() < 0.5) for kind in kinds
    ]


def rate_for(rounds: list[Round], events: int) -> float:
    """Events per second at which the stream lasts about as long as the rounds."""
    return events / max(10.0, sum(ROUND_S[blow.kind] for blow in rounds))
