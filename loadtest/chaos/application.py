"""One application under test: its topics, and the configuration that its workers run with."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Tree = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Application:
    """`id` begins the names of its topics, so that runs on one broker do not meet."""

    bootstrap: str
    id: str
    partitions: int
    delivery: str

    @property
    def input(self) -> str:
        """Topic of the events."""
        return f"{self.id}.transactions"

    @property
    def decisions(self) -> str:
        """Topic of the decisions."""
        return f"{self.id}.decisions"

    @property
    def alerts(self) -> str:
        """Topic of the alerts."""
        return f"{self.id}.alerts"

    @property
    def dead_letters(self) -> str:
        """Topic of the dead letters."""
        return f"{self.id}.dead-letters"

    @property
    def progress(self) -> str:
        """Topic of the records that say in which order the input was taken."""
        return f"{self.id}.progress"

    def config_text(self, profile: Tree, **tables: Tree) -> str:
        """A worker's configuration: the profile's, with what makes it part of this application, and `tables`."""
        kafka = {
            **profile.get("kafka", {}),
            **tables.pop("kafka", {}),
            "input": self.input,
            "application_id": self.id,
            "delivery": self.delivery,
            "partitions": self.partitions,
            "topics": {
                "decisions": self.decisions,
                "alerts": self.alerts,
                "dead_letters": self.dead_letters,
                "progress": self.progress,
                "lease": f"{self.id}.lease",
                "control": f"{self.id}.control",
                "decisions_sample": f"{self.id}.decisions-sample",
                "telemetry": f"{self.id}.telemetry",
            },
        }
        merged = {**profile, "kafka": kafka, **{name: {**profile.get(name, {}), **tables[name]} for name in tables}}
        return "\n".join(toml_lines(merged)) + "\n"


def toml_lines(tree: Tree, path: tuple[str, ...] = ()) -> Iterator[str]:
    """A tree of tables as TOML.

    >>> print("\\n".join(toml_lines({"kafka": {"input": "in", "topics": {"alerts": "out"}}})))
    [kafka]
    "input" = "in"
    [kafka.topics]
    "alerts" = "out"
    """
    values = {key: value for key, value in tree.items() if not isinstance(value, Mapping)}
    if path and values:
        yield f"[{'.'.join(path)}]"
    # What JSON writes of text, numbers, truth values and lists of them is TOML too.
    yield from (f"{json.dumps(key)} = {json.dumps(value)}" for key, value in values.items())
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from toml_lines(value, (*path, key))
