"""No damping is added where the net is at a well-conditioned minimum of its objective."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
import torch.nn.functional as F  # noqa: E402, N812
from torch import Tensor, nn  # noqa: E402

import upweight as uw  # noqa: E402
from upweight.curvature.smallest_eigenvalue import is_bounded_below  # noqa: E402

N, WIDTH, L2 = 60, 4, 1e-2
RECIPES = [uw.GaussNewton(), uw.Hessian()]


def table() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((N + 5, WIDTH))
    return x, x @ rng.standard_normal(WIDTH) + rng.standard_normal(N + 5)


def ridge(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.linalg.solve(2 * x.T @ x + len(x) * L2 * np.eye(WIDTH), 2 * x.T @ y)


def squared_error(net: nn.Module, batch: Any) -> Tensor:
    return (net(batch.x)[:, 0] - batch.y) ** 2


def linear(weights: np.ndarray) -> uw.TorchModel:
    net = nn.Linear(WIDTH, 1, bias=False).double()
    net.weight.data = torch.tensor(weights[None])
    return uw.TorchModel(net, squared_error, objective=uw.Objective("mean", l2=L2))


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_effects_at_the_optimum_of_least_squares_are_those_of_real_refits(recipe: Any) -> None:
    x, y = table()
    train, queries = uw.Examples(x[:N], y[:N]), uw.Examples(x[N:], y[N:], ids=list("abcde"))
    scores = uw.Influence(curvature=recipe).fit(linear(ridge(x[:N], y[:N])), train).attribute(queries)
    losses = np.array([(x[N:] @ ridge(np.delete(x[:N], i, 0), np.delete(y[:N], i)) - y[N:]) ** 2 for i in range(N)]).T
    truth = losses - ((x[N:] @ ridge(x[:N], y[:N]) - y[N:]) ** 2)[:, None]
    assert scores.unit == uw.Unit.EFFECT
    assert scores.diagnostics["damping"] == 0.0
    assert "at an optimum" in scores.diagnostics["damping_from"]
    assert (scores.values * truth).sum() / (scores.values**2).sum() == pytest.approx(1, abs=0.05)
    assert scores.diagnostics["correction"] == "leverage"


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_a_net_that_is_not_at_its_optimum_keeps_its_damping(recipe: Any) -> None:
    x, y = table()
    model = linear(ridge(x[:N], y[:N]) + 0.1)
    diagnostics = model.curvature(uw.Examples(x[:N], y[:N]), recipe, None).diagnostics
    assert diagnostics["damping"] > 0
    assert "mean eigenvalue" in diagnostics["damping_from"]


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_a_singular_hessian_keeps_its_damping(recipe: Any) -> None:
    x, y = table()
    x[:, 3] = x[:, 2]
    weights = np.linalg.lstsq(x[:N], y[:N], rcond=None)[0]
    net = nn.Linear(WIDTH, 1, bias=False).double()
    net.weight.data = torch.tensor(weights[None])
    curvature = uw.TorchModel(net, squared_error).curvature(uw.Examples(x[:N], y[:N]), recipe, None)
    assert curvature.diagnostics["damping"] > 0


@pytest.mark.parametrize("weighted", [False, True])
def test_the_optimum_of_a_net_with_two_layers_is_found(weighted: bool) -> None:
    """Trained by L-BFGS to its optimum; the exact Hessian decides, also for the Gauss–Newton matrix."""
    x, _ = table()
    y = (x[:, 0] + 0.5 * np.random.default_rng(1).standard_normal(len(x)) > 0).astype(int)
    weights = np.random.default_rng(2).integers(0, 3, N).astype(float) if weighted else np.ones(N)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(WIDTH, 2), nn.Tanh(), nn.Linear(2, 2)).double()
    inputs, labels, tensor_weights = torch.tensor(x[:N]), torch.tensor(y[:N]), torch.tensor(weights)
    optimiser = torch.optim.LBFGS(net.parameters(), max_iter=2000, tolerance_grad=1e-9, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        losses = F.cross_entropy(net(inputs), labels, reduction="none") * tensor_weights
        loss = losses.sum() / tensor_weights.sum() + 0.05 / 2 * sum((p**2).sum() for p in net.parameters())
        loss.backward()
        return loss

    optimiser.step(closure)
    model = uw.TorchModel(
        net,
        lambda net, batch: F.cross_entropy(net(batch.x), batch.y, reduction="none"),
        objective=uw.Objective("mean", l2=0.05),
    )
    train = uw.Examples(x[:N], y[:N], weights=weights)
    for recipe in RECIPES:
        assert model.curvature(train, recipe, None).diagnostics["damping"] == pytest.approx(0.0, abs=1e-12)


@pytest.mark.sweep(3)
@pytest.mark.parametrize("recipe", [*RECIPES, uw.KFAC(), uw.EKFAC()], ids=str)
@pytest.mark.parametrize("loss", ["absolute", "pinball", "hinge", "insensitive"])
def test_a_loss_that_is_linear_in_the_outputs_has_no_curvature_of_its_own_to_invert(recipe: Any, loss: str) -> None:
    """With an l2 alone, influences were a thousandth to a thirtieth of the effects, in EFFECT."""

    def losses(net: nn.Module, batch: Any) -> Tensor:
        z = net(batch.x)[:, 0]
        return {
            "absolute": (z - batch.y).abs(),
            "pinball": torch.maximum(0.3 * (batch.y - z), 0.7 * (z - batch.y)),
            "hinge": F.relu(1 - batch.y.sign() * z),
            "insensitive": F.relu((z - batch.y).abs() - 0.1),
        }[loss]

    x, y = table()
    net = nn.Linear(WIDTH, 1).double()
    model, train = uw.TorchModel(net, losses, objective=uw.Objective("mean", l2=L2)), uw.Examples(x[:N], y[:N])
    with pytest.raises(ValueError, match=r"linear in the outputs.*would not know the data; use curvature=Empirical"):
        uw.Influence(curvature=recipe).fit(model, train)
    damped = uw.Influence(curvature=recipe, damping=0.1).fit(model, train).attribute(train.take([0, 1]))
    assert damped.unit == uw.Unit.RANK


@pytest.mark.parametrize("recipe", [None, *RECIPES], ids=str)
def test_a_net_far_from_its_optimum_has_ranks_although_its_l2_needs_no_damping(recipe: Any) -> None:
    """Slopes against training to the end were .1 to 1.6, in EFFECT."""
    x, y = table()
    torch.manual_seed(0)
    model = uw.TorchModel(nn.Linear(WIDTH, 1).double(), squared_error, objective=uw.Objective("mean", l2=30.0))
    scores = uw.Influence(curvature=recipe).fit(model, uw.Examples(x[:N], y[:N])).attribute(uw.Examples(x[N:], y[N:]))
    assert scores.diagnostics["damping"] == 0.0
    assert scores.unit == uw.Unit.RANK
    assert any("not at the optimum" in warning for warning in scores.diagnostics["warnings"])


@pytest.mark.parametrize(("l2", "is_at_optimum"), [(0.1, True), (1e-5, False)])
@pytest.mark.parametrize("precision", [torch.float64, torch.float32], ids=str)
def test_the_hessian_of_a_larger_net_is_bounded_by_lanczos(l2: float, is_at_optimum: bool, precision: Any) -> None:
    """Least squares in 3,200 parameters; with the small l2 the condition number is beyond what the products bound."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((40, 50)), rng.standard_normal((40, 64))
    weights = np.linalg.solve(2 * x.T @ x / 40 + l2 * np.eye(50), 2 * x.T @ y / 40)
    net = nn.Linear(50, 64, bias=False).to(precision)
    net.weight.data = torch.tensor(weights.T).to(precision)
    model = uw.TorchModel(
        net, lambda net, batch: ((net(batch.x) - batch.y) ** 2).sum(1), objective=uw.Objective("mean", l2=l2)
    )
    number = str(precision).removeprefix("torch.")
    train = uw.Examples(x.astype(number), y.astype(number))
    fitted = uw.Influence(curvature=uw.Hessian()).fit(model, train)
    assert (fitted.diagnostics["damping"] == 0.0) == is_at_optimum
    assert (fitted.unit == uw.Unit.EFFECT) == is_at_optimum
    notes = [warning for warning in fitted.diagnostics["warnings"] if "first order" in warning]
    assert len(notes) == is_at_optimum  # 40 examples have a mean leverage of .6


