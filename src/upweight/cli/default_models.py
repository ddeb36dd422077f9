"""The models that a table can be explained with: `--model` names one; its settings suit most tables."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from upweight.cli.table_columns import TableColumns
from upweight.cli.table_targets import TargetKind

LINEAR, ENSEMBLE = "sklearn.linear_model", "sklearn.ensemble"


@dataclass(frozen=True)
class DefaultModel:
    """A model by its name on the command line.

    Attributes:
        title: what it is called in a sentence.
        module: where its estimators are.
        classes, number: the class of the estimator for a target of this kind; None if there is none.
        settings: what the constructor is called with.
        seed: the name of its seed; None if nothing is drawn at random.
        counts_classes: whether it takes classes as 0, 1, … only.
    """

    title: str
    module: str
    classes: str | None = None
    number: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    seed: str | None = "random_state"
    counts_classes: bool = False

    def estimator(self, kind: TargetKind, seed: int) -> Any:
        """The estimator, not fitted. Raises ModuleNotFoundError with the package to install."""
        try:
            module = importlib.import_module(self.module)
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(f"{self.title} needs {self.module}; pip install {self.module}") from error
        name = self.classes if kind == "classes" else self.number
        assert name is not None
        return getattr(module, name)(**self.settings, **({} if self.seed is None else {self.seed: seed}))


CONVERGING = {"tol": 1e-8, "max_iter": 10_000}
MODELS = {
    "logistic": DefaultModel("logistic regression", LINEAR, "LogisticRegression", None, CONVERGING),
    "ridge": DefaultModel("ridge regression", LINEAR, "RidgeClassifier", "Ridge", {"tol": 1e-10}),
    "linear-svm": DefaultModel("linear support vector machine", "sklearn.svm", "LinearSVC", None, CONVERGING),
    "poisson": DefaultModel("Poisson regression", LINEAR, None, "PoissonRegressor", CONVERGING, seed=None),
    "lightgbm": DefaultModel("LightGBM", "lightgbm", "LGBMClassifier", "LGBMRegressor", {"verbose": -1}),
    "xgboost": DefaultModel("XGBoost", "xgboost", "XGBClassifier", "XGBRegressor", counts_classes=True),
    "catboost": DefaultModel(
        "CatBoost",
        "catboost",
        "CatBoostClassifier",
        "CatBoostRegressor",
        {"verbose": False, "allow_writing_files": False, "leaf_estimation_iterations": 1},
    ),
    "gradient-boosting": DefaultModel(
        "gradient boosting", ENSEMBLE, "GradientBoostingClassifier", "GradientBoostingRegressor"
    ),
    "random-forest": DefaultModel("random forest", ENSEMBLE, "RandomForestClassifier", "RandomForestRegressor"),
    "extra-trees": DefaultModel("extra trees", ENSEMBLE, "ExtraTreesClassifier", "ExtraTreesRegressor"),
}


def target_kind(model: str | None, kind: TargetKind | None) -> TargetKind | None:
    """The kind of target that a model and an option ask for; None if both leave it open.

    Raises:
        ValueError: there is no such model, or it is for another kind of target.
    """
    if model is None:
        return kind
    if model not in MODELS:
        raise ValueError(f"no model is called {model!r}; the models are {', '.join(MODELS)}")
    only: TargetKind | None = "number" if MODELS[model].classes is None else None
    only = "classes" if MODELS[model].number is None else only
    if only is not None and kind not in (None, only):
        raise ValueError(f"{MODELS[model].title} is for a target that is {_PHRASES[only]}, not {_PHRASES[kind]}")
    return only or kind


_PHRASES = {"classes": "a class", "number": "a number"}


def default_pipeline(model: str, columns: TableColumns, kind: TargetKind, seed: int) -> Any:
    """The model behind the steps that make numbers of all columns, not fitted.

    Missing numbers are replaced by the median; numbers are scaled, so that linear models converge; categories are
    one-hot encoded; free text becomes TF-IDF features.
    """
    from sklearn.compose import ColumnTransformer
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    steps: list[tuple[str, Any, Any]] = []
    if columns.numbers:
        filled = SimpleImputer(strategy="median", keep_empty_features=True)
        steps.append(("numbers", make_pipeline(filled, StandardScaler()), columns.numbers))
    if columns.categories:
        steps.append(("categories", OneHotEncoder(handle_unknown="ignore"), columns.categories))
    steps += [(f"text {name}", TfidfVectorizer(sublinear_tf=True), name) for name in columns.texts]
    return make_pipeline(ColumnTransformer(steps), MODELS[model].estimator(kind, seed))
