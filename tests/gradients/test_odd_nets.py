"""On every odd net, every curvature gives autograd's numbers or is refused in a sentence of this package."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import upweight as uw
from support.autograd_rows import gradients, is_sentence
from support.layer_nets import LAYER_NETS, REFUSED
from support.odd_nets import ODD_NETS, OddNet
from upweight.gradients.functional import plain_attention

DAMPING = 0.1
NETS = {**ODD_NETS, **LAYER_NETS}
CURVATURES = [
    None, uw.Identity(), uw.EmpiricalFisher(), uw.Diagonal(), uw.Hessian(),
    uw.GaussNewton(), uw.KFAC(), uw.EKFAC(), uw.DataInf(),
]  # fmt: skip
NO_HESSIAN = {"embedding bag", "sparse embedding bag"}
REFUSABLE = {"bag with padding and scale", "nested output"}  # by second-order recipes
LINEAR_LOSS = {"absolute loss"}
NO_OUTPUT = {"tuple", "dict", "autoencoder", "derivative in the loss", "net called twice"}


def dense_inverse(name: str, recipe: Any, rows: np.ndarray) -> np.ndarray | None:
    """The inverse of the matrix of a recipe with its damping; None for a recipe whose matrix is not formed here."""
    matrix = None
    match recipe:
        case uw.Identity():
            return np.eye(rows.shape[1])
        case uw.DataInf():
            return mean_of_inverses(NETS[name].model(), rows)
        case uw.EmpiricalFisher():
            matrix = rows.T @ rows
        case uw.Diagonal():
            matrix = np.diag((rows**2).sum(axis=0))
        case uw.GaussNewton() if name not in REFUSABLE:
            matrix = gauss_newton(name)
        case uw.Hessian():
            matrix = dense_hessian(NETS[name].model(), NETS[name].examples())
    return None if matrix is None else np.linalg.inv(matrix + DAMPING * len(rows) * np.eye(len(matrix)))


def dense_hessian(model: uw.TorchModel, examples: uw.Examples) -> np.ndarray:
    """The second derivatives of the summed loss, (parameters, parameters)."""
    network = model.network
    with network.preserved(), plain_attention():
        parameters = list(network.parameters().values())
        loss = network.loss(network.net, network.batch(examples)).sum()
        blocks = torch.autograd.grad(loss, parameters, create_graph=True, allow_unused=True)
        columns = [column for p, g in zip(parameters, blocks, strict=True) for column in rows_of(p, g, parameters)]
    return torch.stack(columns).numpy()


def mean_of_inverses(model: uw.TorchModel, rows: np.ndarray) -> np.ndarray:
    """DataInf: (1/n) Σ (gᵢgᵢᵀ + λ)⁻¹ / n, one block for each module."""
    modules: dict[str, list[int]] = {}
    start = 0
    for name in model.network.names:
        stop = start + int(np.prod(model.network.shapes[name]))
        modules.setdefault(name.rpartition(".")[0], []).extend(range(start, stop))
        start = stop
    out = np.zeros((start, start))
    for places in modules.values():
        g = rows[:, places]
        matrices = g[:, :, None] * g[:, None, :] + DAMPING * np.eye(len(places))
        out[np.ix_(places, places)] = np.linalg.inv(matrices).sum(axis=0) / len(rows) ** 2
    return out


@cache
def gauss_newton(name: str) -> np.ndarray:
    """Σ Jᵢᵀ Λᵢ Jᵢ, one output of one example at a time, of a net whose loss is a function of its output."""
    model, total = NETS[name].model(), 0.0
    network = model.network
    parameters = list(network.parameters().values())
    with network.preserved(), plain_attention():
        for example in NETS[name].examples().batches(1):
            batch, outputs = network.batch(example), list[torch.Tensor]()
            with network.net.register_forward_hook(lambda module, inputs, output, to=outputs: to.append(output)):
                network.loss(network.net, batch)
            (z,) = outputs
            jacobian = []
            for number in z.flatten():
                parts = torch.autograd.grad(number, parameters, retain_graph=True, allow_unused=True)
                dense = [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, parts, strict=True)]
                jacobian.append(torch.cat([block.flatten() for block in dense]))

            def loss(values: torch.Tensor, batch: Any = batch, shape: torch.Size = z.shape) -> torch.Tensor:
                return network.loss(lambda *inputs: values.reshape(shape), batch).sum()

            hessian = torch.autograd.functional.hessian(loss, z.detach().flatten())
            total = total + torch.stack(jacobian).T @ hessian @ torch.stack(jacobian)
    return total.detach().numpy()


def rows_of(
    parameter: torch.Tensor, gradient: torch.Tensor | None, parameters: list[torch.Tensor]
) -> list[torch.Tensor]:
    """The rows of the Hessian that belong to one parameter, each (parameters,)."""
    zero = torch.cat([torch.zeros_like(p).flatten() for p in parameters])
    if gradient is None or not gradient.requires_grad:
        return [zero] * parameter.numel()
    rows = []
    for entry in gradient.flatten():
        parts = torch.autograd.grad(entry, parameters, retain_graph=True, allow_unused=True)
        blocks = [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, parts, strict=True)]
        rows.append(torch.cat([block.flatten() for block in blocks]))
    return rows


def cases() -> Iterator[Any]:
    """Every net with every recipe; of the nets in `LAYER_NETS` all but the gradients themselves are slow."""
    for name, recipe in product(NETS, CURVATURES):
        is_slow = name in LAYER_NETS and not isinstance(recipe, uw.Identity)
        marks = [pytest.mark.slow] if is_slow else []
        yield pytest.param(name, recipe, id=f"{name}-{type(recipe).__name__}", marks=marks)


@pytest.mark.sweep(4)
@pytest.mark.parametrize(("name", "recipe"), cases())
def test_scores_are_autograds_or_refused_in_a_sentence(name: str, recipe: Any) -> None:
    net: OddNet = NETS[name]
    if name in REFUSED:
        with pytest.raises((TypeError, ValueError)) as refusal:
            uw.Influence(curvature=recipe, damping=DAMPING).fit(net.model(), net.examples()).attribute(net.examples())
        assert is_sentence(refusal.value)
        return
    model, train = net.model(), net.examples()
    queries = train.take([0, 4, 9])
    is_refusable = recipe is not None and not isinstance(recipe, uw.Identity | uw.EmpiricalFisher | uw.Diagonal)
    try:
        fitted = uw.Influence(curvature=recipe, damping=DAMPING, correction=None).fit(model, train)
        scores = fitted.attribute(queries).values
    except Exception as error:
        if not (is_refusable and is_sentence(error)):
            raise
        assert name in (NO_HESSIAN | NO_OUTPUT | REFUSABLE) or "invert" in str(error), error
        return
    assert np.isfinite(scores).all() and scores.any()
    rows = gradients(model, train).numpy()
    if isinstance(recipe, uw.Hessian) and "raised" in fitted.diagnostics["damping_from"]:
        return
    inverse = dense_inverse(name, recipe, rows)
    if inverse is not None:
        np.testing.assert_allclose(scores, rows[[0, 4, 9]] @ inverse @ rows.T, rtol=1e-6, atol=1e-9)


HAS_OUTPUT = sorted(set(ODD_NETS) - NO_OUTPUT - LINEAR_LOSS)


@pytest.mark.sweep(3)
@pytest.mark.parametrize("recipe", [uw.EKFAC(), pytest.param(uw.KFAC(), marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", HAS_OUTPUT)
def test_factored_curvatures_have_the_trace_of_every_part_that_no_hook_sees(name: str, recipe: Any) -> None:
    model, train = ODD_NETS[name].model(), ODD_NETS[name].examples()
    curvature = model.curvature(train, recipe, 0.0)
    diagonals = np.diag(curvature.matvec(np.eye(model.network.size))), np.diag(gauss_newton(name))
    ends = np.cumsum([int(np.prod(model.network.shapes[n])) for n in model.network.names])[:-1]
    parts = zip(model.network.names, *(np.split(diagonal, ends) for diagonal in diagonals), strict=True)
    sums = {n: (found.sum(), truth.sum()) for n, found, truth in parts if n in curvature.unfactored}
    for found, truth in sums.values():
        np.testing.assert_allclose(found, truth, rtol=1e-6)
    if isinstance(recipe, uw.EKFAC):
        np.testing.assert_allclose(*(diagonal.sum() for diagonal in diagonals), rtol=1e-6)


@pytest.mark.sweep(3)
@pytest.mark.parametrize("name", sorted(ODD_NETS))
def test_normalised_recipes_are_autograds(name: str) -> None:
    model, train = ODD_NETS[name].model(), ODD_NETS[name].examples()
    queries, rows = train.take([0, 4, 9]), gradients(model, train).numpy()
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    np.testing.assert_allclose(uw.GradCos().fit(model, train).attribute(queries).values, unit[[0, 4, 9]] @ unit.T)
    solved = dense_inverse(name, uw.EmpiricalFisher(), rows) @ rows.T
    for relative, moved in {"loss": (rows.T * solved).sum(axis=0), "parameters": (solved**2).sum(axis=0)}.items():
        recipe = uw.RelatIF(relative=relative, curvature=uw.EmpiricalFisher(), damping=DAMPING)
        scores = recipe.fit(model, train).attribute(queries).values
        np.testing.assert_allclose(scores, rows[[0, 4, 9]] @ solved / np.sqrt(moved), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", sorted(NO_HESSIAN | NO_OUTPUT | LINEAR_LOSS))
def test_the_default_falls_back_to_a_curvature_that_can_be_had_and_says_why(name: str) -> None:
    net = ODD_NETS[name]
    scores = uw.Influence().fit(net.model(), net.examples()).attribute(net.examples().take([1]))
    (note,) = [text for text in scores.diagnostics["warnings"] if "default curvature" in text]
    assert ("EKFAC() is used" if name in NO_HESSIAN else "EmpiricalFisher() is used") in note


def test_an_operator_that_is_slow_under_vmap_is_no_news_for_the_user(recwarn: pytest.WarningsRecorder) -> None:
    bag = ODD_NETS["embedding bag"]
    uw.GradDot().fit(bag.model(), bag.examples()).attribute(bag.examples().take([1]))
    assert not recwarn.list


@pytest.mark.sweep(3)
@pytest.mark.parametrize("name", sorted(set(ODD_NETS) - NO_HESSIAN - NO_OUTPUT - LINEAR_LOSS))
def test_the_default_is_gauss_newton_without_a_note_if_that_can_be_had(name: str) -> None:
    net = ODD_NETS[name]
    facts = uw.Influence().fit(net.model(), net.examples()).diagnostics
    assert "Gauss–Newton" in facts["curvature"]
    assert not [text for text in facts["warnings"] if "default curvature" in text]


@pytest.mark.parametrize("recipe", [uw.GaussNewton(), uw.KFAC(), uw.EKFAC()])
@pytest.mark.parametrize("name", ["tuple", "dict"])
def test_a_chosen_curvature_without_an_output_names_those_that_can_be_had(name: str, recipe: Any) -> None:
    net = ODD_NETS[name]
    with pytest.raises(TypeError, match=r"use curvature=EmpiricalFisher\(\), DataInf\(\), Hessian\(\)"):
        uw.Influence(curvature=recipe).fit(net.model(), net.examples())


@pytest.mark.parametrize("recipe", [uw.Hessian(), uw.Diagonal(), uw.EmpiricalFisher(), uw.DataInf()])
@pytest.mark.parametrize("name", ["tuple", "dict", "autoencoder"])
def test_automatic_damping_needs_no_output(name: str, recipe: Any) -> None:
    net = ODD_NETS[name]
    scores = uw.Influence(curvature=recipe).fit(net.model(), net.examples()).attribute(net.examples().take([1]))
    assert np.isfinite(scores.values).all() and scores.diagnostics["damping"] > 0


@pytest.mark.parametrize("recipe", [r for r in CURVATURES if not isinstance(r, uw.Hessian | uw.Identity)])
def test_gradients_that_are_all_zero_give_scores_of_zero_or_are_named(recipe: Any) -> None:
    net = torch.nn.Linear(5, 3).double()
    net.weight.data *= 1e6
    x = np.random.default_rng(0).normal(size=(20, 5))
    train = uw.Examples(x, net(torch.as_tensor(x)).argmax(1).numpy())
    model = uw.TorchModel(net, ODD_NETS["temperature"].loss)
    try:
        scores = uw.Influence(curvature=recipe).fit(model, train).attribute(train.take([0])).values
    except ValueError as error:
        assert "gradient" in str(error) or "curvature" in str(error)
    else:
        assert not scores.any()


class WeightedLoss(nn.Module):
    """Cross-entropy with a factor for every class."""

    def __init__(self, trained: bool) -> None:
        super().__init__()
        self.factors = nn.Parameter(torch.ones(3), requires_grad=trained)

    def forward(self, net: nn.Module, batch: Any) -> torch.Tensor:
        return nn.functional.cross_entropy(net(batch.x) * self.factors, batch.y, reduction="none")


@pytest.mark.parametrize("trained", [True, False])
def test_trainable_parameters_of_a_loss_are_named(trained):
    train = uw.Examples(np.random.default_rng(0).normal(size=(12, 4)).astype("float32"), np.arange(12) % 3)
    warnings = uw.GradDot().fit(uw.TorchModel(nn.Linear(4, 3), WeightedLoss(trained)), train).diagnostics["warnings"]
    assert ["parameters of the loss (3 numbers, e.g. factors) are held fixed" in w for w in warnings] == [
        True
    ] * trained
