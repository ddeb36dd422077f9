"""Cross-entropies that are gathered for second derivatives, beside torch's own."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from upweight.training import plain_cross_entropy
from upweight.training.plain_cross_entropy import GatheredLosses
from upweight.training.stacked_operations import StackedOperations

CLASSES = torch.tensor([2, 0, 1, 1, 2, 0])
IGNORING = torch.tensor([2, -100, 1, 1, -100, 0])
SOFT = torch.softmax(torch.randn(6, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64), dim=1)
WEIGHTS = torch.tensor([0.2, 1.0, 3.0], dtype=torch.float64)
each = partial(F.cross_entropy, reduction="none")
log_likelihood = partial(F.nll_loss, reduction="none")
GATHERED = {
    "labels": lambda z: each(z, CLASSES),
    "module": lambda z: nn.CrossEntropyLoss(reduction="none")(z, CLASSES),
    "ignored labels": lambda z: each(z, IGNORING),
    "bytes": lambda z: each(z, CLASSES.to(torch.uint8)),
    "by name": lambda z: each(input=z, target=CLASSES),
    "log-likelihood": lambda z: log_likelihood(F.log_softmax(z, dim=-1), IGNORING),
    "impossible class": lambda z: each(torch.cat([z, torch.full((6, 1), -torch.inf).to(z)], dim=1), CLASSES),
}
AS_TORCH_DOES = {
    "mean": lambda z: F.cross_entropy(z, CLASSES),
    "sum": lambda z: F.cross_entropy(z, IGNORING, reduction="sum"),
    "class weights": lambda z: each(z, CLASSES, weight=WEIGHTS.to(z)),
    "class weights by position": lambda z: each(z, CLASSES, WEIGHTS.to(z)),
    "likelihood with weights": lambda z: log_likelihood(F.log_softmax(z, dim=1), CLASSES, weight=WEIGHTS.to(z)),
    "label smoothing": lambda z: each(z, CLASSES, label_smoothing=0.1),
    "another ignored class": lambda z: each(z, CLASSES, ignore_index=1),
    "soft labels": lambda z: each(z, SOFT.to(z)),
    "positions": lambda z: each(z.reshape(2, 3, 3), CLASSES.reshape(2, 3)),
    "one example": lambda z: each(z[0], CLASSES[0]),
}
CASES = {**GATHERED, **AS_TORCH_DOES}


def outputs(dtype=torch.float64):
    return 3 * torch.randn(6, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)


def shares(values):
    return torch.arange(values.numel()).reshape(values.shape).to(values)  # the first has weight 0


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients_have_the_bits_of_torchs_own(case, dtype):
    def value_and_gradient():
        z = outputs(dtype).requires_grad_()
        values = CASES[case](z)
        return values, torch.autograd.grad((values * shares(values)).sum(), z)[0]

    expected = value_and_gradient()
    with GatheredLosses():
        found = value_and_gradient()
    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))


@pytest.mark.parametrize("case", CASES)
def test_second_derivatives_along_many_vectors_are_those_of_torchs_own_loss(case):
    def total(z):
        values = CASES[case](z)
        return (values * shares(values)).sum()

    at = outputs()
    dense = torch.autograd.functional.hessian(total, at).reshape(18, 18)
    vectors = torch.randn(4, 6, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    with GatheredLosses():
        products = torch.func.vmap(lambda v: torch.func.jvp(torch.func.grad(total), (at,), (v,))[1])(vectors)
    torch.testing.assert_close(products.reshape(4, 18), vectors.reshape(4, 18) @ dense, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("case", CASES)
def test_plain_losses_alone_are_gathered(case, monkeypatch):
    calls, gather = [], plain_cross_entropy._label_outputs
    monkeypatch.setattr(plain_cross_entropy, "_label_outputs", lambda *given: calls.append(1) or gather(*given))
    with GatheredLosses():
        CASES[case](outputs())
    assert len(calls) == (case in GATHERED)


@pytest.mark.parametrize("case", CASES)
def test_values_of_a_stack_are_torchs_own(case):
    stack = torch.stack([outputs(), -2 * outputs()])
    expected = [CASES[case](z) for z in stack]
    with StackedOperations():
        found = torch.func.vmap(CASES[case])(stack)
    torch.testing.assert_close(found, torch.stack(expected))
