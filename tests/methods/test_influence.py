import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

import upweight as uw
from support.small_linear_models import KINDS, QUERIES, dense, losses, penalty, slope_of, small
from upweight.core.curvature_recipes import CG, Direct, Hessian

EVERY = pytest.mark.parametrize("kind", KINDS)
WEIGHTED = pytest.mark.parametrize("weighted", [False, True])


def measure_gradients(model, queries):
    """∇m of every query, by differences."""
    return slope_of(lambda t: -losses(model, t, queries.x, queries.y), model.parameters)


def without(model, train, *positions):
    weights = np.ones(len(train))
    weights[list(positions)] = 0.0
    return model.retrain(train, weights)


def truth(model, train, queries, groups):
    base = without(model, train).measure(queries)
    return np.stack([base - without(model, train, *g).measure(queries) for g in groups], axis=1)


def largest_error(a, b):
    """The largest difference, relative to the largest entry of b."""
    return np.abs(a - b).max() / np.abs(b).max()


@EVERY
@WEIGHTED
def test_plain_influence_is_the_formula_of_the_paper(kind, weighted):
    model, train, queries = small(kind, weighted=weighted)
    gradients, hessian = dense(model, train)
    scores = uw.Influence(correction=None).fit(model, train).attribute(queries)
    of_loss = -measure_gradients(model, queries)
    i_up_loss = -of_loss @ np.linalg.solve(hessian, gradients.T)  # −∇L(z_test)ᵀ H⁻¹ ∇L(z)
    assert largest_error(scores.values, -i_up_loss) < 1e-5
    assert scores.unit == uw.Unit.EFFECT


@EVERY
@pytest.mark.parametrize("damping", [0.01, 1.0])
def test_damping_adds_to_the_mean_hessian(kind, damping):
    model, train, queries = small(kind, weighted=True)
    gradients, hessian = dense(model, train)
    damped = hessian + damping * train.weights.sum() * np.eye(len(hessian))
    scores = uw.Influence(correction=None, damping=damping).fit(model, train).attribute(queries)
    expected = -measure_gradients(model, queries) @ np.linalg.solve(damped, gradients.T)
    assert largest_error(scores.values, expected) < 1e-5
    assert scores.diagnostics["damping"] == pytest.approx(damping * train.weights.sum())


@EVERY
@WEIGHTED
def test_the_leverage_correction_is_the_newton_step_of_leaving_one_out(kind, weighted):
    model, train, queries = small(kind, weighted=weighted)
    gradients, hessian = dense(model, train)
    w = np.ones(len(train)) if weighted is False else train.weights
    scores = uw.Influence(polish=0).fit(model, train).attribute(queries)
    assert scores.diagnostics["newton_followed"] == 0
    for i in (0, 13, 44):
        example = train.take([i])
        curvature = slope_of(
            lambda t, example=example: slope_of(lambda s: w[i] * losses(model, s, example.x, example.y)[0], t, 1e-3),  # noqa: B023
            model.parameters,
            1e-3,
        )
        shift = np.linalg.solve(hessian - curvature, gradients[i])
        np.testing.assert_allclose(
            scores.values[:, i],
            -measure_gradients(model, queries) @ shift,
            rtol=1e-3,
            atol=1e-4 * np.abs(scores.values).max(),
        )


@pytest.mark.sweep(2)
@EVERY
@WEIGHTED
def test_scores_are_leave_one_out(kind, weighted):
    model, train, queries = small(kind, weighted=weighted)
    scores = uw.Influence().fit(model, train).attribute(queries).values
    assert largest_error(scores, truth(model, train, queries, [[i] for i in range(len(train))])) < 1e-3


@pytest.mark.sweep(3)
@EVERY
def test_the_plain_value_is_smaller_by_the_leverage(kind):
    model, train, queries = small(kind)
    plain = uw.Influence(correction=None).fit(model, train).attribute(queries).values
    actual = truth(model, train, queries, [[i] for i in range(len(train))])
    assert np.corrcoef(plain.ravel(), actual.ravel())[0, 1] > 0.97
    assert (plain.ravel() @ actual.ravel()) / (plain.ravel() @ plain.ravel()) > 1.0


