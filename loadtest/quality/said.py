"""What the control plane says over HTTP, asked as anybody would."""

import http.client
import time
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import msgspec
from prometheus_client.parser import text_string_to_metric_families

ANSWER_TIMEOUT_S = 5.0
ALARMS_INTERVAL_S = 1.0


class Alarm(msgspec.Struct, frozen=True):
    """One that was raised: by the telemetry up to `raised_at_ms`, and seen by whoever asks every second."""

    signal: str
    raised_at_ms: int
    seen_ms: int


@dataclass
class Plane:
    """A control plane at HOST:PORT. While it is away nothing is known, and that is no error: it may be killed."""

    address: str
    alarms: dict[tuple[str, int], Alarm] = field(default_factory=dict)
    lag_events_max: int = 0
    _look_at: float = 0.0

    def look(self) -> None:
        """Notes alarms and lag, a second after the last look at the earliest."""
        if time.monotonic() < self._look_at:
            return
        self._look_at = time.monotonic() + ALARMS_INTERVAL_S
        said = self._json("/drift") or {}
        now_ms = time.time_ns() // 1_000_000
        for application in said.values():
            for signal, alarm in application["alarms"].items():
                key = signal, int(alarm["raised_at_ms"])
                self.alarms.setdefault(key, Alarm(*key, now_ms))
        self.lag_events_max = max(self.lag_events_max, sum((self.lags() or {}).values()))

    def quality(self) -> dict[str, Any] | None:
        """Figures over all labelled decisions."""
        said = self._json("/quality")
        return None if said is None else said["overall"]

    def lags(self) -> dict[str, int] | None:
        """Of each topic, the records behind what it has committed, as far as it knows."""
        text = self._ask("/metrics")
        if text is None:
            return None
        families = text_string_to_metric_families(text)
        return {
            one.labels["topic"]: int(one.value) for family in families if family.name == _LAG for one in family.samples
        }

    def _json(self, path: str) -> Any:
        text = self._ask(path)
        return None if text is None else msgspec.json.decode(text)

    def _ask(self, path: str) -> str | None:
        try:
            with closing(http.client.HTTPConnection(self.address, timeout=ANSWER_TIMEOUT_S)) as connection:
                connection.request("GET", path)
                answer = connection.getresponse()
                text = answer.read().decode()
        except (OSError, http.client.HTTPException):
            return None
        return text if answer.status == http.client.OK else None


_LAG = "tidegate_control_lag_events"
