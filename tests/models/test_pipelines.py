"""Pipelines of tables and texts that end in a linear model."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, PolynomialFeatures, StandardScaler
from sklearn.svm import SVC, LinearSVC

import upweight as uw
from support.trained_estimators import THREE, TIGHT, TWO, mixed, outputs

pytestmark = pytest.mark.filterwarnings("ignore:Liblinear failed to converge")
WORDS = ["sun", "rain", "snow", "wind", "cloud", "storm", "ice", "fog", "hail", "mist", "sea", "hill", "lake", "wood"]


def texts(n, seed=0):
    """Texts of two topics that overlap, and their topics."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, n)
    tilt = np.linspace(-1, 1, len(WORDS))
    written = []
    for label in y:
        p = np.exp(1.2 * tilt * (1 if label else -1))
        written.append(" ".join(rng.choice(WORDS, rng.integers(3, 12), p=p / p.sum())))
    return written, y


def scores_of(estimator, train, queries, **more):
    model = uw.explainable(estimator, train, **more)
    return uw.Influence().fit(model, train).attribute(queries).values


def frame(kind, n=90, seed=0):
    rng = np.random.default_rng(seed)
    columns = {
        "age": rng.uniform(20, 80, n),
        "income": rng.lognormal(10, 0.5, n),
        "town": rng.choice(["Oslo", "Rome", "Kyiv"], n),
        "kind": rng.choice(["a", "b"], n),
    }
    y = (columns["age"] / 60 + (columns["town"] == "Rome") + rng.standard_normal(n) > 1.2).astype(int)
    return pytest.importorskip(kind).DataFrame(columns), np.where(y, "yes", "no")


def table_model(**settings):
    before = ColumnTransformer(
        [
            ("numbers", StandardScaler(), ["age", "income"]),
            ("names", OneHotEncoder(handle_unknown="ignore"), ["town", "kind"]),
        ]
    )
    return make_pipeline(before, LogisticRegression(**TIGHT, **settings))


def split(x, y, m=15):
    rows = (lambda a, b: x[a:b]) if isinstance(x, list) or not hasattr(x, "iloc") else (lambda a, b: x.iloc[a:b])
    return uw.Examples(rows(m, len(y)), y[m:]), uw.Examples(rows(0, m), y[:m])


@pytest.mark.parametrize("kind", ["pandas", "polars"])
def test_a_table_goes_through_its_pipeline(kind):
    train, queries = split(*frame(kind))
    estimator = table_model().fit(train.x, train.y)
    before, final = estimator[0], estimator[-1]

    def by_hand(examples):
        matrix = before.transform(examples.x)
        return uw.Examples(matrix.toarray() if hasattr(matrix, "toarray") else matrix, examples.y)

    values = scores_of(estimator, train, queries)
    np.testing.assert_allclose(values, scores_of(final, by_hand(train), by_hand(queries)), atol=1e-9)
    assert uw.explainable(estimator, train).predict(queries).predicted == tuple(estimator.predict(queries.x))
    answer = uw.Influence().fit(uw.explainable(estimator, train), train).attribute(queries)
    assert answer.query_ids.tolist() == queries.ids.tolist() and answer.train_ids.tolist() == train.ids.tolist()


@pytest.mark.parametrize("kind", ["pandas", "polars"])
def test_both_kinds_of_table_have_the_same_scores(kind):
    train, queries = split(*frame("pandas"))
    expected = scores_of(table_model().fit(train.x, train.y), train, queries)
    train, queries = split(*frame(kind))
    np.testing.assert_allclose(scores_of(table_model().fit(train.x, train.y), train, queries), expected, atol=1e-9)


def test_a_category_that_the_encoder_ignores_has_no_effect():
    train, queries = split(*frame("pandas"))
    estimator = table_model().fit(train.x, train.y)
    abroad = queries.x.assign(town="Lima")
    model = uw.explainable(estimator, train, measure=mixed)
    np.testing.assert_allclose(model.measure(uw.Examples(abroad)), mixed(outputs(estimator, abroad)), atol=1e-9)


