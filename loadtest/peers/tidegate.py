"""Tidegate at the small job: its ordinary worker, whole decisions, each with the values of its features."""

import json
import sys
from pathlib import Path

from loadtest.peers.peer import Command, Peer, Run

# In the model store that `scripts/peers` fills.
MODEL = "peers/1"
SOURCES = Path(__file__).resolve().parents[2]
TOPICS = (
    "alerts",
    "dead_letters",
    "progress",
    "lease",
    "control",
    "shadow_decisions",
    "decisions_sample",
    "telemetry",
)

_CONFIG = """
[kafka]
bootstrap = {bootstrap}
input = {input}
application_id = {name}
delivery = {delivery}
partitions = {partitions}
decision_features = true

[kafka.topics]
decisions = {output}
{topics}

[entities.card]
windows = ["1h"]
aggregates = ["count", "sum.amount"]

[event]
features = ["amount"]

[models]
store = {store}
champion = {champion}

[policy]
without_model = "approve"

[state]
dir = {state}

[observe]
listen = "127.0.0.1:0"
"""


def config_text(run: Run) -> str:
    """One entity, one window, two aggregates; all else is as by default. Without a model every event is approved."""
    store = run.model.parents[2] if run.model else run.folder / "models"
    values = {
        "bootstrap": run.bootstrap,
        "input": run.input,
        "name": run.name,
        "delivery": run.delivery,
        "partitions": run.partitions,
        "output": run.output,
        "store": str(store),
        "champion": MODEL,
        "state": str(run.folder / "state"),
    }
    topics = "\n".join(f'{topic} = "{run.name}-{topic}"' for topic in TOPICS)
    return _CONFIG.format(topics=topics, **{name: json.dumps(value) for name, value in values.items()})


def _command(run: Run) -> Command:
    config = run.folder / "tidegate.toml"
    config.write_text(config_text(run), "utf-8")
    tidegate = f"{sys.executable} -m engine"
    script = f'{tidegate} topics apply --config "$0" && exec {tidegate} run --config "$0"'
    # The Tidegate of these sources, whichever is installed.
    return Command(["sh", "-c", script, str(config)], {"PYTHONPATH": str(SOURCES)})


TIDEGATE = Peer("tidegate", "sliding", True, _command)
