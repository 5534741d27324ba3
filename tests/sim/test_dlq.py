"""Operators who replay dead letters on the simulated cluster: each letter is sent once, whatever happens to them.

They are killed, fenced by each other, left without answers and with commits that are still under way, while a worker
keeps transactions open on the letters' topic.
"""

from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from confluent_kafka import KafkaException

import engine.dlq
from engine.config import default_profile, parse_config
from engine.dlq import Outcome, replay
from engine.dlq_plan import Left, Request
from engine.errors import FatalError, FencedError, RetriableError
from engine.kafka.connection import Connection
from engine.kafka.letters import LetterTopic
from engine.letters import REPLAYED_FROM, Survey, read_mark
from tests.sim.clients import SimClients
from tests.sim.cluster import Cluster
from tests.sim.faults import Crash, Faults
from tests.sim.log import Stored
from tests.sim.process import Process
from tests.sim.producer import SimProducer

CONFIG = parse_config(default_profile(), Path(), environment={})
INPUT, LETTERS = CONFIG.kafka.input, CONFIG.kafka.topics.dead_letters
PARTITIONS = 2
FIRST_LETTERS = 12
REFUSED = b"a record as it came first"
ATTEMPTS_MAX = 60
CALM_AFTER = 30
RATES = {
    "crash": 0.01,
    "lost request": 0.01,
    "lost reply": 0.01,
    "late request": 0.05,
    "repeated request": 0.1,
    "disconnect": 0.05,
    "moved": 0.02,
    "abortable": 0.02,
    "late produce": 0.05,
    "failed produce": 0.02,
    "slow markers": 0.3,
    "slow fetch": 0.05,
    "outage": 0.005,
}


def headers_of(source_partition: int, source_offset: int) -> list[tuple[str, bytes]]:
    fields = {
        "reason": b"malformed_json",
        "error": b"not JSON",
        "topic": INPUT.encode(),
        "partition": b"%d" % source_partition,
        "offset": b"%d" % source_offset,
    }
    return [(f"tidegate.{name}", value) for name, value in fields.items()]


def is_mark(record: Stored) -> bool:
    return read_mark(record.value or b"", dict(record.headers or [])) is not None


@dataclass
class World:
    """A topic of letters, a worker that writes more of them, and operators, one within another."""

    seed: int
    rates: dict[str, float] = field(default_factory=lambda: dict(RATES))
    written: int = 0
    operators: int = 0
    nested: int = 0

    def __post_init__(self) -> None:
        self.cluster = Cluster(Faults(self.seed, self.rates))
        self.random = self.cluster.faults.random
        for topic in (INPUT, LETTERS):
            self.cluster.create_topic(topic, PARTITIONS)
        for _ in range(FIRST_LETTERS):
            letter = Stored(0, None, self._value(), self._refused(), self.cluster.now_ms())
            self.cluster.log(LETTERS, self.random.randrange(PARTITIONS)).append(letter)
        self.worker: SimProducer | None = None
        self.cluster.meanwhile = self.meanwhile

    def _value(self) -> bytes:
        self.written += 1
        return b"letter %d" % self.written

    def _refused(self) -> list[tuple[str, bytes]]:
        """A record comes to the input and is refused: the headers of its letter."""
        partition = self.random.randrange(PARTITIONS)
        return headers_of(partition, self.cluster.append(INPUT, partition, REFUSED))

    def meanwhile(self, _waiting: Process) -> None:
        """While an operator waits, the worker goes on, or another operator begins and works to the end."""
        chance = self.random.random()
        if chance < 0.02 and self.nested == 0:
            self.nested += 1
            self.attempt()
            self.nested -= 1
        elif chance < 0.2:
            self.work()

    def work(self) -> None:
        """The worker begins a transaction with a letter, or ends it: quietly, for this is not about the worker."""
        rates, self.cluster.faults.rates = self.cluster.faults.rates, {}
        meanwhile, self.cluster.meanwhile = self.cluster.meanwhile, None
        if self.worker is None:
            clients = SimClients(self.cluster, self.cluster.process("worker"))
            self.worker = clients.producer({"transactional.id": "worker", "transaction.timeout.ms": 60_000})
            self.worker.init_transactions()
            self.worker.begin_transaction()
            self.worker.produce(LETTERS, self._value(), partition=0, headers=self._refused())
            self.worker.flush()
        else:
            with suppress(KafkaException):  # the transaction may be over its time
                self.worker.commit_transaction()
            self.worker = None
        self.cluster.faults.rates, self.cluster.meanwhile = rates, meanwhile

    def attempt(self) -> Outcome | None:
        """One operator's command; None where it did not end well."""
        self.operators += 1
        process = self.cluster.process(f"operator-{self.operators}")
        clients = SimClients(self.cluster, process)
        try:
            return replay(CONFIG, Request(), lambda _outcome: True, clients=clients, kept=lambda _topic: None)
        except (Crash, FencedError, RetriableError, FatalError):
            process.kill()
            return None

    def sent(self) -> Counter[bytes | None]:
        """What a consumer of the input can see, by how often it is there."""
        found: Counter[bytes | None] = Counter()
        for log in self.cluster.topics[INPUT]:
            records, _ = log.read(0, 100_000, committed_only=True)
            found.update(record.value for record in records if record.value != REFUSED)
        return found

    def letters(self) -> Counter[bytes | None]:
        """The letters that are committed."""
        found: Counter[bytes | None] = Counter()
        for log in self.cluster.topics[LETTERS]:
            records, _ = log.read(0, 100_000, committed_only=True)
            found.update(record.value for record in records if not is_mark(record))
        return found

    def check(self) -> None:
        """Nothing twice."""
        repeated = [value for value, times in self.sent().items() if times > 1]
        assert not repeated, f"seed {self.seed}: sent more than once: {repeated}"


