import numpy as np
import pytest

pd = pytest.importorskip("pandas")

from upweight.applications.table import fit_table, with_ids  # noqa: E402

N = 80
RNG = np.random.default_rng(5)
SIZE = RNG.normal(size=N)


def frame(**columns):
    return pd.DataFrame({"size": SIZE, "target": np.where(SIZE > 0, "large", "small"), **columns})


def steps(fitted):
    return {name: columns for name, _, columns in fitted.estimator[0].transformers_}


def test_columns_are_read_by_what_is_in_them():
    fitted = fit_table(
        frame(
            colour=RNG.choice(["red", "blue"], N),
            flag=RNG.random(N) > 0.5,
            note=[f"remark {i} on something that is long" for i in range(N)],
            code=[f"c{i}" for i in range(N)],
            day=pd.date_range("2020-01-01", periods=N),
            never=[None] * N,
        ),
        "target",
    )
    assert steps(fitted)["numbers"] == ["size"]
    assert steps(fitted)["categories"] == ["colour", "flag"]
    assert steps(fitted)["text note"] == "note"
    notes = " ".join(fitted.notes)
    assert all(f"Column {name} was left out" in notes for name in ("code", "day", "never"))


@pytest.mark.parametrize("dtype", ["string", "category", "object"])
def test_missing_words_and_numbers_of_every_kind_are_taken(dtype):
    words = pd.Series(RNG.choice(np.array(["a", "b", None], dtype=object), N)).astype(dtype)
    whole = pd.Series(RNG.integers(0, 50, N)).astype("Int64").mask(np.arange(N) % 9 == 0)
    fitted = fit_table(frame(words=words, whole=whole), "target")
    assert steps(fitted)["numbers"] == ["size", "whole"] and steps(fitted)["categories"] == ["words"]


@pytest.mark.parametrize(
    ("values", "model", "kind"),
    [
        (RNG.integers(0, 3, N), "LogisticRegression", "i"),
        (RNG.integers(0, 2, N).astype(bool), "LogisticRegression", "b"),
        (RNG.integers(0, 2, N).astype(float), "LogisticRegression", "i"),
        (np.arange(N), "Ridge", "f"),
        (RNG.normal(size=N), "Ridge", "f"),
    ],
)
def test_the_target_decides_the_model(values, model, kind):
    fitted = fit_table(frame().assign(target=values), "target")
    assert fitted.name == model and fitted.train.y.dtype.kind == kind


def test_the_split_is_the_seeds_and_asked_rows_are_held_out():
    table = frame()
    first, again, other = (fit_table(table, "target", seed=s) for s in (0, 0, 1))
    assert first.held_out.ids.tolist() == again.held_out.ids.tolist() != other.held_out.ids.tolist()
    assert len(first.held_out) == 16 and not set(first.train.ids.tolist()) & set(first.held_out.ids.tolist())
    train_ids = {str(i) for i in first.train.ids[:3].tolist()}
    assert train_ids <= {str(i) for i in fit_table(table, "target", train_ids).held_out.ids.tolist()}


def test_a_class_that_training_would_not_see_is_not_held_out():
    table = frame()
    table.loc[7, "target"] = "huge"
    fitted = fit_table(table, "target", ["7"])
    assert 7 in fitted.train.ids


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


def test_what_cannot_be_fitted_is_refused_in_words():
    with pytest.raises(ValueError, match="at least 10 rows"):
        fit_table(frame().head(4), "target")
    with pytest.raises(ValueError, match="two classes"):
        fit_table(frame().assign(target="same"), "target")
    with pytest.raises(ValueError, match="no column is left"):
        fit_table(frame()[["target"]].assign(one=1), "target")


def test_ids_come_from_a_column_or_are_row_numbers():
    table = frame(name=np.arange(100, 100 + N))
    assert with_ids(table, "target", "name", "t.csv").index[:2].tolist() == [100, 101]
    assert with_ids(table, "target", None, "t.csv").index[:2].tolist() == [0, 1]
    with pytest.raises(ValueError, match="missing or repeat"):
        with_ids(table, "size", "target", "t.csv")
