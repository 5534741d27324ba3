"""Which decisions are put on `decisions-sample`, and as what.

An approval is drawn by the hash of its event id, so that whoever decides the event again draws alike; it stands for as
many as are not drawn. All others are put there.

decision     hash of the event id                             weight
approve      |=====|............................  below       1 / sample_rate
approve      ..........|=========================  not below  not there
others       |==================================              1
"""

from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from engine.columns import text_seen
from engine.config import Config
from engine.decide import Decisions
from engine.emit import DEGRADED, Message, degraded_codes
from engine.events import Batch, Bool, UInt64
from engine.policy.precedence import DECISIONS
from engine.state.local import FeatureMatrix
from engine.telemetry import Sample, Source, Versions, encode

_WORDS = 2.0**64


class Sampler:
    """Draws decisions, and renders those that are drawn."""

    def __init__(self, config: Config) -> None:
        telemetry = config.telemetry
        self._rate = telemetry.sample_rate
        self._channel, self._country = telemetry.channel, telemetry.country

    def rows(self, batch: Batch, decisions: Decisions) -> NDArray[np.intp]:
        """Those of n decisions that are put there, ascending."""
        return np.flatnonzero((decisions.codes != 0) | drawn(batch.event_id_hashes, self._rate))

    def encode(
        self,
        batch: Batch,
        matrix: FeatureMatrix,
        decisions: Decisions,
        versions: Versions,
        decided_at_ms: int,
        rows: NDArray[np.intp],
    ) -> list[Message]:
        """The messages of these rows."""
        codes, degraded = decisions.codes[rows].tolist(), degraded_codes(batch, matrix, decisions)[rows].tolist()
        # As the decision has them: float32 in as few digits as it takes.
        scores = orjson.loads(orjson.dumps(decisions.probabilities[rows], option=orjson.OPT_SERIALIZE_NUMPY))
        columns = (
            rows.tolist(),
            batch.partitions[rows].tolist(),
            batch.offsets[rows].tolist(),
            batch.times_ms[rows].tolist(),
            batch.amounts_minor[rows].tolist(),
            decisions.risk_scores[rows].tolist(),
            codes,
            scores,
            degraded,
        )
        messages: list[Message] = []
        for row, partition, offset, time_ms, amount_minor, risk_score, code, score, flags in zip(*columns, strict=True):
            card = batch.partition_keys[row]
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
                channel=_segment(batch, self._channel, row),
                country=_segment(batch, self._country, row),
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


def _segment(batch: Batch, field: str, row: int) -> str | None:
    values: list[Any] | None = batch.segments.get(field)
    return None if values is None else text_seen(values[row])
