import copy
import pickle

import hypothesis.strategies as st
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from scipy import sparse

from upweight import Examples
from upweight.core.preview import Preview

TABLE = np.array([[0.0, 1.5], [2.0, 0.0], [4.0, 5.0], [0.0, 0.0], [8.0, -9.0]])
COLUMNS = ["height", "weight"]
KINDS = {
    "numpy": lambda: TABLE,
    "float32": lambda: TABLE.astype(np.float32),
    "images": lambda: np.repeat(TABLE, 6, axis=1).reshape(5, 3, 4),
    "csr": lambda: sparse.csr_matrix(TABLE),
    "csc array": lambda: sparse.csc_array(TABLE),
    "coo": lambda: sparse.coo_matrix(TABLE),
    "pandas": lambda: pd.DataFrame(TABLE, columns=COLUMNS),
    "polars": lambda: pl.DataFrame(TABLE, schema=COLUMNS),
    "arrow": lambda: pa.table({name: TABLE[:, i] for i, name in enumerate(COLUMNS)}),
    "arrow batch": lambda: pa.record_batch({name: TABLE[:, i] for i, name in enumerate(COLUMNS)}),
    "texts": lambda: [f"{a} {b}" for a, b in TABLE],
    "tuple of texts": lambda: tuple(f"{a} {b}" for a, b in TABLE),
    "array of texts": lambda: np.array([f"{a} {b}" for a, b in TABLE]),
    "pandas texts": lambda: pd.Series([f"{a} {b}" for a, b in TABLE], index=list("vwxyz")),
    "polars texts": lambda: pl.Series([f"{a} {b}" for a, b in TABLE]),
    "arrow texts": lambda: pa.chunked_array([[f"{a} {b}" for a, b in TABLE]]),
}
every_kind = pytest.mark.parametrize("kind", KINDS)
a_name = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
ids_of_one_kind = st.one_of(
    st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=12, unique=True),
    st.lists(a_name, min_size=1, max_size=12, unique=True),
)


def rows(x):
    return [repr(row) for row in (x.toarray() if sparse.issparse(x) else np.asarray(x)).tolist()]


@every_kind
def test_every_kind_of_input_keeps_ids_with_rows(kind):
    x = KINDS[kind]()
    ids, y, weights = [f"id-{i}" for i in range(5)], np.arange(5) * 10, np.arange(5) + 1.0
    whole = Examples(x, y, ids, weights=weights)
    contents = {i: (row, label, w) for i, row, label, w in zip(ids, rows(whole.x), y, weights, strict=True)}
    for part in (
        whole.take([3, 0, 4]),
        whole.take(np.array([True, False, False, True, True])),
        whole.select(["id-3", "id-0"]),
        whole.without(["id-2"]),
        *whole.batches(2),
    ):
        assert rows(part.x) == [contents[i][0] for i in part.ids]
        assert part.y.tolist() == [contents[i][1] for i in part.ids]
        assert part.weights.tolist() == [contents[i][2] for i in part.ids]


@every_kind
def test_every_kind_of_input_can_be_looked_at(kind):
    examples = Examples(KINDS[kind](), ids=[f"id-{i}" for i in range(5)])
    preview = examples.preview("id-4")
    if "texts" in kind:
        assert preview == Preview("text", "8.0 -9.0")
    elif kind == "images":
        assert preview.kind == "image" and preview.value.shape == (3, 4)
    else:
        assert preview.kind == "row" and sorted(value for _, value in preview.value) == [-9.0, 8.0]


@given(ids_of_one_kind, st.randoms())
def test_ids_follow_their_examples_through_any_permutation(ids, random):
    x = np.arange(len(ids))[:, None] * 2.0
    examples = Examples(x, np.arange(len(ids)), ids)
    order = random.sample(range(len(ids)), len(ids))
    shuffled = examples.take(order)
    assert shuffled.ids.tolist() == [ids[i] for i in order]
    assert shuffled.select(ids).x.tolist() == x.tolist()
    assert [shuffled.label(i) for i in ids] == list(range(len(ids)))


