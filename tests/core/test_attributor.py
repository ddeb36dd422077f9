import gc
import weakref

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from scipy import sparse

from support.overlap_method import FittedOverlap, Line, Overlap, Ruler, problem
from upweight import Examples, Unit
from upweight.core.provenance import identity_of


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


def test_the_top_keeps_no_answer_of_an_earlier_batch_of_queries():
    """An answer marks every training example: kept, they are a megabyte per batch of queries to a million rows."""
    model, train, _ = problem()
    live, counts = weakref.WeakSet(), []

    class Watched(FittedOverlap):
        top_query_block = 2

        def answer(self, queries):
            gc.collect()
            counts.append(len(live))  # those of the batches before
            answer = super().answer(queries)
            live.add(answer)
            return answer

    queries = Examples(np.random.default_rng(0).normal(size=(12, train.x.shape[1])), np.zeros(12))
    Watched(Overlap(), model, train, train.x).top(queries, 1)
    assert len(counts) == 6 and max(counts) <= 1


def test_selected_scores_are_columns_of_all_scores():
    model, train, queries = problem(n=30)
    fitted = Overlap(block=4).fit(model, train)
    ids = train.ids[[17, 3, 29]]
    selected = fitted.selected(queries, ids)
    np.testing.assert_array_equal(selected.values, fitted.attribute(queries).values[:, [17, 3, 29]])
    assert selected.train_ids.tolist() == ids.tolist() and selected.unit is Unit.RANK
    with pytest.raises(KeyError, match="no example has the id 'nobody'"):
        fitted.selected(queries, ["nobody"])


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
        with pytest.raises(ValueError, match=r"was made with another recipe than those passed here; fit again"):
            other.load(tmp_path / "fit", model, train)
    relabeled = Examples(train.x, -train.y, ids=train.ids)
    for model_, train_ in ((Line(0.5, -1.1), train), (model, relabeled), (model, train.take(np.arange(9)[::-1]))):
        with pytest.raises(
            ValueError, match=r"made with (other parameters|another training set) than those passed here; fit again"
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


def test_text_and_html_name_the_method_and_the_diagnostics():
    model, train, _ = problem()
    fitted = Overlap().fit(model, train)
    assert repr(fitted) == "Fitted Overlap on 9 training examples (RANK)"
    assert repr(fitted) in fitted._repr_html_() and "&lt;short&gt;" in fitted._repr_html_()
