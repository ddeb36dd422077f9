"""Dropout inside function transforms of torch beside dropout in training."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import upweight as uw
from support.small_trainings import cross_entropy, train
from upweight.training.plain_dropout import PlainDropout

X = torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
LAYOUTS = {
    "plain": X,
    "last axes": X.mT,
    "first axes": X.transpose(0, 1),
    "all axes": X.permute(2, 0, 1),
    "part": X[:, 1:],
}


@pytest.mark.parametrize("dropout", [nn.Dropout(0.4), nn.Dropout(0.0), nn.Dropout(1.0), nn.Dropout(0.4).eval()])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_mask_inside_transforms_is_that_of_training(layout: str, dropout: nn.Module) -> None:
    def drop(x: torch.Tensor) -> Any:
        torch.manual_seed(1)
        return dropout(x)

    x = LAYOUTS[layout]
    expected = drop(x)
    with PlainDropout():
        assert torch.equal(torch.func.vjp(drop, x)[0], expected)
        slopes = torch.func.vmap(lambda u: torch.func.jvp(drop, (x,), (u,))[1], randomness="same")(torch.stack([x, x]))
    torch.testing.assert_close(slopes, torch.stack([expected, expected]))


class Permuted(nn.Module):
    """Dropout by its function or by the operator itself, on a tensor whose axes are permuted in memory."""

    def __init__(self, by_operator: bool) -> None:
        super().__init__()
        self.body, self.head, self.by_operator = nn.Linear(8, 6), nn.Linear(48, 3), by_operator

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z = self.body(x.reshape(-1, 8, 8)).mT
        if self.training:
            z = torch.dropout(z, 0.4, True) if self.by_operator else nn.functional.dropout(z, 0.4)
        return self.head(z.flatten(1).tanh())


def trained(by_operator: bool) -> uw.TorchModel:
    torch.manual_seed(0)
    training = uw.Training(lr=0.05, epochs=2, batch_size=10, momentum=0.5)
    return uw.TorchModel.trained(Permuted(by_operator).double(), cross_entropy, train(), training=training)


def test_metagradients_through_dropout_of_permuted_axes_are_differences_of_trainings() -> None:
    model, queries, step = trained(by_operator=False), train().take([0, 5]), 1e-5

    def measured(weight: float) -> np.ndarray:
        return model.retrain(train(), np.where(np.arange(len(train())) == 3, weight, 1.0)).measure(queries)

    scores = uw.Metagradient(removals=0, at="full").fit(model, train()).attribute(queries).values[:, 3]
    differences = (measured(1 + step) - measured(1 - step)) / (2 * step)
    np.testing.assert_allclose(scores, differences, rtol=1e-5, atol=1e-9)


def test_other_random_numbers_than_in_training_are_refused() -> None:
    model = trained(by_operator=True)
    with pytest.raises(ValueError, match=r"draws the same random numbers in torch.func as in training"):
        uw.Metagradient(removals=0).fit(model, train()).attribute(train().take([0]))
