"""Lists of entities: whoever is put on one is found until its time, through growth, changes and removal."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from engine.events import Batch
from engine.policy.lists import FOREVER_MS, Lists, Note
from features.words import column_seed, key_hashes
from tests.pipelines import START_MS, blank_batch

ENTITIES = ("card", "merchant", "device", "ip")
NOTE = Note("ana", "stolen")


def batch(cards: list[str | None], merchants: list[str | None] | None = None, times_ms: int = START_MS) -> Batch:
    made = blank_batch(len(cards))
    made.words[:, 0] = key_hashes(cards, column_seed("card"))
    made.words[:, 1] = key_hashes(merchants or [None] * len(cards), column_seed("merchant"))
    made.times_ms = np.full(len(cards), times_ms)
    return made


def blocked(lists: Lists, cards: list[str | None], times_ms: int = START_MS) -> list[int]:
    found = lists.find(batch(cards, times_ms=times_ms))
    return [] if found is None else found.block.rows.tolist()


def test_nothing_is_looked_for_where_nothing_is_listed() -> None:
    assert Lists(ENTITIES).find(batch(["a"])) is None


def test_a_list_has_its_entity_and_no_other() -> None:
    lists = Lists(ENTITIES)
    lists.put("block", "merchant", ["a"], FOREVER_MS, NOTE)
    found = lists.find(batch(["a", None, "b"], ["b", "a", None]))
    assert found is not None
    assert found.block.rows.tolist() == [1]
    assert [lists.entity(entity) for entity in found.block.entities.tolist()] == ["merchant"]
    assert found.block.notes == [NOTE]
    assert not len(found.allow.rows)


def test_an_entity_of_another_feature_set_is_none_of_ours() -> None:
    lists = Lists(ENTITIES)
    lists.put("block", "terminal", ["a"], FOREVER_MS, NOTE)
    assert len(lists) == 0


def test_an_entry_holds_before_its_time_is_over() -> None:
    lists = Lists(ENTITIES)
    lists.put("block", "card", ["a"], START_MS, NOTE)
    assert blocked(lists, ["a"], START_MS - 1) == [0]
    assert blocked(lists, ["a"], START_MS) == []


def test_the_last_word_about_a_key_holds() -> None:
    lists = Lists(ENTITIES)
    lists.put("block", "card", ["a", "b"], START_MS, NOTE)
    lists.put("block", "card", ["a"], FOREVER_MS, Note("bo", "again"))
    found = lists.find(batch(["a"]))
    assert found is not None
    assert found.block.notes == [Note("bo", "again")]
    lists.remove("block", "card", ["a"])
    assert blocked(lists, ["a"]) == []
    assert len(lists) == 1
    lists.put("block", "card", ["a"], FOREVER_MS, NOTE)
    assert blocked(lists, ["a"]) == [0]


@given(
    st.lists(st.tuples(st.sampled_from(["put", "remove"]), st.integers(0, 3_000), st.integers(1, 1_500)), max_size=12)
)
def test_a_table_is_what_a_dictionary_is(changes: list[tuple[str, int, int]]) -> None:
    lists, expected = Lists(ENTITIES), set()
    for what, first, count in changes:
        keys = [f"c{number}" for number in range(first, first + count)]
        if what == "put":
            lists.put("block", "card", keys, FOREVER_MS, NOTE)
            expected |= set(keys)
        else:
            lists.remove("block", "card", keys)
            expected -= set(keys)
    every = [f"c{number}" for number in range(4_600)]
    assert {every[row] for row in blocked(lists, every)} == expected
    assert len(lists) == len(expected)
