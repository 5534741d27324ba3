"""Synthetic events as columns, and beside them what only the generator knows: attacks, duplicates, poison."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

Int8 = NDArray[np.int8]
Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]
Float64 = NDArray[np.float64]
Bool = NDArray[np.bool_]

ATTACK_KINDS = ("none", "card_testing", "account_takeover", "merchant_collusion")
CHANNELS = ("ecom", "pos")
ENTRY_MODES = ("online", "stored", "chip", "contactless")
COUNTRIES = ("DE", "FR", "NL", "AT", "IT", "ES", "PL", "BE")
NOT_POISON = -1


@dataclass(slots=True)
class Traffic:
    """n records in the order in which they are sent; all columns have n entries.

    `run` (32 bits, one for the whole stream) and `numbers` make the event ids. `send_times_ms` ascends; an
    event's own time in `times_ms` is the same unless the event is late. Amounts are minor units.
    `card_numbers` have 16 digits, `devices` 40 bits and `ips` 24 bits; categories, countries, channels and
    entry modes are indices into the name tuples.

    Ground truth, never rendered: `attack_kinds` (index into ATTACK_KINDS), `attack_ids` (-1 outside attacks),
    `duplicates` (repetitions of an earlier record), `poison_kinds` (index into loadtest.poison.KINDS, or -1).
    """

    run: int
    numbers: Int64
    times_ms: Int64
    send_times_ms: Int64
    amounts_minor: Int64
    card_numbers: Int64
    merchants: Int32
    devices: Int64
    ips: Int32
    categories: Int8
    countries: Int8
    channels: Int8
    entry_modes: Int8
    attack_kinds: Int8
    attack_ids: Int64
    duplicates: Bool
    poison_kinds: Int8

    def __len__(self) -> int:
        return len(self.numbers)

    def take(self, rows: NDArray[np.intp] | Bool | slice) -> "Traffic":
        """Only these rows, in the given order."""
        return Traffic(self.run, *(getattr(self, name)[rows] for name in COLUMNS))


COLUMNS = tuple(column.name for column in fields(Traffic) if column.name != "run")


def join(parts: Sequence[Traffic]) -> Traffic:
    """The rows of all parts, which belong to one run, one part after the other."""
    if len(parts) == 1:
        return parts[0]
    return Traffic(parts[0].run, *(np.concatenate([getattr(part, name) for part in parts]) for name in COLUMNS))


def id_prefix(run: int) -> str:
    """What all event ids of a stream begin with."""
    return f"t{run:08x}-"


def event_ids(traffic: Traffic) -> list[str]:
    """The id of each record; duplicates carry the original's."""
    prefix = id_prefix(traffic.run)
    return [f"{prefix}{number:010d}" for number in traffic.numbers.tolist()]
