"""The conversions on the page for users of other tools agree with the formulas of those tools, written out here."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch.func import functional_call, grad, hessian, vmap

PAGE = Path(__file__).resolve().parent.parent / "docs" / "coming-from.md"


class Formulas:
    """Dense gradients and the Hessian by plain autograd, the parts of the other tools' formulas."""

    def __init__(self, page: dict[str, Any]) -> None:
        self.net, self.l2 = page["net"], page["l2"]
        self.shapes = {name: p.shape for name, p in self.net.named_parameters()}
        self.theta = torch.cat([p.detach().flatten() for p in self.net.parameters()])
        (self.x, self.y), (self.xq, self.yq) = (
            (torch.as_tensor(e.x), torch.as_tensor(e.y)) for e in (page["train"], page["queries"])
        )
        self.n, self.p = len(self.x), len(self.theta)
        self.neighbours = page["neighbours"]
        self.g, self.gq = (self.gradients(self.loss, *data) for data in ((self.x, self.y), (self.xq, self.yq)))
        self.h = hessian(lambda t: self.loss(t, self.x, self.y))(self.theta).numpy()
        self.ridge = self.l2 * np.eye(self.p)
        self.with_l2 = self.g + self.l2 * self.theta.numpy()  # a training gradient with its share of the regulariser

    def outputs(self, theta: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        parts = torch.split(theta, [shape.numel() for shape in self.shapes.values()])
        named = {name: part.view(shape) for (name, shape), part in zip(self.shapes.items(), parts, strict=True)}
        return functional_call(self.net, named, (x,))

    def loss(self, theta: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(self.outputs(theta, x), y)

    def margin(self, theta: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        p = torch.softmax(self.outputs(theta, x), 1).gather(1, y[:, None]).sum()
        return torch.log(p / (1 - p))

    def gradients(self, quantity: Callable[..., torch.Tensor], x: torch.Tensor, y: torch.Tensor) -> np.ndarray:
        return vmap(lambda a, b: grad(quantity)(self.theta, a[None], b[None]))(x, y).numpy()


def recursion(h: np.ndarray, v: np.ndarray, damp: float, scale: float, depth: int = 60_000) -> np.ndarray:
    """`depth` steps of v + (1 − damp) e − H e / scale from e = v, all at once: the sum of a geometric series."""
    values, vectors = np.linalg.eigh(h)
    rate = 1 - damp - values / scale
    series = (1 - rate**depth) / (1 - rate) + rate**depth
    return (vectors * series) @ vectors.T @ v


def release_cg(f: Formulas) -> np.ndarray:
    return f.gq @ np.linalg.inv(f.h + f.ridge + 0.02 * np.eye(f.p)) @ f.with_l2.T / f.n


def release_lissa(f: Formulas) -> np.ndarray:
    s_test = recursion(f.h + f.ridge, f.gq.T, 0.001, 10.0) / 10.0
    return (f.with_l2 @ s_test).T / f.n


def release_three(f: Formulas) -> np.ndarray:
    return f.gq[:3].mean(0) @ np.linalg.inv(f.h + f.ridge) @ f.with_l2.T / f.n


def darkon(f: Formulas) -> np.ndarray:
    s_test = recursion(f.h + f.ridge, f.gq.T, 0.01, 1e4, 10_000) / 1e4
    return (f.with_l2 / f.n @ s_test).T


def nimarb(f: Formulas) -> np.ndarray:
    s_test = recursion(f.h, f.gq.T, 0.01, 25.0)  # never divided by scale
    return -(f.g @ s_test).T / f.n


def fork_cg(f: Formulas) -> np.ndarray:
    h = f.h + f.ridge
    s_test = np.linalg.solve(h, f.gq.T - 0.1 * f.gq.T)  # H x + damp v = v
    return (f.with_l2 @ s_test).T / f.n


def fork_sample(f: Formulas) -> np.ndarray:
    return (f.with_l2 @ (recursion(f.h + f.ridge, f.gq.T, 0.1, 25.0) / 25.0)).T / f.n


def captum_naive(f: Formulas) -> np.ndarray:
    return f.gq @ np.linalg.inv(f.n * f.h + f.n * f.l2 * np.eye(f.p)) @ f.g.T


def mean_hessian(f: Formulas) -> np.ndarray:
    return f.gq @ np.linalg.inv(f.h + f.ridge) @ f.g.T


def ekfac(f: Formulas) -> np.ndarray:
    """Factors A = E aaᵀ and G = E ssᵀ, labels in expectation; squares of gradients in their eigenbasis."""
    a = torch.cat([f.x, torch.ones(f.n, 1)], 1).numpy()
    p = torch.softmax(f.outputs(f.theta, f.x), 1).numpy()
    classes = p.shape[1]
    s = p[:, None, :] - np.eye(classes)  # (example, label, output): ∂loss/∂output under that label
    _, qa = np.linalg.eigh(a.T @ a / f.n)
    _, qg = np.linalg.eigh(np.einsum("ny,nyc,nyd->cd", p, s, s) / f.n)
    values = np.einsum("ny,nyc,na->ca", p, (s @ qg) ** 2, (a @ qa) ** 2) / f.n

    def rotated(g: np.ndarray) -> np.ndarray:
        weight, bias = g[:, : classes * 64].reshape(-1, classes, 64), g[:, classes * 64 :, None]
        return qg.T @ np.concatenate([weight, bias], 2) @ qa

    left, right = rotated(f.gq) / (values + 1e-3), rotated(f.g)
    return np.einsum("qca,nca->qn", left, right)


def trak(f: Formulas) -> np.ndarray:
    phi, phi_queries = f.gradients(f.margin, f.x, f.y), f.gradients(f.margin, f.xq, f.yq)
    wrong = 1 - torch.softmax(f.outputs(f.theta, f.x), 1)[torch.arange(f.n), f.y].numpy()
    features, query_features = phi / f.p**0.5, phi_queries / f.p**0.5
    inverse = np.linalg.inv(features.T @ features + 0.01 * np.eye(f.p))
    return (query_features @ (inverse / np.abs(inverse).mean()) @ features.T @ np.diag(wrong)).T


def lime(f: Formulas) -> np.ndarray:
    """The ten columns with the largest coefficient in a ridge regression on all (α = .01), and one on these (α = 1)."""
    rows, outputs, weights = f.neighbours.rows, f.neighbours.outputs, f.neighbours.weights
    rows, outputs = rows - np.average(rows, 0, weights), outputs - np.average(outputs, weights=weights)

    def ridge(x: np.ndarray, alpha: float) -> np.ndarray:
        return np.linalg.solve(x.T @ (weights[:, None] * x) + alpha * np.eye(x.shape[1]), x.T @ (weights * outputs))

    largest = np.argsort(-np.abs(ridge(rows, 0.01)), kind="stable")[:10]
    coefficients = ridge(rows[:, largest], 1.0)
    return coefficients[np.argsort(-np.abs(coefficients))]


FORMULAS: dict[str, Callable[[Formulas], np.ndarray]] = {
    "release, cg": release_cg,
    "release, lissa": release_lissa,
    "release, three queries": release_three,
    "darkon": darkon,
    "nimarb": nimarb,
    "fork, s_test_cg": fork_cg,
    "fork, s_test_sample": fork_sample,
    "captum TracInCP": lambda f: 0.1 * f.gq @ f.g.T,
    "captum NaiveInfluenceFunction": captum_naive,
    "kronfluence identity": lambda f: f.gq @ f.g.T,
    "kronfluence EK-FAC": ekfac,
    "pyDVL DirectInfluence": mean_hessian,
    "dattri IFAttributorExplicit": lambda f: mean_hessian(f).T,
    "dattri TracInAttributor": lambda f: f.g @ f.gq.T,
    "TRAK, not projected": trak,
    "lime": lime,
}


@pytest.fixture(scope="module")
def page() -> dict[str, Any]:
    """The variables that the code of the page defines."""
    names: dict[str, Any] = {}
    exec("\n".join(re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)), names)
    return names


@pytest.fixture(scope="module")
def formulas(page: dict[str, Any]) -> Formulas:
    return Formulas(page)


def test_every_conversion_on_the_page_has_a_formula_here(page: dict[str, Any]) -> None:
    assert sorted(page["theirs"]) == sorted(FORMULAS)


@pytest.mark.parametrize("name", FORMULAS)
def test_a_conversion_gives_the_number_of_the_other_tool(name: str, page: dict[str, Any], formulas: Formulas) -> None:
    expected = FORMULAS[name](formulas)
    assert page["theirs"][name].shape == expected.shape
    assert np.abs(page["theirs"][name] - expected).max() < 1e-6 * np.abs(expected).max()


def test_darkons_defaults_are_a_plain_product_of_gradients(formulas: Formulas) -> None:
    product = formulas.gq @ formulas.with_l2.T / (100 * formulas.n)
    assert np.corrcoef(darkon(formulas).ravel(), product.ravel())[0, 1] > 0.999


def test_the_geometric_series_equals_the_recursion(formulas: Formulas) -> None:
    estimate, v = formulas.gq.T, formulas.gq.T
    for _ in range(50):
        estimate = v + (1 - 0.01) * estimate - formulas.h @ estimate / 25.0
    assert np.allclose(recursion(formulas.h, v, 0.01, 25.0, 50), estimate)


def test_inverses_summed_over_batches_differ_from_the_inverse_of_the_full_hessian(formulas: Formulas) -> None:
    """Adding up the inverses of the batches' Hessians gives other scores than one full batch."""
    f, halves = formulas, (slice(0, 150), slice(150, 300))
    each = [hessian(lambda t, part=part: f.loss(t, f.x[part], f.y[part]))(f.theta).numpy() for part in halves]
    summed = f.gq @ sum(np.linalg.inv(h + f.ridge) for h in each) @ f.g.T
    assert np.abs(summed - mean_hessian(f)).max() > 0.5 * np.abs(mean_hessian(f)).max()


def test_trak_scores_correlate_with_those_of_the_empirical_fisher(page: dict[str, Any]) -> None:
    pairs = zip(page["near"].values, page["theirs"]["TRAK, not projected"].T, strict=True)
    assert np.mean([np.corrcoef(a, b)[0, 1] for a, b in pairs]) > 0.5