@given(st.integers(1, 30), st.integers(1, 40))
def test_batches_cover_everything_once_and_in_order(n, size):
    batches = list(Examples(np.eye(n), ids=[f"#{i}" for i in range(n)]).batches(size))
    assert np.concatenate([b.ids for b in batches]).tolist() == [f"#{i}" for i in range(n)]
    assert all(len(b) == size for b in batches[:-1])


@pytest.mark.parametrize("size", [0, -3])
def test_a_batch_size_below_one_is_refused(size):
    with pytest.raises(ValueError, match=rf"at least 1 example, got {size}"):
        list(Examples(np.eye(2)).batches(size))


@pytest.mark.parametrize(
    ("index", "ids"),
    [
        (["a", "b", "c"], ["a", "b", "c"]),
        ([30, 10, 20], [30, 10, 20]),
        (pd.RangeIndex(5, 8), [5, 6, 7]),
        (pd.Index([7, 8, 9], dtype="Int64"), [7, 8, 9]),
        (pd.CategoricalIndex(["a", "b", "c"]), ["a", "b", "c"]),
    ],
)
def test_an_index_of_whole_numbers_or_texts_becomes_the_ids(index, ids):
    assert Examples(pd.DataFrame(TABLE[:3], index=index)).ids.tolist() == ids


def test_the_index_that_pandas_hid_in_an_arrow_table_comes_back():
    table = pa.Table.from_pandas(pd.DataFrame(TABLE[:2], columns=COLUMNS, index=["a", "b"]))
    assert Examples(table).ids.tolist() == ["a", "b"]


def test_ids_without_an_index_are_counted():
    assert Examples(["one", "two"]).ids.tolist() == [0, 1]


def test_given_ids_come_before_the_index():
    assert Examples(pd.DataFrame(TABLE[:2], index=["a", "b"]), ids=[7, 8]).ids.tolist() == [7, 8]


@pytest.mark.parametrize(
    ("ids", "says"),
    [
        (["a", "b", "a"], "unique ids, got 'a' more than once; pass ids="),
        ([1, 2], r"`ids` to have one entry per example \(3\), got an array of shape \(2,\)"),
        (np.eye(3, dtype=int), r"\(3\), got an array of shape \(3, 3\)"),
        ("abc", r"\(3\), got an array of shape \(\)"),
        ([1, "2", 3], r"all 64-bit int or all str, got int and str; e\.g\. \[str"),
        (["a", None, "c"], "got NoneType and str"),
        ([0.0, 1.0, 2.0], "all int or all str, got float64"),
        ([True, False, True], "all int or all str, got bool"),
        (np.array([1, 2, 2**63 + 1], dtype=np.uint64), "all 64-bit int or all str, got uint64"),
    ],
)
def test_ids_that_cannot_name_an_example_are_refused(ids, says):
    with pytest.raises(ValueError, match=says):
        Examples(np.eye(3), ids=ids)


def test_a_repeated_index_is_refused_with_the_way_out():
    with pytest.raises(ValueError, match=r"got 1 more than once.*reset the index"):
        Examples(pd.DataFrame(TABLE[:3], index=[1, 1, 2]))


@pytest.mark.parametrize(
    ("y", "says"),
    [
        ([0, 1], r"expected `y` to have one entry per example \(3\), got 2 values"),
        (1, r"\(3\), got a single value"),
        ([0.0, np.nan, 1.0], "`y` is NaN or infinite at position 1; drop or fill"),
        ([0.0, 1.0, np.inf], "position 2"),
        ([[0, 1], [0, np.nan], [1, 1]], "position 1"),
        (["ham", None, "spam"], "`y` has missing values; drop or fill"),
        (pd.Series([1, None, 3], dtype="Int64").astype(object), "missing values"),
        (pd.Series(["a", np.nan, "c"], dtype=object), "missing values"),
    ],
)
def test_values_that_cannot_be_targets_are_refused(y, says):
    with pytest.raises(ValueError, match=says):
        Examples(np.eye(3), y)


