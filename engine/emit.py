"""Outputs as bytes: decisions by a template over columns, alerts one by one, dead letters as they came.

A decision is a `%`-template whose constant parts are rendered once and whose numbers come out of orjson a column at a
time: a fifth of what one dictionary per event costs (docs/performance.md).
"""

import re
import time
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, field
from typing import Any, TypedDict

import numpy as np
import orjson
from numpy.typing import NDArray

from engine.decide import COMBINATIONS_MAX, Decisions, RuleHit
from engine.events import Batch, Bool, DeadLetter
from engine.policy.precedence import DECISIONS
from engine.state.local import FeatureMatrix
from features.spec import FeatureSpec

DECISION_SCHEMA = "tidegate.decision.v1"
ALERT_SCHEMA = "tidegate.alert.v1"
# Characters that stand for themselves within a JSON string.
_PLAIN = re.compile(r"[ !#-\[\]-~]*")
_DECISION_BYTES = tuple(name.encode() for name in DECISIONS)
_PRIORITY = {"challenge": "low", "review": "medium", "decline": "high"}
# What may be wrong with a decision, by the bits of `degraded_codes`.
_WORDS = ("late_event", "missing_entity", "rules_only")
DEGRADED = tuple([word for at, word in enumerate(_WORDS) if code >> at & 1] for code in range(8))
_DEGRADED = tuple(orjson.dumps(words)[1:-1] for words in DEGRADED)


class Message(TypedDict):
    """One record to produce."""

    key: bytes | None
    value: bytes


@dataclass(slots=True)
class Outputs:
    """Everything one micro-batch puts out, and the record timestamps of the events that were decided.

    `canary`: the model that decided some of them beside the champion, as name/version; empty where none did.
    `samples`: of the decisions, those that are to be looked at again (engine/sampling.py).
    """

    decisions: list[Message] = field(default_factory=list)
    alerts: list[Message] = field(default_factory=list)
    dead_letters: list[DeadLetter] = field(default_factory=list)
    record_times_ms: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    canary: str = ""
    samples: list[Message] = field(default_factory=list)

    @property
    def messages(self) -> int:
        """How many records it is."""
        return len(self.decisions) + len(self.alerts) + len(self.samples) + len(self.dead_letters)


