import json
import warnings

import numpy as np
import pytest

pd = pytest.importorskip("pandas")

from sklearn.dummy import DummyClassifier, DummyRegressor  # noqa: E402

import upweight as uw  # noqa: E402
from upweight.cli.default_models import MODELS, target_kind  # noqa: E402
from upweight.cli.fitted_table import ModelChoice, fit_table  # noqa: E402

N = 80
RNG = np.random.default_rng(5)
SIZE = RNG.normal(size=N)
PACKAGES = {"lightgbm", "xgboost", "catboost"}


def frame(**columns):
    return pd.DataFrame({"size": SIZE, "target": np.where(SIZE > 0, "large", "small"), **columns})


def steps(fitted):
    return {name: columns for name, _, columns in fitted.estimator[0].transformers_}


@pytest.mark.parametrize("dtype", ["string", "category", "object"])
def test_missing_words_and_numbers_of_every_kind_are_taken(dtype):
    words = pd.Series(RNG.choice(np.array(["a", "b", None], dtype=object), N)).astype(dtype)
    whole = pd.Series(RNG.integers(0, 50, N)).astype("Int64").mask(np.arange(N) % 9 == 0)
    fitted = fit_table(frame(words=words, whole=whole), "target")
    assert steps(fitted)["numbers"] == ["size", "whole"] and steps(fitted)["categories"] == ["words"]


def test_the_split_is_the_seeds_and_asked_rows_are_held_out():
    table = frame()
    first, again, other = (fit_table(table, "target", seed=s) for s in (0, 0, 1))
    assert first.held_out.ids.tolist() == again.held_out.ids.tolist() != other.held_out.ids.tolist()
    assert len(first.held_out) == 16 and not set(first.train.ids.tolist()) & set(first.held_out.ids.tolist())
    query_ids = {str(i) for i in first.train.ids[:3].tolist()}
    assert query_ids <= {str(i) for i in fit_table(table, "target", query_ids).held_out.ids.tolist()}


def test_a_class_that_training_would_not_see_is_not_held_out():
    table = frame()
    table.loc[7, "target"] = "huge"
    assert 7 in fit_table(table, "target", ["7"]).train.ids


def test_a_category_that_training_never_saw_is_predicted_all_the_same():
    colour = RNG.choice(np.array(["red", "blue"], dtype=object), N)
    colour[7] = "green"
    fitted = fit_table(frame(colour=colour), "target", ["7"])
    assert 7 in fitted.held_out.ids.tolist() and "green" not in set(fitted.train.x["colour"])
    assert np.isfinite(fitted.estimator.predict_proba(fitted.held_out.x)).all()


def test_one_text_column_is_shown_as_text():
    notes = [f"{'good' if s > 0 else 'bad'} remark number {i} in full" for i, s in enumerate(SIZE)]
    fitted = fit_table(pd.DataFrame({"note": notes, "target": SIZE > 0}), "target")
    assert fitted.train.preview(fitted.train.ids[0].item()).kind == "text"


def test_whole_numbers_are_shown_as_they_are_written():
    fitted = fit_table(frame(encounter=145_682_345 + 7 * np.arange(N)), "target", choice=ModelChoice(use=["encounter"]))
    identifier = fitted.train.ids[0].item()
    assert dict(fitted.train.preview(identifier).value)["encounter"] == 145_682_345 + 7 * identifier


@pytest.mark.parametrize("target", ["target", "size"])
def test_the_quality_is_that_of_predictions_for_rows_the_model_has_not_seen(target):
    fitted = fit_table(frame(other=SIZE + RNG.normal(size=N)), target)
    quality, train, held_out = fitted.quality, fitted.train, fitted.held_out
    guess = (DummyClassifier() if target == "target" else DummyRegressor()).fit(train.x, train.y)
    assert quality.value == pytest.approx(fitted.estimator.score(held_out.x, held_out.y))
    assert quality.guess_value == pytest.approx(guess.score(held_out.x, held_out.y))
    assert quality.rows == len(held_out)
    json.dumps(fitted.as_dict(), allow_nan=False)


@pytest.mark.sweep(3)
@pytest.mark.parametrize("kind", ["classes", "number"])
@pytest.mark.parametrize("name", MODELS)
def test_every_model_is_fitted_and_can_be_explained(name, kind):
    if getattr(MODELS[name], kind) is None:
        with pytest.raises(ValueError, match="is for a target that is"):
            target_kind(name, kind)
        return
    if name in PACKAGES:
        pytest.importorskip(name)
    colour = RNG.choice([f"colour {i}" for i in range(9)], N)
    table = frame(colour=colour).assign(size=np.exp(SIZE), other=RNG.normal(size=N))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", FutureWarning)  # boosters speak to another scikit-learn
        fitted = fit_table(table, "target" if kind == "classes" else "size", choice=ModelChoice(model=name))
        model = uw.explainable(fitted.estimator, fitted.train)
    assert MODELS[name].title in fitted.description[0]
    scores = uw.explain(model, fitted.train, fitted.held_out.take([0, 1]), removals=0).scores
    assert np.isfinite(scores.values).all() and not [w for w in scores.diagnostics["warnings"] if "optimum" in w]
    if kind == "classes":
        assert fitted.held_out.label(fitted.held_out.ids[0].item()) in ("large", "small")


def test_training_that_does_not_converge_has_one_warning(monkeypatch):
    stopped = MODELS["logistic"].__class__(
        "logistic regression", "sklearn.linear_model", "LogisticRegression", None, {"max_iter": 1}
    )
    monkeypatch.setitem(MODELS, "logistic", stopped)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        notes = fit_table(frame(other=RNG.normal(size=N)), "target").notes
    assert [note for note in notes if "did not converge" in note and "--model" in note] == list(notes)


def test_unknown_columns_and_models_are_refused():
    with pytest.raises(KeyError, match="no column 'weight'"):
        fit_table(frame(), "target", choice=ModelChoice(use=["weight"]))
    with pytest.raises(ValueError, match="is the target"):
        fit_table(frame(), "target", choice=ModelChoice(leave_out=["target"]))
    with pytest.raises(ValueError, match="size is named by --use and by --leave-out"):
        fit_table(frame(), "target", choice=ModelChoice(use=["size"], leave_out=["size"]))
    with pytest.raises(ValueError, match="the models are logistic"):
        fit_table(frame(), "target", choice=ModelChoice(model="oracle"))
