"""EK-FAC's eigenvalues from a part of the examples: which ones, against dense gradients, and the laws of weights."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
import torch.nn.functional as F  # noqa: E402, N812
from torch import Tensor, nn  # noqa: E402

import upweight as uw  # noqa: E402
from support.curved_nets import fit  # noqa: E402
from upweight.curvature.eigenvalue_sample import eigenvalue_count, eigenvalue_sample  # noqa: E402
from upweight.curvature.ekfac import FittedEKFAC, second_moments  # noqa: E402
from upweight.curvature.kfac import factor_sums  # noqa: E402
from upweight.curvature.label_expectation import hessian_norms  # noqa: E402
from upweight.curvature.limits import Limits  # noqa: E402
from upweight.curvature.summed_objective import SummedObjective  # noqa: E402

N, MOST, DAMPING = 24, 7, 0.05


def losses(net: nn.Module, batch: Any) -> Tensor:
    return F.cross_entropy(net(batch.x), batch.y, reduction="none")


def problem(rows: Any = None, weights: Any = None) -> tuple[Any, uw.Examples]:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(N, 5)), rng.integers(0, 3, N)
    rows = np.arange(N) if rows is None else np.asarray(rows)
    return uw.TorchModel(net, losses), uw.Examples(x[rows], y[rows], weights=weights)


def fitted(most: int | None, rows: Any = None, weights: Any = None) -> FittedEKFAC:
    curvature = fit(*problem(rows, weights), uw.EKFAC(eigenvalue_examples=most), DAMPING)
    assert isinstance(curvature, FittedEKFAC)
    return curvature


def products(curvature: FittedEKFAC) -> np.ndarray:
    vectors = np.random.default_rng(1).normal(size=(3, curvature.summed.network.size))
    return np.asarray(curvature.matvec(vectors))


def test_eigenvalues_are_the_moments_of_the_chosen_examples_in_the_eigenbasis_of_all() -> None:
    part, whole = fitted(MOST), fitted(None)
    chosen, weights = eigenvalue_sample(whole.summed, MOST)
    assert len(chosen) == MOST
    net = part.summed.network.net
    for name, layer in part.layers.items():
        torch.testing.assert_close(layer.left, whole.layers[name].left)
        torch.testing.assert_close(layer.right, whole.layers[name].right)
        expected = torch.zeros_like(layer.values)
        for x, weight_of_x in zip(torch.as_tensor(chosen.x), weights, strict=True):
            outputs = net(x)
            chances = outputs.softmax(0).detach()
            for label, chance in enumerate(chances):  # E over labels of the squared gradient, by autograd
                parameters = [net.get_parameter(layer.weight), net.get_parameter(str(layer.bias))]
                weight, bias = torch.autograd.grad(
                    F.cross_entropy(outputs[None], torch.tensor([label])), parameters, retain_graph=True
                )
                joint = torch.cat([weight, bias[:, None]], dim=1)
                expected += chance * layer.rotate(joint[None])[0].square() * weight_of_x
        torch.testing.assert_close(layer.values, expected)


def test_weight_k_is_k_copies_weight_0_is_absent_and_order_does_not_count() -> None:
    counts = np.random.default_rng(2).integers(0, 4, N)
    weighted = products(fitted(MOST, weights=counts.astype(float)))
    copies = np.repeat(np.arange(N), counts)
    for rows in (copies, np.random.default_rng(3).permutation(copies)):
        np.testing.assert_allclose(products(fitted(MOST, rows)), weighted, atol=1e-9 * np.abs(weighted).max())
    assert np.abs(products(fitted(None, copies)) - weighted).max() > 1e-3 * np.abs(weighted).max()


def test_copies_are_chosen_together_and_counted_one_by_one() -> None:
    summed = fitted(None).summed
    alone, _ = eigenvalue_sample(summed, 3)
    threefold = replace(summed, weights=np.where(np.isin(summed.train.ids, alone.ids), 3.0, 1.0))
    chosen, weights = eigenvalue_sample(threefold, 3)
    assert len(chosen) == 1 and chosen.ids[0] in alone.ids
    assert weights @ dense_norms(summed)[chosen.ids] == pytest.approx(threefold.weights @ dense_norms(summed), rel=0.02)


def dense_norms(summed: SummedObjective) -> np.ndarray:
    """‖∇² loss‖ in the outputs of every example, by torch.func on one example after the other."""
    net, x, y = summed.network.net, torch.as_tensor(summed.train.x), torch.as_tensor(np.asarray(summed.train.y))
    return np.array(
        [
            torch.func.hessian(lambda z, label=label: F.cross_entropy(z[None], label[None]))(net(row[None])[0])
            .norm()
            .item()
            for row, label in zip(x, y, strict=True)
        ]
    )


@pytest.mark.parametrize("limits", [{}, {"exact_numbers": 0}, {"exact_outputs": 1}], ids=["all", "grouped", "drawn"])
def test_the_curvature_of_an_example_is_the_norm_of_its_output_hessian(limits: dict[str, int]) -> None:
    summed = replace(fitted(None).summed, limits=Limits(**limits))
    for norms in (hessian_norms(summed), factor_sums(summed, summed.weighted).hessian_norms):
        if "exact_outputs" in limits:
            assert norms is None
        else:
            np.testing.assert_allclose(norms, dense_norms(summed), rtol=1e-12)


def test_the_fit_takes_the_norms_from_the_pass_of_the_factors(monkeypatch: Any) -> None:
    monkeypatch.setattr("upweight.curvature.eigenvalue_sample.hessian_norms", None)  # a forward pass of their own
    part = fitted(MOST)
    monkeypatch.undo()
    chosen, weights = eigenvalue_sample(part.summed, MOST)
    moments = second_moments(part.summed, part.layers, part.unfactored, (chosen, weights))
    for name, layer in part.layers.items():
        torch.testing.assert_close(layer.values, moments[name])


def test_sums_over_the_sample_are_those_of_all_on_average_and_nearer_than_with_equal_chances(monkeypatch: Any) -> None:
    model, train = problem()
    with torch.no_grad():  # a net that is sure of most examples
        model.network.net[2].weight *= 12
    summed = SummedObjective.of(model.network, train, np.arange(1.0, N + 1) / N, 0.0)
    curvatures, spread = dense_norms(summed), np.random.default_rng(4).uniform(0.5, 1.5, N)
    values = np.stack([curvatures * spread, curvatures**0.5 * spread], axis=1)
    whole, errors = summed.weights @ values, []
    for norms in (hessian_norms(summed), np.ones(N)):
        monkeypatch.setattr("upweight.curvature.eigenvalue_sample.hessian_norms", lambda _, norms=norms: norms)
        sums = []
        for seed in range(400):
            monkeypatch.setattr("upweight.curvature.eigenvalue_sample.SEED", seed)
            chosen, weights = eigenvalue_sample(summed, MOST)
            sums.append(weights @ values[chosen.ids] / whole)
        errors.append(np.std(sums, axis=0))
        np.testing.assert_allclose(np.mean(sums, axis=0), 1.0, atol=0.05)
    assert errors[0][0] < 0.3 * errors[1][0]


def test_examples_without_curvature_are_left_out_and_the_others_are_counted_once(monkeypatch: Any) -> None:
    summed = fitted(None).summed
    norms = np.where(np.arange(N) % 6 == 1, 0.5, 0.0)
    monkeypatch.setattr("upweight.curvature.eigenvalue_sample.hessian_norms", lambda _: norms)
    chosen, weights = eigenvalue_sample(summed, MOST)
    np.testing.assert_array_equal(chosen.ids, np.flatnonzero(norms))
    np.testing.assert_allclose(weights, 1.0)
    norms = np.zeros(N)
    assert len(eigenvalue_sample(summed, MOST)[0]) == N


def test_as_many_as_there_are_is_all_of_them() -> None:
    np.testing.assert_array_equal(products(fitted(N)), products(fitted(None)))
    assert "eigenvalues_from" not in fitted(N).diagnostics


def test_where_directions_are_grouped_a_quarter_of_the_examples_is_the_default() -> None:
    counts = np.random.default_rng(2).integers(0, 4, N).astype(float)
    summed = replace(fitted(None, weights=counts).summed, limits=Limits(exact_numbers=0, eigenvalue_examples=4))
    total = int(counts.sum())
    assert eigenvalue_count(summed) == -(-total // 4) > 4
    assert eigenvalue_count(replace(summed, limits=Limits(exact_numbers=0))) == 100
    assert eigenvalue_count(replace(summed, limits=Limits())) is None  # all directions are taken
    part, whole = FittedEKFAC(summed), FittedEKFAC(summed, eigenvalue_examples=total)
    chosen, _ = eigenvalue_sample(summed, -(-total // 4))
    assert part.diagnostics["eigenvalues_from"] == f"{len(chosen)} of {len(summed.train)} examples"
    assert "eigenvalues_from" not in whole.diagnostics
    same = FittedEKFAC(summed, eigenvalue_examples=-(-total // 4))
    np.testing.assert_array_equal(products(part), products(same))
    assert np.abs(products(whole) - products(part)).max() > 1e-3 * np.abs(products(whole)).max()


GROUPED: dict[str, Any] = {"exact_numbers": 0, "eigenvalue_examples": 4}  # a quarter of more than 16 examples


def by_default(rows: Any, weights: Any = None) -> FittedEKFAC:
    """EKFAC() of a convolutional net; the Hessian of its three outputs has two directions, each alone in its group."""
    torch.manual_seed(0)
    layers = nn.Conv2d(2, 3, 2), nn.GELU(), nn.Conv2d(3, 3, 2, groups=3), nn.Flatten(), nn.Linear(12, 3)
    net = nn.Sequential(*layers).double()
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(N, 2, 4, 4)), rng.integers(0, 3, N)
    train = uw.Examples(x[rows], y[rows], weights=weights)
    curvature = fit(uw.TorchModel(net, losses), train, uw.EKFAC(), DAMPING, **GROUPED)
    assert isinstance(curvature, FittedEKFAC) and curvature.expectation == "sampled, 2 draws"
    return curvature


def test_the_default_of_a_convolutional_net_is_the_moments_of_its_quarter_by_autograd() -> None:
    curvature = by_default(np.arange(N))
    net, (chosen, weights) = curvature.summed.network.net, eigenvalue_sample(curvature.summed, N // 4)
    assert curvature.diagnostics["eigenvalues_from"] == f"{N // 4} of {N} examples" and len(chosen) == N // 4
    for name, bias in (("0.weight", "0.bias"), ("4.weight", "4.bias")):
        layer, expected = curvature.layers[name], torch.zeros_like(curvature.layers[name].values)
        for x, weight_of_x in zip(torch.as_tensor(chosen.x), weights, strict=True):
            outputs = net(x[None])
            for label, chance in enumerate(outputs[0].softmax(0).detach()):
                of_weight, of_bias = torch.autograd.grad(
                    F.cross_entropy(outputs, torch.tensor([label])),
                    [net.get_parameter(name), net.get_parameter(bias)],
                    retain_graph=True,
                )
                joint = torch.cat([of_weight.flatten(1), of_bias[:, None]], dim=1)
                expected += weight_of_x * chance * layer.rotate(joint[None])[0].square()
        torch.testing.assert_close(layer.values, expected)


def test_by_default_weight_k_is_k_copies_weight_0_is_absent_and_order_does_not_count() -> None:
    counts = np.random.default_rng(2).integers(0, 4, N)
    weighted, copies = by_default(np.arange(N), counts.astype(float)), np.repeat(np.arange(N), counts)
    assert "eigenvalues_from" in weighted.diagnostics
    expected = products(weighted)
    for rows in (copies, np.random.default_rng(3).permutation(copies)):
        np.testing.assert_allclose(products(by_default(rows)), expected, atol=1e-9 * np.abs(expected).max())


def test_a_fit_with_eigenvalues_of_all_that_was_saved_under_the_same_name_keeps_them(monkeypatch: Any) -> None:
    before = by_default(np.arange(N))
    with monkeypatch.context() as earlier:
        earlier.setattr("upweight.curvature.ekfac.eigenvalue_count", lambda _: None)
        saved = by_default(np.arange(N))
    state = saved.state().part("fitted")
    del state.facts["eigenvalues_from"]  # older still
    restored = FittedEKFAC(before.summed, saved=state)
    np.testing.assert_array_equal(products(restored), products(saved))
    assert "eigenvalues_from" not in restored.diagnostics
    assert np.abs(products(before) - products(saved)).max() > 1e-3 * np.abs(products(saved)).max()


def test_the_sample_is_said_also_by_a_saved_fit(tmp_path: Any) -> None:
    model, train = problem()
    assert fitted(MOST).diagnostics["eigenvalues_from"] == "7 of 24 examples"
    influence = uw.Influence(curvature=uw.EKFAC(eigenvalue_examples=MOST), damping=DAMPING)
    before = influence.fit(model, train)
    before.save(tmp_path / "fit")
    after = influence.load(tmp_path / "fit", model, train)
    scores = [each.attribute(train.take([0, 1])) for each in (before, after)]
    np.testing.assert_array_equal(scores[0].values, scores[1].values)
    assert scores[1].diagnostics["eigenvalues_from"] == "7 of 24 examples"


def test_what_takes_no_part_of_the_examples_says_so(tmp_path: Any) -> None:
    model, train = problem()
    recipe = uw.EKFAC(eigenvalue_examples=MOST)
    with pytest.raises(ValueError, match="eigenvalues from at least one example, got 0"):
        uw.EKFAC(eigenvalue_examples=0)
    with pytest.raises(TypeError, match="a store computes its eigenvalues when it is built"):
        uw.Influence(curvature=recipe).fit(model, train, store=uw.Store(tmp_path / "store"))
    trajectory = uw.Trajectory(tmp_path / "run", every=1)
    optimiser = torch.optim.SGD(model.network.net.parameters(), lr=0.1)
    trajectory.save(model.network.net, optimiser)
    losses(model.network.net, model.network.batch(train)).mean().backward()
    optimiser.step()
    trajectory.record(model.network.net, optimiser)
    trajectory.save(model.network.net, optimiser)
    recorded = uw.TorchModel(model.network.net, losses, trajectory=trajectory)
    with pytest.raises(TypeError, match=r"GaussNewton.. or EKFAC.., which have a matrix exponential"):
        uw.SOURCE(curvature=recipe, segments=1).fit(recorded, train)
