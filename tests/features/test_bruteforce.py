"""The offline path against a brute force in polars, on traffic of our own generator.

`scripts/compare-sparkov` does the same on a file of transactions.
"""

from pathlib import Path

import polars as pl

from engine.backfill import backfill
from engine.config import parse_config
from engine.sources import read_records
from loadtest.columns import event_ids
from loadtest.render import render
from loadtest.settings import DAY_S, TrafficSettings
from loadtest.traffic import generate
from tests.bruteforce import COUNTED, WINDOWS, compare, entities_toml, markdown

EVENTS, DAYS = 6_000, 45
# Few merchants, so that some are busier than a ring is long.
TRAFFIC = TrafficSettings(
    events_per_second=EVENTS / (DAYS * DAY_S), cards=150, merchants=20, duplicate_share=0.02, burst_gap_s=600.0
)


def test_offline_features_equal_a_brute_force(tmp_path: Path) -> None:
    traffic = generate(TRAFFIC, EVENTS)
    # Whole ten seconds, so that some events tie.
    traffic.times_ms[:] = traffic.times_ms // 10_000 * 10_000
    path = tmp_path / "events.jsonl"
    path.write_bytes(b"".join(line + b"\n" for line in render(traffic)))
    config = parse_config(f"{entities_toml()}\n[event]\nfeatures = []", tmp_path, environment={})
    summary = backfill(read_records([path], 512), config, tmp_path / "features.parquet")
    assert summary.duplicates > EVENTS / 100
    events = pl.DataFrame(
        {
            "event_id": event_ids(traffic),
            "time_ms": traffic.times_ms,
            "minor": traffic.amounts_minor,
            "card": [str(card) for card in traffic.card_numbers.tolist()],
            "merchant": [f"m-{merchant:06d}" for merchant in traffic.merchants.tolist()],
        }
    ).unique("event_id", keep="first", maintain_order=True)
    assert summary.rows == len(events)
    found = compare(tmp_path / "features.parquet", events, config)
    assert len(found) == len(COUNTED) * len(WINDOWS)
    assert not any(one.mismatches for one in found), markdown(found)
    assert all(one.exact_share > 0.99 for one in found if one.entity == "card")
    assert any(0.1 < one.exact_share < 0.99 for one in found if one.entity == "merchant"), "no ring overflowed"
    assert sum(one.tied for one in found) > 0