@EVERY
def test_a_copy_in_the_training_set_is_a_proponent(kind):
    model, train, _ = small(kind)
    scores = uw.Influence().fit(model, train).attribute(train)
    if model.objective.reduction == "sum":  # else the example takes its share of the regulariser along
        assert (np.diagonal(scores.values) >= -1e-12).all()
    np.testing.assert_allclose(
        np.diagonal(scores.values), uw.Influence().fit(model, train).self_influence().values[0], atol=1e-9
    )


@EVERY
@pytest.mark.parametrize("correction", ["leverage", None])
def test_conjugate_gradients_give_the_scores_of_a_factorisation(kind, correction):
    model, train, queries = small(kind, columns=6)

    def scores(solver):
        recipe = uw.Influence(curvature=Hessian(solver=solver), correction=correction)
        return recipe.fit(model, train).attribute(queries)

    direct, iterative = scores(Direct()), scores(CG(tolerance=1e-10))
    assert largest_error(iterative.values, direct.values) < 1e-4
    assert "Cholesky" in direct.diagnostics["solver"] and "conjugate" in iterative.diagnostics["solver"]
    assert direct.diagnostics["residual"] < 1e-6 and iterative.diagnostics["residual"] <= 1e-10


@pytest.mark.sweep(3)
@pytest.mark.parametrize("measure", ["margin", "probability", "function", "loss"])
@pytest.mark.parametrize("kind", ["logistic", "softmax"])
def test_scores_are_leave_one_out_for_every_measurement(kind, measure):
    def confidence(outputs, labels):
        return np.tanh(outputs[:, 0]) + 0.1 * outputs[:, -1] ** 2

    measures = {"margin": uw.Margin(), "probability": uw.Probability(of=1), "function": confidence, "loss": uw.Loss()}
    model, train, queries = small(kind, measure=measures[measure])
    slope = slope_of(lambda t: model.with_parameters(t).measure(queries), model.parameters)
    np.testing.assert_allclose(model.measure_rows(queries).dense(), slope, atol=1e-6 * np.abs(slope).max())
    scores = uw.Influence().fit(model, train).attribute(queries)
    ids = list(range(0, len(train), 4))
    assert largest_error(scores.values[:, ids], truth(model, train, queries, [[i] for i in ids])) < 1e-3
    np.testing.assert_allclose(scores.measured, model.measure(queries), atol=1e-5)


def test_the_measurement_is_named():
    named = {None: "−loss (nats)", uw.Margin(): "margin of the label", uw.Probability(of=1): "probability of 1"}
    for measure, words in named.items():
        model, train, queries = small("logistic", measure=measure)
        assert uw.Influence().fit(model, train).attribute(queries).measurement == words
    model, *_ = small("logistic", measure=lambda outputs, labels: outputs[:, 0])
    assert model.measurement == "measurement"


GROUPS = {"few": ["t3", "t9"], "one": ["t5"], "many": [f"t{i}" for i in range(0, 70, 2)]}
PLACES = [[3, 9], [5], list(range(0, 70, 2))]


@EVERY
@WEIGHTED
def test_a_group_of_first_order_is_the_sum_of_its_members(kind, weighted):
    model, train, queries = small(kind, weighted=weighted)
    removed = uw.Influence().fit(model, train).remove(GROUPS, queries, form="first")
    plain = uw.Influence(correction=None).fit(model, train).attribute(queries)
    expected = np.stack([plain.values[:, p].sum(axis=1) for p in PLACES], axis=1)
    assert largest_error(removed.values, expected) < 1e-4
    assert removed.train_ids.tolist() == list(GROUPS) and removed.query_ids.tolist() == queries.ids.tolist()