@pytest.mark.parametrize("lowest", [-1e-3, 1e-9, 1e-3])
def test_a_lowest_eigenvalue_that_is_not_large_enough_is_found(lowest: float) -> None:
    """In a diagonal matrix of which all other eigenvalues lie between 1 and 2."""

    class Diagonal:
        def __init__(self) -> None:
            self.network, self.size = linear(np.ones(WIDTH)).network, WIDTH
            self.values = torch.tensor([1.0, 2.0, lowest, 1.5], dtype=torch.float64)

        def product(self, blocks: Any) -> dict[str, Tensor]:
            return {name: block * self.values for name, block in blocks.items()}

    assert is_bounded_below(Diagonal(), 0.0, 1e6) == (lowest > 1e-4)  # type: ignore[arg-type]
    assert is_bounded_below(Diagonal(), 0.1, 1e6)  # type: ignore[arg-type]


@pytest.mark.parametrize("recipe", [None, uw.Hessian(), uw.GaussNewton()], ids=str)
def test_at_the_optimum_of_a_net_that_is_not_linear_the_hessian_gives_effects(recipe: Any) -> None:
    """The Gauss–Newton matrix leaves out the curvature of the net itself: slopes were .6 in EFFECT."""
    x, y = table()
    l2 = 0.1
    inputs, targets = torch.tensor(x), torch.tensor(y)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(WIDTH, 3), nn.Tanh(), nn.Linear(3, 1)).double()

    def trained(net: nn.Module, weights: np.ndarray) -> nn.Module:
        optimiser = torch.optim.LBFGS(
            net.parameters(), max_iter=500, tolerance_grad=1e-12, tolerance_change=1e-18, line_search_fn="strong_wolfe"
        )

        def closure() -> Tensor:
            optimiser.zero_grad()
            losses = (net(inputs[:N])[:, 0] - targets[:N]) ** 2
            loss = (losses * torch.tensor(weights)).sum() / N + l2 / 2 * sum((p**2).sum() for p in net.parameters())
            loss.backward()
            return loss

        optimiser.step(closure)
        return net

    trained(net, np.ones(N))
    model = uw.TorchModel(net, squared_error, lambda net, b: net(b.x)[:, 0], objective=uw.Objective("fixed", l2=l2))
    scores = (
        uw.Influence(curvature=recipe, correction=None)
        .fit(model, uw.Examples(x[:N], y[:N]))
        .attribute(uw.Examples(x[N:]))
    )
    assert scores.diagnostics["damping"] == 0.0
    if isinstance(recipe, uw.GaussNewton):
        assert scores.unit == uw.Unit.RANK
        assert any("curvature=Hessian() gives effects" in warning for warning in scores.diagnostics["warnings"])
        return
    rows, step = range(0, N, 6), 0.01
    before = net(inputs[N:])[:, 0].detach()
    nets = [trained(copy.deepcopy(net), 1.0 - step * (np.arange(N) == i)) for i in rows]
    derivative = np.array([(before - other(inputs[N:])[:, 0].detach()).numpy() / step for other in nets]).T
    assert scores.unit == uw.Unit.EFFECT
    assert "exact Hessian" in scores.diagnostics["curvature"]
    np.testing.assert_allclose(scores.values[:, rows], derivative, atol=0.05 * np.abs(derivative).max())
