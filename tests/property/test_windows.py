"""The kernel against the oracle: any order of times, ties, absent keys, batch cuts, flush, reload and eviction."""

import itertools
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.state.local import LocalState
from engine.state.store import Store
from tests.build import batch_of, small_config
from tests.oracle.windows import Event, features_of

KEYS = st.one_of(st.none(), st.sampled_from(["a", "b", "c"]))
EVENTS = st.lists(
    st.builds(
        lambda t, amount, card, merchant, city: (t, amount, {"card": card, "merchant": merchant, "city": city}),
        st.one_of(st.integers(0, 70_000), st.sampled_from([0, 10_000, 60_000, 70_000])),
        st.integers(-500, 10_000),
        KEYS, KEYS, KEYS,
    ),
    max_size=40,
)  # fmt: skip


def _events(drawn) -> list[Event]:
    return [Event(t, offset, amount, keys) for offset, (t, amount, keys) in enumerate(drawn)]


def _check(state: LocalState, spec, events: list[Event], cuts: list[int], between) -> None:
    """Feeds the events in batches that end at `cuts` and compares every value that is flagged exact."""
    done: list[Event] = []
    bounds = [0, *sorted(c for c in set(cuts) if 0 < c < len(events)), len(events)]
    for start, stop in itertools.pairwise(bounds):
        batch = batch_of(events[start:stop], spec)
        assert len(state.accept(batch)) == stop - start
        matrix = state.features(batch)
        for row, event in enumerate(events[start:stop]):
            expected = features_of(event, done, spec, 100.0)
            for column, name in enumerate(spec.names):
                if is_exact(matrix, spec, row, name):
                    np.testing.assert_array_equal(matrix.values[row, column], expected[name], err_msg=f"{name} {event}")
            done.append(event)
        state = between(state, {0: stop})


def is_exact(matrix, spec, row: int, name: str) -> bool:
    """Whether this value is flagged exact."""
    entity_name, _, rest = name.partition(".")
    kind = next(i for i, entity in enumerate(spec.entities) if entity.name == entity_name)
    if rest == "since_last":
        return bool(matrix.exact_all[row, kind])
    return spec.entities[kind].windows.index(rest.rpartition(".")[2]) < matrix.exact_windows[row, kind]


@given(EVENTS, st.lists(st.integers(1, 40), max_size=4))
def test_every_value_is_exact_while_rings_hold_everything(drawn, cuts) -> None:
    config = small_config()
    spec = config.feature_spec()
    events = _events(drawn)
    state = LocalState(config, spec, "f", store=None)

    def all_exact(state, _vector):
        return state

    _check(state, spec, events, cuts, all_exact)
    matrix = LocalState(config, spec, "f", store=None).features(batch_of(events, spec))
    assert (matrix.exact_windows == np.array([3, 2], np.uint8)).all()
    assert matrix.exact_all.all()


@given(EVENTS, st.lists(st.integers(1, 40), max_size=4))
def test_values_flagged_exact_are_exact_after_overflow(drawn, cuts) -> None:
    config = small_config(ring_events_max=4)
    spec = config.feature_spec()
    _check(LocalState(config, spec, "f", store=None), spec, _events(drawn), cuts, lambda state, _vector: state)


@given(EVENTS, st.lists(st.integers(1, 40), max_size=4), st.integers(1, 3))
@settings(deadline=None)
def test_flush_and_reload_between_batches_change_nothing(drawn, cuts, step) -> None:
    with tempfile.TemporaryDirectory() as folder:
        config = small_config(ring_events_max=8)
        spec = config.feature_spec()
        stores = [Store(Path(folder), 1 << 20)]

        def reload(state, vector):
            state.begin_flush(vector)
            while not state.continue_flush(step):
                pass
            stores[-1].close()
            stores.append(Store(Path(folder), 1 << 20))
            again = LocalState(config, spec, "f", stores[-1])
            assert again.header.vector == vector
            return again

        _check(LocalState(config, spec, "f", stores[0]), spec, _events(drawn), cuts, reload)
        stores[-1].close()


@given(EVENTS)
def test_batch_cuts_change_no_bit(drawn) -> None:
    config = small_config(ring_events_max=4)
    spec = config.feature_spec()
    events = _events(drawn)
    whole = LocalState(config, spec, "f", None).features(batch_of(events, spec))
    one_by_one = LocalState(config, spec, "f", None)
    for row, event in enumerate(events):
        single = one_by_one.features(batch_of([event], spec))
        assert single.values[0].tobytes() == whole.values[row].tobytes()
        assert single.exact_windows[0].tobytes() == whole.exact_windows[row].tobytes()


@given(EVENTS, st.integers(0, 40), st.lists(st.integers(1, 40), max_size=4))
def test_a_flush_writes_the_moment_it_began_however_long_it_takes(drawn, begin, cuts) -> None:
    """Events that arrive while a snapshot is being written are not in it, and are not lost to memory either."""
    config = small_config(ring_events_max=8)
    spec = config.feature_spec()
    events = _events(drawn)
    begin = min(begin, len(events))
    with tempfile.TemporaryDirectory() as folder:
        with Store(Path(folder), 1 << 20) as store:
            state = LocalState(config, spec, "f", store)
            _feed(state, spec, events[:begin])
            state.begin_flush({0: begin})
            bounds = [begin, *sorted({c for c in cuts if begin < c < len(events)}), len(events)]
            for start, stop in itertools.pairwise(bounds):
                _feed(state, spec, events[start:stop])
                state.continue_flush(1)
            state.finish_flush()
            ahead = state.features(batch_of(events, spec)).values.copy()
        with Store(Path(folder), 1 << 20) as store:
            restored = LocalState(config, spec, "f", store)
            assert restored.header.vector == {0: begin}
            _feed(restored, spec, events[begin:])
            np.testing.assert_array_equal(restored.features(batch_of(events, spec)).values, ahead)


def _feed(state: LocalState, spec, events: list[Event]) -> None:
    batch = batch_of(events, spec)
    assert len(state.accept(batch)) == len(events)
    state.features(batch)
