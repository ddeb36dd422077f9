from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from scipy import sparse
from sklearn.linear_model import LogisticRegression

from upweight import Examples, Unit
from upweight.core.attributor import Attributor, Fitted, Promises
from upweight.core.model import Embeddable, Measurable, Predictions
from upweight.core.provenance import identity_of


class Line(Measurable):
    """The least a model can be: a slope."""

    def __init__(self, *slope):
        self.parameters = np.array(slope)

    measurement = "−squared error"

    def measure(self, queries):
        return -((queries.x @ self.parameters - 1) ** 2)

    def predict(self, examples):
        return Predictions(tuple((examples.x @ self.parameters).tolist()))


@dataclass(frozen=True, kw_only=True)
class Ruler:
    width: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Overlap(Attributor):
    """Inner products, a block of training examples at a time."""

    block: int = 4
    scales: tuple[float, ...] = (1.0, 2.0)
    ruler: Ruler = field(default_factory=Ruler)
    label: Any = None

    @property
    def promises(self):
        return Promises()

    def fit(self, model, train):
        return FittedOverlap(self, model, train, np.asarray(train.x, dtype=float))

    def restore(self, model, train, state, facts):
        return FittedOverlap(self, model, train, state["rows"])


class FittedOverlap(Fitted):
    def __init__(self, recipe, model, train, rows):
        super().__init__(recipe, model, train, Unit.RANK)
        self.rows = rows
        self.holes = False

    def blocks(self, queries):
        for start in range(0, len(self.rows), self.recipe.block):
            where = slice(start, min(start + self.recipe.block, len(self.rows)))
            if not (self.holes and start):
                yield where, np.asarray(queries.x, dtype=float) @ self.rows[where].T

    def self_values(self):
        return (self.rows**2).sum(axis=1)

    @property
    def diagnostics(self) -> Mapping[str, Any]:
        return {"damping": 0.1, "warnings": ["<short>"]}

    def state(self):
        return {"rows": self.rows}, {"kind": "overlap"}


def problem(n=9, m=3, seed=0):
    random = np.random.default_rng(seed)
    train = Examples(random.normal(size=(n, 2)), random.normal(size=n), ids=[f"t{i}" for i in range(n)])
    return Line(0.5, -1.0), train, Examples(random.normal(size=(m, 2)), ids=[f"q{i}" for i in range(m)])


def test_scores_carry_all_there_is_to_know():
    model, train, queries = problem()
    scores = Overlap(block=4).fit(model, train).attribute(queries)
    np.testing.assert_allclose(scores.values, queries.x @ train.x.T)
    assert scores.query_ids.tolist() == queries.ids.tolist() and scores.train_ids.tolist() == train.ids.tolist()
    assert scores.unit is Unit.RANK and scores.measurement == "−squared error"
    assert scores.recipe["method"] == "Overlap" and scores.diagnostics["damping"] == 0.1
    np.testing.assert_array_equal(scores.measured, model.measure(queries))
    assert scores.predictions == model.predict(queries)


def test_self_influence_is_one_row():
    model, train, _ = problem()
    scores = Overlap().fit(model, train).self_influence()
    assert scores.query_ids.tolist() == ["self"]
    np.testing.assert_allclose(scores.row("self"), (train.x**2).sum(axis=1))


@given(
    values=hnp.arrays(
        np.float64,
        st.tuples(st.integers(1, 4), st.integers(1, 25)),
        elements=st.one_of(st.integers(-2, 2), st.floats(-1e6, 1e6)),  # many equals
    ),
    k=st.integers(1, 8),
    block=st.integers(1, 30),
)
def test_the_top_is_the_two_ends_of_the_full_matrix_for_any_block_size(values, k, block):
    m, n = values.shape
    queries, train = Examples(np.eye(m)), Examples(values.T, ids=[f"t{i}" for i in range(n)])
    fitted = Overlap(block=block).fit(Line(*np.ones(m)), train)
    scores, top = fitted.attribute(queries), fitted.top(queries, k)
    for query in range(m):
        assert top.proponents(query) == scores.proponents(query, k)
        assert top.opponents(query) == scores.opponents(query, k)
        assert len(set(top.ids[query])) == len(top.ids[query]) == min(n, 2 * k)
    assert (np.diff(top.values, axis=1) <= 0).all()


