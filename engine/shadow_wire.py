"""What a worker and the process of a challenger say to each other, in whole messages over a socket.

worker                                   challenger
Task: configuration, which model ------>
                                 <------ Loaded, or Refused and the end
Seen: one micro-batch            ------>
                                 <------ Scored, or Failed
(closes)                         ------> delivers what it has, and ends
"""

import socket
from pathlib import Path
from typing import Any, TypeAlias, cast

import msgspec
import numpy as np
from numpy.typing import NDArray

from engine.config import Config
from engine.events import Batch
from engine.state.local import FeatureMatrix

_LENGTH_BYTES = 4
MESSAGE_BYTES_MAX = 2**31
# The worker reads no more than this at once from a process that it does not trust.
ANSWER_BYTES_MAX = 64 * 1024


class Task(msgspec.Struct, frozen=True):
    """What a challenger is to do."""

    config: Config
    reference: str


class Loaded(msgspec.Struct, frozen=True, tag=True):
    """It has passed the gate, and is warm. `facts`: which model it is."""

    facts: dict[str, str]


class Refused(msgspec.Struct, frozen=True, tag=True):
    """The gate does not let it pass."""

    why: str


class Scored(msgspec.Struct, frozen=True, tag=True):
    """A micro-batch is done. `undelivered`: messages that the broker did not take, since the last answer."""

    undelivered: int


class Failed(msgspec.Struct, frozen=True, tag=True):
    """The model has no answer to a micro-batch; the next one may go better."""

    why: str


Answer: TypeAlias = Loaded | Refused | Scored | Failed


class Seen(msgspec.Struct, frozen=True):
    """A micro-batch of n events as challengers see it: what a decision says of an event, what rules read, and features.

    Arrays as bytes, in the types that `Batch` and `FeatureMatrix` have them in.
    """

    topic: str
    event_ids: list[str]
    partition_keys: list[str | None]
    times_ms: bytes
    partitions: bytes
    offsets: bytes
    late: bytes
    values: bytes
    exact_windows: bytes
    exact_all: bytes
    missing: bytes
    amounts_minor: bytes
    keys: bytes
    flags: bytes
    numbers: dict[str, bytes]
    categories: dict[str, bytes]

    def batch(self) -> Batch:
        """The events; without what only the champion's side needs."""
        rows = len(self.event_ids)
        return Batch(
            topic=self.topic,
            event_ids=self.event_ids,
            event_id_hashes=np.zeros(0, np.uint64),
            times_ms=np.frombuffer(self.times_ms, np.int64),
            amounts_minor=np.frombuffer(self.amounts_minor, np.int64),
            currency="",
            keys={},
            words=np.frombuffer(self.keys, np.uint64).reshape(rows, -1),
            flags=np.frombuffer(self.flags, np.int64),
            partition_keys=self.partition_keys,
            partitions=np.frombuffer(self.partitions, np.int64),
            offsets=np.frombuffer(self.offsets, np.int64),
            record_times_ms=np.zeros(0, np.int64),
            numbers={name: np.frombuffer(column, np.float64) for name, column in self.numbers.items()},
            categories={name: np.frombuffer(column, np.uint64) for name, column in self.categories.items()},
            late=np.frombuffer(self.late, np.bool_),
        )

    def matrix(self) -> FeatureMatrix:
        """The features."""
        rows = len(self.event_ids)
        return FeatureMatrix(
            np.frombuffer(self.values, np.float64).reshape(rows, -1),
            np.frombuffer(self.exact_windows, np.uint8).reshape(rows, -1),
            np.frombuffer(self.exact_all, np.uint8).reshape(rows, -1),
            np.frombuffer(self.missing, np.bool_),
        )


def encode_seen(batch: Batch, matrix: FeatureMatrix) -> bytes:
    """What challengers see of a micro-batch, copied once, into the message that says it."""
    return _encoder.encode(
        Seen(
            batch.topic,
            batch.event_ids,
            batch.partition_keys,
            _raw(batch.times_ms),
            _raw(batch.partitions),
            _raw(batch.offsets),
            _raw(batch.late),
            _raw(matrix.values),
            _raw(matrix.exact_windows),
            _raw(matrix.exact_all),
            _raw(matrix.missing),
            _raw(batch.amounts_minor),
            _raw(batch.words[:, : len(batch.keys)]),
            _raw(batch.flags),
            {name: _raw(column) for name, column in batch.numbers.items()},
            {name: _raw(column) for name, column in batch.categories.items()},
        )
    )


def _raw(array: NDArray[Any]) -> bytes:
    """The array for an encoder, which takes whatever has bytes and copies them itself."""
    return cast(bytes, array.data)


def _path(kind: type, value: Any) -> Any:
    if kind is Path:
        return Path(value)
    raise NotImplementedError(kind)


_encoder = msgspec.msgpack.Encoder(enc_hook=str)
_tasks = msgspec.msgpack.Decoder(Task, dec_hook=_path)
_batches = msgspec.msgpack.Decoder(Seen)
_answers = msgspec.msgpack.Decoder(Answer)


class Channel:
    """One end of the socket. A message that does not go or come in time is TimeoutError; EOFError: nobody is there."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def send(self, message: Task | Answer, timeout_s: float | None = None) -> None:
        """Returns once the message is on its way; OSError where nobody is there."""
        self.send_encoded(_encoder.encode(message), timeout_s)

    def send_encoded(self, message: bytes, timeout_s: float | None = None) -> None:
        """The same of a message that is bytes already."""
        self._connection.settimeout(timeout_s)
        self._connection.sendall(len(message).to_bytes(_LENGTH_BYTES))
        self._connection.sendall(message)

    def task(self) -> Task:
        """Waits for what to do."""
        return _tasks.decode(self._receive(None))

    def batch(self) -> Seen:
        """Waits for the next micro-batch; EOFError at the end."""
        return _batches.decode(self._receive(None))

    def answer(self, timeout_s: float) -> Answer:
        """Waits for an answer; msgspec.DecodeError where it is none."""
        answer: Answer = _answers.decode(self._receive(timeout_s, ANSWER_BYTES_MAX))
        return answer

    def _receive(self, timeout_s: float | None, bytes_max: int = MESSAGE_BYTES_MAX) -> bytearray:
        self._connection.settimeout(timeout_s)
        size = int.from_bytes(self._read(_LENGTH_BYTES))
        if size > bytes_max:
            raise EOFError(f"a message of {size} bytes makes no sense")
        return self._read(size)

    def _read(self, size: int) -> bytearray:
        data = bytearray(size)
        left = memoryview(data)
        while left:
            read = self._connection.recv_into(left)
            if not read:
                raise EOFError("the other end is closed")
            left = left[read:]
        return data

    def close(self) -> None:
        """The other end reads to the end of what was sent, and then has EOFError."""
        self._connection.close()
