"""What a peer has written: read back, and held against the oracle."""

import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass

import msgspec
import numpy as np
from confluent_kafka import Consumer, KafkaError, Message, TopicPartition
from numpy.typing import NDArray

from loadtest.errors import LoadTestError
from loadtest.peers.job import INPUTS, Int64, number_of

Float64 = NDArray[np.float64]
Bool = NDArray[np.bool_]

GIVE_UP_S = 60.0
# Half a cent, for sums that were added up in binary; what float32 inputs and another version of ONNX Runtime may do.
SUM_TOLERANCE = 0.005
PROBABILITY_TOLERANCE = 1e-4
_AMOUNT, _COUNT, _SUM = INPUTS


class Result(msgspec.Struct):
    """One output record, of whichever engine: Tidegate's decisions carry the two values among their features."""

    event_id: str
    count_1h: float | None = None
    sum_1h: float | None = None
    probability: float | None = None
    features: dict[str, float | None] = {}
    inexact: list[str] = []

    def values(self) -> tuple[float, float, float, bool]:
        """Count, sum and probability, NaN where there is none; and whether it says itself that a value is not exact."""
        found = (
            self.features.get(_COUNT, self.count_1h),
            self.features.get(_SUM, self.sum_1h),
            self.probability,
        )
        count, total, probability = (np.nan if value is None else value for value in found)
        return count, total, probability, bool(self.inexact)


@dataclass(frozen=True, slots=True)
class Results:
    """Of each event that has a result, by when it was written: row, that moment (s), and what `Result.values` has."""

    rows: Int64
    written_s: Float64
    counts: Float64
    sums: Float64
    probabilities: Float64
    flagged: Bool
    repeated: int

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True, slots=True)
class Truth:
    """The oracle's values by row, sums in cents; `probabilities` of the model, where there is one."""

    counts: Int64
    sums: Int64
    probabilities: Float64 | None


def committed(bootstrap: str, topic: str, partitions: int) -> Iterator[Message]:
    """Every record that a read_committed consumer is given, up to where each partition ends for it."""
    settings = {
        "bootstrap.servers": bootstrap,
        "group.id": "peers-read",
        "isolation.level": "read_committed",
        "enable.auto.commit": False,
        "enable.partition.eof": True,
    }
    with closing(Consumer(settings)) as consumer:
        consumer.assign([TopicPartition(topic, partition, 0) for partition in range(partitions)])
        ended: set[int] = set()
        give_up_at = time.monotonic() + GIVE_UP_S
        while len(ended) < partitions:
            for message in consumer.consume(10_000, 0.1):
                give_up_at = time.monotonic() + GIVE_UP_S
                error = message.error()
                if error is None:
                    yield message
                elif error.code() == KafkaError._PARTITION_EOF:
                    ended.add(message.partition())
                else:
                    raise LoadTestError(f"{topic}: {error.str()}")
            if time.monotonic() > give_up_at:
                raise LoadTestError(f"{topic}: nothing came for {GIVE_UP_S:g} s")


def read_results(messages: Iterator[Message]) -> Results:
    """The first result of each event; LoadTestError where a record is no result."""
    decode = msgspec.json.Decoder(Result).decode
    found: list[tuple[float, ...]] = []
    for message in messages:
        try:
            result = decode(message.value() or b"")
        except msgspec.DecodeError as error:
            raise LoadTestError(f"no result: {message.value()!r}: {error}") from error
        found.append((number_of(result.event_id), message.timestamp()[1] / 1_000, *result.values()))
    return tabled(found)


def tabled(found: list[tuple[float, ...]]) -> Results:
    """Row, moment (s) and values of each record, as columns; what comes again is only counted."""
    table = np.array(found, np.float64).reshape(-1, 6)
    table = table[np.argsort(table[:, 1], kind="stable")]
    _, first = np.unique(table[:, 0], return_index=True)
    kept = table[np.sort(first)]
    written_s, counts, sums, probabilities, flagged = kept[:, 1:].T
    repeated = len(table) - len(kept)
    return Results(kept[:, 0].astype(np.int64), written_s, counts, sums, probabilities, flagged != 0, repeated)


def _same(results: Results, truth: Truth) -> Bool:
    counts_same: Bool = results.counts == truth.counts[results.rows]
    return counts_same & (np.abs(results.sums - truth.sums[results.rows] / 100) < SUM_TOLERANCE)


def differing(results: Results, truth: Truth, *, flagged: bool = True) -> float:
    """Share of results of which a value is another than the oracle's, or missing; not `flagged`: and none says so."""
    if not len(results):
        return 0.0
    other = ~_same(results, truth)
    return float((other if flagged else other & ~results.flagged).mean())


def wrongly_scored(results: Results, truth: Truth) -> float:
    """Share of results with the oracle's values but without the model's probability for them; 0 without a model."""
    if truth.probabilities is None or not len(results):
        return 0.0
    off = ~(np.abs(results.probabilities - truth.probabilities[results.rows]) < PROBABILITY_TOLERANCE)
    return float((_same(results, truth) & off).mean())
