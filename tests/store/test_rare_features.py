"""What the approximated inverse of a store adds to scores, for examples with a feature that no other example has."""

from __future__ import annotations

import numpy as np
import pytest

import upweight as uw

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402, N812

from upweight.testing.networks import cross_entropy  # noqa: E402

COMMON, RARE, CLASSES, EXAMPLES = 40, 20, 3, 600


def task():
    """(model, training set, queries that are copies of it: first those with a feature of their own, positions)."""
    generator = np.random.default_rng(0)
    x = np.zeros((EXAMPLES, COMMON + RARE), np.float32)
    x[:, :COMMON] = generator.normal(size=(EXAMPLES, COMMON))
    y = (x[:, :COMMON] @ generator.normal(size=(COMMON, CLASSES))).argmax(1)
    rare = generator.choice(EXAMPLES, RARE, replace=False)
    x[rare], y[rare] = 0, generator.integers(0, CLASSES, RARE)
    x[rare, COMMON + np.arange(RARE)] = 1
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(COMMON + RARE, 32), nn.ReLU(), nn.Linear(32, CLASSES))
    optimiser = torch.optim.Adam(net.parameters(), 0.01)
    for _ in range(40):
        optimiser.zero_grad()
        F.cross_entropy(net(torch.tensor(x)), torch.tensor(y)).backward()
        optimiser.step()
    positions = np.append(rare, np.arange(20))
    queries = uw.Examples(x[positions], y[positions], ids=[f"q{i}" for i in range(len(positions))])
    return uw.TorchModel(net, cross_entropy), uw.Examples(x, y), queries, positions


@pytest.mark.parametrize("curvature", [uw.KFAC(), uw.EKFAC()], ids=["KFAC", "EK-FAC"])
@pytest.mark.parametrize("precision", ["float16", "int8", "int4", "int3"])
def test_of_every_query_the_inverse_changes_scores_less_than_the_rounding_of_rows(precision, curvature, tmp_path):
    model, train, queries, positions = task()
    recipe, encoding = uw.Influence(curvature=curvature), uw.LowRank(precision=precision)
    fitted = recipe.fit(model, train, store=uw.Store(tmp_path, encoding))
    values = fitted.attribute(queries).values
    rows, asked = fitted.model.loss_rows(train).dense(), fitted.model.measure_rows(queries).dense()
    exact = -asked / fitted.curvature.matvec(np.ones(asked.shape[1])) @ rows.T  # of the same rounded rows
    unrounded = recipe.fit(model, train).attribute(queries).values
    of_inverse, of_rounding = np.abs(values - exact), np.abs(exact - unrounded)
    assert (np.linalg.norm(of_inverse, axis=1) <= 0.8 * np.linalg.norm(of_rounding, axis=1)).all()
    own = np.arange(len(positions)), positions
    np.testing.assert_allclose(values[own], exact[own], rtol=0.05)  # the scores of copies, which are the largest
    assert (values.argmax(axis=1) == positions)[:RARE].all()


@pytest.mark.parametrize("damping", [1e-4, 1e-6, 1e-8])
@pytest.mark.parametrize("curvature", [uw.KFAC(), uw.EKFAC()], ids=["KFAC", "EK-FAC"])
@pytest.mark.parametrize("precision", ["float16", "int8", "int4"])
def test_the_less_damping_the_inverse_still_adds_no_more_than_rounding(precision, curvature, damping, tmp_path):
    model, train, queries, _ = task()
    recipe, encoding = uw.Influence(curvature=curvature, damping=damping), uw.LowRank(precision=precision)
    fitted = recipe.fit(model, train, store=uw.Store(tmp_path, encoding))
    values = fitted.attribute(queries).values
    rows, asked = fitted.model.loss_rows(train).dense(), fitted.model.measure_rows(queries).dense()
    exact = -asked / fitted.curvature.matvec(np.ones(asked.shape[1])) @ rows.T  # of the same rounded rows
    unrounded = recipe.fit(model, train).attribute(queries).values
    of_inverse, of_rounding = (np.linalg.norm(d, axis=1) for d in (values - exact, exact - unrounded))
    assert (of_inverse <= 1.2 * of_rounding).all()


@pytest.mark.parametrize("damping", [0.0, 1e200])
def test_an_inverse_that_single_precision_does_not_hold_is_refused_in_a_sentence(damping, tmp_path):
    model, train, queries, _ = task()
    train = train.replaced(x=train.x * (np.arange(COMMON + RARE) > 0).astype(np.float32))  # an input that is always 0
    for encoding in (uw.LowRank(precision="float32"), uw.Coordinates()):
        fitted = uw.Influence(curvature=uw.KFAC(), damping=damping).fit(
            model, train, store=uw.Store(tmp_path / encoding.precision, encoding)
        )
        with pytest.raises(ValueError, match=r"got .* in the block of '.*weight', damping included; give another"):
            fitted.attribute(queries)


def test_a_damping_that_rounding_of_gradients_exceeds_is_marked(tmp_path):
    model, train, queries, _ = task()
    for damping, is_marked in ((1e-3, False), (1e-22, True)):
        fitted = uw.Influence(curvature=uw.KFAC(), damping=damping).fit(model, train, store=uw.Store(tmp_path))
        warnings = fitted.attribute(queries).diagnostics["warnings"]
        assert any("what single precision resolves" in text for text in warnings) == is_marked
