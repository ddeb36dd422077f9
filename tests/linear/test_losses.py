import itertools

import numpy as np
import pytest
from scipy.special import log_softmax
from sklearn.metrics import mean_tweedie_deviance

from support.dense_problems import CONVEX, FAMILIES, FOUR, PAIRS, THREE, TWO, draw
from upweight.linear.losses.binary import LogisticLoss, SmoothHingeLoss, SquaredHingeLoss
from upweight.linear.losses.softmax import SoftmaxLoss
from upweight.linear.losses.squared import SquaredLoss
from upweight.linear.losses.tweedie import TweedieLoss

EVERY = pytest.mark.parametrize("name", FAMILIES)
STEP = 1e-6


def steps(family, z):
    """z one step up and one step down in every output."""
    for c in range(family.outputs):
        h = np.zeros(family.outputs)
        h[c] = STEP
        yield c, z + h, z - h


@pytest.fixture
def rng():
    return np.random.default_rng(3)


@EVERY
def test_gradient_is_the_slope_of_the_loss(name, rng):
    family = FAMILIES[name]()
    z, targets = draw(family, 40, rng)
    gradient = family.at(z, targets).gradient
    for c, up, down in steps(family, z):
        slope = (family.at(up, targets).loss - family.at(down, targets).loss) / (2 * STEP)
        np.testing.assert_allclose(gradient[:, c], slope, rtol=1e-6, atol=1e-7)


@EVERY
def test_second_derivative_is_the_slope_of_the_gradient(name, rng):
    family = FAMILIES[name]()
    z, targets = draw(family, 40, rng)
    derivatives = family.at(z, targets)
    for k, up, down in steps(family, z):
        slope = (family.at(up, targets).gradient - family.at(down, targets).gradient) / (2 * STEP)
        for c in range(family.outputs):
            np.testing.assert_allclose(derivatives.second(c, k), slope[:, c], rtol=1e-6, atol=1e-7)


@EVERY
def test_apply_is_the_product_with_the_second_derivative(name, rng):
    family = FAMILIES[name]()
    z, targets = draw(family, 10, rng)
    derivatives, v = family.at(z, targets), rng.standard_normal(z.shape)
    dense = np.array([[derivatives.second(c, k) for k in range(family.outputs)] for c in range(family.outputs)])
    np.testing.assert_allclose(derivatives.apply(v), np.einsum("ckn,nk->nc", dense, v), atol=1e-12)


