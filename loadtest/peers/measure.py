"""One run of one peer over a topic that is full already: events/s, CPU per event, and whether its values are right."""

import threading
import time
from contextlib import closing
from dataclasses import dataclass

import numpy as np

from loadtest.errors import LoadTestError
from loadtest.peers.peer import Peer, Run
from loadtest.peers.program import Program, running
from loadtest.peers.results import Results, Truth, committed, differing, read_results, wrongly_scored
from loadtest.peers.topics import EndOffsets
from loadtest.peers.usage import Usage

FIRST_RESULT_DEADLINE_S = 180.0
POLL_INTERVAL_S = 0.1
# The last transaction before the end is often given up. Who has written nothing for longer has stood still.
STALLED_S = 5.0


@dataclass(frozen=True, slots=True)
class Limits:
    """When a run is over: so many results, or so many seconds after the first of them, the warm-up included."""

    events: int
    seconds_max: float
    warm_up_s: float


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one run, what stands in the table; the first three are after the warm-up.

    `unsaid_share` is of results with another value that do not say so, as Tidegate's decisions do.
    """

    events: int
    events_per_second: float
    cpu_us_per_event: float
    results: int
    repeated: int
    differing_share: float
    unsaid_share: float
    wrongly_scored_share: float


def measure(peer: Peer, run: Run, limits: Limits, truth: Truth) -> Figures:
    """Lets the peer work through the input; LoadTestError, with its last words, where it ends or writes nothing."""
    with running(peer.command(run), run.folder) as program, Usage(program.session) as usage:
        stopped_s = _until_over(program, run, limits)
    results = read_results(committed(run.bootstrap, run.output, run.partitions))
    return figures(results, usage, stopped_s, limits.warm_up_s, truth)


def _until_over(program: Program, run: Run, limits: Limits) -> float:
    """Waits for the end of the run; returns when that was, in s since the epoch."""
    never = threading.Event()
    give_up_at, over_at = time.time() + FIRST_RESULT_DEADLINE_S, np.inf
    with closing(EndOffsets(run.bootstrap, run.output, run.partitions)) as ends:
        while (results := ends.total()) < limits.events and time.time() < over_at:
            program.check()
            if results and over_at == np.inf:
                over_at = time.time() + limits.seconds_max
            if not results and time.time() > give_up_at:
                raise LoadTestError(f"no result after {FIRST_RESULT_DEADLINE_S:g} s")
            never.wait(POLL_INTERVAL_S)
    return time.time()


def figures(results: Results, usage: Usage, stopped_s: float, warm_up_s: float, truth: Truth) -> Figures:
    """What the results say that were written before the program was told to end."""
    written_s = results.written_s[results.written_s <= stopped_s]
    if len(written_s) < 2:
        raise LoadTestError(f"{len(written_s)} results are too few to measure anything")
    ended_s = written_s[-1] if stopped_s - written_s[-1] < STALLED_S else stopped_s
    # Who is through sooner is measured over the second half of its results.
    began_s = min(written_s[0] + warm_up_s, written_s[len(written_s) // 2])
    events = int((written_s > began_s).sum())
    if not events:
        raise LoadTestError(f"stalled: {len(written_s)} results, and none of them after the warm-up")
    return Figures(
        events=events,
        events_per_second=float(events / (ended_s - began_s)),
        cpu_us_per_event=usage.between(began_s, ended_s) / events * 1e6,
        results=len(results),
        repeated=results.repeated,
        differing_share=differing(results, truth),
        unsaid_share=differing(results, truth, flagged=False),
        wrongly_scored_share=wrongly_scored(results, truth),
    )