def test_the_top_never_holds_more_than_a_block_and_both_ends():
    n, k, block = 20_000, 5, 100
    model, train, queries = problem(n=n)
    widest = 0

    class Watched(FittedOverlap):
        def blocks(self, queries):
            nonlocal widest
            for where, values in super().blocks(queries):
                widest = max(widest, values.shape[1])
                yield where, values

    top = Watched(Overlap(block=block), model, train, train.x).top(queries, k)
    assert widest == block and top.values.shape == (3, 2 * k)
    full = np.sort(queries.x @ train.x.T, axis=1)
    np.testing.assert_allclose(top.values[:, ::-1], np.hstack([full[:, :k], full[:, -k:]]))


def test_the_top_asks_for_something_and_of_someone():
    model, train, queries = problem()
    fitted = Overlap().fit(model, train)
    with pytest.raises(ValueError, match="k of at least 1, got 0"):
        fitted.top(queries, 0)
    top = fitted.top(queries)
    for ask in (top.proponents, top.opponents):
        with pytest.raises(KeyError, match=r"no query has the id 'z'; query ids look like \['q0'"):
            ask("z")


def test_scores_that_are_no_numbers_are_never_handed_out():
    model, train, queries = problem()
    fitted = Overlap().fit(model, train)
    fitted.rows = np.where(fitted.rows == fitted.rows[2, 1], np.nan, fitted.rows)
    for ask in (fitted.attribute, fitted.top, lambda _: fitted.self_influence()):
        with pytest.raises(ValueError, match="scores are NaN or infinite"):
            ask(queries)


def test_a_block_that_never_comes_is_no_score():
    model, train, queries = problem(n=9, m=3)
    fitted = Overlap(block=4).fit(model, train)
    fitted.holes = True
    with pytest.raises(ValueError, match="15 scores are NaN"):
        fitted.attribute(queries)


@dataclass(frozen=True, kw_only=True)
class Featured(Overlap):
    """A method that only declares what it needs; its `fit` looks at nothing."""

    needs = (Embeddable,)

    def fit(self, model, train):
        return super().fit(model, train)


@pytest.mark.parametrize(
    ("method", "model", "said"),
    [
        (Featured(), Line(1.0, 1.0), "Featured needs a model that is Embeddable, got Line; such a model cannot"),
        (Featured(), LogisticRegression(), "got LogisticRegression; wrap a fitted estimator with upweight.explainable"),
        (Overlap(), LogisticRegression(), "Overlap needs a model that is Measurable, got LogisticRegression"),
    ],
)
def test_a_model_that_lacks_what_a_method_declares_is_refused_before_its_fit(method, model, said):
    _, train, _ = problem()
    with pytest.raises(TypeError, match=said):
        method.fit(model, train)
    with pytest.raises(TypeError, match=said):
        method.fit(train=train, model=model)


def test_a_training_set_that_is_none_is_refused_before_the_fit(tmp_path):
    model, train, _ = problem()
    Overlap().fit(model, train).save(tmp_path / "fit")
    arrays, said = train.x, r"expected the examples as upweight.Examples\(x, y\), got ndarray"
    for ask in (Overlap().fit, lambda *given: Overlap().load(tmp_path / "fit", *given)):
        with pytest.raises(TypeError, match=said):
            ask(model, arrays)
        with pytest.raises(TypeError, match="Overlap needs a model that is Measurable, got LogisticRegression"):
            ask(LogisticRegression(), train)
    with pytest.raises(ValueError, match="not all zero, got 8 of weight 0"):
        Overlap().fit(model, train.replaced(weights=np.eye(9)[8]).take(np.arange(8)))


