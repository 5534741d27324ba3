"""The state against the oracle once more, on a real database, with fewer examples since each opens it many times."""

import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.state.keys import DEDUPE, ENTITY_KIND_FIRST, HEADER
from engine.state.store import Store
from engine.state.verify import Shape, verify_state
from tests.oracle.compare import Tally
from tests.property import streams
from tests.property.properties import forgetful, remembering
from tests.property.run import Run, Setting, batches

BLOCK_CACHE_BYTES = 1 << 20


class DiskRun(Run):
    """A run whose store is closed and opened again wherever the state is."""

    def __init__(self, setting: Setting, tally: Tally, folder: Path) -> None:
        self.folder = folder
        super().__init__(setting, tally, store=Store(folder, BLOCK_CACHE_BYTES))

    def _open(self, setting: Setting) -> None:
        self.store.close()
        self.store = Store(self.folder, BLOCK_CACHE_BYTES)
        super()._open(setting)

    def entities(self) -> dict[bytes, bytes]:
        rows = self.store.scan_from(bytes([ENTITY_KIND_FIRST]))
        return {key: value for key, value in rows if key[:1] not in (HEADER, DEDUPE)}


@settings(max_examples=40)
@given(
    streams.items(),
    streams.cuts,
    st.sampled_from([4, 64]),
    st.booleans(),
    st.lists(st.sampled_from("frcb"), max_size=6),
)
def test_a_database_keeps_what_memory_does(
    stream: list[streams.Item], cuts: list[int], ring_events_max: int, forgets: bool, between: list[str]
) -> None:
    setting = (forgetful if forgets else remembering)(ring_events_max)
    events, tally = streams.numbered(stream), Tally()
    whole = Run(setting, tally)
    whole.send(events)
    with tempfile.TemporaryDirectory() as folder:
        run = DiskRun(setting, tally, Path(folder))
        for number, batch in enumerate(batches(events, cuts)):
            run.send(batch)
            match between[number : number + 1]:
                case ["f"]:
                    run.flush()
                case ["r"]:
                    run.restart()
                case ["c"]:
                    run.crash()
                case ["b"]:
                    run.state.begin_flush(run.vector)
        assert run.bits == whole.bits
        run.check_deletion()
        whole.check_deletion()
        assert run.entities() == whole.entities()
        run.store.close()
        shape = Shape(setting.spec, setting.config.state.ring_events_max, setting.config.ttl_ms)
        assert verify_state(Path(folder), shape).problems == []
    assert tally.exact