@pytest.mark.parametrize(
    "y",
    [
        [0, 1, 2],
        np.array([[0], [1], [2]]),
        pd.Series([0, 1, 2], index=list("xyz")),
        pl.Series([0, 1, 2]),
        pa.chunked_array([[0], [1, 2]]),
    ],
)
def test_targets_come_in_many_forms(y):
    examples = Examples(np.eye(3), y)
    assert examples.y.shape == (3,) and examples.label(2) == 2


@pytest.mark.parametrize(
    ("y", "kind"),
    [
        (pd.Series(["ham", "spam", "ham"], dtype="category"), "U"),
        (np.array(["ham", "spam", "ham"], dtype=object), "U"),
        (pd.Series([1, 0, 1], dtype="category").astype(object), "i"),
        (np.array([0, "spam", 1], dtype=object), "O"),  # no kind becomes another
    ],
)
def test_what_a_frame_keeps_as_objects_are_labels_like_any_other(y, kind):
    examples = Examples(np.eye(3), y)
    assert (examples.y.dtype.kind, examples.y.tolist()) == (kind, list(y))


@pytest.mark.parametrize(
    ("weights", "says"),
    [
        ([1, -1, 1], "non-negative sample weights"),
        ([0, 0, 0], "not all zero"),
        ([1, np.nan, 1], "`weights` is NaN or infinite at position 1"),
        ([1, 1], r"`weights` to have one entry per example \(3\), got 2"),
        (np.ones((3, 2)), r"expected one sample weight per example, shape \(3,\), got shape \(3, 2\)"),
    ],
)
def test_weights_without_a_meaning_are_refused(weights, says):
    with pytest.raises(ValueError, match=says):
        Examples(np.eye(3), weights=weights)


@pytest.mark.parametrize("x", [[], np.empty((0, 3)), pd.DataFrame({"a": []}), sparse.csr_matrix((0, 2))])
def test_an_empty_set_is_refused(x):
    with pytest.raises(ValueError, match="at least one example, got an empty set; check the filter"):
        Examples(x)


class Folder:
    """A data set like torchvision's: positions and a length, nothing else."""

    def __len__(self):
        return 3

    def __getitem__(self, i):
        return np.full(2, i), i


@pytest.mark.parametrize(
    "x", [5, "text", b"bytes", {"a": [1]}, {1, 2}, (i for i in range(3)), None, np.array(3), Folder()]
)
def test_inputs_without_positions_are_refused(x):
    with pytest.raises(TypeError, match=r"one entry per example .* got .*Examples\.from_dataset"):
        Examples(x)


def test_names_and_shown_must_fit():
    with pytest.raises(ValueError, match=r"one name per column \(2\), got 3"):
        Examples(TABLE, names=["a", "b", "c"])
    with pytest.raises(ValueError, match=r"`shown` to have one entry per example \(5\), got 1"):
        Examples(TABLE, shown=["only one"])


def test_an_unknown_id_is_named_with_some_that_are_known():
    examples = Examples(np.eye(2), [0, 1], ids=["a", "b"])
    for ask in (examples.label, examples.preview, lambda i: examples.select(["a", i]), lambda i: examples.without([i])):
        with pytest.raises(KeyError, match=r"no example has the id 'c'; ids look like \['a', 'b'\]"):
            ask("c")


def test_a_mask_is_not_taken_for_the_ids_0_and_1():
    examples = Examples(np.eye(3))
    for mask in (np.array([True, False, False]), [False, True, True], [True], True):
        for ask in (examples.positions, examples.select, examples.without):
            with pytest.raises(
                TypeError, match=r"expected ids, got booleans; those of a mask are `examples.ids\[mask\]`"
            ):
                ask(mask)


def test_one_id_or_position_needs_no_list():
    examples = Examples(np.eye(3), ids=["aa", "bb", "cc"])
    assert examples.select("bb").ids.tolist() == ["bb"]
    assert examples.take(-1).x.tolist() == [[0, 0, 1]]


def test_a_mask_must_fit():
    with pytest.raises(ValueError, match=r"mask with one entry per example \(3\), got 2"):
        Examples(np.eye(3)).take([True, False])


