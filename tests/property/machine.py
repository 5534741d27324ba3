"""A state machine over one state: batches, flushes bit by bit, restarts, crashes, looks and further windows."""

from functools import cache

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from tests.build import full_config
from tests.oracle.compare import Tally
from tests.property import streams
from tests.property.run import Run, Setting

BATCH_EVENTS_MAX = 6
FEW, MORE = ("5s", "20s"), ("5s", "20s", "25s", "1h")


@cache
def _setting(ring_events_max: int, windows: tuple[str, ...], horizon_past: str) -> Setting:
    return Setting(full_config(windows, ring_events_max, merchant_windows=("5s", "30s"), horizon_past=horizon_past))


def machine(tally: Tally) -> type[RuleBasedStateMachine]:
    """Whatever happens to a state, exact values are exact, and what is sent again gives the same bits.

    The class of a machine whose instances count in this tally.
    """

    class Machine(RuleBasedStateMachine):
        @initialize(ring_events_max=st.sampled_from([4, 8]), horizon=st.sampled_from(["10s", "10s", "1000d"]))
        def begin(self, ring_events_max: int, horizon: str) -> None:
            tally.examples += 1
            self.few = _setting(ring_events_max, FEW, horizon)
            self.more = _setting(ring_events_max, MORE, horizon)
            self.found = Tally()
            self.run = Run(self.few, self.found)

        @rule(items=streams.items(BATCH_EVENTS_MAX))
        def send(self, items: list[streams.Item]) -> None:
            self.run.send(streams.numbered(items, self.run.sent))

        @rule(late=st.integers(0, 63), item=streams.items(1))
        def send_late(self, late: int, item: list[streams.Item]) -> None:
            """One event long before or after everything else, again and again the same card."""
            event = item[0].event
            far = streams.located(event, 0, self.run.vector.get(0, 0), f"late{len(self.run.sent)}")
            self.run.send([streams.moved(far, (late - 32) * 61_000)])

        @rule()
        def begin_flush(self) -> None:
            self.run.state.begin_flush(self.run.vector)

        @rule(entities=st.integers(1, 3))
        def continue_flush(self, entities: int) -> None:
            self.run.state.continue_flush(entities)

        @rule()
        def restart(self) -> None:
            self.run.restart()

        @rule()
        def crash(self) -> None:
            self.run.crash()

        @rule(more=st.booleans())
        def redefine(self, more: bool) -> None:
            """Adds a window, or takes it away again."""
            self.run.restart(self.more if more else self.few)
            self.run.bits = {}

        @precondition(lambda self: self.run.accepted)
        @rule(back=st.integers(0, 30), after_ms=st.sampled_from([0, 0, 1, 4_999, 5_000, 20_000, 60_000]))
        def look(self, back: int, after_ms: int) -> None:
            event = self.run.accepted[-1 - back % len(self.run.accepted)]
            for entity in self.run.spec.entities:
                key = event.texts[entity.name]
                if key is not None:
                    self.run.look(entity.name, key, event.time_ms + after_ms)

        def teardown(self) -> None:
            tally.add(self.found)

    return Machine