def test_save_and_load_give_the_same_answers(tmp_path):
    model, train, queries = problem()
    recipe = Overlap(scales=(0.1, 0.2), ruler=Ruler(width=3), label=np.float64(2))
    fitted = recipe.fit(model, train)
    fitted.save(tmp_path / "fit")
    again = recipe.load(tmp_path / "fit", model, train)
    assert again.attribute(queries).values.tobytes() == fitted.attribute(queries).values.tobytes()


def test_a_fit_of_something_else_is_refused(tmp_path):
    model, train, _ = problem()
    Overlap().fit(model, train).save(tmp_path / "fit")
    for other in (Overlap(block=5), Overlap(ruler=Ruler(width=2.0)), Overlap(scales=(1.0,))):
        with pytest.raises(ValueError, match=r"was made with another recipe than those handed in; fit again"):
            other.load(tmp_path / "fit", model, train)
    relabeled = Examples(train.x, -train.y, ids=train.ids)
    for model_, train_ in ((Line(0.5, -1.1), train), (model, relabeled), (model, train.take(np.arange(9)[::-1]))):
        with pytest.raises(
            ValueError, match=r"made with (other parameters|another training set) than those handed in; fit again"
        ):
            Overlap().load(tmp_path / "fit", model_, train_)


def test_a_recipe_is_described_in_plain_values():
    assert Overlap(label=np.arange(2)).described() == {
        "method": "Overlap",
        "block": 4,
        "scales": [1.0, 2.0],
        "ruler": {"kind": "Ruler", "width": 1.0},
        "label": [0, 1],
    }


def test_a_recipe_takes_keywords_and_stays_as_it_is():
    with pytest.raises(TypeError):
        Overlap(3)
    with pytest.raises(AttributeError):
        Overlap().block = 3


TABLE = np.array([[0.0, 1.0], [2.0, 0.0], [0.0, 3.0]])
FORMS = {
    "numpy": lambda x: x,
    "csr": sparse.csr_matrix,
    "coo": sparse.coo_array,
    "pandas": lambda x: pd.DataFrame(x, columns=["a", "b"]),
    "mixed": lambda x: pd.DataFrame({"a": x[:, 0], "b": x[:, 1].astype(str)}),
    "texts": lambda x: [str(row) for row in x],
    "ragged": lambda x: [row[: 1 + i] for i, row in enumerate(x)],
}


@pytest.mark.parametrize("form", FORMS)
def test_the_identity_sees_the_smallest_change(form):
    def of(x=TABLE, slope=1.0, **more):
        return tuple(identity_of(Line(slope), Examples(FORMS[form](x), **more)).values())

    other = TABLE.copy()
    other[1, 0] = np.nextafter(2.0, 3.0)
    assert of() == of(TABLE.copy())
    different = {of(), of(slope=2.0), of(y=[0, 1, 1]), of(ids=["a", "b", "c"]), of(weights=[1, 1, 2]), of(TABLE[:2])}
    assert len(different) == 6
    if form != "texts":  # whose rounding hides the last bit
        assert of(other) != of()


def test_the_digest_does_not_see_how_wide_the_ids_are_stored():
    examples = Examples(np.eye(3), ids=["a", "b", "quite a long one"])
    assert examples.take([0, 1]).digest() == Examples(np.eye(3)[:2], ids=["a", "b"]).digest()


def test_the_digest_of_sparse_rows_knows_the_shape():
    x = sparse.csr_matrix(TABLE)
    wider = sparse.csr_matrix((x.data, x.indices, x.indptr), shape=(3, 9))
    assert Examples(x).digest() != Examples(wider).digest()


def test_repr_and_html():
    model, train, _ = problem()
    fitted = Overlap().fit(model, train)
    assert repr(fitted) == "Fitted Overlap on 9 training examples (RANK)"
    assert repr(fitted) in fitted._repr_html_() and "&lt;short&gt;" in fitted._repr_html_()