@EVERY
@WEIGHTED
def test_a_group_of_second_order_is_two_terms_of_the_series(kind, weighted):
    model, train, queries = small(kind, weighted=weighted)
    gradients, hessian = dense(model, train)
    w = train.weights if weighted else np.ones(len(train))
    removed = uw.Influence(correction=None).fit(model, train).remove(GROUPS, queries, form="second").values
    for g, places in enumerate(PLACES):
        part = train.take(places)

        def share(t, part=part, places=places):
            mean = model.objective.reduction == "mean"
            shared = penalty(model, t, w[places].sum()) if mean else 0.0
            return w[places] @ losses(model, t, part.x, part.y) + shared

        h_u = slope_of(lambda t, share=share: slope_of(share, t, 1e-3), model.parameters, 1e-3)
        first = np.linalg.solve(hessian, gradients[places].sum(axis=0))
        shift = first + np.linalg.solve(hessian, h_u @ first)
        assert largest_error(removed[:, g], -measure_gradients(model, queries) @ shift) < 1e-3


@EVERY
@WEIGHTED
def test_newton_steps_end_at_the_refit(kind, weighted):
    model, train, queries = small(kind, weighted=weighted)
    fitted = uw.Influence().fit(model, train)
    actual = truth(model, train, queries, PLACES)
    gaps = [largest_error(fitted.remove(GROUPS, queries, steps=s).values, actual) for s in (1, 2, 20)]
    assert gaps[-1] < 1e-5 and gaps[-1] <= gaps[1] + 1e-9 and gaps[1] <= gaps[0] + 1e-9


@pytest.mark.parametrize("kind", ["logistic", "softmax", "ridge"])
def test_every_further_term_is_closer_where_the_measurement_is_linear(kind):
    model, train, queries = small(kind, measure=lambda outputs, labels: outputs[:, 0])
    fitted, few = uw.Influence().fit(model, train), {"few": GROUPS["few"]}
    actual = truth(model, train, queries, PLACES[:1])
    first, second = (largest_error(fitted.remove(few, queries, form=f).values, actual) for f in ("first", "second"))
    assert largest_error(fitted.remove(few, queries).values, actual) < second < first


def test_removal_of_nothing_everything_or_unknown_ids_is_refused():
    model, train, queries = small("logistic")
    fitted = uw.Influence().fit(model, train)
    everyone = train.ids.tolist()
    with pytest.raises(ValueError, match="at least one group"):
        fitted.remove({}, queries)
    for ids in ([], everyone, [*everyone, "t0"]):
        with pytest.raises(ValueError, match=r"group 'g' to be some of the 70 training examples, got \d+: "):
            fitted.remove({"g": ids}, queries)
    with pytest.raises(KeyError, match="no example has the id 'nobody'"):
        fitted.remove({"g": ["t1", "nobody"]}, queries)
    with pytest.raises(ValueError, match=r"expected form to be one of newton, first, second, got 'third'"):
        fitted.remove({"g": ["t1"]}, queries, form="third")


def test_an_example_named_twice_is_removed_once():
    model, train, queries = small("logistic")
    fitted = uw.Influence().fit(model, train)
    once, often = fitted.remove({"g": ["t1"]}, queries), fitted.remove({"g": ["t1"] * 70}, queries)
    np.testing.assert_array_equal(often.values, once.values)


@pytest.mark.sweep(2)
@EVERY
@WEIGHTED
def test_self_influence_is_the_score_of_the_example_on_itself(kind, weighted):
    model, train, _ = small(kind, weighted=weighted)
    self_influence = uw.Influence().fit(model, train).self_influence()
    base = without(model, train).measure(train)
    expected = [base[i] - without(model, train, i).measure(train.take([i]))[0] for i in range(len(train))]
    assert largest_error(self_influence.values[0], np.array(expected)) < 1e-3
    assert self_influence.query_ids.tolist() == ["self"] and self_influence.train_ids.tolist() == train.ids.tolist()
    plain = uw.Influence(correction=None).fit(model, train).self_influence().values[0]
    gradients, hessian = dense(model, train)
    own_loss = measure_gradients(model, train)
    formula = -np.einsum("np,np->n", own_loss, np.linalg.solve(hessian, gradients.T).T)
    assert largest_error(plain, formula) < 1e-4