@pytest.mark.parametrize("kind", ["pandas", "polars"])
def test_a_table_that_lacks_a_column_is_refused_with_its_name(kind):
    train, queries = split(*frame(kind))
    model = uw.explainable(table_model().fit(train.x, train.y), train)
    less = queries.x.drop(columns="town") if kind == "pandas" else queries.x.drop("town")
    renamed = queries.x.rename(columns={"age": "years"}) if kind == "pandas" else queries.x.rename({"age": "years"})
    for x, name in ((less, "town"), (renamed, "age")):
        with pytest.raises(ValueError, match=rf"the pipeline cannot take these inputs.*{name}.*pass what goes into"):
            model.measure(uw.Examples(x, queries.y))


def test_a_table_in_another_column_order_is_refused_without_a_pipeline():
    pandas = pytest.importorskip("pandas")
    x = pandas.DataFrame(TWO[0], columns=list("abcdef"))
    train = uw.Examples(x, TWO[1])
    model = uw.explainable(LogisticRegression(**TIGHT).fit(x, TWO[1]), train)
    with pytest.raises(ValueError, match=r"feature names|columns"):
        model.measure(uw.Examples(x[list("fedcba")], TWO[1]))


def test_a_pipeline_that_selects_columns_by_name_takes_them_in_any_order():
    train, queries = split(*frame("pandas"))
    estimator = table_model().fit(train.x, train.y)
    reversed_columns = uw.Examples(queries.x[queries.x.columns[::-1]], queries.y)
    np.testing.assert_allclose(
        scores_of(estimator, train, reversed_columns), scores_of(estimator, train, queries), atol=1e-12
    )


def test_labels_of_a_table_and_of_a_list_are_the_same():
    pandas = pytest.importorskip("pandas")
    x, y = frame("pandas")
    for column in (pandas.Series(y), pandas.Series(y, dtype="category"), pandas.Series(y, dtype=object), list(y)):
        train = uw.Examples(x, column)
        model = uw.explainable(table_model().fit(x, column), train)
        expected = model.measure(train)[:5]
        for labels in (list(y[:5]), y[:5], y[:5].astype(object), pandas.Series(y[:5])):
            np.testing.assert_allclose(model.measure(uw.Examples(x.iloc[:5], labels)), expected, rtol=1e-12)


def test_missing_values_may_go_into_a_pipeline_with_an_imputer():
    x, y = TWO[0].copy(), TWO[1]
    x[::7, 2] = np.nan
    train, queries = split(x, y)
    estimator = make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression(**TIGHT)).fit(train.x, train.y)
    ready = [uw.Examples(estimator[:-1].transform(e.x), e.y) for e in (train, queries)]
    np.testing.assert_allclose(scores_of(estimator, train, queries), scores_of(estimator[-1], *ready), atol=1e-10)


@pytest.mark.sweep(3)
@pytest.mark.parametrize("n", [20, 200])
@pytest.mark.parametrize(
    "vectorizer", [CountVectorizer(), TfidfVectorizer(), TfidfVectorizer(dtype=np.float32, ngram_range=(1, 2))]
)
@pytest.mark.parametrize("final", [LogisticRegression(**TIGHT), LinearSVC(random_state=0, **TIGHT), Ridge(alpha=1.0)])
def test_texts_as_sparse_rows_have_the_scores_of_dense_rows(n, vectorizer, final):
    written, y = texts(n + 6)
    train, queries = split(written, y, 6)
    estimator = make_pipeline(clone(vectorizer), clone(final)).fit(train.x, train.y)
    ready = [uw.Examples(estimator[0].transform(e.x).toarray().astype(float), e.y) for e in (train, queries)]
    by_hand = clone(estimator[-1]).fit(ready[0].x, ready[0].y)
    expected = scores_of(by_hand, *ready)
    np.testing.assert_allclose(scores_of(estimator, train, queries), expected, atol=2e-4 * np.abs(expected).max())


def test_few_texts_have_the_same_model_in_gram_coordinates():
    written, y = texts(26)
    train, queries = split(written, y, 6)
    estimator = make_pipeline(TfidfVectorizer(ngram_range=(1, 2)), LogisticRegression(**TIGHT)).fit(train.x, train.y)
    columns = len(estimator[0].vocabulary_)
    model = uw.explainable(estimator, train, measure=mixed)
    assert len(train) < columns and model.theta.shape[1] <= len(train) + 1
    np.testing.assert_allclose(model.measure(queries), mixed(outputs(estimator, queries.x)), atol=1e-9)
    weights = np.ones(len(train))
    weights[:5] = 0.0
    matrix = estimator[0].transform(train.x)  # the vocabulary stays
    refitted = clone(estimator[-1]).fit(matrix[5:], train.y[5:])
    expected = mixed(outputs(refitted, estimator[0].transform(queries.x)))
    np.testing.assert_allclose(model.retrain(train, weights).measure(queries), expected, atol=1e-5)


