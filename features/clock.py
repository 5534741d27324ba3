"""What is forgotten: the event time up to which an entity that was not heard of since is deleted.

The clock of the state is the oldest of its partitions' newest times, so that one partition that runs ahead, or a
producer with a wrong clock, deletes nothing; what lies a TTL behind it is forgotten. Each event is judged by the clock
as it stands with that event, whatever batch it came in.
"""

import numpy as np
from numpy.typing import NDArray

from features.arena import NEVER
from features.jit import allocating

Int64 = NDArray[np.int64]

FIRST_MS, FORGOTTEN_MS, NEWEST_MS = range(3)


@allocating
def forgotten(times_ms: Int64, partitions: Int64, newest_ms: Int64, times: Int64, ttl_ms: int) -> Int64:
    """The time up to which entities are forgotten, at each event: int64[n], NEVER while nothing is that old.

    `newest_ms[P]` is NEVER where a partition, of which `partitions[n]` are the numbers, had no event yet. `times` holds
    the first event time of the state, what was forgotten before, and the newest event time. Moves both arrays on.
    """
    result = np.empty(times_ms.shape[0], np.int64)
    for event in range(times_ms.shape[0]):
        time_ms, partition = times_ms[event], partitions[event]
        newest_ms[partition] = max(newest_ms[partition], time_ms)
        times[FIRST_MS] = time_ms if times[FIRST_MS] == NEVER else min(times[FIRST_MS], time_ms)
        times[NEWEST_MS] = max(times[NEWEST_MS], time_ms)
        clock_ms = times[NEWEST_MS]
        for other in range(newest_ms.shape[0]):
            if newest_ms[other] != NEVER:
                clock_ms = min(clock_ms, newest_ms[other])
        if clock_ms - ttl_ms >= times[FIRST_MS]:
            times[FORGOTTEN_MS] = max(times[FORGOTTEN_MS], clock_ms - ttl_ms)
        result[event] = times[FORGOTTEN_MS]
    return result
