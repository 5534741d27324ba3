"""Everything that the control plane knows, over its tables; Faust brings the records, and takes away what follows."""

import time
from collections import Counter
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass
from typing import TypeAlias

from engine.control.desk import Desk
from engine.control.drift import Expected
from engine.control.joined import Joined
from engine.control.rollouts import Rollout, decode_rollout, encode_rollout
from engine.control.settings import Control
from engine.control.watch import Watch

Table: TypeAlias = MutableMapping[bytes, bytes]


@dataclass(frozen=True, slots=True)
class Tables:
    """All that outlasts a worker."""

    facts: Table
    buckets: Table
    alarms: Table
    cases: Table
    rollouts: Table


def now_ms() -> int:
    """The wall clock."""
    return time.time_ns() // 1_000_000


class Plane:
    """Quality, drift, cases and roll-outs of all applications whose records come."""

    def __init__(
        self,
        settings: Control,
        tables: Tables,
        expected: Callable[[str], Expected | None],
        clock_ms: Callable[[], int] = now_ms,
    ) -> None:
        self.settings = settings
        self.tables = tables
        self.clock_ms = clock_ms
        self.joined = Joined(settings.quality, tables.facts)
        self.watch = Watch(settings, tables.buckets, tables.alarms, expected, self.joined.readings)
        self.desk = Desk(settings.cases, tables.cases)
        self.ready = False
        # Since this worker started: by topic and what became of the record, and how often another model was asked for.
        self.records: Counter[tuple[str, str]] = Counter()
        self.requests = 0
        # By topic; who has the consumer says so.
        self.lags: Callable[[], dict[str, int]] = dict

    def rebuild(self) -> None:
        """What follows from the tables, once they are whole again."""
        self.ready = False
        self.joined.rebuild(self.tables.facts.items())
        self.watch.rebuild(self.tables.buckets.items(), self.tables.alarms.items())
        self.desk.rebuild(self.tables.cases.items())
        self.ready = True

    def rollouts(self) -> list[Rollout]:
        """The newest first."""
        return sorted(map(decode_rollout, self.tables.rollouts.values()), key=lambda rollout: -rollout.offset)

    def note(self, rollout: Rollout) -> None:
        """Keeps a command under its offset: one that is read again is the same."""
        self.tables.rollouts[b"%020d" % rollout.offset] = encode_rollout(rollout)
