"""What a ring of the newest events has had to drop, by sorting all of an entity's events."""

from features.spec import EntitySpec
from tests.oracle.events import Event, Predicates
from tests.oracle.windows import order_in_state


def newest_dropped_ms(
    same: list[Event], entity: EntitySpec, ring_events_max: int, predicates: Predicates
) -> int | None:
    """The time of the newest of an entity's events that its full ring has no place for; None where all have one."""
    ordered = sorted(same, key=order_in_state(entity, predicates), reverse=True)
    return ordered[ring_events_max].time_ms if len(ordered) > ring_events_max else None


def exact_windows(
    at_ms: int, same: list[Event], entity: EntitySpec, ring_events_max: int, predicates: Predicates
) -> int:
    """How many windows, shortest first, hold nothing at this moment that was dropped."""
    dropped_ms = newest_dropped_ms(same, entity, ring_events_max, predicates)
    return sum(dropped_ms is None or dropped_ms <= at_ms - length_ms for length_ms in entity.windows_ms)
