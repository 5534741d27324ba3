"""Streams for the property tests: few keys, few amounts, and times that meet the windows' edges.

An item is eight bytes, so that hypothesis pays for one draw an item, and each of its bytes picks from a table. Tables
begin with what is simplest, since that is what bytes shrink to.
"""

from dataclasses import dataclass, replace

from hypothesis import strategies as st

from tests.oracle.events import OFFSET_BITS, Event

PARTITIONS = 3
# 40 seconds before a midnight.
START_MS = 1_735_689_560_000
ITEM_BYTES = 8
EVENTS_MAX = 20

# Grids whose points lie exactly a window apart, the same a millisecond beside them, minutes, and a few that tie.
TIMES_MS = [
    *(1_250 * k for k in range(64)),
    *(1_250 * k + 1 for k in range(32)),
    *(1_250 * k - 1 for k in range(1, 33)),
    *(60_000 * k for k in range(64)),
    *(10_000 * (k % 4) for k in range(64)),
]
AMOUNTS_MINOR = [
    *(0, 1, 199, 200, 201, -1, 100, 100, 12_345, 10**13, -(10**13), 10**13 - 1),
    *range(-20, 200, 20),
]
CARDS = ("a", "a", "a", "b", "c", None)
MERCHANTS = ("m1", "m2", "m3", None)
CITIES = ("x", "y", None)
ENTRY_MODES = ("ecom", "chip", "moto", None)
DISTANCES_KM = (None, 0.0, -0.0, 100.0, 100.00000000000001, -3.5, 1e300, 250.25)
LOCATIONS = (
    None,
    (48.1371079, 11.5753822),
    (48.1371080, 11.5753822),  # its neighbour
    (90.0, 0.0),
    (-90.0, 17.5),
    (0.0, 180.0),
    (0.0, -180.0),  # the same place
    (0.0, 0.0),
    (-48.1371078, -168.4246177),  # almost the far side of the globe
    (1e-7, -1e-7),
)


@dataclass(frozen=True)
class Item:
    """An event to send, to a partition; `repeats` counts back to the one whose id it has, 0 for one of its own."""

    partition: int
    repeats: int
    event: Event


def _pick(table, byte: int):
    return table[byte % len(table)]


def item_of(data: bytes, scale: int = 1) -> Item:
    """Reads an item. `scale` stretches the times."""
    source, time, amount, card, merchant, entry, location, repeats = data
    event = Event(
        START_MS + scale * TIMES_MS[time],
        0,
        _pick(AMOUNTS_MINOR, amount),
        {
            "card": _pick(CARDS, card),
            "merchant": _pick(MERCHANTS, merchant),
            "city": _pick(CITIES, merchant // 16),
            "entry_mode": _pick(ENTRY_MODES, entry),
        },
        {"distance_km": _pick(DISTANCES_KM, entry // 16)},
        _pick(LOCATIONS, location),
    )
    return Item(source % PARTITIONS, max(0, repeats - 224), event)


def items(count_max: int = EVENTS_MAX, scales: tuple[int, ...] = (1,)) -> st.SearchStrategy[list[Item]]:
    """Up to so many items, as often many as few."""

    @st.composite
    def drawn(draw) -> list[Item]:
        scale = draw(st.sampled_from(scales))
        count = draw(st.integers(1, count_max))
        return [item_of(draw(_BYTES), scale) for _ in range(count)]

    return drawn()


_BYTES = st.binary(min_size=ITEM_BYTES, max_size=ITEM_BYTES)


def numbered(stream: list[Item], sent: list[Event] | None = None) -> list[Event]:
    """The items as events with ids and source coordinates, after those that were sent already.

    A repetition has the id of the event it repeats, and comes half of the time from the same partition: only then it
    is a duplicate.
    """
    sent = list(sent or [])
    before = len(sent)
    for item in stream:
        partition, event_id = item.partition, f"e{len(sent)}"
        if 0 < item.repeats <= len(sent):
            original = sent[-item.repeats]
            event_id = original.event_id
            partition = original.partition if item.repeats % 2 else partition
        offset = sum(event.partition == partition for event in sent)
        sent.append(located(item.event, partition, offset, event_id))
    return sent[before:]


def located(event: Event, partition: int, offset: int, event_id: str) -> Event:
    """The event with an id and source coordinates."""
    return replace(event, sequence=partition << OFFSET_BITS | offset, event_id=event_id)


def moved(event: Event, by_ms: int) -> Event:
    """The same event at another time."""
    return replace(event, time_ms=event.time_ms + by_ms)


def shuffled(stream: list[Event], order: list[int]) -> list[Event]:
    """The same events with partitions interleaved another way: each keeps its own order."""
    queues = [[event for event in stream if event.partition == partition] for partition in range(PARTITIONS)]
    mixed = [queue.pop(0) for number in order if (queue := queues[number % PARTITIONS])]
    return mixed + [event for queue in queues for event in queue]


cuts = st.lists(st.integers(1, EVENTS_MAX), max_size=4)
