"""Models and fits can be pickled and deep-copied, or the error names what to use instead."""

import copy
import pickle

import numpy as np
import pytest
from sklearn.ensemble import GradientBoostingRegressor, HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import upweight as uw
from upweight.methods.registry import methods

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 3))
Y = (X[:, 0] + RNG.normal(size=60) > 0).astype(int)
TRAIN, QUERIES = uw.Examples(X, Y), uw.Examples(X[:3] + 0.1, Y[:3], ids=[100, 101, 102])
BOOSTERS = ("boosting", "histogram", "lightgbm", "native", "xgboost", "catboost")
MAKERS = ("linear", "pipeline", "forest", *BOOSTERS, "network")
COPIES = {"pickle": lambda value: pickle.loads(pickle.dumps(value)), "deepcopy": copy.deepcopy}


def made(name):
    match name:
        case "linear":
            estimator = LogisticRegression(tol=1e-8)
        case "pipeline":
            estimator = make_pipeline(StandardScaler(), LogisticRegression(tol=1e-8))
        case "forest":
            estimator = RandomForestClassifier(4, random_state=0)
        case "boosting":
            estimator = GradientBoostingRegressor(n_estimators=4)
        case "histogram":
            estimator = HistGradientBoostingClassifier(max_iter=4)
        case "lightgbm":
            estimator = pytest.importorskip("lightgbm").LGBMClassifier(n_estimators=4, verbose=-1, n_jobs=1)
        case "native":
            lightgbm = pytest.importorskip("lightgbm")
            settings = {"objective": "binary", "verbose": -1, "num_threads": 1}
            return uw.explainable(lightgbm.train(settings, lightgbm.Dataset(X, Y), 4), TRAIN)
        case "xgboost":
            estimator = pytest.importorskip("xgboost").XGBClassifier(n_estimators=4, n_jobs=1)
        case "catboost":
            estimator = pytest.importorskip("catboost").CatBoostClassifier(
                iterations=4, verbose=0, thread_count=1, allow_writing_files=False
            )
        case "network":
            torch = pytest.importorskip("torch")
            torch.manual_seed(0)
            return uw.TorchModel(torch.nn.Linear(3, 2).double(), cross_entropy)
    return uw.explainable(estimator.fit(X, Y), TRAIN)


def cross_entropy(net, batch):
    import torch

    return torch.nn.functional.cross_entropy(net(batch.x), batch.y, reduction="none")


@pytest.mark.sweep(3)
@pytest.mark.parametrize("name", MAKERS)
def test_a_copy_of_a_model_or_a_fit_gives_the_same_answers(name):
    model = made(name)
    fits = {}
    for method, recipe in methods().items():
        try:
            fits[method] = recipe().fit(model, TRAIN)
        except (TypeError, ValueError):  # a method for other models
            continue
    assert len(fits) >= 2
    for copied in COPIES.values():
        again = copied(model)
        assert np.array_equal(again.measure(QUERIES), model.measure(QUERIES)) and again.identity() == model.identity()
    for method, fitted in fits.items():
        expected = fitted.attribute(QUERIES).values
        for copied in list(COPIES.values())[: 1 + (fitted is next(iter(fits.values())))]:  # one fit is deep-copied
            assert np.array_equal(copied(fitted).attribute(QUERIES).values, expected, equal_nan=True), method


def test_a_copy_does_not_follow_the_estimator():
    estimator = pytest.importorskip("lightgbm").LGBMClassifier(n_estimators=4, verbose=-1, n_jobs=1).fit(X, Y)
    model = uw.explainable(estimator, TRAIN)
    copied, before = copy.deepcopy(model), model.measure(QUERIES)
    estimator.fit(X, 1 - Y)
    assert np.array_equal(copied.measure(QUERIES), before)


def test_a_fit_of_a_model_that_changed_is_not_pickled():
    estimator = LogisticRegression(tol=1e-8).fit(X, Y)
    fitted = uw.Influence().fit(uw.explainable(estimator, TRAIN), TRAIN)
    estimator.fit(X, 1 - Y)
    with pytest.raises(ValueError, match="changed, moved or copied"):
        pickle.dumps(fitted)


def test_a_function_that_cannot_be_pickled_is_named_and_can_be_copied():
    torch = pytest.importorskip("torch")
    model = uw.TorchModel(torch.nn.Linear(3, 2).double(), lambda net, batch: 2 * cross_entropy(net, batch))
    with pytest.raises(TypeError, match=r"the loss of this TorchModel cannot be pickled .*fitted\.save"):
        pickle.dumps(model)
    assert np.array_equal(copy.deepcopy(model).measure(QUERIES), model.measure(QUERIES))
