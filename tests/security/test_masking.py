"""Card numbers: in the keys of decisions, in `group_key`, in the dead letters' own bytes, and nowhere else.

What must not show is any of CARDS, which nothing else in these tests resembles.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest

from engine.decode import Decoder
from engine.emit import Outputs
from engine.errors import TidegateError
from engine.observe.logs import ConsoleFormatter, JsonFormatter, masked
from engine.observe.metrics import MetricsCollector
from engine.pipeline import Pipeline
from engine.replay import ReplayFiles, replay
from engine.state.store import Store
from loadtest.poison import KINDS, spoil
from tests.memory_store import MemoryStore
from tests.pipelines import START_MS, demo_model, event, json_of, pipeline_of, profile, records_of

CARDS = [f"4{n:015d}" for n in range(10**14 + 1, 10**14 + 41)]
CONFIG = profile("ring_events_max = 4", {"challenge": 1, "review": 2, "decline": 3})


def values() -> list[bytes]:
    """Every card in a burst of payments, some events late, some twice."""
    numbered = [(n, CARDS[n // 6]) for n in range(6 * len(CARDS))]
    valid = [
        json_of(event(n, card=card, merchant=f"m-{n}", amount=25, event_time=START_MS + 100 * n))
        for n, card in numbered
    ]
    late = [json_of(event(1_000 + n, card=card, event_time=START_MS - 700_000)) for n, card in numbered[:10]]
    return [*valid, *late, *valid[:10]]


# Records that are wrong in their key, or beside it, so that an error about them might quote it.
CARD = CARDS[0]
WRONG: list[Any] = [
    event(1, card=float(CARD) + 0.5),
    event(1, card=[CARD]),
    event(1, card={"number": CARD}),
    event(1, card=True, note=CARD),
    event(1, event_id=..., card=CARD),
    event(1, event_id={CARD: CARD}, card=CARD),
    event(1, event_id=CARD * 30, card=CARD),
    event(1, amount=CARD + "x", card=CARD),
    event(1, amount=CARD * 3, card=CARD),
    event(1, amount=[CARD], card=CARD),
    event(1, amount=int(CARD), card=CARD),
    event(1, currency=CARD, card=CARD),
    event(1, currency=int(CARD), card=CARD),
    event(1, currency=[CARD], card=CARD),
    event(1, event_time=CARD, card=CARD),
    event(1, event_time=int(CARD), card=CARD),
    event(1, event_time=-int(CARD), card=CARD),
    [CARD],
    CARD,
    int(CARD),
    {CARD: CARD},
]


def wrong_records() -> list[bytes]:
    """As JSON, and as what is left of JSON."""
    sound = json_of(event(1, card=CARD))
    torn = [sound[:length] for length in range(1, len(sound))]
    odd = [
        CARD.encode(),
        b'{"card": ' + CARD.encode() + b", }",
        b'{"card": "' + CARD.encode() + b'\\x"}',
        b'{"' + CARD.encode() + b'": NaN, "card": "' + CARD.encode() + b'"}',
        b'{"card": "\xff' + CARD.encode() + b'"}',
        sound + CARD.encode(),
        sound.replace(b'"10.5"', CARD.encode()),
        sound.replace(b"10.5", b"Infinity"),
    ]
    return [*(json_of(fields) for fields in WRONG), *torn, *odd]


def processed(records: Sequence[bytes | None]) -> tuple[Outputs, Pipeline]:
    """What the pipeline makes of them, a batch of ten at a time, with a flush in between."""
    pipeline = pipeline_of(CONFIG, MemoryStore())
    outputs = Outputs()
    for start in range(0, len(records), 10):
        part = pipeline.process(records_of(records[start : start + 10]))
        outputs.decisions += part.decisions
        outputs.alerts += part.alerts
        outputs.dead_letters += part.dead_letters
        pipeline.state.begin_flush({0: start})
    return outputs, pipeline


def shown_in(text: str) -> list[str]:
    """The card numbers in a text."""
    return [card for card in CARDS if card in text]


def numbers_in(fields: Any) -> list[str]:
    """The card numbers in a parsed output."""
    return shown_in(orjson.dumps(fields).decode())


# --- what the outputs say --------------------------------------------------------------------------------------


def test_a_decision_never_holds_a_card_number() -> None:
    outputs, _ = processed(values())
    assert len(outputs.decisions) == 6 * len(CARDS) + 10
    assert {message["key"] for message in outputs.decisions} == {card.encode() for card in CARDS}
    for message in outputs.decisions:
        assert numbers_in(orjson.loads(message["value"])) == []


def test_an_alert_holds_one_only_as_its_group_key() -> None:
    outputs, _ = processed(values())
    grouped = set()
    for message in outputs.alerts:
        alert = orjson.loads(message["value"])
        group = alert.pop("group_key")
        assert numbers_in(alert) == []
        if group["type"] == "card":
            grouped.add(group["value"])
    assert grouped <= set(CARDS)
    assert grouped


def test_reasons_speak_of_features_and_not_of_keys() -> None:
    outputs, _ = processed(values())
    reasons = [reason for m in outputs.alerts for reason in orjson.loads(m["value"])["reasons"]]
    assert reasons
    assert numbers_in(reasons) == []
    names = {feature.name for feature in demo_model().manifest.features}
    assert {reason["feature"] for reason in reasons} <= names


# --- what is said of a record that is wrong --------------------------------------------------------------------


def test_why_a_record_was_refused_never_quotes_it() -> None:
    records = wrong_records()
    outputs, _ = processed(records)
    assert len(outputs.dead_letters) > len(records) - 5  # a few are no poison after all
    for letter in outputs.dead_letters:
        assert numbers_in([letter.reason, letter.detail, letter.topic]) == []


def test_every_way_of_poisoning_is_explained_without_a_number() -> None:
    decoder = Decoder(CONFIG, CONFIG.feature_spec(), None)
    sound = json_of(event(1, card=CARD, event_id=CARD, merchant=CARD, device=CARD, ip=CARD))
    for kind in range(len(KINDS)):
        for seed in range(3):
            value, _ = spoil(kind, np.random.default_rng(seed), sound)
            records = records_of([value])
            records.record_times_ms[:] = event(1)["event_time"]
            _, (letter,) = decoder.decode(records)
            assert numbers_in(letter.detail) == []


JSONS = st.recursive(
    st.one_of(st.none(), st.booleans(), st.just(CARD), st.just(int(CARD)), st.just(float(CARD)), st.text(max_size=3)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=2), st.dictionaries(st.sampled_from([CARD, "a"]), inner, max_size=2)
    ),
    max_leaves=4,
)


@settings(max_examples=150)
@given(st.dictionaries(st.sampled_from(sorted(event(0))), JSONS), st.binary(max_size=6), st.integers(0, 400))
def test_no_refusal_quotes_what_it_refuses(changes, noise, at) -> None:
    value = json_of({**event(1, card=CARD), **changes})
    decoder = Decoder(CONFIG, CONFIG.feature_spec(), None)
    _, letters = decoder.decode(records_of([value, value[:at] + noise + value[at:]]))
    assert [numbers_in(letter.detail) for letter in letters] == [[] for _ in letters]


# --- logs and metrics ------------------------------------------------------------------------------------------


def test_nothing_that_is_logged_holds_a_card_number(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    _, pipeline = processed([*values(), *wrong_records()])
    pipeline.absorb(records_of(values()))
    pipeline.state.finish_flush()
    said = [
        formatter.format(record) for record in caplog.records for formatter in (JsonFormatter(), ConsoleFormatter())
    ]
    assert shown_in("\n".join(said)) == []


def test_no_metric_holds_a_card_number() -> None:
    _, pipeline = processed([*values(), *wrong_records()])
    pipeline.metrics.state_entities = pipeline.state.entities()
    registry = CollectorRegistry()
    registry.register(MetricsCollector(pipeline.metrics))
    text = generate_latest(registry).decode()
    assert shown_in(text) == []
    assert "tidegate_dead_letters_total" in text
    assert "m-1" not in text


# --- errors and files ------------------------------------------------------------------------------------------


def test_an_error_about_a_cards_state_does_not_name_the_card() -> None:
    store = MemoryStore()
    pipeline = pipeline_of(CONFIG, store)
    pipeline.process(records_of(values()))
    pipeline.state.begin_flush({})
    pipeline.state.finish_flush()
    for key in store.rows:
        if key[0] >= 0x10:
            store.rows[key] = b"\x63"
    again = pipeline_of(CONFIG, store)
    with pytest.raises(TidegateError) as raised:
        again.process(records_of([json_of(event(9_999, card=CARD))]))
    assert shown_in(str(raised.value)) == []


def test_the_database_holds_hashes_and_no_numbers(tmp_path: Path) -> None:
    with Store(tmp_path, 1 << 20) as store:
        pipeline = pipeline_of(CONFIG, store)
        pipeline.process(records_of(values()))
        pipeline.state.begin_flush({0: 1})
        pipeline.state.finish_flush()
    everything = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert len(everything) > 1_000
    assert [card for card in CARDS if card.encode() in everything] == []


def test_what_a_replay_says_of_refused_records_is_masked_but_for_their_bytes(tmp_path: Path) -> None:
    files = ReplayFiles(tmp_path / "d", tmp_path / "a", tmp_path / "x")
    replay(iter([records_of(wrong_records())]), CONFIG, files)
    letters = [orjson.loads(line) for line in files.dead_letters.read_bytes().splitlines()]
    assert len(letters) > 10
    for letter in letters:
        del letter["value"]
        assert numbers_in(letter) == []


@given(st.sampled_from(CARDS))
def test_a_masked_card_number_is_none(card) -> None:
    assert shown_in(masked(card)) == []
    assert masked(card).endswith(card[-4:])
