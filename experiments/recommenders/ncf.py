"""Neural collaborative filtering (He et al. 2017) on MovieLens-100k, as in Tran et al. (2021), on a shorter schedule.

Nets that differ by the weights of the ratings are trained together: every parameter has one more axis, for the net.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import upweight as uw

WIDTH = 16  # of the embeddings of the MLP: 32 → 16 → 8; those of GMF have half of it
EPOCHS, BATCH, RATE, DECAY = 15, 1246, 0.02, 2e-4
TOGETHER = 24  # nets trained at a time
TABLES = ("user_gmf", "item_gmf", "user_mlp", "item_mlp")


class NCF(nn.Module):
    """GMF and MLP on embeddings of their own, joined by one linear layer: a predicted rating."""

    def __init__(self, users: int, items: int) -> None:
        super().__init__()
        self.user_gmf, self.item_gmf = nn.Embedding(users, WIDTH // 2), nn.Embedding(items, WIDTH // 2)
        self.user_mlp, self.item_mlp = nn.Embedding(users, WIDTH), nn.Embedding(items, WIDTH)
        self.mlp = nn.Sequential(nn.Linear(2 * WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH // 2), nn.ReLU())
        self.head = nn.Linear(WIDTH, 1)
        for name in TABLES:
            nn.init.normal_(getattr(self, name).weight, std=0.3)

    def forward(self, pairs: Tensor) -> Tensor:
        users, items = pairs[:, 0], pairs[:, 1]
        product = self.user_gmf(users) * self.item_gmf(items)
        joint = self.mlp(torch.cat([self.user_mlp(users), self.item_mlp(items)], dim=1))
        rating: Tensor = self.head(torch.cat([product, joint], dim=1))[:, 0]
        return rating


def squared_error(net: nn.Module, batch: uw.Batch) -> Tensor:
    """(rating − prediction)² of every pair."""
    return (net(batch.x) - batch.y) ** 2


def rating(net: nn.Module, batch: uw.Batch) -> Tensor:
    """The predicted rating of every pair."""
    predicted: Tensor = net(batch.x)
    return predicted


def ratings(data: Path) -> uw.Examples:
    """The 61,054 ratings of 452 users with at least ten positive and ten negative ones; ids name user and item."""
    with zipfile.ZipFile(data / "movielens100k.zip") as archive:
        table = np.loadtxt(io.BytesIO(archive.read("movielens_train.tsv")), dtype=np.int64, delimiter="\t")
    ids = [f"{user}:{item}" for user, item in table[:, :2].tolist()]
    return uw.Examples(table[:, :2], table[:, 2].astype(np.float32), ids=ids, names=["user", "item"])


def unrated(train: uw.Examples, user: int) -> NDArray[np.int64]:
    """The items that the user has not rated."""
    return np.setdiff1d(np.unique(train.x[:, 1]), train.x[train.x[:, 0] == user, 1])


def train_nets(train: uw.Examples, weights: NDArray[np.float64], seed: int) -> list[NCF]:
    """One net for each row of weights (nets, n): Adam with l2, Σ wᵢ ℓᵢ / |batch| in every step, cosine schedule."""
    nets = []
    for start in range(0, len(weights), TOGETHER):
        nets += _train_together(train, weights[start : start + TOGETHER], seed)
    return nets


def model(train: uw.Examples, seed: int) -> uw.TorchModel:
    """The recommender, trained with this seed."""
    (net,) = train_nets(train, np.ones((1, len(train))), seed)
    objective = uw.Objective("fixed", DECAY)
    return uw.TorchModel(net, squared_error, rating, objective=objective, training=retraining(train, seed))


def retraining(train: uw.Examples, seed: int) -> Callable[[NDArray[np.float64], int], nn.Module]:
    """The training function of the model of this seed."""
    return lambda weights, other: train_nets(train, np.asarray(weights)[None], seed + other)[0]


def _train_together(train: uw.Examples, weights: NDArray[np.float64], seed: int) -> list[NCF]:
    torch.manual_seed(seed)
    users, items = (train.x.max(axis=0) + 1).tolist()
    first, count = NCF(users, items), len(weights)
    stacked = {n: p.detach().repeat(count, *(1,) * p.ndim).requires_grad_() for n, p in first.named_parameters()}
    optimiser = torch.optim.Adam(stacked.values(), lr=RATE, weight_decay=DECAY, fused=True)
    pairs, targets, w = torch.as_tensor(train.x), torch.as_tensor(train.y), torch.as_tensor(weights).float()
    order, steps = np.random.default_rng(seed), EPOCHS * -(-len(train) // BATCH)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda t: (1 + np.cos(np.pi * t / steps)) / 2)
    for _ in range(EPOCHS):
        for batch in torch.split(torch.as_tensor(order.permutation(len(train))), BATCH):
            optimiser.zero_grad()
            errors = (_predicted(stacked, pairs[batch]) - targets[batch]) ** 2
            (w[:, batch] * errors).sum().div(len(batch)).backward()
            optimiser.step()
            schedule.step()
    nets = [NCF(users, items) for _ in range(count)]
    for position, net in enumerate(nets):
        net.load_state_dict({name: p.detach()[position] for name, p in stacked.items()})
    return [net.eval() for net in nets]


def _predicted(stacked: dict[str, Tensor], pairs: Tensor) -> Tensor:
    """Predictions of all nets, (nets, batch)."""
    rows = {name: stacked[f"{name}.weight"].index_select(1, pairs[:, int(name.startswith("item"))]) for name in TABLES}

    def linear(x: Tensor, name: str) -> Tensor:
        return torch.baddbmm(stacked[f"{name}.bias"][:, None], x, stacked[f"{name}.weight"].transpose(1, 2))

    joint = torch.relu(linear(torch.cat([rows["user_mlp"], rows["item_mlp"]], dim=2), "mlp.0"))
    joint = torch.relu(linear(joint, "mlp.2"))
    return linear(torch.cat([rows["user_gmf"] * rows["item_gmf"], joint], dim=2), "head")[:, :, 0]
