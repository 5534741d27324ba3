"""What is known about a model, beside its bytes: `manifest.json`."""

import re
from pathlib import Path
from typing import Literal

import msgspec

from models.calibration import Calibration
from models.errors import ModelError
from models.files import read_below, write_atomic
from models.parity import Parity
from models.reference import Reference

SCHEMA: Literal["tidegate.model.v1"] = "tidegate.model.v1"
MANIFEST_BYTES_MAX = 16 * 1024 * 1024


class Input(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One input column: a feature's name and the hash of the definition that the model was trained on."""

    name: str
    definition_hash: str


class Training(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where the model comes from; the same data, parameters and libraries give the same bytes."""

    data_sha256: str
    rows: int
    positives: int
    test_rows: int
    test_positives: int
    split: str
    params: dict[str, float]
    libraries: dict[str, str]


class Import(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a model made elsewhere came from, and how it was compared with it.

    `reference_sha256` is that of the feature table; of its `rows`, `labelled_rows` have a label, `positives` are fraud.
    """

    format: str
    file_sha256: str
    reference_sha256: str
    rows: int
    labelled_rows: int
    positives: int
    parity: Parity
    libraries: dict[str, str]


class Golden(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Rows in input order (null is NaN) and the probabilities that this very file gave for them."""

    inputs: list[list[float | None]]
    expected: list[float]


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One version of one model.

    `features` stand in input order. `opset` maps operator domains to versions. A model was trained
    here (`training`) or imported (`imported`); `metrics` were taken on the test slice or on the labelled rows of the
    reference set. `reference` holds the distribution of each input over the rows that are not fraud. Without a
    `calibration` the risk score is the probability in thousandths.
    """

    schema: Literal["tidegate.model.v1"] = SCHEMA
    name: str
    version: int
    sha256: str
    features: list[Input]
    output: str
    opset: dict[str, int]
    training: Training | None = None
    imported: Import | None = None
    calibration: Calibration | None = None
    metrics: dict[str, float]
    reference: dict[str, Reference]
    golden: Golden

    def __post_init__(self) -> None:
        if (self.training is None) == (self.imported is None):
            raise ValueError("needs either training or imported")
        names = [feature.name for feature in self.features]
        if self.version < 1 or not re.fullmatch("[0-9a-f]{64}", self.sha256):
            raise ValueError("version: must be at least 1, and sha256: 64 hexadecimal digits")
        if not names or len(set(names)) < len(names):
            raise ValueError("features: must not be empty, nor name a feature twice")
        if set(self.reference) != set(names):
            raise ValueError("reference: must cover exactly the features")
        if any(len(row) != len(names) for row in self.golden.inputs):
            raise ValueError(f"golden.inputs: every row must have {len(names)} values")
        if not self.golden.inputs or len(self.golden.inputs) != len(self.golden.expected):
            raise ValueError("golden: needs at least one row, and one expected value for each")


def read_manifest(path: Path) -> Manifest:
    """Reads and checks; ModelError where the file is missing, a symlink, too large or not a manifest."""
    return parse_manifest(read_below(path.parent, path.name, MANIFEST_BYTES_MAX), path)


def parse_manifest(data: bytes, path: Path) -> Manifest:
    """Checks the contents of the manifest at `path`; ModelError where it is not one."""
    try:
        return msgspec.json.decode(data, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ModelError(f"{path} is not a model manifest: {error}") from error


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Writes readable JSON, whole or not at all."""
    write_atomic(path, msgspec.json.format(msgspec.json.encode(manifest), indent=1) + b"\n")
