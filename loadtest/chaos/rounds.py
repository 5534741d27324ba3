"""What is done to whom, in which order: drawn from a seed before anything runs."""

import math
import random
from dataclasses import dataclass
from typing import Literal

Kind = Literal["kill", "freeze", "kill_broker"]

# What a round of each kind takes, about: session timeout, the start of the next standby, the broker's start.
ROUND_S = {"kill": 10.0, "freeze": 12.0, "kill_broker": 20.0}
DELAY_S_MAX = 1.0
INSIDE_SHARE = 0.8
# Nodes of a broker of which one is killed at a time. A single one would lose commits that it had promised already
# (docs/delivery-findings.md).
NODES = 3


@dataclass(frozen=True, slots=True)
class Round:
    """One blow. `inside`: while a transaction is seen to be open, otherwise whenever work is uncommitted.

    `delay_s`: how long all goes well before. `at_once`: whether the killed worker starts again before the other has
    taken over, and so may get the lease itself, or only then. `node`: of the broker, if one of its nodes is killed.
    """

    kind: Kind
    inside: bool
    delay_s: float
    at_once: bool
    node: int


def plan(kills: int, freezes: int, broker_kills: int, seed: int, *, transactions: bool = True) -> list[Round]:
    """The rounds of a run, in an order of their own for each seed; none is inside where there are no `transactions`.

    >>> blows = plan(10, 5, 1, seed=3)
    >>> sum(blow.inside for blow in blows if blow.kind == "kill"), blows == plan(10, 5, 1, seed=3)
    (8, True)
    """
    rng = random.Random(seed)
    rounds = []
    counts: dict[Kind, int] = {"kill": kills, "freeze": freezes, "kill_broker": broker_kills}
    for kind, count in counts.items():
        inside_max = math.ceil(INSIDE_SHARE * count) if transactions else 0
        rounds += [
            Round(kind, number < inside_max, rng.uniform(0.0, DELAY_S_MAX), rng.random() < 0.5, rng.randint(1, NODES))
            for number in range(count)
        ]
    rng.shuffle(rounds)
    return rounds


def rate_for(rounds: list[Round], events: int) -> float:
    """Events per second at which the stream lasts about as long as the rounds."""
    return events / max(10.0, sum(ROUND_S[blow.kind] for blow in rounds))
