"""What a person sees of a run: at one moment of it, and at its end."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class AlertLine:
    """One alert. `key` is masked; `attack` is the kind of attack that it is about, None for a false alarm."""

    arrived_s: float
    decision: str
    risk_score: int
    key: str
    amount: str
    reason: str
    attack: str | None


@dataclass(frozen=True, slots=True)
class AttackCount:
    """How many attacks of one kind have begun, how many of them were found, and how soon (the median)."""

    kind: str
    started: int
    detected: int
    seconds_to_alert: float | None


@dataclass(frozen=True, slots=True)
class Latency:
    """From the intended send time of an event to the arrival of its decision."""

    p50_ms: float
    p99_ms: float
    p999_ms: float
    max_ms: float


@dataclass(frozen=True, slots=True)
class Figures:
    """A run so far. `per_second` and `p99_ms` have one entry per second, the newest last."""

    target: str
    elapsed_s: float
    seconds: float
    rate: float
    sent: int
    to_decide: int
    decided: int
    dead_letters: int
    duplicates: int
    kinds: dict[str, int]
    latency: Latency
    alerts: int
    attacks: Sequence[AttackCount]
    last_alerts: Sequence[AlertLine]
    per_second: Sequence[float]
    p99_ms: Sequence[float]

    @property
    def lag(self) -> int:
        """Events that were sent and still wait for their decision."""
        return max(0, self.to_decide - self.decided)
