"""Every way of breaking an event breaks it, and says with which reason it has to be refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from engine.config import default_profile, parse_config
from engine.decode import Decoder
from engine.events import REASONS, Records
from loadtest.poison import KINDS, poison, spoil
from loadtest.render import render
from loadtest.settings import TrafficSettings
from loadtest.traffic import generate

VALID = render(generate(TrafficSettings(cards=100, merchants=10), 1))[0]

# What a record with that reason looks like once parsed.
SHOWS: dict[str, Callable[[dict[str, Any]], bool]] = {
    "wrong_type": lambda e: isinstance(e["amount"], list) or isinstance(e["event_id"], dict),
    "missing_field": lambda e: not {"event_id", "amount", "event_time"} <= e.keys(),
    "event_id_invalid": lambda e: e["event_id"] == "",
    "amount_invalid": lambda e: e["amount"] in ("NaN", "abc"),
    "amount_range": lambda e: e["amount"] >= 1e13,
    "unknown_currency": lambda e: e["currency"] == "XXQ",
    "event_time_invalid": lambda e: e["event_time"] < 0,
    "event_time_past": lambda e: e["event_time"] < orjson.loads(VALID)["event_time"] - 4 * 365 * 86_400_000,
    "event_time_future": lambda e: e["event_time"] > orjson.loads(VALID)["event_time"] + 86_400_000,
    "oversize": lambda e: len(orjson.dumps(e)) > 256 * 1024,
}


@pytest.mark.parametrize("kind", range(len(KINDS)), ids=[name for name, _, _ in KINDS])
def test_each_kind_shows_its_reason(kind: int) -> None:
    for seed in range(5):
        value, reason = spoil(kind, np.random.default_rng(seed), VALID)
        assert reason in REASONS
        if reason == "empty_value":
            assert not value
        elif reason == "malformed_json":
            with pytest.raises(orjson.JSONDecodeError):
                orjson.loads(value or b"")
        else:
            assert SHOWS[reason](orjson.loads(value or b""))


def test_every_reason_occurs() -> None:
    rng = np.random.default_rng(1)
    assert {poison(rng, VALID)[1] for _ in range(400)} == set(REASONS)


@pytest.mark.parametrize("kind", range(len(KINDS)), ids=[name for name, _, _ in KINDS])
def test_the_decoder_gives_each_kind_its_reason(kind: int) -> None:
    config = parse_config(default_profile(), Path(), environment={})
    decoder = Decoder(config, config.feature_spec(), None)
    sent = np.array([orjson.loads(VALID)["event_time"]])
    for seed in range(5):
        value, reason = spoil(kind, np.random.default_rng(seed), VALID)
        records = Records("transactions", [value], np.array([0]), np.array([0]), sent)
        batch, dead_letters = decoder.decode(records)
        assert len(batch) == 0
        assert [letter.reason for letter in dead_letters] == [reason]
