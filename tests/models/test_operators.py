"""The list of operators lets pass what scikit-learn's usual models become, and is made of operators that there are."""

import numpy as np
import onnx
import pytest
from skl2onnx import to_onnx
from sklearn.base import BaseEstimator
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures, QuantileTransformer, StandardScaler

from models.gate import check_graph
from models.operators import ALLOWED

MODELS = {
    "logistic regression": make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression()),
    "polynomial": make_pipeline(PolynomialFeatures(), LogisticRegression()),
    "quantiles": make_pipeline(QuantileTransformer(n_quantiles=20), LogisticRegression()),
    "forest": RandomForestClassifier(5, random_state=1),
    "boosting": GradientBoostingClassifier(n_estimators=5, random_state=1),
    "neural network": MLPClassifier((4,), max_iter=5, random_state=1),
    "naive Bayes": GaussianNB(),
}


@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
@pytest.mark.parametrize("name", MODELS)
def test_usual_models_pass(name: str) -> None:
    rng = np.random.default_rng(1)
    inputs = rng.normal(size=(200, 4)).astype(np.float32)
    model: BaseEstimator = MODELS[name].fit(inputs, inputs[:, 0] > 0)
    opset = {"": 15, "ai.onnx.ml": 3}
    converted = to_onnx(model, inputs[:1], options={id(model): {"zipmap": False}}, target_opset=opset)
    declared = {entry.domain or "ai.onnx": entry.version for entry in converted.opset_import}
    check_graph(converted.SerializeToString(), 4, declared)


def test_every_name_is_an_operator() -> None:
    known = {(schema.domain, schema.name) for schema in onnx.defs.get_all_schemas()}
    assert known >= ALLOWED
