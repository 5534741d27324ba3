"""One simulated run: two workers, a stream, faults for a while, calm until all is decided; then everything is checked.

safety      no event is lost or decided twice, decisions are those of an undisturbed run in `progress` order, offsets,
            progress and state on disk agree
liveness    once faults have ended, everything is decided within LIVELY_S
"""

import math
import zlib
from collections import Counter
from dataclasses import dataclass, field
from random import Random

import orjson

from engine.assemble import watched
from engine.config import Config
from engine.events import Records
from engine.progress import Progress, Run, decode_progress
from engine.state.header import decode_header
from engine.state.keys import DEDUPE, HEADER
from engine.telemetry import decode_telemetry
from engine.topology import wanted_topics
from tests.memory_store import MemoryStore
from tests.pipelines import pipeline_of, profile, records_of
from tests.sim.cluster import Cluster
from tests.sim.faults import Faults
from tests.sim.log import Stored
from tests.sim.stream import stream
from tests.sim.workers import Machine

PARTITIONS = 3
EVENTS = 240
TROUBLE_S = 40.0
LIVELY_S = 240.0
TURNS_MAX = 60_000
# How often a turn brings new input.
SENDS = 0.02
SAMPLE_RATE = 0.3
RATES = {
    "crash": 0.002,
    "stall": 0.003,
    "lost request": 0.004,
    "late request": 0.02,
    "lost reply": 0.004,
    "repeated request": 0.02,
    "disconnect": 0.01,
    "overtaken": 0.2,
    "moved": 0.01,
    "abortable": 0.005,
    "late produce": 0.02,
    "failed produce": 0.002,
    "slow markers": 0.05,
    "slow fetch": 0.05,
    "rebalance": 0.002,
    "slow thread": 0.3,
    "torn flush": 0.02,
    "full disk": 0.01,
}


def config_of(delivery: str) -> Config:
    """Small rings, quick commits and flushes, so that a short run has many of each."""
    kafka = f"""[kafka]
bootstrap = "simulated"
input = "in"
application_id = "app"
delivery = "{delivery}"
commit_interval_ms = 100
batch_events_max = 8
partitions = {PARTITIONS}
[telemetry]
sample_rate = {SAMPLE_RATE}
interval_s = 2.0
"""
    return profile("ring_events_max = 4\nflush_interval_s = 1.5", extra=kafka)


@dataclass
class Outcome:
    """What a run left behind, for those who compare runs."""

    trace_hash: str
    seconds: float
    ended: Counter[str] = field(default_factory=Counter)
    decisions: int = 0
    commits: int = 0
    counted: int = 0
    problems: list[str] = field(default_factory=list)


class NotLivelyError(Exception):
    """Nothing goes wrong any longer, and still it does not get on."""


