"""Where to begin: the state's offset vector L against the committed one C, partition by partition.

L            C
|  replay    |  go on
+------------+-------------------> offsets
"""

from dataclasses import dataclass
from typing import NamedTuple

from engine.errors import FatalError
from engine.state.header import Header


class Origin(NamedTuple):
    """Which input a state is of; the ids are None on a broker that has none."""

    cluster_id: str | None
    topic: str
    topic_id: str | None


def wrong_origin(header: Header, here: Origin) -> str:
    """What is wrong where the state is not of this input; empty where it is, or of none yet.

    Files name a topic and no more.
    """
    there = Origin(header.cluster_id, header.topic, header.topic_id)
    if not there.topic or there == here or (header.loaded and there.topic == here.topic):
        return ""
    if header.loaded:
        return f"the state was loaded from history of topic {there.topic!r}, not of {here.topic!r}"
    return (
        f"the state was built from topic {there.topic!r} ({there.topic_id}) of cluster {there.cluster_id}, "
        f"not from {here.topic!r} ({here.topic_id}) of {here.cluster_id}"
    )


@dataclass(frozen=True, slots=True)
class Plan:
    """`replay[partition]` = (from, to): absorbed with output suppressed; `begin` is where live reading starts.
    `cold`: history is missing, so that nothing which reaches back before the first record read is exact.
    """

    replay: dict[int, tuple[int, int]]
    begin: dict[int, int]

    cold: bool = False

    @property
    def events(self) -> int:
        """How many offsets the replay covers."""
        return sum(to - start for start, to in self.replay.values())


def plan_recovery(
    state: dict[int, int],
    committed: dict[int, int],
    bounds: dict[int, tuple[int, int]],
    *,
    loaded: bool = False,
    accept_cold_state: bool = False,
) -> Plan:
    """Decides for every partition in `bounds` (first offset still there, end).

    A state that was `loaded` from history needs no committed offset: reading begins where the history ends.
    Raises FatalError, with what to do, wherever going on would decide on wrong features: state ahead of the committed
    offsets, commits missing where state exists, records to replay that are no longer in the topic, or a gap between
    history and topic.
    """
    replay, begin, cold = {}, {}, False
    if loaded and (unknown := sorted(state.keys() - bounds.keys())):
        raise FatalError(f"the history has partitions that the topic does not have: {', '.join(map(str, unknown))}")
    for partition, (first, end) in bounds.items():
        stored, commit = state.get(partition), committed.get(partition)
        where = f"partition {partition}"
        if commit is None and not stored:
            # Of a partition that stands at 0 nothing was taken: a standby may know it before it has a commit.
            begin[partition] = first
            continue
        if commit is None and stored is not None and loaded:
            begin[partition] = _after_history(where, stored, first, end)
            continue
        if commit is None:
            raise FatalError(
                f"{where}: the state stands at offset {stored}, but no offset is committed; another application_id? "
                f"Use that state's application_id, or an empty state.dir"
            )
        if commit > end:
            raise FatalError(f"{where}: committed offset {commit} is past the topic's end {end}; was it re-created?")
        begin[partition] = commit
        start = 0 if stored is None else stored
        if start > commit and loaded:
            raise FatalError(
                f"{where}: the history reaches to offset {start}, but {commit} is committed: the events between were "
                f"never decided; use an application_id that has not run yet, or load history that ends at {commit}"
            )
        if start > commit:
            raise FatalError(
                f"{where}: the state stands at offset {start}, ahead of the committed {commit}; the offsets were reset "
                f"or the disk is from elsewhere. Move state.dir away to rebuild the state from the topic"
            )
        if start < first and start < commit:
            if stored is not None or not accept_cold_state:
                raise FatalError(
                    f"{where}: offsets {start} to {commit} must be replayed into the state, but the topic begins at "
                    f"{first}; with an empty state.dir, --accept-cold-state begins with the history that is left"
                )
            start, cold = min(first, commit), True
        if start < commit:
            replay[partition] = (start, commit)
    return Plan(replay, begin, cold)


def _after_history(where: str, stored: int, first: int, end: int) -> int:
    """Where reading begins behind loaded history."""
    if stored < first:
        raise FatalError(
            f"{where}: the history ends before offset {stored}, but the topic begins at {first}: what was between them "
            f"is in neither; load history that reaches to {first}"
        )
    if stored > end:
        raise FatalError(
            f"{where}: the history reaches to offset {stored}, but the topic ends at {end}; is it another topic?"
        )
    return stored