def test_taking_an_example_twice_is_refused_as_its_id_would_repeat():
    with pytest.raises(ValueError, match="got 1 more than once"):
        Examples(np.eye(3)).take([1, 1])


def test_labels_are_readable_and_plain():
    examples = Examples(np.eye(3), np.array([0, 1, 2]), labels={0: "ham", 1: "spam"})
    assert [examples.label(i) for i in range(3)] == ["ham", "spam", 2]
    assert type(examples.label(2)) is int
    assert examples.take([1]).label(1) == "spam"
    assert Examples(np.eye(2)).label(0) is None
    assert Examples(np.eye(2), [[1, 2], [3, 4]]).label(1) == [3, 4]


def test_shown_stands_in_for_the_inputs_and_stays_with_its_example():
    examples = Examples(TABLE, shown=[f"text {i}" for i in range(5)]).take([4, 2])
    assert examples.preview(2) == Preview("text", "text 2")
    images = Examples(TABLE, shown=np.arange(5 * 6).reshape(5, 2, 3))
    assert images.preview(3).kind == "image" and images.preview(3).value[0, 0] == 18
    frame = Examples(TABLE, shown=pd.DataFrame({"name": list("abcde"), "age": range(5)}))
    assert frame.preview(1) == Preview("row", (("name", "b"), ("age", 1)))


def test_a_row_is_shown_with_its_own_types_and_names():
    frame = pd.DataFrame({"age": [39, 40], "pay": [1.5, 2.5], "job": ["clerk", "smith"]})
    expected = Preview("row", (("age", 40), ("pay", 2.5), ("job", "smith")))
    assert Examples(frame).preview(1) == Examples(pl.from_pandas(frame)).preview(1) == expected
    assert repr(Examples(frame[["age", "pay"]]).preview(1).value) == "(('age', 40), ('pay', 2.5))"
    assert Examples(frame, names=["a", "p", "j"]).preview(0).value[0] == ("a", 39)
    assert Examples(TABLE).preview(2).value == (("x0", 4.0), ("x1", 5.0))
    assert Examples(TABLE[:, 0]).preview(2).value == (("x0", 4.0),)


def test_a_sparse_row_shows_its_largest_entries():
    x = sparse.csr_matrix(np.arange(100.0)[None, :] * [[1], [-1]])
    value = Examples(x, names=[f"word{i}" for i in range(100)]).preview(1).value
    assert value[0] == ("word99", -99.0) and len(value) == 24


def test_the_inputs_are_left_alone():
    frame = pd.DataFrame(TABLE, columns=COLUMNS)
    before = frame.copy()
    part = Examples(frame, np.arange(5)).take([1, 0]).x
    part.loc[1, "height"] = 99.0
    pd.testing.assert_frame_equal(frame, before)


def test_repr_says_what_it_is():
    assert repr(Examples(TABLE, ids=list("abcde"))) == "Examples(5 examples, ndarray, ids a … e)"


@pytest.mark.parametrize("copied_by", [copy.deepcopy, lambda examples: pickle.loads(pickle.dumps(examples))])
def test_copies_are_immutable_too(copied_by):
    copied = copied_by(Examples([[1.0], [2.0]], [0, 1], ids=["a", "b"], weights=[1, 2], labels={0: "ham"}))
    assert (copied.label("a"), copied.positions(["b"]).tolist()) == ("ham", [1])
    with pytest.raises(ValueError, match="read-only"):
        copied.ids[0] = "b"
    with pytest.raises(AttributeError, match=r"examples\.replaced\(y=…\)"):
        copied.y = None
    with pytest.raises(AttributeError, match="examples are immutable"):
        del copied.weights


def test_a_new_frame_brings_the_names_of_its_columns():
    first = Examples(pd.DataFrame({"a": [1.0, 2.0]}), [0, 1])
    assert first.replaced(x=pd.DataFrame({"b": [1.0, 2.0]})).names == ["b"]
    assert first.replaced(x=np.ones((2, 1))).names == ["a"]
