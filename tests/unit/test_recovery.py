"""Where to begin, for every relation of the state's offset (L), the committed one (C) and what the topic still has.

first                L            C           end
|....................|============|............|
 still in the topic     replayed    then read
"""

import re

import pytest

from engine.errors import FatalError
from engine.recovery import Origin, Plan, plan_recovery, wrong_origin
from engine.state.header import Header


def plan(
    state: int | None, committed: int | None, first: int = 0, end: int = 100, *, accept_cold_state: bool = False
) -> Plan:
    """The plan for a topic of one partition."""
    return plan_recovery(
        {} if state is None else {0: state},
        {} if committed is None else {0: committed},
        {0: (first, end)},
        accept_cold_state=accept_cold_state,
    )


# --- what can go on --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "committed", "first", "begin", "replay"),
    [
        (None, None, 0, 0, None),
        (None, None, 30, 30, None),  # a new partition is read from its beginning, wherever that is
        (0, None, 0, 0, None),  # one that a standby knows, and nobody has committed yet
        (40, 40, 0, 40, None),
        (40, 40, 40, 40, None),
        (0, 0, 0, 0, None),
        (100, 100, 0, 100, None),
        (40, 60, 0, 60, (40, 60)),
        (40, 60, 40, 60, (40, 60)),
        (40, 100, 0, 100, (40, 100)),
        (0, 1, 0, 1, (0, 1)),
        (None, 60, 0, 60, (0, 60)),  # the state is gone, the topic is whole
        (None, 0, 0, 0, None),
    ],
)
def test_it_goes_on(
    state: int | None, committed: int | None, first: int, begin: int, replay: tuple[int, int] | None
) -> None:
    for accept_cold_state in (False, True):
        found = plan(state, committed, first, accept_cold_state=accept_cold_state)
        assert found == Plan({} if replay is None else {0: replay}, {0: begin}, cold=False)
        assert found.events == (replay[1] - replay[0] if replay else 0)


def test_what_was_committed_is_never_read_again_and_never_skipped() -> None:
    for state in (None, 10, 20):
        assert plan(state, 20).begin == {0: 20}


# --- what is refused -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "committed", "first", "end", "said"),
    [
        (61, 60, 0, 100, "the state stands at offset 61, ahead of the committed 60; .*Move state.dir away"),
        (61, 0, 0, 100, "the state stands at offset 61, ahead of the committed 0"),
        (61, 60, 70, 100, "the state stands at offset 61, ahead of the committed 60"),
        (40, None, 0, 100, "the state stands at offset 40, but no offset is committed; .*application_id"),
        (1, None, 0, 100, "the state stands at offset 1, but no offset is committed"),
        (40, 101, 0, 100, "committed offset 101 is past the topic's end 100; was it re-created"),
        (None, 101, 0, 100, "committed offset 101 is past the topic's end 100"),
        (40, 60, 41, 100, "offsets 40 to 60 must be replayed into the state, but the topic begins at 41; .*state.dir"),
        (40, 60, 80, 100, "offsets 40 to 60 must be replayed into the state, but the topic begins at 80"),
    ],
)
def test_it_refuses(state: int | None, committed: int | None, first: int, end: int, said: str) -> None:
    for accept_cold_state in (False, True):
        with pytest.raises(FatalError, match=f"^partition 0: {said}"):
            plan(state, committed, first, end, accept_cold_state=accept_cold_state)


def test_history_that_is_gone_is_refused_until_someone_accepts_it() -> None:
    with pytest.raises(FatalError, match=r"offsets 0 to 60 must be replayed .* begins at 30; .*--accept-cold-state"):
        plan(None, 60, first=30)
    assert plan(None, 60, first=30, accept_cold_state=True) == Plan({0: (30, 60)}, {0: 60}, cold=True)


def test_history_of_which_nothing_is_left_is_cold_too() -> None:
    assert plan(None, 60, first=60, accept_cold_state=True) == Plan({}, {0: 60}, cold=True)


# --- several partitions ----------------------------------------------------------------------------------------