@WEIGHTED
def test_deletion_diagnostics_of_least_squares_have_the_closed_forms_of_textbooks(weighted):
    model, train, _ = small("least_squares", weighted=weighted)
    fitted = uw.Influence().fit(model, train)
    w = train.weights if weighted else np.ones(len(train))
    root = np.sqrt(w)
    x = root[:, None] * np.hstack([train.x, np.ones((len(train), 1))])
    r = root * (train.y - np.hstack([train.x, np.ones((len(train), 1))]) @ model.parameters)
    inverse = np.linalg.inv(x.T @ x)
    h = np.einsum("ni,ij,nj->n", x, inverse, x)
    n, p = x.shape
    s2 = (r**2).sum() / (n - p)
    np.testing.assert_allclose(fitted.leverage(), h, atol=1e-10)
    np.testing.assert_allclose(fitted.leverage().sum(), p)
    np.testing.assert_allclose(fitted.cooks_distance(), r**2 / (p * s2) * h / (1 - h) ** 2, rtol=1e-7)
    np.testing.assert_allclose(fitted.dfbeta(), (inverse @ (x * (r / (1 - h))[:, None]).T).T, atol=1e-8)


@EVERY
@WEIGHTED
def test_dfbeta_is_the_change_of_the_parameters(kind, weighted):
    model, train, _ = small(kind, weighted=weighted)
    moved = uw.Influence().fit(model, train).dfbeta()
    for i in (0, 20, 69):
        expected = without(model, train).parameters - without(model, train, i).parameters
        np.testing.assert_allclose(moved[i], expected, atol=1e-3 * np.abs(moved).max())


@EVERY
@WEIGHTED
def test_cooks_distance_is_the_length_of_the_newton_step(kind, weighted):
    model, train, _ = small(kind, weighted=weighted)
    fitted = uw.Influence(polish=0).fit(model, train)
    _, hessian = dense(model, train)
    shifts, p = fitted.dfbeta(), fitted.leverage().sum()
    s2 = 1.0
    if kind in ("ridge", "least_squares"):
        w = train.weights if weighted else np.ones(len(train))
        s2 = 2 * w @ losses(model, model.parameters, train.x, train.y) / (len(train) - p)
    expected = np.einsum("np,pq,nq->n", shifts, hessian, shifts) / (p * s2)
    np.testing.assert_allclose(fitted.cooks_distance(), expected, rtol=1e-4, atol=1e-7)


@EVERY
def test_a_saved_fit_gives_the_same_scores(kind, tmp_path):
    model, train, queries = small(kind)
    for recipe in (uw.Influence(), uw.Influence(correction=None), uw.Influence(polish=0, damping=0.1)):
        fitted = recipe.fit(model, train)
        fitted.save(tmp_path / "fit")
        loaded = recipe.load(tmp_path / "fit", model, train)
        np.testing.assert_array_equal(loaded.attribute(queries).values, fitted.attribute(queries).values)
        np.testing.assert_array_equal(loaded.self_influence().values, fitted.self_influence().values)
        with pytest.raises(ValueError, match="another recipe"):
            uw.Influence(damping=0.7).load(tmp_path / "fit", model, train)
        other = train.take(np.arange(len(train))[::-1])
        with pytest.raises(ValueError, match="another training set"):
            recipe.load(tmp_path / "fit", model, other)


