"""Outputs: exactly the fields that are promised, as JSON that any reader takes, whatever the input was called."""

import json
import math
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.decide import Decisions, Reason
from engine.emit import Encoder
from engine.events import Batch
from engine.policy.precedence import DECISIONS
from engine.state.local import FeatureMatrix
from features.spec import FeatureSpec
from tests.build import batch_of, small_config
from tests.oracle.windows import Event

SPEC = small_config("[event]\nfeatures = ['amount']").feature_spec()
MODEL = {"name": 'the "100%" model', "version": "3", "sha256": "ab" * 32}
POLICY = {"name": "50% off\n", "version": "1"}
DECIDED_AT = 1_800_000_000_123

# Names and types of a decision, in the order in which they are written.
DECISION_FIELDS: dict[str, type] = {
    "schema": str,
    "decision_id": str,
    "event_id": str,
    "event_time": int,
    "decided_at": int,
    "source": dict,
    "decision": str,
    "risk_score": int,
    "probability": float,
    "model": dict,
    "policy": dict,
    "feature_set": str,
    "rules": list,
    "reasons": list,
    "inexact": list,
    "degraded": list,
}
ALERT_FIELDS = {
    "alert_id": str,
    "priority": str,
    "typology": str,
    "group_key": dict,
    "amount_minor": int,
    "currency": str,
}


def encoder(*, with_features: bool = False, spec: FeatureSpec = SPEC) -> Encoder:
    return Encoder(spec, MODEL, POLICY, with_features=with_features, clock_ms=lambda: DECIDED_AT)


def events_of(count: int, **keys: str | None) -> list[Event]:
    named = {"card": "4000123412341234", "merchant": "m-1", "city": "c-1"} | keys
    return [Event(1_735_689_600_000 + n, n, 1_000 + n, dict(named)) for n in range(count)]


def batch_with(events: list[Event], ids: list[str], topic: str = "in", late: list[bool] | None = None) -> Batch:
    batch = batch_of(events, SPEC, ids)
    batch.topic = topic
    batch.late = np.array(late or [False] * len(events))
    return batch


def matrix_of(rows: int, spec: FeatureSpec = SPEC, *, missing: list[bool] | None = None) -> FeatureMatrix:
    """All exact, value = row + column / 8."""
    windows = [len(entity.windows) for entity in spec.entities]
    return FeatureMatrix(
        np.arange(rows)[:, None] + np.arange(len(spec.names)) / 8,
        np.tile(np.array(windows, np.uint8), (rows, 1)),
        np.ones((rows, len(spec.entities)), np.uint8),
        np.array(missing or [False] * rows),
    )


def decisions_of(codes: list[int], reasons: list[list[Reason]] | None = None) -> Decisions:
    flagged = np.flatnonzero(codes)
    return Decisions(
        np.array(codes, np.int64),
        np.array([300 * code + 7 for code in codes], np.int64),
        np.array([0.3 * code + 0.007 for code in codes], np.float32),
        flagged,
        reasons or [[] for _ in flagged],
        ["" for _ in flagged],
    )


def parsed(messages: list[Any]) -> list[dict[str, Any]]:
    """By the strictest reader at hand; two readers must agree."""
    found = [orjson.loads(message["value"]) for message in messages]
    assert found == [json.loads(message["value"]) for message in messages]
    return found


