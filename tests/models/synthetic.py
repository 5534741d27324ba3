"""Features as the engine would have them, with a label that some of them explain."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from features.spec import EventSpec, entity_spec, feature_spec

SPEC = feature_spec(
    [
        entity_spec("card", ["10s", "1m"], ["count", "mean.amount", "since_last"]),
        entity_spec("merchant", ["1m"], ["count", "mean.amount"]),
    ],
    EventSpec(("amount", "hour_of_day")),
)
DEFINITIONS = SPEC.features
# The same features as a configuration, with the store beside it.
CONFIG = """
[entities.card]
windows = ["10s", "1m"]
aggregates = ["count", "mean.amount", "since_last"]

[entities.merchant]
windows = ["1m"]
aggregates = ["count", "mean.amount"]

[event]
features = ["amount", "hour_of_day"]

[models]
store = "store"
champion = "fraud@champion"
"""
# Not in the order of the matrix, and not all of it: a model picks its columns.
NAMES = [
    "event.amount",
    "card.count.10s",
    "card.count.1m",
    "card.mean.amount.1m",
    "card.since_last",
    "merchant.count.1m",
]

Float64 = NDArray[np.float64]


def feature_matrix(rng: np.random.Generator, rows: int) -> Float64:
    """[rows, all features of SPEC]; since_last is null for the first event of a card."""
    matrix = np.empty((rows, len(SPEC.names)))
    for column, name in enumerate(SPEC.names):
        if ".count." in name:
            matrix[:, column] = rng.geometric(0.4, rows)
        elif name == "event.hour_of_day":
            matrix[:, column] = rng.integers(0, 24, rows)
        else:
            matrix[:, column] = np.round(rng.lognormal(3, 1, rows), 2)
    matrix[rng.random(rows) < 0.3, SPEC.names.index("card.since_last")] = np.nan
    return matrix


def labels(rng: np.random.Generator, matrix: Float64) -> NDArray[np.int8]:
    """Fraud, about 4%: large amounts on busy cards, with noise."""
    amount = matrix[:, SPEC.names.index("event.amount")]
    count = matrix[:, SPEC.names.index("card.count.10s")]
    signal = np.log(amount) + 0.8 * count + rng.normal(0, 0.5, len(matrix))
    return (signal > np.quantile(signal, 0.96)).astype(np.int8)


def write_features(path: Path, rows: int, seed: int, shuffle_labels: bool = False) -> None:
    """A training file of `rows` events, one a second."""
    rng = np.random.default_rng(seed)
    matrix = feature_matrix(rng, rows)
    known = labels(rng, matrix)
    columns = {
        "event_id": [f"e{i}" for i in range(rows)],
        "event_time": 1_700_000_000_000 + 1_000 * np.arange(rows),
        "label": rng.permutation(known) if shuffle_labels else known,
        **{name: matrix[:, column] for column, name in enumerate(SPEC.names)},
    }
    pq.write_table(pa.table(columns), path)
