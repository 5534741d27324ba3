"""Which topics a configuration needs: those of what is turned on, and no others."""

from engine.topology import wanted_topics
from tests.pipelines import profile


def wanted(extra: str = "") -> dict[str, int]:
    """Partitions by topic."""
    config = profile(extra=f"[kafka]\npartitions = 5\nreplication = 2\n{extra}")
    specs = wanted_topics(config)
    assert {spec.replication for spec in specs} == {2}
    return {spec.name: spec.partitions for spec in specs}


ALWAYS = {"transactions": 5, "decisions": 5, "alerts": 5, "dead-letters": 5, "progress": 1, "lease": 1, "control": 1}


def test_samples_and_telemetry_have_one_partition_each() -> None:
    assert wanted() == ALWAYS | {"decisions-sample": 1, "telemetry": 1}


def test_without_telemetry_its_topics_are_not_needed() -> None:
    assert wanted("[telemetry]\nenabled = false") == ALWAYS


def test_challengers_have_a_topic() -> None:
    found = wanted('[models]\nchallengers = ["demo/1"]\n[kafka.topics]\nshadow_decisions = "others"')
    assert found == ALWAYS | {"decisions-sample": 1, "telemetry": 1, "others": 5}