class Encoder:
    """Renders decisions and alerts of one model, policy and feature set."""

    def __init__(
        self,
        spec: FeatureSpec,
        model: dict[str, str],
        policy: dict[str, str],
        *,
        with_features: bool = False,
        role: str | None = None,
        clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        """`role`: what the model is, where it is not whose decisions count; every decision says so then."""
        self._spec = spec
        self._role = b"" if role is None else b'"role":' + orjson.dumps(role) + b","
        self._with_features = with_features
        self.clock_ms = clock_ms
        self._model = orjson.dumps(model)
        self._policy = orjson.dumps(policy)
        self._feature_set = orjson.dumps(spec.fingerprint())
        self._templates: dict[str, bytes] = {}
        self._inexact = _InexactNames(spec)
        self._rules = _RuleTexts()

    def under(self, policy: dict[str, str]) -> "Encoder":
        """The same for another policy."""
        other = copy(self)
        other._policy, other._templates = orjson.dumps(policy), {}
        return other

    def encode(
        self, batch: Batch, matrix: FeatureMatrix, decisions: Decisions, decided_at_ms: int | None = None
    ) -> tuple[list[Message], list[Message]]:
        """The decision messages of every event, and the alert messages of the flagged ones; decided now, by default."""
        messages = self.encode_decisions(batch, matrix, decisions, decided_at_ms)
        alerts: list[Message] = [
            {
                "key": messages[row]["key"],
                "value": self._alert(batch, decisions, messages[row]["value"], row, place),
            }
            for place, row in enumerate(decisions.flagged.tolist())
        ]
        return messages, alerts

    def encode_decisions(
        self, batch: Batch, matrix: FeatureMatrix, decisions: Decisions, decided_at_ms: int | None = None
    ) -> list[Message]:
        """The decision messages of every event."""
        values = self._values(batch, matrix, decisions, self.clock_ms() if decided_at_ms is None else decided_at_ms)
        keys = [None if key is None else key.encode() for key in batch.partition_keys]
        return [{"key": key, "value": value} for key, value in zip(keys, values, strict=True)]

    def _values(self, batch: Batch, matrix: FeatureMatrix, decisions: Decisions, decided_at_ms: int) -> list[bytes]:
        template = self._template(batch.topic)
        rules, reasons = [b"[]"] * len(batch), [b"[]"] * len(batch)
        for row, held in decisions.rules.items():
            rules[row] = self._rules[held]
        for place, row in enumerate(decisions.flagged.tolist()):
            reasons[row] = orjson.dumps(decisions.reasons[place])
        partitions, offsets = _numbers(batch.partitions), _numbers(batch.offsets)
        columns = [
            partitions,
            offsets,
            _escaped(batch.event_ids),
            _numbers(batch.times_ms),
            [b"%d" % decided_at_ms] * len(batch),
            partitions,
            offsets,
            [_DECISION_BYTES[code] for code in decisions.codes.tolist()],
            _numbers(decisions.risk_scores),
            _numbers(decisions.probabilities),
            rules,
            reasons,
            self._inexact.texts(matrix),
            [_DEGRADED[code] for code in degraded_codes(batch.late, matrix.missing, decisions.probabilities).tolist()],
        ]
        if self._with_features:
            columns.append(self._features(matrix))
        return [template % row for row in zip(*columns, strict=True)]

    def _template(self, topic: str) -> bytes:
        if topic not in self._templates:
            name = _constant(orjson.dumps(topic)[1:-1])
            self._templates[topic] = b"".join(
                (
                    b'{"schema":"' + DECISION_SCHEMA.encode() + b'",',
                    b'"decision_id":"' + name + b'-%b-%b","event_id":"%b","event_time":%b,"decided_at":%b,',
                    b'"source":{"topic":"' + name + b'","partition":%b,"offset":%b},',
                    b'"decision":"%b","risk_score":%b,"probability":%b,',
                    _constant(self._role) + b'"model":' + _constant(self._model) + b",",
                    b'"policy":' + _constant(self._policy) + b",",
                    b'"feature_set":' + self._feature_set + b",",
                    b'"rules":%b,"reasons":%b,"inexact":[%b],"degraded":[%b]',
                    b',"features":%b}' if self._with_features else b"}",
                )
            )
        return self._templates[topic]

    def _features(self, matrix: FeatureMatrix) -> list[bytes]:
        names = self._spec.names
        return [orjson.dumps(dict(zip(names, row, strict=True))) for row in matrix.values.tolist()]

    def _alert(self, batch: Batch, decisions: Decisions, decision: bytes, row: int, place: int) -> bytes:
        fields: dict[str, Any] = orjson.loads(decision)
        present = [name for name, column in batch.keys.items() if column[row] is not None]
        named = [reason["feature"].partition(".")[0] for reason in decisions.reasons[place]]
        # The alert is about the entity of the strongest reason that has one.
        entity = next((name for name in (*named, *present) if name in present), None)
        fields |= {
            "schema": ALERT_SCHEMA,
            "alert_id": f"alert-{fields['decision_id']}",
            "priority": _PRIORITY[fields["decision"]],
            "typology": decisions.typologies[place] or f"{entity or 'event'}_anomaly",
            "group_key": {"type": entity, "value": batch.keys[entity][row]} if entity else None,
            "amount_minor": int(batch.amounts_minor[row]),
            "currency": batch.currency,
        }
        return orjson.dumps(fields)


class _InexactNames(dict[bytes, bytes]):
    """The `inexact` list of a row by its flags as bytes; few combinations ever occur, so each is rendered once."""

    def __init__(self, spec: FeatureSpec) -> None:
        super().__init__()
        self._entities = spec.entities

    def texts(self, matrix: FeatureMatrix) -> list[bytes]:
        """The names of inexact (entity, window) pairs of each row, quoted, separated by commas."""
        flags = np.concatenate((matrix.exact_windows, matrix.exact_all), axis=1)
        return [self[row] for row in flags.view(f"V{flags.shape[1]}").ravel().tolist()]

    def __missing__(self, flags: bytes) -> bytes:
        exact_windows, exact_all = flags[: len(self._entities)], flags[len(self._entities) :]
        names = []
        for entity, exact, windowless_exact in zip(self._entities, exact_windows, exact_all, strict=True):
            names += [f"{entity.name}.{window}" for window in entity.windows[exact:]]
            if entity.windowless and not windowless_exact:
                names.append(f"{entity.name}.all")
        self[flags] = b",".join(orjson.dumps(name) for name in names)
        return self[flags]


class _RuleTexts(dict[tuple[RuleHit, ...], bytes]):
    """The `rules` list of a decision; rules hold together in few combinations, so each is rendered once."""

    def __missing__(self, held: tuple[RuleHit, ...]) -> bytes:
        if len(self) >= COMBINATIONS_MAX:
            self.clear()
        self[held] = orjson.dumps([hit._asdict() for hit in held])
        return self[held]


def degraded_codes(late: Bool, missing: Bool, probabilities: NDArray[np.float32]) -> NDArray[np.int64]:
    """What is wrong with each of n decisions, as an index into DEGRADED."""
    codes: NDArray[np.int64] = late + 2 * missing + 4 * np.isnan(probabilities)
    return codes


def _constant(text: bytes) -> bytes:
    """Text that stands for itself in a template."""
    return text.replace(b"%", b"%%")


def _numbers(column: NDArray[Any]) -> list[bytes]:
    """One number a row as JSON text, rendered by one call for the column."""
    return orjson.dumps(np.ascontiguousarray(column), option=orjson.OPT_SERIALIZE_NUMPY)[1:-1].split(b",")


def _escaped(texts: list[str]) -> list[bytes]:
    """Texts as they stand within JSON quotes; one check for the column where none needs escaping."""
    if _PLAIN.fullmatch("".join(texts)):
        return "\n".join(texts).encode().split(b"\n")
    return [orjson.dumps(text)[1:-1] for text in texts]
