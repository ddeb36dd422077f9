import numpy as np
import pytest
from sklearn.linear_model import Ridge

import upweight as uw
from upweight.applications.groups import groups_of, slice_of
from upweight.core.examples import Examples

pd = pytest.importorskip("pandas")

X = pd.DataFrame({"a": [0.0, 2.0, 4.0, 6.0], "b": [1.0, 3.0, 5.0, 7.0]}, index=list("pqrs"))
Y = pd.Series([0, 1, 0, 1], index=list("pqrs"))


@pytest.mark.parametrize(
    ("index", "ids"),
    [
        (pd.date_range("2026-01-01", periods=3), ["2026-01-01", "2026-01-02", "2026-01-03"]),
        (pd.MultiIndex.from_product([["a"], [1, 2, 3]]), ["(a, 1)", "(a, 2)", "(a, 3)"]),
        ([0.5, 1.5, 2.5], ["0.5", "1.5", "2.5"]),
        (["a", 1, 2.5], ["a", "1", "2.5"]),
        (pd.period_range("2026-01", periods=3, freq="M"), ["2026-01", "2026-02", "2026-03"]),
    ],
)
def test_labels_that_cannot_be_ids_become_texts_with_a_warning(index, ids):
    frame = pd.DataFrame(np.eye(3), index=index)
    with pytest.warns(UserWarning, match="as ids they are texts"):
        examples = Examples(frame)
    assert examples.ids.tolist() == ids
    assert examples.take([2]).ids.tolist() == ids[2:]


@pytest.mark.parametrize(
    "index",
    [
        [0.5, np.nan, 1.5],
        pd.to_datetime(["2026-01-01", None, "2026-01-02"]),
        pd.MultiIndex.from_arrays([[1, 2, None], list("abc")]),
    ],
)
def test_an_index_with_a_missing_label_is_refused(index):
    with pytest.raises(ValueError, match="without missing labels"):
        Examples(pd.DataFrame(np.eye(3), index=index))


def test_texts_of_an_index_that_repeat_are_refused():
    with pytest.warns(UserWarning), pytest.raises(ValueError, match="unique ids"):
        Examples(pd.DataFrame(np.eye(2), index=[1, "1"]))


@pytest.mark.parametrize("part", ["y", "ids", "weights", "shown"])
@pytest.mark.parametrize(
    ("order", "message"), [("srqp", "the same labels in another order"), ("klmn", "0 of these 4 labels")]
)
def test_parts_with_another_index_are_never_paired_by_position(part, order, message):
    other = pd.Series([0.5, 1.0, 2.0, 3.0] if part == "weights" else list("wxyz"), index=list(order))
    with pytest.raises(ValueError, match=message):
        Examples(X, **{part: other})
    with pytest.raises(ValueError, match=message):
        Examples(X, Y).replaced(**{part: other})
    assert len(Examples(X, **{part: other.to_numpy()})) == 4
    assert len(Examples(X.to_numpy(), **{part: other})) == 4


def test_two_series_of_an_array_are_not_paired_by_position_either():
    with pytest.raises(ValueError, match="expected `weights` to have the index of `y`"):
        Examples(X.to_numpy(), Y, weights=Y.iloc[::-1] + 1)


def test_parts_with_the_same_index_belong_together_also_after_a_selection():
    examples = Examples(X, Y, weights=Y + 1.0, shown=pd.Series(list("wxyz"), index=X.index))
    part = examples.select(["s", "q"])
    assert part.label("s") == 1 and part.replaced(y=Y.loc[["s", "q"]]).label("q") == 1
    assert examples.take([0]).joined(examples.take([1])).ids.tolist() == ["p", "q"]


PAIRINGS = {
    "take": lambda values: MASKED.take(values > 1),
    "group": lambda values: SCORES.group(values.astype(int)),
    "retrain": lambda values: uw.retrain(MODEL, MASKED, values),
    "slices by": lambda values: groups_of(MASKED, {"half": values > 1}, 1, classes=False),
    "failing": lambda values: slice_of(MODEL, MASKED, {"half": values > 1}),
}
MASKED = Examples(X, Y)
MODEL = uw.explainable(Ridge().fit(X, Y), MASKED)
SCORES = uw.Influence().fit(MODEL, MASKED).attribute(MASKED)


@pytest.mark.parametrize("pairing", PAIRINGS)
def test_a_series_goes_with_examples_by_their_ids_or_by_positions_from_0(pairing):
    values = pd.Series([0.5, 1.0, 2.0, 3.0], index=list("pqrs"))
    for accepted in (values, values.reset_index(drop=True), values.to_numpy()):
        PAIRINGS[pairing](accepted)
    with pytest.raises(ValueError, match="the same in another order"):
        PAIRINGS[pairing](values.iloc[::-1])
    with pytest.raises(ValueError, match="got others"):
        PAIRINGS[pairing](values.set_axis(list("klmn")))
    with pytest.raises(ValueError, match="got others"):
        PAIRINGS[pairing](values.set_axis([5, 6, 7, 8]))
