"""The attacks: poisons surround their target within their reach, and spectrograms show the trigger where it sounds."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("PIL")

from experiments.poison import data, flips, polytope  # noqa: E402
from sklearn.linear_model import LogisticRegression  # noqa: E402

import upweight as uw  # noqa: E402


def test_the_projection_onto_the_simplex_is_the_nearest_point() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        values = torch.as_tensor(2 * rng.normal(size=5))
        nearest = polytope.simplex(values)
        assert float(nearest.sum()) == pytest.approx(1) and float(nearest.min()) >= 0
        others = torch.as_tensor(rng.dirichlet(np.ones(5), 200))
        assert float((nearest - values).norm()) <= float((others - values).norm(dim=1).min()) + 1e-9


def test_coefficients_are_the_best_on_the_simplex() -> None:
    rng = np.random.default_rng(0)
    poisons, target = (torch.as_tensor(part) for part in (rng.normal(size=(4, 6)), rng.normal(size=6)))
    c = polytope.coefficients(poisons, target, torch.full((4,), 0.25).double())
    distance = float((c @ poisons - target).norm())
    others = torch.as_tensor(rng.dirichlet(np.ones(4), 2000))
    assert distance <= float((others @ poisons - target).norm(dim=1).min()) + 1e-4


def test_poisons_stay_within_their_reach_and_come_nearer_to_the_target() -> None:
    torch.manual_seed(0)
    features = torch.nn.Linear(20, 8)
    bases, target = torch.rand(3, 20), torch.rand(20)
    poisons, left = polytope.craft(features, bases, target, 60)
    assert float((poisons - bases).abs().max()) <= polytope.REACH + 1e-6
    assert float(poisons.min()) >= 0 and float(poisons.max()) <= 1
    with torch.no_grad():
        goal = features(target)
        before = float((features(bases) - goal).norm(dim=1).min() / goal.norm())
    assert left < before


def test_a_tone_is_in_its_row_and_time_of_the_spectrogram() -> None:
    seconds = np.arange(2000) / data.RATE
    image = data.spectrogram(np.sin(2 * np.pi * 1000 * seconds).astype(np.float32))
    assert image.shape == (1, 64, data.FRAMES)
    row = image[0, :, :10].mean(axis=1).argmax()
    assert abs((row + 0.75) * 62.5 - 1000) <= 62.5
    assert image[0, :, 20:].max() == 0


def test_effects_of_removal_are_changes_of_the_log_odds_by_refits() -> None:
    rng = np.random.default_rng(0)
    x, target = rng.normal(size=(60, 3)), rng.normal(size=(1, 3))
    y = (x @ [1.0, -1.0, 0.5] + rng.normal(size=60) > 0).astype(int)
    poisons = np.array([3, 11, 40])

    def fitted(rows: np.ndarray) -> LogisticRegression:
        return LogisticRegression(C=10.0, tol=1e-10, max_iter=1000).fit(x[rows], y[rows])

    train = uw.Examples(x, y)
    model = uw.explainable(fitted(np.arange(60)), train)
    effects = flips.effects_of_removal(model, train, poisons, uw.Examples(target, [flips.HAM]))
    odds_of_ham = [-fitted(np.delete(np.arange(60), i)).decision_function(target)[0] for i in poisons]
    expected = -model.predictor.decision_function(target)[0] - np.array(odds_of_ham)
    np.testing.assert_allclose(effects, expected, rtol=1e-4)
