"""The outcome of a run: what is printed at its end, and the check that every event is accounted for."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from loadtest.figures import AttackCount, Latency


@dataclass(frozen=True, slots=True)
class Sent:
    """What the driver sent, by its own count; `duplicates` and `poison` are among `events`."""

    events: int
    duplicates: int
    poison: int
    delay_ms_max: float
    behind: bool


@dataclass(frozen=True, slots=True)
class Received:
    """What came back: messages counted by the reader, and the duplicates that the engine says it recognised.

    `decisions` counts each event once; `decided_again` and `unknown` are decisions of events that had one already,
    or were never sent.
    """

    decisions: int
    decided_again: int
    unknown: int
    dead_letters: int
    duplicates: int
    alerts: int
    alerts_on_attacks: int


@dataclass(frozen=True, slots=True)
class Report:
    """A whole run. `overrun` says why it was given up early, if it was."""

    target: str
    rate: float
    seconds: float
    sent: Sent
    received: Received
    kinds: dict[str, int]
    latency: Latency
    attacks: Sequence[AttackCount]
    interrupted: bool
    overrun: str

    @property
    def events_per_second(self) -> float:
        """Events settled per second, from the first one's intended send time to the last decision."""
        received = self.received
        settled = received.decisions + received.dead_letters + received.duplicates
        return settled / self.seconds if self.seconds else 0.0

    @property
    def alert_precision(self) -> float | None:
        """Share of the alerts whose event belongs to an attack; None without alerts."""
        received = self.received
        return received.alerts_on_attacks / received.alerts if received.alerts else None

    def failures(self) -> list[str]:
        """What must not happen and did, a line each."""
        sent, received = self.sent, self.received
        settled = received.decisions + received.dead_letters + received.duplicates
        claims = (
            (settled == sent.events, f"{sent.events:,} events were sent, but {settled:,} are accounted for"),
            (received.dead_letters == sent.poison, f"{received.dead_letters:,} of {sent.poison:,} dead letters came"),
            (received.duplicates == sent.duplicates, f"{received.duplicates:,} of {sent.duplicates:,} duplicates seen"),
            (received.decided_again == 0, f"{received.decided_again:,} events were decided twice"),
            (received.unknown == 0, f"{received.unknown:,} decisions or alerts are about events that were never sent"),
        )
        return [self.overrun] * bool(self.overrun) + [text for holds, text in claims if not holds]

    def as_json(self) -> dict[str, Any]:
        """The figures as `--json` writes them."""
        sent, received = self.sent, self.received
        return {
            "events": sent.events,
            "decisions": received.decisions,
            "alerts": received.alerts,
            "dead_letters": received.dead_letters,
            "duplicates": received.duplicates,
            "p50_ms": self.latency.p50_ms,
            "p99_ms": self.latency.p99_ms,
            "p999_ms": self.latency.p999_ms,
            "events_per_second": self.events_per_second,
            "attacks_detected": {count.kind: count.detected for count in self.attacks},
            "attacks_total": {count.kind: count.started for count in self.attacks},
            "alert_precision": self.alert_precision,
            "behind": sent.behind,
            "send_delay_ms_max": sent.delay_ms_max,
            "interrupted": self.interrupted,
            "failures": self.failures(),
        }