def test_each_partition_stands_for_itself() -> None:
    found = plan_recovery(
        {0: 5, 1: 10, 3: 0},
        {0: 10, 1: 10, 2: 7, 3: 0},
        {0: (0, 20), 1: (3, 10), 2: (0, 7), 3: (0, 0), 4: (50, 60)},
    )
    assert found == Plan({0: (5, 10), 2: (0, 7)}, {0: 10, 1: 10, 2: 7, 3: 0, 4: 50}, cold=False)
    assert found.events == 12


def test_one_partition_that_cannot_go_on_stops_all() -> None:
    with pytest.raises(FatalError, match=r"^partition 1: "):
        plan_recovery({0: 5, 1: 11}, {0: 10, 1: 10}, {0: (0, 20), 1: (0, 20)})


def test_one_cold_partition_makes_the_state_cold() -> None:
    found = plan_recovery({0: 5}, {0: 5, 1: 9}, {0: (0, 9), 1: (4, 9)}, accept_cold_state=True)
    assert found == Plan({1: (4, 9)}, {0: 5, 1: 9}, cold=True)


# --- after history was loaded ----------------------------------------------------------------------------------


def plan_after_history(stored: int | None, committed: int | None, first: int = 0, end: int = 100) -> Plan:
    """The same for a state that was loaded from history and that no worker has gone on from."""
    state, committed_offsets = ({} if at is None else {0: at} for at in (stored, committed))
    return plan_recovery(state, committed_offsets, {0: (first, end)}, loaded=True)


@pytest.mark.parametrize(
    ("stored", "committed", "first", "begin", "replay"),
    [
        (40, None, 0, 40, None),
        (40, None, 40, 40, None),
        (100, None, 0, 100, None),
        (None, None, 7, 7, None),  # a partition that the history does not have is read from its beginning
        (40, 40, 0, 40, None),  # the worker ended before its first flush
        (40, 60, 0, 60, (40, 60)),
    ],
)
def test_behind_history_it_begins_where_the_history_ends(
    stored: int | None, committed: int | None, first: int, begin: int, replay: tuple[int, int] | None
) -> None:
    expected = Plan({} if replay is None else {0: replay}, {0: begin}, cold=False)
    assert plan_after_history(stored, committed, first) == expected


@pytest.mark.parametrize(
    ("stored", "committed", "first", "said"),
    [
        (40, None, 41, "the history ends before offset 40, but the topic begins at 41: what was between them"),
        (101, None, 0, "the history reaches to offset 101, but the topic ends at 100; is it another topic"),
        (40, 39, 0, "the history reaches to offset 40, but 39 is committed: the events between were never decided"),
        (40, 101, 0, "committed offset 101 is past the topic's end 100"),
        (40, 60, 50, "offsets 40 to 60 must be replayed into the state, but the topic begins at 50"),
    ],
)
def test_a_gap_between_history_and_topic_is_refused(stored: int, committed: int | None, first: int, said: str) -> None:
    with pytest.raises(FatalError, match=f"^partition 0: {said}"):
        plan_after_history(stored, committed, first)


def test_history_of_partitions_that_the_topic_does_not_have_is_refused() -> None:
    with pytest.raises(FatalError, match=r"^the history has partitions that the topic does not have: 1, 12$"):
        plan_recovery({0: 1, 1: 1, 12: 1}, {}, {0: (0, 9)}, loaded=True)


# --- of which input --------------------------------------------------------------------------------------------

HERE = Origin("cluster", "in", "id")


@pytest.mark.parametrize(
    ("header", "said"),
    [
        (Header(""), ""),
        (Header("", "cluster", "in", "id"), ""),
        (Header("", None, "in", None, loaded=True), ""),
        (Header("", None, "in", None), r"from topic 'in' \(None\) of cluster None, not from 'in' \(id\) of cluster"),
        (Header("", "cluster", "in", "older"), r"from topic 'in' \(older\) of cluster cluster, not from 'in' \(id\)"),
        (Header("", "cluster", "out", "id"), r"from topic 'out' \(id\)"),
        (Header("", None, "out", None, loaded=True), "loaded from history of topic 'out', not of 'in'"),
    ],
)
def test_the_state_of_another_input_is_told(header: Header, said: str) -> None:
    wrong = wrong_origin(header, HERE)
    assert re.search(said, wrong) if said else not wrong
