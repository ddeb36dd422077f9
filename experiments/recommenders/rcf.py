"""Relational collaborative filtering (Xin et al. 2019): attention over the relations of an item to a user's films.

The first level weighs the types of relations for the user; the second weighs the films that have a relation of this
type to the item.
"""

from __future__ import annotations

import numpy as np
import torch
from experiments.recommenders.relations import TYPES, Entries, Relations
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

import upweight as uw

WIDTH, ATTENTION = 16, 8
SMOOTHING = 0.5  # exponent of the sum in the softmax over films
EPOCHS, BATCH, RATE, DECAY = 4, 256, 0.02, 2e-4  # l2 of the embeddings of users and items alone


class RCF(nn.Module):
    """A score of every pair of a user and an item.

    Args:
        relations: the films of the users, and what they share with items.
        weights: (n,), of the training triples: a film whose triple has weight 0 is not in the user's history.
    """

    present: Tensor

    def __init__(self, relations: Relations, weights: NDArray[np.float64]) -> None:
        super().__init__()
        self.relations = relations
        users, items, values = relations.sizes
        self.user, self.item = nn.Embedding(users, WIDTH), nn.Embedding(items, WIDTH)
        self.kind, self.value = nn.Embedding(len(TYPES), WIDTH), nn.Embedding(values, ATTENTION)
        self.of_kinds = nn.Sequential(nn.Linear(WIDTH, ATTENTION), nn.GELU(), nn.Linear(ATTENTION, 1, bias=False))
        self.of_item, self.of_film = (nn.Linear(WIDTH, len(TYPES) * ATTENTION, bias=False) for _ in range(2))
        self.of_entry = nn.Linear(ATTENTION, len(TYPES), bias=False)
        self.head = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.GELU(), nn.Linear(WIDTH, 1, bias=False))
        self.register_buffer("present", torch.as_tensor(weights, dtype=torch.float32))
        for table in (self.user, self.item):
            nn.init.normal_(table.weight, std=0.3)

    def forward(self, triples: Tensor) -> tuple[Tensor, Tensor]:
        """(scores of the liked films, of the disliked ones), (b,) each."""
        users, liked, disliked = triples.unbind(1)
        pairs = torch.stack([users.repeat(2), torch.cat([liked, disliked])], dim=1)
        of_users, entries = self.user(users).repeat(2, 1), self.relations.entries(pairs.numpy())
        first, second = self.scores(of_users, pairs[:, 1], entries, self.present).chunk(2)
        return first, second

    def scores(self, of_users: Tensor, items: Tensor, entries: Entries, present: Tensor) -> Tensor:
        """The scores of pairs, (b,), whose users have these embeddings, (b, WIDTH), and films of weight `present`."""
        of_items, weights = self.item(items), self.attention(of_users, items, entries, present)
        films = self.item.weight.index_select(0, torch.as_tensor(entries.film)) * weights[:, None]
        history = torch.zeros_like(of_items).index_add(0, torch.as_tensor(entries.pair), films)
        score: Tensor = self.head((of_users + history) * of_items)[:, 0]
        return score

    def attention(self, of_users: Tensor, items: Tensor, entries: Entries, present: Tensor) -> Tensor:
        """The weight of every entry: of its type for the user, times that of the film within the type, (entries,)."""
        pair, film, member, kind, value = (torch.as_tensor(part) for part in entries)
        of_kinds = self.of_kinds(of_users[:, None] * self.kind.weight)[:, :, 0].softmax(dim=1)  # (b, types)
        left = self.of_item(self.item(items)).reshape(-1, ATTENTION)  # (b · types, ATTENTION)
        right = self.of_film(self.item.weight).reshape(-1, ATTENTION)
        group = pair * len(TYPES) + kind
        inner = left.index_select(0, group) + right.index_select(0, film * len(TYPES) + kind)
        inner = (inner + self.value.weight.index_select(0, value)).tanh()
        sizes = self.of_entry(inner).gather(1, kind[:, None])[:, 0].exp() * present.index_select(0, member)
        sums = torch.zeros(len(items) * len(TYPES)).index_add(0, group, sizes)
        scale = of_kinds.reshape(-1) / (sums + 1e-9) ** SMOOTHING
        return sizes * scale.index_select(0, group)


def pairwise_loss(net: nn.Module, batch: uw.Batch) -> Tensor:
    """−log σ(score of the liked film − score of the disliked one) of every triple."""
    liked, disliked = net(batch.x)
    return functional.softplus(disliked - liked)


def score(net: nn.Module, batch: uw.Batch) -> Tensor:
    """The score of the first film of every triple."""
    liked: Tensor = net(batch.x)[0]
    return liked


def train_net(relations: Relations, weights: NDArray[np.float64], seed: int) -> RCF:
    """Adam with l2, Σ wᵢ ℓᵢ / |batch| in every step, cosine schedule; films of weight 0 leave the histories too."""
    torch.manual_seed(seed)
    net, triples = RCF(relations, weights), torch.as_tensor(relations.train.x)
    tables = [net.user.weight, net.item.weight]
    others = [p for p in net.parameters() if all(p is not table for table in tables)]
    groups = [{"params": tables, "weight_decay": DECAY}, {"params": others}]
    optimiser = torch.optim.Adam(groups, lr=RATE, fused=True)
    order, steps = np.random.default_rng(seed), EPOCHS * -(-len(triples) // BATCH)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda t: (1 + np.cos(np.pi * t / steps)) / 2)
    for _ in range(EPOCHS):
        for batch in torch.split(torch.as_tensor(order.permutation(len(triples))), BATCH):
            optimiser.zero_grad()
            liked, disliked = net(triples[batch])
            (net.present[batch] * functional.softplus(disliked - liked)).sum().div(len(batch)).backward()
            optimiser.step()
            schedule.step()
    return net.eval()


def model(net: RCF) -> uw.TorchModel:
    """The trained net with its loss, and the score as its measurement."""
    return uw.TorchModel(net, pairwise_loss, score, objective=uw.Objective("fixed", DECAY))