@EVERY
def test_a_second_axis_of_groups_changes_nothing(name, rng):
    family = FAMILIES[name]()
    z, targets = draw(family, 6, rng)
    alone, three = family.at(z, targets), family.at(np.repeat(z[:, None], 3, axis=1), targets[:, None])
    selected = three.select_groups(np.array([True, False, True]))
    for g in range(2):
        np.testing.assert_allclose(selected.loss[:, g], alone.loss, rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(selected.gradient[:, g], alone.gradient, rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(selected.second(0, 0)[:, g], alone.second(0, 0), rtol=1e-12, atol=1e-14)


@EVERY
def test_coupled_and_constant_say_what_the_second_derivative_is(name, rng):
    family = FAMILIES[name]()
    z, targets = draw(family, 10, rng)
    derivatives = family.at(z, targets)
    if not family.coupled:
        assert all(not derivatives.second(c, k).any() for c in range(family.outputs) for k in range(c))
    if family.is_quadratic:
        assert (derivatives.diagonal == 1).all()


@pytest.mark.parametrize("name", CONVEX)
def test_convex_losses_have_no_negative_second_derivative(name, rng):
    family = FAMILIES[name]()
    z, targets = draw(family, 50, rng)
    derivatives = family.at(3 * z, targets)
    dense = np.array([[derivatives.second(c, k) for k in range(family.outputs)] for c in range(family.outputs)])
    assert np.linalg.eigvalsh(dense.transpose(2, 0, 1)).min() >= -1e-12


@pytest.mark.parametrize("power", [0, 1, 1.5, 2, 3])
@pytest.mark.parametrize("log_link", [True, False])
def test_tweedie_loss_is_half_the_deviance(power, log_link, rng):
    family = TweedieLoss(float(power), log_link)
    z, y = draw(family, 20, rng)
    mu = np.exp(z[:, 0]) if log_link else z[:, 0]
    deviance = [mean_tweedie_deviance([a], [b], power=power) for a, b in zip(y[:, 0], mu, strict=True)]
    np.testing.assert_allclose(family.at(z, y).loss, np.array(deviance) / 2, rtol=1e-9, atol=1e-12)
    np.testing.assert_array_equal(family.expand(z)[:, 0], mu)


def test_normal_loss_of_a_negative_target_is_half_the_square():
    z, y = np.array([[0.5], [-2.0]]), np.array([[-1.0], [-2.0]])
    np.testing.assert_allclose(TweedieLoss(0.0, log_link=False).at(z, y).loss, [1.125, 0.0])


def test_the_second_derivative_of_the_normal_loss_is_one_at_an_output_of_zero():
    derivatives = TweedieLoss(0.0, log_link=False).at(np.zeros((1, 1)), np.ones((1, 1)))
    np.testing.assert_array_equal([derivatives.gradient[0, 0], derivatives.second(0, 0)[0]], [-1.0, 1.0])


@pytest.mark.parametrize("power", [1, 1.5])
def test_a_count_of_zero_has_a_finite_loss(power):
    derivatives = TweedieLoss(float(power), log_link=True).at(np.array([[0.3]]), np.zeros((1, 1)))
    expected = mean_tweedie_deviance([0.0], [np.exp(0.3)], power=power) / 2
    np.testing.assert_allclose(derivatives.loss, expected)
    assert np.isfinite(derivatives.gradient).all() and np.isfinite(derivatives.second(0, 0)).all()


def test_softmax_by_reference_is_the_full_softmax(rng):
    family = SoftmaxLoss(FOUR)
    z, y = rng.standard_normal((20, 3)) * 4, rng.integers(0, 4, 20)
    logits = np.hstack([z, np.zeros((20, 1))])
    np.testing.assert_allclose(family.at(z, y).loss, -log_softmax(logits, axis=1)[np.arange(20), y], atol=1e-12)
    np.testing.assert_allclose(family.probabilities(z), np.exp(log_softmax(logits, axis=1)), atol=1e-12)
    np.testing.assert_allclose(family.expand(z).sum(axis=1), 0.0, atol=1e-12)
    np.testing.assert_allclose(family.expand(z), logits - logits.mean(axis=1, keepdims=True), atol=1e-12)


def test_softmax_penalty_is_that_of_the_zero_sum_vectors(rng):
    family, theta = SoftmaxLoss(FOUR), rng.standard_normal((3, 5))
    full = np.vstack([theta, np.zeros(5)])
    full -= full.mean(axis=0)
    np.testing.assert_allclose(np.einsum("ck,cd,kd->", family.metric(), theta, theta), (full**2).sum())


def test_softmax_of_two_is_logistic(rng):
    z, y = rng.standard_normal((20, 1)), rng.integers(0, 2, 20)
    softmax, logistic = SoftmaxLoss(TWO), LogisticLoss(1, TWO)
    a, b = softmax.at(z, softmax.encode(y)), logistic.at(-z, logistic.encode(y))
    np.testing.assert_allclose(a.loss, b.loss, atol=1e-12)
    np.testing.assert_allclose(a.gradient, -b.gradient, atol=1e-12)
    np.testing.assert_allclose(a.second(0, 0), b.second(0, 0), atol=1e-12)


def test_smooth_hinge_falls_to_the_hinge(rng):
    z, t = rng.uniform(-3, 3, (200, 1)), rng.choice([-1.0, 1.0], (200, 1))
    hinge = np.maximum(0.0, 1.0 - t[:, 0] * z[:, 0])
    gaps = [np.abs(SmoothHingeLoss(1, TWO, h).at(z, t).loss - hinge).max() for h in (1.0, 0.1, 0.01, 1e-4)]
    assert all(b < a for a, b in itertools.pairwise(gaps))
    assert gaps[-1] <= 1e-4 * np.log(2) + 1e-12
    far = np.abs(1.0 - t * z) > 0.01
    slope = SmoothHingeLoss(1, TWO, 1e-4).at(z, t).gradient
    np.testing.assert_allclose(slope[far], (-t * (t * z < 1))[far], atol=1e-12)


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
def test_smooth_hinge_needs_a_temperature(temperature):
    with pytest.raises(ValueError, match="temperature > 0"):
        SmoothHingeLoss(1, TWO, temperature)


def test_squared_hinge_is_zero_beyond_the_margin():
    derivatives = SquaredHingeLoss(1, TWO).at(np.array([[1.5], [0.0], [-2.0]]), np.ones((3, 1)))
    np.testing.assert_array_equal(derivatives.loss, [0.0, 1.0, 9.0])
    np.testing.assert_array_equal(derivatives.gradient[:, 0], [0.0, -2.0, -6.0])
    np.testing.assert_array_equal(derivatives.second(0, 0), [0.0, 2.0, 2.0])


@pytest.mark.parametrize(
    "family", [SoftmaxLoss(FOUR), LogisticLoss(1, TWO), SmoothHingeLoss(1, TWO, 1e-3)], ids=lambda f: f.name
)
def test_large_outputs_do_not_overflow(family):
    z = np.array([800.0, -800.0])[:, None] * np.ones(family.outputs)
    derivatives = family.at(z, family.encode(np.array([0, 1])))
    assert (
        np.isfinite(derivatives.loss).all()
        and np.isfinite(derivatives.gradient).all()
        and np.isfinite(derivatives.diagonal).all()
    )
    assert derivatives.loss.max() >= 799


def test_binary_classifiers_of_other_pairs_have_no_loss_on_an_example():
    family = SmoothHingeLoss(3, THREE, 0.5, PAIRS)
    targets = family.encode(np.array([0, 1, 2]))
    np.testing.assert_array_equal(targets, [[1, 1, 0], [-1, 0, 1], [0, -1, -1]])
    derivatives = family.at(np.zeros((3, 3)), targets)
    np.testing.assert_array_equal(derivatives.gradient == 0, targets == 0)
    np.testing.assert_array_equal(derivatives.diagonal == 0, targets == 0)


def test_one_against_the_rest_normalises_its_probabilities(rng):
    p = LogisticLoss(3, THREE).probabilities(rng.standard_normal((5, 3)))
    np.testing.assert_allclose(p.sum(axis=1), 1.0)


@pytest.mark.parametrize(
    ("classes", "labels", "expected"),
    [
        (["no", "yes"], ["yes", "no"], [1, -1]),
        ([0, 1], [1.0, 0.0], [1, -1]),
        ([False, True], [True, False], [1, -1]),
        ([-1, 1], [-1, 1], [-1, 1]),
    ],
)
@pytest.mark.parametrize("of_classes", [None, object])
@pytest.mark.parametrize("of_labels", [None, object])
def test_labels_mean_the_same_whatever_array_they_come_in(classes, labels, expected, of_classes, of_labels):
    family = LogisticLoss(1, np.array(classes, dtype=of_classes))
    np.testing.assert_array_equal(family.encode(np.array(labels, dtype=of_labels))[:, 0], expected)


@pytest.mark.parametrize(
    ("classes", "label"), [([0, 1], 2), ([0, 1], -1), ([0, 1], 0.5), (["a", "b"], "c"), (["a", "b"], 0), ([0, 1], "0")]
)
def test_a_class_never_trained_on_is_an_error(classes, label):
    with pytest.raises(ValueError, match=r"expected labels among .* never trained on"):
        LogisticLoss(1, np.array(classes)).encode(np.array([label]))


def test_only_classifiers_with_probabilities_have_them():
    with pytest.raises(TypeError, match="no probabilities; measure the loss"):
        SquaredLoss(1).probabilities(np.zeros((1, 1)))