def test_gram_coordinates_of_some_texts_do_not_stand_for_all():
    written, y = texts(26)
    weights = np.ones(20)
    weights[::4] = 0.0
    train, queries = uw.Examples(written[:20], y[:20], weights=weights), uw.Examples(written[20:], y[20:])
    final = LogisticRegression(**TIGHT)
    estimator = make_pipeline(TfidfVectorizer(ngram_range=(1, 2)), final)
    estimator.fit(train.x, train.y, logisticregression__sample_weight=weights)
    model = uw.explainable(estimator, train, measure=mixed)
    for examples in (train, queries):
        np.testing.assert_allclose(model.measure(examples), mixed(outputs(estimator, examples.x)), atol=1e-9)


def test_an_empty_text_is_an_empty_row():
    written, y = texts(60)
    written[3] = written[17] = "nothing known"
    train, _ = split(written[:2] + written, np.r_[y[:2], y], 2)
    estimator = make_pipeline(CountVectorizer(vocabulary=WORDS), LogisticRegression(**TIGHT)).fit(train.x, train.y)
    queries = uw.Examples(["", written[0]], y[:2])
    assert np.isfinite(scores_of(estimator, train, queries)).all()


def test_repeated_texts_have_equal_scores():
    written, y = texts(14)
    written, y = written + written, np.r_[y, y]
    train = uw.Examples(written, y)
    estimator = make_pipeline(TfidfVectorizer(ngram_range=(1, 3)), LogisticRegression(**TIGHT)).fit(written, y)
    scores = scores_of(estimator, train, uw.Examples(["sun rain", "lake wood hill"], y[:2]))
    np.testing.assert_allclose(scores[:, :14], scores[:, 14:], atol=1e-5 * np.abs(scores).max())


@pytest.mark.parametrize("steps", [[], ["passthrough"], [StandardScaler(), "passthrough"], [None]])
def test_steps_that_do_nothing_change_nothing(steps):
    x, y = THREE
    train, queries = split(x, y)
    last = LogisticRegression(**TIGHT)
    estimator = Pipeline([*((str(i), s) for i, s in enumerate(steps)), ("last", last)]).fit(train.x, train.y)
    scaled = [uw.Examples(estimator[:-1].transform(e.x) if steps else e.x, e.y) for e in (train, queries)]
    np.testing.assert_allclose(scores_of(estimator, train, queries), scores_of(estimator[-1], *scaled), atol=1e-12)


def test_a_pipeline_may_have_tables_as_outputs():
    pytest.importorskip("pandas")
    train, queries = split(*TWO)
    plain = make_pipeline(StandardScaler(), PolynomialFeatures(), LogisticRegression(**TIGHT)).fit(train.x, train.y)
    expected = scores_of(plain, train, queries)
    tables = clone(plain).set_output(transform="pandas").fit(train.x, train.y)
    np.testing.assert_allclose(scores_of(tables, train, queries), expected, atol=1e-6 * np.abs(expected).max())


def test_a_kernel_machine_may_be_the_last_step():
    train, queries = split(*THREE)
    estimator = make_pipeline(StandardScaler(), SVC(tol=1e-9, decision_function_shape="ovo")).fit(train.x, train.y)
    model = uw.explainable(estimator, train, measure=mixed)
    np.testing.assert_allclose(model.measure(queries), mixed(estimator.decision_function(queries.x)), atol=1e-6)


def test_the_repr_of_a_model_names_its_estimator_and_measurement():
    x, y = load_breast_cancer(return_X_y=True)
    train = uw.Examples(x, y)
    model = uw.explainable(make_pipeline(StandardScaler(), LogisticRegression()).fit(x, y), train)
    uw.Influence().fit(model, train)
    assert repr(model) == "LinearModel(LogisticRegression, measuring −loss (nats))"
    trees = uw.explainable(RandomForestClassifier(3, random_state=0).fit(x, y), train)
    assert repr(trees) == f"TreeModel(RandomForestClassifier, measuring {trees.measurement})"
