"""Where to begin: the state's offset vector L against the committed one C, partition by partition.

L            C
|  replay    |  go on
+------------+-------------------> offsets
"""

from dataclasses import dataclass

from engine.errors import FatalError


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
    accept_cold_state: bool = False,
) -> Plan:
    """Decides for every partition in `bounds` (first offset still there, end).

    Raises FatalError, with what to do, wherever going on would decide on wrong features: state ahead of the committed
    offsets, commits missing where state exists, or records to replay that are no longer in the topic.
    """
    replay, begin, cold = {}, {}, False
    for partition, (first, end) in bounds.items():
        stored, commit = state.get(partition), committed.get(partition)
        where = f"partition {partition}"
        if commit is None and stored is None:
            begin[partition] = first
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