class Simulation:
    """Everything of one seed."""

    def __init__(
        self,
        seed: int,
        delivery: str = "exactly_once",
        rates: dict[str, float] | None = None,
        late_s: float | None = None,
    ) -> None:
        """`rates` go before the usual ones; so does `late_s`, how late what is late is at most."""
        self.seed = seed
        self.delivery = delivery
        self.random = Random(seed)
        self.config = config_of(delivery)
        # Some runs are rough and some are nearly calm: what one fault does is seen best alone.
        share = self.random.choice([0.3, 1.0, 3.0])
        chosen = {kind: rate * share for kind, rate in RATES.items()} | (rates or {})
        usual_s = self.random.choice([0.2, 2.0, 10.0])
        self.cluster = Cluster(Faults(seed, chosen, late_s=usual_s if late_s is None else late_s))
        for topic in wanted_topics(self.config):
            self.cluster.create_topic(topic.name, topic.partitions)
        self.machines = [Machine(self.cluster, self.config, name) for name in "ab"]
        self.input = stream(seed, EVENTS)
        # Some inputs get another partition on the way.
        self._grows_at_s = self.random.choice([math.inf, math.inf, 5.0])
        self._sent = 0
        self.cluster.meanwhile = lambda process: self._go_on()

    def run(self) -> Outcome:
        """Trouble, calm, and the checks."""
        trouble_until_s = TROUBLE_S
        while self.cluster.clock.now_s < trouble_until_s:
            self._turn()
        self._note("calm")
        self.cluster.faults.calm()
        if self.cluster.down:
            self.cluster.start_broker()
        while self._sent < len(self.input):
            self._send()
        self._settle()
        self._drain()
        # The markers of the last transaction may still be on their way.
        self.cluster.clock.advance(2 * self.cluster.faults.late_s)
        problems = Checks(self).problems()
        ended = Counter(how.partition(":")[0] for machine in self.machines for how in machine.ended)
        commits = len(self.committed("progress"))
        decisions = len(self.committed("decisions"))
        return Outcome(
            self.cluster.trace_hash(), self.cluster.clock.now_s, ended, decisions, commits, self.counted(), problems
        )

    def _go_on(self) -> None:
        """What happens while somebody waits: the input comes all the same."""
        if self.random.random() < SENDS:
            self._send()
        self._step()

    def _turn(self) -> None:
        draw = self.random.random()
        if draw < SENDS:
            self._send()
        elif draw < 0.0205 and self.cluster.faults.rates and not self.cluster.down:
            self.cluster.outage(self.random.choice([0.5, 5.0, 15.0]))
        if self.cluster.clock.now_s > self._grows_at_s and self.partitions == PARTITIONS:
            self._note("the input grows")
            self.cluster.create_topic("in", PARTITIONS + 1)
        self._step()
        self.cluster.clock.advance(0.01)

    def _step(self) -> None:
        self.random.choice(self.machines).step()

    def _send(self) -> None:
        for _ in range(self.random.randint(1, 6)):
            if self._sent < len(self.input):
                partition, value = self.input[self._sent]
                if self.partitions > PARTITIONS and zlib.crc32(value or b"") % 3 == 0:
                    partition = PARTITIONS
                self.cluster.append("in", partition, value)
                self._sent += 1

    def _settle(self) -> None:
        """Until everything is committed."""
        give_up_s = self.cluster.clock.now_s + LIVELY_S
        turns = 0
        while self.offsets() != self.ends():
            self._turn()
            turns += 1
            if self.cluster.clock.now_s > give_up_s or turns > TURNS_MAX:
                raise NotLivelyError(
                    f"after {LIVELY_S} s of calm {self.offsets()} of {self.ends()} is committed: "
                    f"{[machine.ended[-3:] for machine in self.machines]}"
                )

    def _drain(self) -> None:
        """Stops both, one after the other, so that the second one takes over from the first."""
        for machine in self.machines:
            for _ in range(TURNS_MAX):
                if machine.worker is not None:
                    machine.worker.stop.set()
                if machine.ended and machine.ended[-1] == "stopped":
                    break
                self._turn() if machine.runs else self._step_until_running(machine)

    def _step_until_running(self, machine: Machine) -> None:
        machine.step()
        self.cluster.clock.advance(0.05)

    def _note(self, text: str) -> None:
        self.cluster.note(text)

    @property
    def partitions(self) -> int:
        """How many the input has."""
        return len(self.cluster.topics["in"])

    def offsets(self) -> dict[int, int]:
        """The committed offsets."""
        group = self.cluster.group("app")
        return {p: group.offsets.get(("in", p), 0) for p in range(self.partitions)}

    def ends(self) -> dict[int, int]:
        """Where the input ends."""
        return {p: self.cluster.log("in", p).end for p in range(self.partitions)}

    def committed(self, topic: str) -> list[Stored]:
        """What a read_committed consumer finds, partition by partition."""
        found: list[Stored] = []
        for log in self.cluster.topics[topic]:
            records, _ = log.read(0, 10**9, committed_only=True)
            found += records
        return found

    def counted(self) -> int:
        """How many events telemetry has counted."""
        return sum(decode_telemetry(record.value).events for record in self.committed("telemetry"))


