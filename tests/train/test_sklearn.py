"""The estimators in scikit-learn: its own checks, pipelines and searches."""

import numpy as np
import pytest

from longstate import Classifier, Regressor
from tests.train.test_classifier import SMALL, waves

pytest.importorskip("sklearn")

TINY = {"d_model": 4, "n_layers": 1, "epochs": 1}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the checks themselves
@pytest.mark.parametrize("kind", [Classifier, Regressor])
def test_estimator_checks(kind):
    from sklearn.utils.estimator_checks import check_estimator

    results = check_estimator(kind(**TINY), on_skip=None)
    assert len(results) > 40
    skipped = {r["check_name"] for r in results if r["status"] == "skipped"}
    assert skipped <= {"check_array_api_input"}  # needs SCIPY_ARRAY_API


def test_clone_and_parameters():
    from sklearn.base import clone, is_classifier, is_regressor

    model = Classifier(layers=["s5", "s4d"], class_weight={"a": 2.0}, seed=5)
    copy = clone(model)
    assert copy is not model
    assert copy.get_params() == model.get_params()
    assert repr(model) == "Classifier(layers=['s5', 's4d'], class_weight={'a': 2.0}, seed=5)"
    assert is_classifier(model)
    assert is_regressor(Regressor())


def test_pipeline_search_and_cross_validation():
    from sklearn.model_selection import GridSearchCV, cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer

    X, y = waves(24)
    model = Classifier(**SMALL)
    assert cross_val_score(model, X, y, cv=2).mean() > 0.8
    pipeline = make_pipeline(FunctionTransformer(np.abs), model)
    search = GridSearchCV(pipeline, {"classifier__d_model": [4, 8]}, cv=2).fit(X, y)
    assert search.best_params_["classifier__d_model"] in (4, 8)
    assert search.predict_proba(X).shape == (24, 2)
