"""What goes wrong, drawn from one seeded generator, or forced by a test.

| kind | what happens |
| --- | --- |
| `crash` | the process ends at this step: before what the step is named after, or, at `... done`, after it |
| `stall` | the process stands still (SIGSTOP, a long page fault) before this step, for `stall_s` |
| `lost request` | a request never arrives; the client hears nothing until its call times out |
| `late request` | an EndTxn arrives only after the call that sent it has timed out |
| `lost reply` | a request takes effect, but the client hears nothing until its call times out |
| `repeated request` | a first EndTxn stays under way, its retry succeeds at once, the first arrives within `late_s` |
| `disconnect` | the connection breaks before an EndTxn; only the `logger` hears of it, at the next poll |
| `overtaken` | the group rebalances while offsets, which name the generation before, go into a transaction |
| `moved` | the coordinator is elsewhere: a retry, or where librdkafka does not retry, a retriable error |
| `abortable` | the transaction fails and must be aborted |
| `late produce` | what was produced stays under way for `late_s` |
| `failed produce` | a message cannot be delivered |
| `slow markers` | the end of a transaction reaches its partitions only after up to `late_s`, one by one |
| `system error` | the poll that would raise a fatal error raises SystemError, as the binding does at times |
| `torn flush`, `full disk` | see `tests/sim/store.py` |
| `slow fetch` | a consumer gets nothing this time, though there are records |
| `outage` | the broker is away for up to `outage_s` from this request on |
| `rebalance` | the lease's group rebalances for no reason |
| `slow thread` | what a thread was given waits, to be done at a later step of its process |
"""

from dataclasses import dataclass, field
from random import Random


class Crash(BaseException):
    """The process is gone: no handler, no clean-up of ours."""


@dataclass
class Forced:
    """One fault that happens at the n-th step that begins with `step`."""

    kind: str
    step: str
    skip: int = 0


@dataclass
class Faults:
    """`rates[kind]` is the probability per occasion; kinds that are not named never happen by chance."""

    seed: int = 0
    rates: dict[str, float] = field(default_factory=dict)
    late_s: float = 2.0
    stall_s: float = 10.0
    outage_s: float = 20.0
    forced: list[Forced] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = Random(self.seed)

    def force(self, kind: str, step: str, skip: int = 0) -> None:
        """The next step that begins with `step` meets this fault; the first `skip` of them pass."""
        self.forced.append(Forced(kind, step, skip))

    def hit(self, kind: str, step: str) -> bool:
        """Whether it happens here."""
        for forced in self.forced:
            if forced.kind == kind and step.startswith(forced.step):
                if forced.skip == 0:
                    self.forced.remove(forced)
                    return True
                forced.skip -= 1
        rate = self.rates.get(kind, 0.0)
        return rate > 0.0 and self.random.random() < rate

    def calm(self) -> None:
        """From now on nothing goes wrong, so that a run can show that it gets on."""
        self.rates.clear()
        self.forced.clear()
