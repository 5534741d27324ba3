"""The generator: one seed, one stream; fraud that is known, and known to the ground truth only."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import orjson
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from loadtest.__main__ import main
from loadtest.columns import ATTACK_KINDS, COLUMNS, Traffic, event_ids, join
from loadtest.files import event_table, truth_table
from loadtest.population import populate
from loadtest.render import render
from loadtest.settings import TrafficSettings, spread
from loadtest.traffic import chunks, generate

SMALL = TrafficSettings(seed=7, cards=2_000, merchants=100, devices=3_000, ips=1_500)
UNRULY = replace(SMALL, late_share=0.05, duplicate_share=0.05, poison_share=0.02)
KEYS = [
    "event_id",
    "event_time",
    "amount",
    "currency",
    "card",
    "merchant",
    "device",
    "ip",
    "category",
    "country",
]
KEYS += ["channel", "entry_mode"]


@pytest.fixture(scope="module")
def demo() -> Traffic:
    return generate(TrafficSettings(seed=11), 150_000)


def assert_same(left: Traffic, right: Traffic) -> None:
    assert left.run == right.run
    for name in COLUMNS:
        np.testing.assert_array_equal(getattr(left, name), getattr(right, name), err_msg=name)


def test_one_seed_gives_one_stream() -> None:
    assert_same(generate(UNRULY, 20_000), generate(UNRULY, 20_000))
    other = generate(replace(UNRULY, seed=8), 20_000)
    assert not np.array_equal(other.card_numbers, generate(UNRULY, 20_000).card_numbers)


@pytest.mark.parametrize("chunk_events", [777, 8_192, 30_000])
def test_the_stream_does_not_depend_on_how_it_is_cut(chunk_events: int) -> None:
    stream = chunks(UNRULY, chunk_events)
    parts = [next(stream) for _ in range(-(-20_000 // chunk_events))]
    assert {len(part) for part in parts} == {chunk_events}
    assert_same(join(parts).take(slice(0, 20_000)), generate(UNRULY, 20_000))


def test_rate_and_order(demo: Traffic) -> None:
    assert (np.diff(demo.send_times_ms) >= 0).all()
    assert (demo.times_ms == demo.send_times_ms).all()
    seconds = (demo.send_times_ms[-1] - demo.send_times_ms[0]) / 1_000
    assert 28 < seconds < 32


def test_half_a_minute_of_the_demo_has_several_compact_attacks_of_each_kind(demo: Traffic) -> None:
    for kind in range(1, len(ATTACK_KINDS)):
        rows = demo.attack_kinds == kind
        ids, sizes = np.unique(demo.attack_ids[rows], return_counts=True)
        assert len(ids) >= 4, ATTACK_KINDS[kind]
        assert np.median(sizes) >= 4
        for attack in ids:
            times_ms = demo.times_ms[demo.attack_ids == attack]
            assert times_ms.max() - times_ms.min() < 15_000
    assert 0.003 < (demo.attack_kinds > 0).mean() < 0.02


def test_attacks_look_as_they_should(demo: Traffic) -> None:
    testing = demo.attack_kinds == ATTACK_KINDS.index("card_testing")
    assert demo.amounts_minor[testing].max() < 200
    takeover = demo.attack_kinds == ATTACK_KINDS.index("account_takeover")
    collusion = demo.attack_kinds == ATTACK_KINDS.index("merchant_collusion")
    for attack in np.unique(demo.attack_ids[takeover]):
        rows = demo.attack_ids == attack
        assert len(np.unique(demo.card_numbers[rows])) == 1
        assert len(np.unique(demo.devices[rows])) == 1
    for attack in np.unique(demo.attack_ids[collusion]):
        rows = demo.attack_ids == attack
        assert len(np.unique(demo.merchants[rows])) == 1
        assert len(np.unique(demo.card_numbers[rows])) <= 8


def test_cards_are_distinct_test_numbers_with_a_check_digit() -> None:
    numbers = populate(SMALL).card_numbers
    assert len(np.unique(numbers)) == SMALL.cards
    for number in numbers[:50].tolist():
        digits = [int(digit) for digit in str(number)]
        doubled = [digit * 2 - 9 * (digit > 4) for digit in digits[-2::-2]]
        assert len(digits) == 16
        assert (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def test_rendered_events_parse_back_and_tell_nothing_about_fraud(demo: Traffic) -> None:
    part = demo.take(slice(60_000, 65_000))
    values = render(part)
    events = [orjson.loads(value) for value in values]
    assert 200 <= np.mean([len(value) for value in values]) <= 300
    assert all(list(event) == KEYS for event in events)
    assert [event["event_id"] for event in events] == event_ids(part)
    assert len(set(event_ids(part))) == len(part)
    assert [event["event_time"] for event in events] == part.times_ms.tolist()
    assert [round(event["amount"] * 100) for event in events] == part.amounts_minor.tolist()
    assert all(re.fullmatch(rb'.*"amount":\d+\.\d\d,.*', value) for value in values)
    assert all(re.fullmatch(r"\d{16}", event["card"]) for event in events)
    assert all(re.fullmatch(r"10(\.\d{1,3}){3}", event["ip"]) for event in events)


def test_late_duplicate_and_poison_shares() -> None:
    traffic = generate(UNRULY, 60_000)
    late = (traffic.times_ms < traffic.send_times_ms) & ~traffic.duplicates
    assert 0.03 < late.mean() < 0.07
    assert 0.03 < traffic.duplicates.mean() < 0.07
    assert 0.01 < (traffic.poison_kinds >= 0).mean() < 0.03
    assert not (traffic.attack_kinds[traffic.poison_kinds >= 0] > 0).any()


@pytest.mark.parametrize(("share", "column"), [("hot_card_share", "card_numbers"), ("hot_merchant_share", "merchants")])
def test_a_hot_key_has_its_share_of_the_honest_purchases(share: str, column: str) -> None:
    hot = generate(replace(SMALL, burst_probability=0.0, **{share: 0.4}), 10_000)  # type: ignore[arg-type]
    honest = hot.attack_kinds == 0
    _, events = np.unique(getattr(hot, column)[honest], return_counts=True)
    assert 0.38 < events.max() / honest.sum() < 0.48


def test_a_duplicate_repeats_an_earlier_record_byte_for_byte() -> None:
    traffic = generate(UNRULY, 30_000)
    first: dict[str, bytes] = {}
    for event_id, value, repeated in zip(event_ids(traffic), render(traffic), traffic.duplicates.tolist(), strict=True):
        if repeated:
            assert first[event_id] == value
        else:
            assert event_id not in first
            first[event_id] = value


def test_spread_covers_the_days_and_follows_the_hour() -> None:
    settings = spread(TrafficSettings(seed=3), 40_000, days=4)
    traffic = generate(settings, 40_000)
    days = (traffic.send_times_ms[-1] - traffic.send_times_ms[0]) / 86_400_000
    assert 3.6 < days < 4.4
    hours = traffic.send_times_ms // 3_600_000 % 24
    assert (hours == 16).sum() > 2 * (hours == 4).sum()
    assert set(np.unique(traffic.attack_kinds)) == {0, 1, 2, 3}


@pytest.mark.parametrize("wrong", [{"cards": 0}, {"events_per_second": 0.0}, {"late_share": 1.0}, {"seed": -1}])
def test_settings_are_checked(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        replace(SMALL, **wrong)  # type: ignore[arg-type]


def test_tables_align_with_the_events() -> None:
    traffic = generate(replace(UNRULY, poison_share=0.0), 3_000)
    events, truth = event_table(traffic), truth_table(traffic)
    assert events.column_names == KEYS
    assert events["event_id"].equals(truth["event_id"])
    minor = [int(amount.scaleb(2)) for amount in events["amount"].to_pylist()]
    assert minor == traffic.amounts_minor.tolist()
    kinds = [ATTACK_KINDS[kind] for kind in traffic.attack_kinds.tolist()]
    assert truth["attack_kind"].to_pylist() == kinds


def test_command_writes_events_and_truth(tmp_path: Path) -> None:
    out, truth = tmp_path / "events.jsonl", tmp_path / "truth.parquet"
    arguments = [
        "generate",
        "--events",
        "3000",
        "--poison-share",
        "0.02",
        "--out",
        str(out),
        "--truth",
        str(truth),
    ]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    reasons = pq.read_table(truth)["poison_reason"].to_pylist()
    assert len(out.read_bytes().splitlines()) == len(reasons) == 3_000
    assert any(reasons)


def test_command_refuses_poison_in_parquet(tmp_path: Path) -> None:
    arguments = ["generate", "--poison-share", "0.02", "--out", str(tmp_path / "events.parquet")]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert "--poison-share" in result.output
