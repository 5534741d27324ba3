"""What the driver knows about the records that it sends, and the engine is never told."""

from dataclasses import dataclass

from loadtest.columns import NOT_POISON, Bool, Int8, Int64, Traffic


@dataclass(slots=True)
class Truth:
    """n records in the order in which they are sent; the columns mean what they mean in `Traffic`."""

    numbers: Int64
    send_times_ms: Int64
    attack_kinds: Int8
    attack_ids: Int64
    duplicates: Bool
    poison: Bool

    def __len__(self) -> int:
        return len(self.numbers)


def truth_of(traffic: Traffic) -> Truth:
    """The ground truth of some traffic."""
    return Truth(
        traffic.numbers,
        traffic.send_times_ms,
        traffic.attack_kinds,
        traffic.attack_ids,
        traffic.duplicates,
        traffic.poison_kinds != NOT_POISON,
    )
