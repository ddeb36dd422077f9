"""The losses of boosted trees, compared with finite differences of their own values."""

from __future__ import annotations

import numpy as np
import pytest

from upweight.trees.boosting_loss import BoostingLoss
from upweight.trees.elementwise_losses import Exponential, Gamma, SoftLabels, SquaredLog, Tweedie
from upweight.trees.losses import Logistic, OneVsAll, Poisson, Softmax, Squared
from upweight.trees.residual_losses import Expectile, Fair, Huber, LogCosh, Power, PseudoHuber

TWO, THREE, STEP = np.array(["no", "yes"]), np.array([3, 5, 7]), 1e-5
LOSSES = [
    Squared(),
    Squared(2),
    Logistic(TWO),
    Logistic(TWO, 0.7),
    Exponential(TWO),
    Softmax(THREE),
    OneVsAll(THREE),
    OneVsAll(THREE, 1.3),
    SoftLabels(),
    Poisson(),
    Gamma(),
    Tweedie(1.3),
    Tweedie(1.7),
    Huber(0.8),
    Huber(0.8, outside=0.0),
    PseudoHuber(0.6),
    Fair(1.4),
    SoftLabels(2),
    SquaredLog(),
    Expectile(0.3),
    LogCosh(),
    Power(2.5),
]
NO_LINK = Huber | PseudoHuber | Fair | SquaredLog | Expectile | LogCosh | Power  # their libraries start elsewhere
# Libraries sum another number than the second derivative beyond δ, so it is compared within δ alone.
SUMS_SECOND_DERIVATIVES = [loss for loss in LOSSES if not (isinstance(loss, Huber) and loss.outside == 1.0)]


def name(loss: BoostingLoss) -> str:
    return f"{loss.name}, {len(loss.classes) if loss.classes is not None else loss.outputs}"


def margins_and_targets(loss: BoostingLoss) -> tuple[np.ndarray, np.ndarray]:
    """Random margins (K, n) and targets that fit the loss."""
    rng = np.random.default_rng(0)
    z = rng.normal(size=(loss.outputs, 40))
    if isinstance(loss, SquaredLog):
        z = np.expm1(0.3 * z)  # above −1, and near enough for a second derivative above 0
    if loss.classes is not None:
        return z, loss.encode(rng.choice(loss.classes, 40)).T
    return z, rng.uniform(0.05, 0.95, size=z.shape)


@pytest.mark.parametrize("loss", LOSSES, ids=name)
def test_the_gradient_is_the_slope_of_the_loss(loss):
    z, t = margins_and_targets(loss)
    for output in range(loss.outputs):
        shift = STEP * (np.arange(loss.outputs) == output)[:, None]
        slope = (loss.value(z + shift, t) - loss.value(z - shift, t)) / (2 * STEP)
        np.testing.assert_allclose(loss.derivatives(z, t)[0][output], slope, atol=1e-8)


@pytest.mark.parametrize("loss", SUMS_SECOND_DERIVATIVES, ids=name)
def test_the_second_derivative_is_the_slope_of_the_gradient(loss):
    z, t = margins_and_targets(loss)
    for output in range(loss.outputs):
        shift = STEP * (np.arange(loss.outputs) == output)[:, None]
        high, low = (loss.derivatives(z + sign * shift, t)[0][output] for sign in (1, -1))
        np.testing.assert_allclose(loss.derivatives(z, t)[1][output], (high - low) / (2 * STEP), atol=1e-8)


@pytest.mark.parametrize("loss", LOSSES, ids=name)
def test_directional_derivatives_are_finite_differences_and_their_transposes(loss):
    (z, t), rng = margins_and_targets(loss), np.random.default_rng(1)
    dz, dg, dh = (rng.normal(size=z.shape) for _ in range(3))
    (high_g, high_h), (low_g, low_h) = (loss.derivatives(z + sign * STEP * dz, t) for sign in (1, -1))
    moved_g, moved_h = loss.derivatives_jvp(z, t, dz)
    moved_h = np.zeros_like(z) if moved_h is None else moved_h
    np.testing.assert_allclose(moved_g, (high_g - low_g) / (2 * STEP), atol=1e-8)
    np.testing.assert_allclose(moved_h, (high_h - low_h) / (2 * STEP), atol=1e-8)
    transposed = (loss.derivatives_vjp(z, t, dg, dh) * dz).sum()
    assert transposed == pytest.approx((moved_g * dg + moved_h * dh).sum())


@pytest.mark.parametrize(
    "loss",
    [loss for loss in LOSSES if not isinstance(loss, NO_LINK)],
    ids=name,
)
def test_the_link_of_the_mean_is_the_best_constant(loss):
    _, t = margins_and_targets(loss)
    mean = t.mean(axis=1)
    constant = np.repeat(loss.link(mean)[:, None], t.shape[1], axis=1)
    np.testing.assert_allclose(loss.derivatives(constant, t)[0].sum(axis=1), 0.0, atol=1e-10)
    slope = (loss.link(mean + STEP) - loss.link(mean - STEP)) / (2 * STEP)
    np.testing.assert_allclose(loss.link_slope(mean), slope, rtol=1e-6)


def test_soft_labels_are_shares():
    with pytest.raises(ValueError, match=r"expected labels in \[0, 1\].*got numbers from 0 to 2"):
        SoftLabels().encode(np.array([0.0, 0.5, 2.0]))
