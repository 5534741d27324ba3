"""The model of the small job: 200 trees of 31 leaves over amount, count and sum. Needs the `train` extra."""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from engine.config import config_from_tree
from loadtest.peers.job import INPUTS, Stream, oracle, stream
from loadtest.peers.tidegate import MODEL
from models.convert.original import OUTPUT
from models.session import infer, open_session
from models.train import TrainParams, train

EVENTS = 400_000
PARAMS = TrainParams(trees=200, leaves=31)
FRAUDS_SHARE = 0.01
ENTITIES = {"card": {"windows": ["1h"], "aggregates": ["count", "sum.amount"]}}


def inputs(events: Stream) -> np.ndarray:
    """What the model is to be given for each event: float32 [n, 3], in the order of INPUTS."""
    counts, sums = oracle(events)
    return np.column_stack((events.amounts_minor / 100, counts, sums / 100)).astype(np.float32)


def trained(store: Path) -> Path:
    """The ONNX file in that model store, trained unless it is there: labels by chance, likelier for what is unusual."""
    name, _, version = MODEL.partition("/")
    path = store / name / version / "model.onnx"
    if path.exists():
        return path
    events = stream(EVENTS, hot=False, seed=7)
    features = inputs(events).astype(np.float64)
    rng = np.random.default_rng(7)
    # Ranks, so that neither amounts nor counts rule alone, and noise, so that every tree has something to split.
    unusual = sum(np.argsort(np.argsort(column + rng.random(EVENTS))) for column in features.T) / (3 * EVENTS)
    labels = rng.random(EVENTS) < 2 * FRAUDS_SHARE * unusual**2
    columns = {name: features[:, column] for column, name in enumerate(INPUTS)}
    ids = {"event_id": events.ids(), "event_time": events.times_ms, "label": labels.astype(np.int8)}
    spec = config_from_tree({"entities": ENTITIES, "event": {"features": ["amount"]}}, Path(), environment={})
    with TemporaryDirectory() as folder:
        rows = Path(folder) / "training.parquet"
        pq.write_table(pa.table({**ids, **columns}), rows)
        definitions = spec.feature_spec().features
        train(rows, store, name, feature_names=INPUTS, definitions=definitions, seed=1, params=PARAMS)
    return path


def probabilities(path: Path, events: Stream) -> np.ndarray:
    """What the model says of the oracle's values, float64 [n]."""
    return infer(open_session(path.read_bytes()), OUTPUT, inputs(events)).astype(np.float64)