class Checks:
    """What must hold at the end of a run."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self._once = simulation.delivery == "exactly_once"

    def problems(self) -> list[str]:
        """What does not."""
        progress = [
            decode_progress(record.value or b"", record.offset) for record in self._simulation.committed("progress")
        ]
        runs = self._runs_that_hold(progress)
        found = self._check_runs(runs)
        decisions, alerts, samples, letters, store = self._undisturbed(runs)
        known = {_identity(decision) for decision in decisions}
        found += self._compare("decision", self._simulation.committed("decisions"), decisions, known)
        found += self._compare("alert", self._simulation.committed("alerts"), alerts, known)
        found += self._compare("sample", self._simulation.committed("decisions-sample"), samples, known)
        found += self._check_counts(len(decisions))
        found += self._check_letters(letters)
        found += self._check_inits()
        return found + self._check_disks(store)

    def _runs_that_hold(self, progress: list[Progress]) -> list[Run]:
        """At least once, several records may have one number: the last ends at the committed offsets, and each of the
        others where the next one begins. Found from the end on, which is not the way the workers find them."""
        if self._once:
            numbers = [record.sequence for record in progress]
            return [run for record in progress for run in record.runs] if numbers == sorted(set(numbers)) else []
        held: list[Progress] = []
        place = self._simulation.offsets()
        for number in sorted({record.sequence for record in progress}, reverse=True):
            for record in (record for record in progress if record.sequence == number):
                if all(place[partition] == offset for partition, offset in record.vector.items()):
                    held.insert(0, record)
                    place |= {partition: start for partition, start, _ in reversed(record.runs)}
                    break
        return [run for record in held for run in record.runs]

    def _check_runs(self, runs: list[Run]) -> list[str]:
        at = dict.fromkeys(range(self._simulation.partitions), 0)
        for partition, start, to in runs:
            if start != at[partition] or to <= start:
                return [f"progress of partition {partition} goes from {at[partition]} to {start}-{to}"]
            at[partition] = to
        return (
            [] if at == self._simulation.ends() else [f"progress ends at {at}, the input at {self._simulation.ends()}"]
        )

    def _undisturbed(
        self, runs: list[Run]
    ) -> tuple[list[bytes], list[bytes], list[bytes], Counter[tuple[int, int]], MemoryStore]:
        """Decisions, alerts, samples and dead letters of a run without a broker, in that order; and its state."""
        simulation = self._simulation
        store = MemoryStore()
        pipeline = pipeline_of(simulation.config, store)
        watched(simulation.config, pipeline)
        decisions, alerts, samples, letters = [], [], [], Counter[tuple[int, int]]()
        for partition, start, to in runs:
            rows, _ = simulation.cluster.log("in", partition).read(start, to - start, committed_only=True)
            records: Records = records_of([row.value for row in rows], partition, range(start, to))
            records.record_times_ms[:] = [row.timestamp_ms for row in rows]
            outputs = pipeline.process(records)
            decisions += [message["value"] for message in outputs.decisions]
            alerts += [message["value"] for message in outputs.alerts]
            samples += [message["value"] for message in outputs.samples]
            letters.update((letter.partition, letter.offset) for letter in outputs.dead_letters)
        pipeline.state.begin_flush(simulation.ends())
        pipeline.state.finish_flush()
        return decisions, alerts, samples, letters, store

    def _compare(self, what: str, found: list[Stored], wanted: list[bytes], known: set[str]) -> list[str]:
        values = [record.value or b"" for record in found]
        problems = []
        if missing := set(wanted) - set(values):
            problems.append(f"{len(missing)} of {len(wanted)} {what}s are missing or made otherwise")
        further = set(values) - set(wanted)
        if not self._once:
            # What is decided again may be decided otherwise, where partitions are interleaved otherwise.
            further = {value for value in further if _identity(value) not in known}
        if further:
            problems.append(f"{len(further)} {what}s should not be there")
        if self._once and len(values) != len(set(values)):
            problems.append(f"{len(values) - len(set(values))} {what}s are there twice")
        return problems + (self._check_order(what, found) if self._once else [])

    def _check_order(self, what: str, found: list[Stored]) -> list[str]:
        """Of one card and one partition of the input, in the order of the input."""
        newest: dict[tuple[bytes | None, int], int] = {}
        for record in found:
            source = orjson.loads(record.value or b"")["source"]
            key = (record.key, source["partition"])
            if source["offset"] <= newest.get(key, -1):
                return [f"{what}s of card {record.key!r} are out of order"]
            newest[key] = source["offset"]
        return []

    def _check_counts(self, decided: int) -> list[str]:
        """Telemetry may be lost, but counts nothing twice, and nothing that was not committed."""
        counted = self._simulation.counted()
        return [f"telemetry counts {counted} events of {decided}"] if self._once and counted > decided else []

    def _check_letters(self, wanted: Counter[tuple[int, int]]) -> list[str]:
        found = Counter[tuple[int, int]]()
        for record in self._simulation.committed("dead-letters"):
            headers = dict(record.headers or [])
            found[int(headers["tidegate.partition"]), int(headers["tidegate.offset"])] += 1
        same = found == wanted if self._once else set(found) == set(wanted)
        return [] if same else [f"dead letters differ: {found} instead of {wanted}"]

    def _check_inits(self) -> list[str]:
        """Nobody touches the transactional id who has not just asked the broker for the lease."""
        proven: set[str] = set()
        for line in self._simulation.cluster.trace:
            _, process, *step = line.split(" ", 2)
            if step and step[0].startswith("commit lease-0@") and step[0].endswith("done"):
                proven.add(process)
            elif step == ["init_transactions"] and process not in proven:
                return [f"{process} began transactions without the lease"]
            elif step == ["begin_transaction"]:
                proven.discard(process)
        return []

    def _check_disks(self, undisturbed: MemoryStore) -> list[str]:
        problems = []
        for machine in self._simulation.machines:
            stored = machine.disk.rows.get(HEADER)
            vector = decode_header(stored).vector if stored is not None else {}
            if any(offset > self._simulation.offsets()[p] for p, offset in vector.items()):
                problems.append(f"the state of {machine.name} is ahead of what is committed")
            if vector == self._simulation.ends() and _entities(machine.disk.rows) != _entities(undisturbed.rows):
                problems.append(f"the state of {machine.name} is not that of an undisturbed run")
        if not any(m.disk.rows.get(HEADER) for m in self._simulation.machines):
            problems.append("no state was written")
        return problems


def _identity(decision: bytes) -> str:
    identity: str = orjson.loads(decision)["decision_id"]
    return identity


def _entities(rows: dict[bytes, bytes]) -> dict[bytes, bytes]:
    return {key: value for key, value in rows.items() if key != HEADER and not key.startswith(DEDUPE)}