@EVERY
@pytest.mark.parametrize("block", [7, 4096])
def test_top_gives_the_ends_of_the_rows_of_attribute(kind, block):
    model, train, queries = small(kind)
    fitted = uw.Influence().fit(model, train)
    fitted.train_block = block
    scores, top = fitted.attribute(queries), fitted.top(queries, 4)
    for query in queries.ids.tolist():
        assert top.proponents(query) == scores.proponents(query, 4)
        assert top.opponents(query) == scores.opponents(query, 4)


def test_grouped_scores_are_column_sums():
    model, train, queries = small("softmax")
    scores = uw.Influence().fit(model, train).attribute(queries)
    by_class = scores.group(train.y)
    for column, label in enumerate(by_class.train_ids):
        np.testing.assert_allclose(by_class.values[:, column], scores.values[:, train.y == label].sum(axis=1))


def test_fitting_twice_gives_the_same_bits_and_order_changes_nothing():
    model, train, queries = small("softmax")
    first = uw.Influence().fit(model, train).attribute(queries).values
    np.testing.assert_array_equal(uw.Influence().fit(model, train).attribute(queries).values, first)
    order = np.random.default_rng(0).permutation(len(train))
    turned = uw.Influence().fit(model, train.take(order)).attribute(queries.take(np.arange(QUERIES)[::-1]))
    assert largest_error(turned.values[::-1][:, np.argsort(order)], first) < 1e-4


def test_damping_reaches_every_score():
    model, train, queries = small("logistic")
    strong = uw.Influence(damping=100.0).fit(model, train).attribute(queries).values
    assert np.abs(strong).max() < 0.1 * np.abs(uw.Influence().fit(model, train).attribute(queries).values).max()


@pytest.mark.parametrize("settings", [{"damping": -1.0}, {"damping": "much"}, {"damping": np.nan}, {"damping": np.inf}])
def test_a_damping_that_is_negative_or_not_a_finite_number_is_refused(settings):
    with pytest.raises(ValueError, match='expected damping="auto" or a number ≥ 0'):
        uw.Influence(**settings)


def test_settings_without_meaning_are_refused():
    with pytest.raises(ValueError, match='expected correction="auto", "leverage" or None'):
        uw.Influence(correction="second")
    with pytest.raises(ValueError, match="expected polish ≥ 0"):
        uw.Influence(polish=-1)
    with pytest.raises(ValueError, match="expected 0 < tolerance < 1"):
        CG(tolerance=2.0)
    with pytest.raises(TypeError, match=r"Influence needs a model that is Differentiable.*upweight\.explainable"):
        uw.Influence().fit(object(), small("ridge")[1])


@pytest.mark.parametrize("method", [uw.Influence(), uw.LeaveOneOut()])
def test_self_influence_does_not_run_a_pipeline_for_every_example(method):
    x, y = load_breast_cancer(return_X_y=True)
    x, y, runs = x[:150, :5] / x[:150, :5].std(axis=0), y[:150], []
    counted = FunctionTransformer(lambda rows: runs.append(len(rows)) or rows)
    train = uw.Examples(x, y)
    model = uw.explainable(make_pipeline(counted, LogisticRegression(tol=1e-10)).fit(x, y), train)
    fitted = method.fit(model, train)
    expected = np.diagonal(fitted.attribute(train).values)
    runs.clear()
    np.testing.assert_allclose(fitted.self_influence().values[0], expected, atol=1e-9)
    assert len(runs) <= 5


@pytest.mark.parametrize("question", ["leverage", "cooks_distance", "dfbeta"])
def test_answers_about_training_examples_that_were_changed_since_are_refused(question):
    x = np.random.default_rng(0).normal(size=(30, 2))
    train = uw.Examples(x, x @ [1.0, 2.0] + np.random.default_rng(1).normal(size=30))
    fitted = uw.Influence().fit(uw.explainable(LinearRegression().fit(train.x, train.y), train), train)
    assert np.isfinite(getattr(fitted, question)()).all()
    x[0] += 1.0
    with pytest.raises(ValueError, match="changed in place since this fit"):
        getattr(fitted, question)()