def plain(
    batch: Batch, matrix: FeatureMatrix, decisions: Decisions, row: int, *, with_features: bool
) -> dict[str, Any]:
    """A decision written without any template."""
    partition, offset = int(batch.partitions[row]), int(batch.offsets[row])
    flagged = decisions.flagged.tolist()
    inexact = []
    for kind, entity in enumerate(SPEC.entities):
        inexact += [f"{entity.name}.{w}" for w in entity.windows[int(matrix.exact_windows[row, kind]) :]]
        inexact += [f"{entity.name}.all"] if entity.windowless and not matrix.exact_all[row, kind] else []
    fields = {
        "schema": "tidegate.decision.v1",
        "decision_id": f"{batch.topic}-{partition}-{offset}",
        "event_id": batch.event_ids[row],
        "event_time": int(batch.times_ms[row]),
        "decided_at": DECIDED_AT,
        "source": {"topic": batch.topic, "partition": partition, "offset": offset},
        "decision": DECISIONS[decisions.codes[row]],
        "risk_score": int(decisions.risk_scores[row]),
        "probability": float(str(decisions.probabilities[row])),
        "model": MODEL,
        "policy": POLICY,
        "feature_set": SPEC.fingerprint(),
        "rules": [],
        "reasons": decisions.reasons[flagged.index(row)] if row in flagged else [],
        "inexact": inexact,
        "degraded": ["late_event"] * bool(batch.late[row]) + ["missing_entity"] * bool(matrix.missing[row]),
    }
    if with_features:
        values = (None if math.isnan(value) else value for value in matrix.values[row].tolist())
        fields["features"] = dict(zip(SPEC.names, values, strict=True))
    return fields


# --- a decision is a plain JSON object -------------------------------------------------------------------------

TEXTS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)
ODD = st.sampled_from(
    ['"', "\\", "\n", "%", "%b", "%%", "%s%d", "{}", "\x00", "\x1f", "\x7f", "\u2028", "é", "😀", "</script>"]
)
IDS = st.one_of(TEXTS, ODD, st.integers(0, 99).map(str))
ROWS = st.lists(
    st.tuples(
        IDS,
        st.integers(0, 3),
        st.tuples(st.integers(0, 3), st.integers(0, 2)),
        st.tuples(st.integers(0, 1), st.integers(0, 1)),
        st.booleans(),
        st.booleans(),
        st.one_of(st.floats(allow_infinity=False), st.just(math.nan)),
        st.one_of(st.none(), IDS),
    ),
    min_size=1,
    max_size=5,
)
REASON: Reason = {"code": "unusually_high", "feature": "card.count.1m", "value": 9.5, "text": 'a "text" with 100%\n'}


@given(ROWS, IDS, st.integers(0, 2**31 - 1), st.integers(0, 2**62), st.booleans())
def test_the_template_gives_what_a_plain_dictionary_would(drawn, topic, partition, offset, with_features) -> None:
    ids, codes, exact_windows, exact_all, late, missing, values, cards = (list(c) for c in zip(*drawn, strict=True))
    events = [e for card in cards for e in events_of(1, card=card)]
    batch = batch_with(events, ids, topic, late)
    batch.partitions[:], batch.offsets[:] = partition, offset + np.arange(len(ids))
    matrix = matrix_of(len(ids), missing=missing)
    matrix.exact_windows[:], matrix.exact_all[:] = exact_windows, exact_all
    matrix.values[:, 0] = values
    decisions = decisions_of(codes, [[REASON]] * sum(code > 0 for code in codes))
    messages, alerts = encoder(with_features=with_features).encode(batch, matrix, decisions)
    found = parsed(messages)
    assert found == [plain(batch, matrix, decisions, row, with_features=with_features) for row in range(len(ids))]
    assert [message["key"] for message in messages] == [None if card is None else card.encode() for card in cards]
    for alert, row in zip(parsed(alerts), decisions.flagged.tolist(), strict=True):
        own = {name: alert[name] for name in found[row] if name != "schema"}
        assert own == {name: value for name, value in found[row].items() if name != "schema"}
        assert alert.keys() == {*found[row], *ALERT_FIELDS}


@pytest.mark.parametrize("with_features", [False, True])
def test_a_decision_has_exactly_the_promised_fields(with_features: bool) -> None:
    batch = batch_with(events_of(4), ["a", "b", "c", "d"])
    messages, _ = encoder(with_features=with_features).encode(batch, matrix_of(4), decisions_of([0, 1, 2, 3]))
    wanted = DECISION_FIELDS | ({"features": dict} if with_features else {})
    for fields in parsed(messages):
        assert list(fields) == list(wanted)
        assert {name: type(fields[name]) for name in wanted} == wanted
        assert {name: type(value) for name, value in fields["source"].items()} == {
            "topic": str,
            "partition": int,
            "offset": int,
        }
        assert fields["model"].keys() == {"name", "version", "sha256"}
        assert fields["policy"].keys() == {"name", "version"}
    assert [fields["decision"] for fields in parsed(messages)] == ["approve", "challenge", "review", "decline"]


