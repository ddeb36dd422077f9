"""Losses whose examples interact are refused, whichever examples show it; losses of each example alone are not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

import upweight as uw
from upweight.gradients.functional import values_alone
from upweight.gradients.interaction import choose_examples


def supervised_contrastive(net: nn.Module, batch: Any) -> Tensor:
    z = F.normalize(net(batch.x), dim=1)
    same = torch.eye(len(z), dtype=torch.bool)
    similarity = (z @ z.T / 0.2).masked_fill(same, -1e9)
    alike = (batch.y[:, None] == batch.y[None]) & ~same
    log_share = similarity - torch.logsumexp(similarity, 1, keepdim=True) if len(z) > 1 else similarity * 0
    return -(log_share * alike).sum(1) / alike.sum(1).clamp(min=1)


def batch_hard_triplet(net: nn.Module, batch: Any) -> Tensor:
    z = net(batch.x)
    distance = (z[:, None] - z[None]).square().sum(2)
    alike = batch.y[:, None] == batch.y[None]
    farthest = (distance * alike).max(1).values
    nearest = distance.masked_fill(alike, 1e6).min(1).values
    return F.relu(farthest - nearest + 1) + z.sum(1) * 0


def broadcast(net: nn.Module, batch: Any) -> Tensor:
    return ((net(batch.x)[:, :1] - batch.y.reshape(-1)) ** 2).mean(1)


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))


def examples(count: int, classes: int, seed: int = 0) -> uw.Examples:
    rng = np.random.default_rng(seed)
    return uw.Examples(rng.normal(size=(count, 6)).astype(np.float32), np.arange(count) % classes)


@pytest.mark.parametrize("loss", [supervised_contrastive, batch_hard_triplet, broadcast])
@pytest.mark.parametrize("classes", [2, 10, 40])
def test_losses_between_examples_are_refused(loss: Any, classes: int) -> None:
    with pytest.raises(ValueError, match=r"other examples of its batch|batch of one"):
        uw.GradDot().fit(uw.TorchModel(net(), loss), examples(200, classes)).attribute(examples(5, 3, seed=1))


def test_labels_of_which_few_differ_do_not_hide_a_broadcast() -> None:
    train = examples(300, 2).replaced(y=(np.arange(300) % 100 == 7).astype(np.float32))
    with pytest.raises(ValueError, match="other examples of its batch"):
        uw.GradDot().fit(uw.TorchModel(net(), broadcast), train).attribute(train.take([0]))


def test_an_interaction_that_only_queries_show_is_refused() -> None:
    train, queries = examples(60, 60), examples(20, 4, seed=1)  # no two training examples share a label
    fitted = uw.GradDot().fit(uw.TorchModel(net(), supervised_contrastive, measure=None), train.take(range(2)))
    with pytest.raises(ValueError, match="other examples of its batch"):
        fitted.attribute(queries)


def test_queries_are_compared_also_if_the_training_set_showed_all_that_labels_can_show() -> None:
    def far_ones_interact(net: nn.Module, batch: Any) -> Tensor:
        is_far = (batch.x[:, 0] > 50).to(batch.x)
        return F.cross_entropy(net(batch.x), batch.y, reduction="none") + is_far * (is_far @ net(batch.x).sum(1))

    train = examples(60, 3)
    queries = examples(20, 3, seed=1)
    fitted = uw.Influence(curvature=uw.EmpiricalFisher()).fit(uw.TorchModel(net(), far_ones_interact), train)
    assert np.isfinite(fitted.attribute(queries).values).all()
    fitted = uw.Influence(curvature=uw.EmpiricalFisher()).fit(uw.TorchModel(net(), far_ones_interact), train)
    with pytest.raises(ValueError, match="other examples of its batch"):
        fitted.attribute(queries.replaced(x=queries.x + np.float32(100)))


@pytest.mark.parametrize("scale", [1.0, 30.0, 1000.0])
@pytest.mark.parametrize("labels", ["classes", "numbers"])
def test_losses_of_each_example_alone_are_accepted_in_single_precision(scale: float, labels: str) -> None:
    train = examples(100, 3)
    certain = net()
    certain[2].weight.data *= scale
    if labels == "classes":
        loss = lambda n, b: F.cross_entropy(n(b.x), b.y, reduction="none")  # noqa: E731
        train = train.replaced(y=certain(torch.as_tensor(train.x)).argmax(1).numpy())
    else:
        loss = lambda n, b: (n(b.x)[:, 0] - b.y) ** 2  # noqa: E731
        train = train.replaced(y=np.asarray(train.x[:, 0]))
    scores = uw.GradDot().fit(uw.TorchModel(certain, loss), train).attribute(train.take(range(10)))
    assert np.isfinite(scores.values).all()


def test_the_examples_to_compare_share_labels_and_differ_in_them() -> None:
    y = np.array(examples(500, 10).y)
    positions, has_pairs = choose_examples(examples(500, 10))
    assert has_pairs and len(positions) == len(set(positions.tolist())) == 16
    assert y[positions[0]] == y[positions[1]] != y[positions[2]]
    assert choose_examples(examples(500, 500))[1] is False
    assert choose_examples(uw.Examples(np.zeros((5, 2))))[0].tolist() == [0, 2, 4, 1, 3]


def test_a_column_of_labels_reaches_the_loss_as_a_column() -> None:
    train, sizes = examples(20, 2), []

    def loss(net: nn.Module, batch: Any) -> Tensor:
        sizes.append(tuple(batch.y.shape[1:]))
        return ((net(batch.x)[:, :1] - batch.y) ** 2).mean(1)

    column = uw.Examples(train.x, np.asarray(train.y, dtype=np.float32)[:, None])
    scores = uw.GradDot().fit(uw.TorchModel(net(), loss), column).attribute(column.take([3, 4]))
    flat = uw.GradDot().fit(uw.TorchModel(net(), lambda n, b: (n(b.x)[:, 0] - b.y) ** 2), train)
    np.testing.assert_allclose(scores.values, flat.attribute(train.take([3, 4])).values, rtol=1e-5, atol=1e-6)
    assert set(sizes) == {(1,)} and column.y.shape == (20,)
    assert column.replaced(y=1 - column.y).is_column and column.without([0]).is_column and not train.is_column


def test_padding_that_the_net_reads_is_an_interaction() -> None:
    rng = np.random.default_rng(0)
    words = [rng.normal(size=(2 + i % 5, 6)).astype(np.float32) for i in range(40)]
    train = uw.Examples(np.arange(40)[:, None], np.arange(40) % 2)

    def padded(part: uw.Examples) -> Any:
        rows = [torch.as_tensor(words[int(i)]) for i in np.asarray(part.x)[:, 0]]
        return nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=1.0), torch.as_tensor(part.y)

    def mean_of_all(net: nn.Module, batch: Any) -> Tensor:
        return F.cross_entropy(net(batch[0]).mean(1), batch[1], reduction="none")

    model = uw.TorchModel(net(), mean_of_all, collate=padded)
    assert values_alone(model.network, "loss", train.take([0, 1])) is None  # the batch cannot be cut into examples
    with pytest.raises(ValueError, match="other examples of its batch"):
        uw.GradDot().fit(model, train).attribute(train.take([0]))


def test_the_values_of_examples_alone_come_from_one_pass_where_that_is_the_same() -> None:
    train, calls = examples(60, 3), []

    def counting(net: nn.Module, batch: Any) -> Tensor:
        calls.append(len(batch.y))
        return F.cross_entropy(net(batch.x), batch.y, reduction="none")

    uw.GradDot().fit(uw.TorchModel(net(), counting), train).attribute(train.take([0, 1, 2, 4]))
    assert calls.count(1) <= 5  # three gradients alone, and one pass over the values of each set alone


def test_rounding_of_examples_that_are_fitted_almost_exactly_is_no_interaction() -> None:
    network = net().double()
    x = torch.as_tensor(examples(40, 2).x).double()
    labels = network(x).detach() * (1 + 1e-9)  # so that residuals have about seven digits

    def loss(net: nn.Module, batch: Any) -> Tensor:
        rounded = net(batch.x) * (1 + (len(batch.x) > 1) * torch.finfo(torch.float64).eps)
        return (rounded - batch.y).square().sum(1)

    train = uw.Examples(x.numpy(), labels.numpy())
    scores = uw.GradDot().fit(uw.TorchModel(network, loss), train).attribute(train.take([0, 1]))
    assert np.isfinite(scores.values).all()
