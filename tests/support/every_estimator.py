"""Every classifier and regressor of scikit-learn with small data that it can be fitted to."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import minmax_scale
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor
from sklearn.utils import all_estimators

import upweight as uw
from support.scikit_learn_versions import CHAINED

PAGE = Path(__file__).parents[2] / "docs" / "estimators.md"
START, END = "<!-- the table is written by tests/support/every_estimator.py -->\n", "<!-- end of the table -->\n"
ROWS = 120
QUERIES = 4
COLUMNS = [0, 1, 4, 5, 6, 8]  # none of which follows from the others
KINDS = ("classifier", "regressor")
# Settings without which an estimator cannot be made, takes minutes for what it shows in seconds, or cannot be repeated.
SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "ClassifierChain": {CHAINED: LogisticRegression()},
    "FixedThresholdClassifier": {"estimator": LogisticRegression()},
    "GridSearchCV": {"estimator": LogisticRegression(), "param_grid": {"C": [0.1, 1.0]}},
    "MultiOutputClassifier": {"estimator": DecisionTreeClassifier(max_depth=3, random_state=0)},
    "MultiOutputRegressor": {"estimator": Ridge()},
    "OneVsOneClassifier": {"estimator": LogisticRegression()},
    "OneVsRestClassifier": {"estimator": LogisticRegression()},
    "OutputCodeClassifier": {"estimator": LogisticRegression(), "random_state": 0},
    "PassiveAggressiveClassifier": {"random_state": 0},
    "PassiveAggressiveRegressor": {"random_state": 0},
    "SGDClassifier": {"random_state": 0},
    "SGDRegressor": {"random_state": 0},
    "RegressorChain": {CHAINED: Ridge()},
    "SelfTrainingClassifier": {"estimator": LogisticRegression()},
    "StackingClassifier": {
        "estimators": [("tree", DecisionTreeClassifier(max_depth=3, random_state=0)), ("linear", LogisticRegression())]
    },
    "StackingRegressor": {
        "estimators": [("tree", DecisionTreeRegressor(max_depth=3, random_state=0)), ("linear", Ridge())]
    },
    "TunedThresholdClassifierCV": {"estimator": LogisticRegression()},
    "VotingClassifier": {
        "estimators": [("tree", DecisionTreeClassifier(max_depth=3, random_state=0)), ("linear", LogisticRegression())]
    },
    "VotingRegressor": {
        "estimators": [("tree", DecisionTreeRegressor(max_depth=3, random_state=0)), ("linear", Ridge())]
    },
}
SEVERAL_LABELS = ("ClassifierChain", "MultiOutputClassifier")
SEVERAL_TARGETS = (
    "CCA",
    "MultiOutputRegressor",
    "PLSCanonical",
    "RegressorChain",
)  # and all whose names begin with MultiTask
ONE_COLUMN = ("IsotonicRegression",)


@cache
def names(kind: str) -> Mapping[str, type[BaseEstimator]]:
    """The classes of all classifiers, or of all regressors, by name."""
    return dict(all_estimators(type_filter=kind))


def unfitted(name: str, kind: str) -> Any:
    """The estimator with default settings, or those of `SETTINGS`."""
    return names(kind)[name](**SETTINGS.get(name, {}))


def examples(name: str, kind: str) -> tuple[uw.Examples, uw.Examples]:
    """A training set of 120 rows with columns between 0 and 1, and queries."""
    x, y = (load_breast_cancer if kind == "classifier" else load_diabetes)(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(y))[: ROWS + QUERIES]
    x, y = minmax_scale(x[order][:, COLUMNS]), y[order]
    if name in ONE_COLUMN:
        x = x[:, 2:3]
    if name in SEVERAL_LABELS:
        y = np.c_[y, (x[:, 1] > np.median(x[:, 1])).astype(int)]
    if name in SEVERAL_TARGETS or name.startswith("MultiTask"):
        y = np.c_[y, 100.0 * x[:, 0]]
    return uw.Examples(x[:ROWS], y[:ROWS]), uw.Examples(x[ROWS:], y[ROWS:])


def fitted(name: str, kind: str) -> tuple[Any, uw.Examples, uw.Examples]:
    """The fitted estimator, its training set and queries."""
    train, queries = examples(name, kind)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return unfitted(name, kind).fit(train.x, train.y), train, queries


def route(model: Any) -> str:
    """How scores of the model come about by default, in a few words."""
    if hasattr(model, "members"):
        return "closed forms of its members"
    if hasattr(model, "outputs"):
        return f"refits within a budget, of its {model.outputs.kind}"
    if hasattr(model, "ensemble"):
        return "its trees"
    if hasattr(model, "network"):
        return "a network of PyTorch with its weights"
    if getattr(model, "keeps_rows", False):
        return "the same training in the same order"
    return "closed form"


def answers() -> dict[str, str]:
    """Name of the estimator → how it is explained, or why it is refused."""
    routes = {}
    for kind in KINDS:
        for name in names(kind):
            estimator, train, _ = fitted(name, kind)
            try:
                model = uw.explainable(estimator, train)
            except (ValueError, TypeError) as error:
                routes[name] = f"refused: {error}"
                continue
            inside = getattr(model, "name", name)
            is_inner = inside not in (name, name.removesuffix("CV"))
            routes[name] = route(model) + (f", of the {inside} inside it" if is_inner else "")
    return routes


def table() -> str:
    """The table of docs/estimators.md."""
    lines = [f"| `{name}` | {answer} |" for name, answer in sorted(answers().items())]
    return "\n".join(["| estimator | explained by |", "| --- | --- |", *lines]) + "\n"


if __name__ == "__main__":
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(START)
    PAGE.write_text(before + START + "\n" + table() + "\n" + END + rest.partition(END)[2], encoding="utf-8")