def test_what_is_null_among_the_features_is_null() -> None:
    matrix = matrix_of(2)
    matrix.values[1, 3] = math.nan
    messages, _ = encoder(with_features=True).encode(batch_with(events_of(2), ["a", "b"]), matrix, decisions_of([0, 0]))
    first, second = (fields["features"] for fields in parsed(messages))
    assert list(first) == list(SPEC.names)
    assert None not in first.values()
    assert [name for name, value in second.items() if value is None] == [SPEC.names[3]]


def test_numbers_keep_every_digit() -> None:
    batch = batch_with(events_of(1), ["a"])
    batch.offsets[:], batch.times_ms[:] = 2**63 - 1, 4_133_980_799_999
    decisions = decisions_of([0])
    decisions.probabilities[:] = np.nextafter(np.float32(1), np.float32(0))
    matrix = matrix_of(1)
    matrix.values[0, 0] = 0.1 + 0.2
    ((message,), _) = encoder(with_features=True).encode(batch, matrix, decisions)
    fields = orjson.loads(message["value"])
    assert fields["source"]["offset"] == 2**63 - 1
    assert fields["event_time"] == 4_133_980_799_999
    assert np.float32(fields["probability"]) == decisions.probabilities[0]
    assert fields["features"][SPEC.names[0]] == 0.1 + 0.2


# --- identity --------------------------------------------------------------------------------------------------


def test_decision_ids_come_from_the_source_coordinates_alone() -> None:
    batch = batch_with(events_of(3), ["same", "same", "same"])
    batch.partitions[:], batch.offsets[:] = [1, 11, 1], [11, 1, 12]
    late = batch_with(events_of(3, card="other"), ["x", "y", "z"], late=[True] * 3)
    late.partitions[:], late.offsets[:] = batch.partitions, batch.offsets
    ids = [fields["decision_id"] for fields in parsed(encoder().encode(batch, matrix_of(3), decisions_of([0] * 3))[0])]
    assert len(set(ids)) == 3
    again = parsed(encoder(with_features=True).encode(late, matrix_of(3), decisions_of([3] * 3))[0])
    assert [fields["decision_id"] for fields in again] == ids


def test_only_decided_at_is_read_from_a_clock() -> None:
    batch, moments = batch_with(events_of(2), ["a", "b"]), iter([1, 2])
    ticking = Encoder(SPEC, MODEL, POLICY, clock_ms=lambda: next(moments))
    first, second = (parsed(ticking.encode(batch, matrix_of(2), decisions_of([0, 1]))[0]) for _ in range(2))
    assert [fields.pop("decided_at") for fields in (*first, *second)] == [1, 1, 2, 2]
    assert first == second


# --- inexact and degraded --------------------------------------------------------------------------------------


def test_each_inexact_window_is_named() -> None:
    matrix = matrix_of(3)
    matrix.exact_windows[:] = [[3, 2], [1, 2], [0, 0]]
    matrix.exact_all[:] = [[1, 1], [1, 0], [0, 0]]  # merchant has no windowless value, so nothing to be wrong
    messages, _ = encoder().encode(batch_with(events_of(3), ["a", "b", "c"]), matrix, decisions_of([0] * 3))
    assert [fields["inexact"] for fields in parsed(messages)] == [
        [],
        ["card.1m", "card.1h"],
        ["card.10s", "card.1m", "card.1h", "card.all", "merchant.5s", "merchant.1d"],
    ]


def test_many_entities_with_many_windows_are_named_as_few_are() -> None:
    entities = 20
    windows = [f"{minutes}m" for minutes in range(1, 16)]
    text = "\n".join(
        f"[entities.e{n:02d}]\nwindows = {windows}\naggregates = ['count', 'since_last']" for n in range(entities)
    )
    spec = small_config(text).feature_spec()
    matrix = matrix_of(2, spec)
    matrix.exact_windows[1, :entities] = np.arange(entities) % 16
    matrix.exact_all[1, :entities] = np.arange(entities) % 2
    batch = batch_with(events_of(2), ["a", "b"])
    messages, _ = encoder(spec=spec).encode(batch, matrix, decisions_of([0, 0]))
    # Among the entities in name order, `card` comes first, `merchant` last.
    expected = []
    for kind, entity in enumerate(spec.entities):
        expected += [f"{entity.name}.{window}" for window in entity.windows[int(matrix.exact_windows[1, kind]) :]]
        expected += [f"{entity.name}.all"] if entity.windowless and not matrix.exact_all[1, kind] else []
    assert [fields["inexact"] for fields in parsed(messages)] == [[], expected]


