"""The default curvature: chosen by counted flops, said in the diagnostics, kept with the fit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
import torch.nn.functional as F  # noqa: E402, N812
from torch import nn  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

import upweight as uw  # noqa: E402
from support.curved_nets import fit  # noqa: E402
from upweight.curvature import budget as budget_file  # noqa: E402
from upweight.curvature.price import Prices  # noqa: E402

N = 40


def task(kind: str) -> tuple[Any, uw.Examples, uw.Examples]:
    """A model of this kind with training examples and queries."""
    torch.manual_seed(0)
    nets = {
        "linear": lambda: nn.Sequential(nn.Linear(20, 4)),
        "wide linear": lambda: nn.Sequential(nn.Linear(800, 4)),
        "small": lambda: nn.Sequential(nn.Linear(20, 16), nn.ReLU(), nn.Linear(16, 4)),
        "wide": lambda: nn.Sequential(nn.Linear(20, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 4)),
        "pictures": lambda: nn.Sequential(
            nn.Conv2d(1, 24, 3, padding=1), nn.ReLU(), nn.Conv2d(24, 24, 3, 2), nn.ReLU(), nn.Flatten(),
            nn.Linear(24 * 9, 4),
        ),
    }  # fmt: skip
    size = {"pictures": (1, 8, 8), "wide linear": (800,)}.get(kind, (20,))
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(N + 3, *size)).astype(np.float32), rng.integers(0, 4, N + 3)
    model = uw.TorchModel(nets[kind](), lambda net, batch: F.cross_entropy(net(batch.x), batch.y, reduction="none"))
    return model, uw.Examples(x[:N], y[:N]), uw.Examples(x[N:], y[N:], ids=["a", "b", "c"])


@pytest.mark.sweep(3)
@pytest.mark.parametrize(
    ("kind", "curvature", "why"),
    [
        ("linear", "Gauss–Newton", "convex"),
        ("wide linear", "Gauss–Newton", "convex"),
        ("small", "Gauss–Newton", "passes"),
        ("wide", "EK-FAC", "passes"),
        ("pictures", "EK-FAC", "passes"),
    ],
)
def test_the_default_is_exact_if_the_net_is_small_or_linear_and_says_why(kind: str, curvature: str, why: str) -> None:
    model, train, queries = task(kind)
    scores = uw.Influence().fit(model, train).attribute(queries)
    assert curvature in scores.diagnostics["curvature"]
    assert why in scores.diagnostics["curvature_choice"]
    named = uw.Influence(curvature=uw.EKFAC()).fit(model, train).attribute(queries)
    assert "curvature_choice" not in named.diagnostics
    if curvature == "EK-FAC":
        np.testing.assert_array_equal(scores.values, named.values)


def test_a_smaller_budget_takes_a_cheaper_curvature(monkeypatch: pytest.MonkeyPatch) -> None:
    model, train, _ = task("pictures")
    monkeypatch.setattr(budget_file, "SMALL_FLOPS", 0.0)
    summed = fit(model, train, uw.EKFAC(), 0.1).summed
    prices = Prices.of(summed)
    costs = {type(recipe).__name__: prices.flops(recipe) / prices.one_pass for recipe in budget_file.CANDIDATES[1:]}
    assert costs["Diagonal"] < costs["KFAC"] < costs["EKFAC"]
    for name in ("EKFAC", "KFAC", "Diagonal"):
        chosen = fit(model, train, uw.WithinBudget(passes=1.01 * costs[name]), 0.1)
        assert chosen.diagnostics["curvature_choice"].startswith(f"{name}()")
        assert ("would take" in chosen.diagnostics["curvature_choice"]) == (name != "EKFAC")
    cheapest = fit(model, train, uw.WithinBudget(passes=1e-3), 0.1)
    assert "exceeds" in cheapest.diagnostics["curvature_choice"] and "diagonal" in cheapest.diagnostics["curvature"]


@pytest.mark.parametrize("kind", ["wide", "pictures"])
def test_counted_flops_are_those_that_torch_counts(kind: str) -> None:
    model, train, _ = task(kind)
    summed = fit(model, train, uw.EKFAC(), 0.1).summed
    prices = Prices.of(summed)
    net, x, y = model.network.net, torch.as_tensor(train.x), torch.as_tensor(train.y)
    with FlopCounterMode(display=False) as counter:
        F.cross_entropy(net(x.requires_grad_(True)), y, reduction="sum").backward()
    assert prices.one_pass == pytest.approx(counter.get_total_flops(), rel=0.25)
    net.zero_grad()
    eigendecompositions = sum(20.0 * (layer.inputs**3 + layer.outputs**3) for layer in prices.layers)
    for recipe in (uw.KFAC(), uw.EKFAC()):
        with FlopCounterMode(display=False) as counter:
            fit(model, train, recipe, 0.1)
        expected = prices.flops(recipe) - eigendecompositions
        assert expected == pytest.approx(counter.get_total_flops(), rel=0.35)


def test_the_choice_is_kept_with_the_fit(tmp_path: Any) -> None:
    model, train, queries = task("wide")
    fitted = uw.Influence().fit(model, train)
    fitted.save(tmp_path / "fit.npz")
    loaded = uw.Influence().load(tmp_path / "fit.npz", task("wide")[0], train)
    first, second = fitted.attribute(queries), loaded.attribute(queries)
    np.testing.assert_array_equal(first.values, second.values)
    assert first.diagnostics["curvature_choice"] == second.diagnostics["curvature_choice"]


@pytest.mark.parametrize("passes", [0.0, -1.0, float("nan")])
def test_a_budget_of_nothing_is_refused(passes: float) -> None:
    with pytest.raises(ValueError, match="more than 0 passes"):
        uw.WithinBudget(passes=passes)


@pytest.mark.parametrize("l2", [0.0, 1e-2])
def test_a_loss_that_is_linear_in_the_outputs_has_another_default_whatever_the_l2(l2: float) -> None:
    model, train, queries = task("small")
    absolute = uw.TorchModel(
        model.network.net, lambda net, batch: (net(batch.x)[:, 0] - batch.y).abs(), objective=uw.Objective("mean", l2)
    )
    scores = uw.Influence().fit(absolute, train).attribute(queries)
    assert "empirical Fisher" in scores.diagnostics["curvature"]
    assert "the loss has no curvature" in scores.diagnostics["curvature_choice"]


def test_a_loss_that_torch_differentiates_only_once_has_a_default() -> None:
    model, train, queries = task("small")
    hinge = uw.TorchModel(
        model.network.net, lambda net, batch: F.multi_margin_loss(net(batch.x), batch.y, reduction="none")
    )
    scores = uw.Influence().fit(hinge, train).attribute(queries)
    assert "empirical Fisher" in scores.diagnostics["curvature"]
    assert "only once" in scores.diagnostics["curvature_choice"]
    for curvature in (uw.GaussNewton(), uw.EKFAC()):
        with pytest.raises(TypeError, match=r"only once.*use curvature=EmpiricalFisher\(\)"):
            uw.Influence(curvature=curvature).fit(hinge, train)
