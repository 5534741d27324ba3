"""Where to begin, for every relation of the state's offset (L), the committed one (C) and what the topic still has.

first                L            C           end
|....................|============|............|
 still in the topic     replayed    then read
"""

import pytest

from engine.errors import FatalError
from engine.recovery import Plan, plan_recovery


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
        (0, None, 0, 100, "the state stands at offset 0, but no offset is committed"),
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