def test_degraded_says_late_and_missing() -> None:
    batch = batch_with(events_of(4), list("abcd"), late=[False, True, False, True])
    matrix = matrix_of(4, missing=[False, False, True, True])
    messages, _ = encoder().encode(batch, matrix, decisions_of([0] * 4))
    assert [fields["degraded"] for fields in parsed(messages)] == [
        [],
        ["late_event"],
        ["missing_entity"],
        ["late_event", "missing_entity"],
    ]


# --- keys ------------------------------------------------------------------------------------------------------


def test_decisions_and_alerts_are_keyed_by_the_partition_key() -> None:
    events = [*events_of(1, card="kärte"), *events_of(1, card=None)]
    messages, alerts = encoder().encode(batch_with(events, ["a", "b"]), matrix_of(2), decisions_of([1, 1]))
    assert [message["key"] for message in messages] == ["kärte".encode(), None]
    assert [message["key"] for message in alerts] == ["kärte".encode(), None]


# --- alerts ----------------------------------------------------------------------------------------------------


def reason(feature: str) -> Reason:
    return {"code": "unusually_high", "feature": feature, "value": 1.0, "text": feature}


def alerts_for(codes: list[int], reasons: list[list[Reason]], **keys: str | None) -> list[dict[str, Any]]:
    batch = batch_with(events_of(len(codes), **keys), [f"e{n}" for n in range(len(codes))])
    return parsed(encoder().encode(batch, matrix_of(len(codes)), decisions_of(codes, reasons))[1])


def test_every_decision_but_approve_raises_an_alert() -> None:
    alerts = alerts_for([0, 1, 0, 2, 3], [[], [], []])
    assert [alert["event_id"] for alert in alerts] == ["e1", "e3", "e4"]
    assert [alert["priority"] for alert in alerts] == ["low", "medium", "high"]
    assert [alert["alert_id"] for alert in alerts] == [f"alert-{alert['decision_id']}" for alert in alerts]
    assert {alert["schema"] for alert in alerts} == {"tidegate.alert.v1"}
    assert [alert["amount_minor"] for alert in alerts] == [1001, 1003, 1004]
    assert {alert["currency"] for alert in alerts} == {"EUR"}


def test_an_alert_has_exactly_the_promised_fields() -> None:
    (alert,) = alerts_for([3], [[REASON]])
    wanted = DECISION_FIELDS | ALERT_FIELDS
    assert {name: type(value) for name, value in alert.items()} == wanted
    assert alert["group_key"].keys() == {"type", "value"}


@pytest.mark.parametrize(
    ("features", "keys", "entity"),
    [
        (["merchant.count.5s", "card.count.1m"], {}, "merchant"),
        (["event.amount", "merchant.count.5s", "card.count.1m"], {}, "merchant"),
        (["event.amount"], {}, "card"),
        ([], {}, "card"),
        (["card.count.1m", "merchant.count.5s"], {"card": None}, "merchant"),
        (["card.count.1m"], {"card": None}, "merchant"),
        (["card.count.1m"], {"card": None, "merchant": None}, None),
    ],
)
def test_an_alert_is_about_the_entity_of_its_strongest_reason(
    features: list[str], keys: dict[str, str | None], entity: str | None
) -> None:
    (alert,) = alerts_for([2], [[reason(feature) for feature in features]], **keys)
    values = {"card": "4000123412341234", "merchant": "m-1"}
    assert alert["group_key"] == (None if entity is None else {"type": entity, "value": values[entity]})
    assert alert["typology"] == f"{entity or 'event'}_anomaly"
