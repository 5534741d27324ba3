"""Which decisions are put on `decisions-sample`, and as what.

An approval is drawn by the hash of its event id, so that whoever decides the event again draws alike, and stands for
1 / sample_rate of them. All others are put there, and stand for themselves.

decision     hash of the event id                             weight
approve      |=====|............................  below       1 / sample_rate
approve      ..........|=========================  not below  not there
others       |==================================              1
"""

from typing import Any

import msgspec
import numpy as np
import orjson
from numpy.typing import NDArray

from engine.columns import text_seen
from engine.config import Config
from engine.decide import Decisions
from engine.decode import UNREADABLE
from engine.emit import DEGRADED, Message, degraded_codes
from engine.events import Batch, Bool, UInt64
from engine.policy.precedence import DECISIONS
from engine.state.local import FeatureMatrix
from engine.telemetry import Sample, Source, Versions, encode

_WORDS = 2.0**64


class Sampler:
    """Draws decisions, and renders those that are drawn."""

    def __init__(self, config: Config) -> None:
        self._rate = config.telemetry.sample_rate
        self._segments = _Segments(config)

    def rows(self, batch: Batch, decisions: Decisions) -> NDArray[np.intp]:
        """Those of n decisions that are put there, ascending."""
        return (decisions.codes.astype(np.bool_) | drawn(batch.event_id_hashes, self._rate)).nonzero()[0]

    def encode(
        self,
        batch: Batch,
        matrix: FeatureMatrix,
        decisions: Decisions,
        versions: Versions,
        decided_at_ms: int,
        rows: NDArray[np.intp],
    ) -> list[Message]:
        """The messages of these rows, of which there must be one."""
        probabilities = decisions.probabilities[rows]
        # As the decision has them: float32 in as few digits as it takes.
        scores = orjson.loads(orjson.dumps(probabilities, option=orjson.OPT_SERIALIZE_NUMPY))
        columns = (
            rows.tolist(),
            batch.partitions[rows].tolist(),
            batch.offsets[rows].tolist(),
            batch.times_ms[rows].tolist(),
            batch.amounts_minor[rows].tolist(),
            decisions.risk_scores[rows].tolist(),
            decisions.codes[rows].tolist(),
            scores,
            degraded_codes(batch.late[rows], matrix.missing[rows], probabilities).tolist(),
        )
        messages: list[Message] = []
        for row, partition, offset, time_ms, amount_minor, risk_score, code, score, flags in zip(*columns, strict=True):
            card = batch.partition_keys[row]
            channel, country = self._segments.read(batch.values[row])
            sample = Sample(
                decision_id=f"{batch.topic}-{partition}-{offset}",
                event_id=batch.event_ids[row],
                event_time_ms=time_ms,
                decided_at_ms=decided_at_ms,
                source=Source(batch.topic, partition, offset),
                decision=DECISIONS[code],
                score=score,
                risk_score=risk_score,
                weight=1.0 if code else 1.0 / self._rate,
                amount_minor=amount_minor,
                currency=batch.currency,
                channel=channel,
                country=country,
                versions=versions,
                card=card,
                flags=DEGRADED[flags],
            )
            messages.append({"key": None if card is None else card.encode(), "value": encode(sample)})
        return messages


def drawn(event_id_hashes: UInt64, rate: float) -> Bool:
    """Which of n events are drawn where this share of all is: bool[n]. Those of a smaller share are among them."""
    if rate >= 1:
        return np.ones(len(event_id_hashes), np.bool_)
    below: Bool = event_id_hashes < np.uint64(rate * _WORDS)
    return below


class _Segments:
    """Reads channel and country, of the few events that are drawn: the others never pay for it."""

    def __init__(self, config: Config) -> None:
        names = (config.telemetry.channel, config.telemetry.country)
        sources = dict.fromkeys(config.source(name) for name in names if name)
        attributes = {source: f"field_{number}" for number, source in enumerate(sources)}
        fields: Any = [(attribute, msgspec.Raw, msgspec.Raw(b"null")) for attribute in attributes.values()]
        rename = {attribute: source for source, attribute in attributes.items()}
        self._read = msgspec.json.Decoder(msgspec.defstruct("Segments", fields, rename=rename)).decode
        self._attributes = [attributes[config.source(name)] if name else "" for name in names]

    def read(self, value: bytes | None) -> list[str | None]:
        """Both as text; None for what the event does not have, or not as text or a whole number."""
        try:
            fields = self._read(value or b"{}")
        except UNREADABLE:  # not of an event that was taken
            return [None, None]
        return [text_seen(getattr(fields, attribute)) if attribute else None for attribute in self._attributes]
