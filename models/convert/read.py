"""Which library a file is of. Needs the `train` extra."""

from collections.abc import Sequence
from pathlib import Path

from models.convert.lightgbm_text import read_lightgbm
from models.convert.onnx_file import read_onnx
from models.convert.original import Original
from models.convert.skops_file import read_skops
from models.convert.xgboost_json import read_xgboost
from models.errors import ModelError

_READERS = {".txt": read_lightgbm, ".json": read_xgboost, ".skops": read_skops}
_PICKLED = (".pkl", ".pickle", ".joblib")


def read_original(path: Path, inputs: Sequence[str] | None = None) -> Original:
    """The model of a file, by the ending of its name; `inputs` names the inputs of an ONNX graph that does not itself.

    Raises ModelError for other endings, and for `inputs` where the file carries names.
    """
    if not path.is_file():
        raise ModelError(f"{path} does not exist")
    if path.suffix in _PICKLED:
        raise ModelError(f"{path}: reading a pickle runs the code in it; write skops.io.dump(pipeline, 'fraud.skops')")
    if path.suffix == ".onnx":
        return read_onnx(path, inputs)
    if path.suffix not in _READERS:
        raise ModelError(f"{path}: must end in .onnx, {', '.join(_READERS)} (LightGBM, XGBoost, scikit-learn)")
    if inputs is not None:
        raise ModelError(f"{path} carries the names of its inputs: others cannot be given")
    return _READERS[path.suffix](path)
