"""Inputs of every structure become batches that give the same gradients."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import nn

import upweight as uw
from support.small_nets import CLASSES, cross_entropy
from upweight.gradients.captured_rows import CapturedRows
from upweight.gradients.network import Network

RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((6, 5)), RNG.integers(0, CLASSES, 6)


@dataclass
class Pair:
    first: Any
    second: Any


class Concatenating(nn.Linear):
    """A linear layer whose input comes in parts."""

    def forward(self, x: Any) -> torch.Tensor:
        parts = (x.first, x.second) if isinstance(x, Pair) else x.values() if isinstance(x, dict) else x
        return super().forward(torch.cat(list(parts), dim=1))


def expected(net: nn.Linear) -> np.ndarray:
    plain = nn.Linear(5, CLASSES).double()
    plain.load_state_dict(net.state_dict())
    return CapturedRows(Network(plain, cross_entropy), uw.Examples(X, Y), "loss").dense()


def test_inputs_may_be_dicts_tuples_or_dataclasses():
    net = Concatenating(5, CLASSES).double()
    for item in (
        lambda x: {"a": x[:2], "b": torch.from_numpy(x[2:])},
        lambda x: (x[:2], x[2:]),
        lambda x: Pair(x[:2], x[2:]),
    ):
        rows = CapturedRows(Network(net, cross_entropy), uw.Examples([item(x) for x in X], Y), "loss")
        assert np.allclose(rows.dense(), expected(net), atol=1e-12)


def test_arrays_may_come_from_other_libraries_and_in_other_precisions():
    import pandas as pd

    net = nn.Linear(5, CLASSES).double()
    for x in (torch.from_numpy(X), pd.DataFrame(X), sparse.csr_array(X), list(X), X.astype(">f8")):
        rows = CapturedRows(Network(net, cross_entropy), uw.Examples(x, Y), "loss")
        assert np.allclose(rows.dense(), expected(net), atol=1e-12)
    single = nn.Linear(5, CLASSES)
    single.load_state_dict(net.state_dict())
    rows = CapturedRows(Network(single, cross_entropy), uw.Examples(X, Y), "loss")
    assert rows.dense().dtype == np.float64
    assert np.allclose(rows.dense(), expected(net), atol=1e-5)


def test_a_collate_function_may_return_an_opaque_object():
    class Padded:  # of unknown structure, with a table that belongs to no example
        def __init__(self, examples):
            self.x, self.y = torch.from_numpy(examples.x), torch.from_numpy(examples.y)
            self.table = torch.eye(5).double()

    net = nn.Sequential(nn.Linear(5, CLASSES)).double()
    network = Network(net, lambda net, b: cross_entropy(net, Pairs(b.x @ b.table, b.y)), collate=Padded)
    rows = CapturedRows(network, uw.Examples(X, Y), "loss")
    assert np.allclose(rows.dense(), expected(net[0]), atol=1e-12)


@dataclass
class Pairs:
    x: Any
    y: Any


def test_half_precision_nets_have_rows_in_single_precision():
    net = nn.Linear(5, CLASSES).bfloat16()
    network = Network(net, lambda net, b: cross_entropy(net, b).float())
    rows = CapturedRows(network, uw.Examples(X, Y), "loss")
    assert np.allclose(rows.dense(), expected(net.double()), atol=0.05)


def test_a_column_of_labels_reaches_a_collate_of_the_user_as_a_column():
    shapes = []

    def collate(examples: uw.Examples) -> Pair:
        shapes.append(np.shape(examples.y)[1:])
        return Pair(torch.as_tensor(examples.x), torch.as_tensor(examples.y))

    def loss(net: Any, batch: Pair) -> torch.Tensor:
        return (net(batch.first) - batch.second).square().mean(1)

    torch.manual_seed(0)
    column, flat = uw.Examples(X, Y[:, None].astype(float)), uw.Examples(X, Y.astype(float))
    rows = CapturedRows(Network(net := nn.Linear(5, 1).double(), loss, collate=collate), column, "loss").dense()
    expected = CapturedRows(Network(net, lambda n, b: (n(b.x)[:, 0] - b.y).square()), flat, "loss").dense()
    np.testing.assert_allclose(rows, expected, rtol=1e-10)
    assert set(shapes) == {(1,)} and column.y.shape == (6,) and flat.with_column() is flat
