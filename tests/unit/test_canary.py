"""Which entities a canary has: a share of them, always the same ones, others for another version."""

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from engine.canary import Canary, mixed
from engine.events import Batch
from engine.pipeline import in_order
from engine.serving import Serving
from features.words import key_hashes
from tests.pipelines import event, json_of, pipeline_of, profile, records_of

KEYS = key_hashes([f"4000{number:012d}" for number in range(50_000)], 1)


def canary(share: float, version: int = 1, column: int = 0) -> Canary:
    serving = cast(Serving, SimpleNamespace(model=SimpleNamespace(version=version)))
    return Canary(serving, share, column)


def rows(found: Canary, keys: Any = KEYS) -> Any:
    return found.rows(cast(Batch, SimpleNamespace(words=keys[:, None])))


@pytest.mark.parametrize("share", [0.001, 0.05, 0.5, 0.999])
def test_it_has_its_share(share: float) -> None:
    assert abs(rows(canary(share)).mean() - share) < 4 * np.sqrt(share * (1 - share) / len(KEYS))


def test_a_larger_share_holds_a_smaller_one() -> None:
    small, large = rows(canary(0.05)), rows(canary(0.2))
    assert large[small].all()


def test_another_version_has_other_entities() -> None:
    one, other = rows(canary(0.1, version=1)), rows(canary(0.1, version=2))
    assert 0.005 < (one & other).mean() < 0.015


def test_an_event_without_the_entity_is_never_its() -> None:
    assert not rows(canary(0.999), np.zeros(100, np.uint64)).any()


def test_mixing_is_splitmix64() -> None:
    """The first two outputs of the reference code for the seed 0, whose state steps before it is mixed."""
    found = mixed(np.zeros(1, np.uint64), 1), mixed(np.zeros(1, np.uint64), 2)
    assert [int(words[0]) for words in found] == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4]


def test_messages_of_both_stand_in_the_order_of_the_events() -> None:
    one = [{"key": None, "value": b"%d" % row} for row in (0, 3, 4)]
    other = [{"key": None, "value": b"%d" % row} for row in (1, 2, 5)]
    found = in_order([(np.array([0, 3, 4]), one), (np.array([1, 2, 5]), other)])  # type: ignore[list-item]
    assert [message["value"] for message in found] == [b"0", b"1", b"2", b"3", b"4", b"5"]


@pytest.mark.parametrize("share", [0.0000001, 0.4, 0.9999999])
def test_the_same_model_as_a_canary_changes_nothing(share: float) -> None:
    """Decisions and alerts come out as if one model had decided all, whoever has how many."""
    config = profile()
    values = [json_of(event(number, card=f"4000{number % 37:012d}", amount=1.5 + number % 11)) for number in range(400)]
    alone, shared = pipeline_of(config), pipeline_of(config)
    shared.set_canary(Canary(shared.champion, share, 0))
    for start in range(0, len(values), 100):
        records = records_of(values[start : start + 100], offsets=range(start, start + 100))
        expected, found = alone.process(records), shared.process(records)
        assert found.decisions == expected.decisions
        assert found.alerts == expected.alerts
    assert shared.metrics.decisions.keys() == alone.metrics.decisions.keys()
    for label, counts in alone.metrics.decisions.items():
        assert np.array_equal(shared.metrics.decisions[label], counts)