def run(seed: int) -> World:
    """Operators until all is sent; AssertionError where a letter is sent twice, or never."""
    world = World(seed)
    for number in range(ATTEMPTS_MAX):
        if number == CALM_AFTER:
            world.cluster.faults.calm()
            world.cluster.meanwhile = None
            if world.worker is not None:
                world.work()
        outcome = world.attempt()
        world.cluster.clock.advance(1.0)
        world.check()
        if number >= CALM_AFTER and outcome is not None and world.sent() == world.letters():
            return world
    raise AssertionError(f"seed {seed}: in the end {world.sent()} are sent of {world.letters()}; {outcome}")


@pytest.fixture(autouse=True)
def small_transactions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine.dlq, "TRANSACTION_LETTERS_MAX", 3)


@pytest.mark.parametrize("seed", range(20))
def test_every_letter_is_sent_once(seed: int) -> None:
    first = run(seed)
    assert first.operators > 2
    assert run(seed).cluster.trace_hash() == first.cluster.trace_hash()


def test_marks_tell_where_each_letter_went() -> None:
    world = run(1)
    told = {}
    for partition, log in enumerate(world.cluster.topics[LETTERS]):
        for record in log.read(0, 100_000, committed_only=True)[0]:
            mark = read_mark(record.value or b"", dict(record.headers or []))
            for sent in mark.letters if mark else []:
                told[sent.to_partition, sent.to_offset] = f"{LETTERS}/{partition}/{sent.offset}".encode()
    found = {
        (partition, record.offset): dict(record.headers or [])[REPLAYED_FROM]
        for partition, log in enumerate(world.cluster.topics[INPUT])
        for record in log.read(0, 100_000, committed_only=True)[0]
        if record.value != REFUSED
    }
    assert told == found
    assert len(told) == world.letters().total()


def test_a_calm_operator_sends_all_and_the_next_one_nothing() -> None:
    world = World(0, rates={})
    world.cluster.meanwhile = None
    outcome = world.attempt()
    assert outcome is not None
    assert outcome.sent == {INPUT: FIRST_LETTERS}
    again = world.attempt()
    assert again is not None
    assert (again.sent, again.left[Left.REPLAYED]) == ({}, FIRST_LETTERS)


# --- what must not be left out -----------------------------------------------------------------------------------


def marks_are_not_read_again(_topic: LetterTopic, _survey: Survey) -> None:
    """As if what was read before others were fenced were all there is."""


def marks_are_read_to_the_stable_end(topic: LetterTopic, survey: Survey) -> None:
    """As if no mark could hide behind the open transaction of a worker."""
    reader = topic._reader
    asker, reader._asker = reader._asker, reader._consumer
    try:
        CATCH_UP(topic, survey)
    finally:
        reader._asker = asker


CATCH_UP = LetterTopic.catch_up


@pytest.mark.parametrize("mistake", [marks_are_not_read_again, marks_are_read_to_the_stable_end])
def test_a_mistake_about_marks_is_found(mistake: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LetterTopic, "catch_up", mistake)
    assert any(fails(seed) for seed in range(300)), "no seed shows what is wrong"


def test_to_go_on_after_a_commit_in_doubt_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Connection, "emit", lambda _self, _record: None)
    assert any(fails(seed) for seed in range(300)), "no seed shows what is wrong"


def fails(seed: int) -> bool:
    try:
        run(seed)
    except AssertionError:
        return True
    return False
