"""What is known of one event: how it was decided, and what became known later. In any order, as often as it comes.

labels       1 @ day 2 ------------------------- 0 @ day 9
decision             | sampled, or late itself           |
fact         (-, 1)  (challenge, 1)               (challenge, 0)

Of decisions the first holds, of labels the one that was given last; of two given at once, the later record. A fact is
one value of one table, so that a record that is read again changes nothing.
"""

import msgspec

from engine.control.records import Label
from engine.telemetry import Sample


class Decided(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What quality needs of a decision."""

    decided_at_ms: int
    flagged: bool
    weight: float
    risk_score: int
    amount_minor: int
    currency: str
    model: str
    channel: str
    country: str
    card: str


class Known(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The label that holds."""

    label: int
    labelled_at_ms: int


class Fact(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Both, or one of them."""

    decided: Decided | None = None
    known: Known | None = None


NOTHING = Fact()
_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Fact)


def encode_fact(fact: Fact) -> bytes:
    """As the table holds it."""
    return _encoder.encode(fact)


def decode_fact(value: bytes | None) -> Fact:
    """As the table holds it; nothing where it holds none."""
    return NOTHING if value is None else _decoder.decode(value)


def with_sample(fact: Fact, sample: Sample) -> Fact:
    """After this decision."""
    decided = Decided(
        decided_at_ms=sample.decided_at_ms,
        flagged=sample.decision != "approve",
        weight=sample.weight,
        risk_score=sample.risk_score,
        amount_minor=sample.amount_minor,
        currency=sample.currency,
        model=sample.versions.model,
        channel=sample.channel or "",
        country=sample.country or "",
        card=sample.card or "",
    )
    if fact.decided is not None and msgspec.to_builtins(fact.decided) <= msgspec.to_builtins(decided):
        return fact
    return Fact(decided, fact.known)


def with_label(fact: Fact, label: Label) -> Fact:
    """After this label."""
    if fact.known is not None and fact.known.labelled_at_ms > label.labelled_at:
        return fact
    return Fact(fact.decided, Known(label.label, label.labelled_at))


def is_over(fact: Fact, now_ms: int, keep_ms: int, label_wait_ms: int) -> bool:
    """Whether nobody waits for the rest of it any longer."""
    if fact.decided is not None:
        return fact.decided.decided_at_ms < now_ms - keep_ms
    return fact.known is None or fact.known.labelled_at_ms < now_ms - label_wait_ms
