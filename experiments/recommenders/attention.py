"""Counterfactual sets by the weights of an attention (Tran et al. 2021): attention and pure attention.

Films are removed in the order of their weights for the recommended item. Scores without them are those of the same
parameters on a history that lacks them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from experiments.recommenders.counterfactuals import Array, Case, Chosen, one_by_one
from experiments.recommenders.rcf import RCF
from numpy.typing import NDArray

METHODS = ("attention", "pure attention")


@dataclass(frozen=True)
class AttentionCase(Case):
    """A recommendation of a model with attention.

    Attributes:
        weights: of the user's films for the recommended item, summed over the types of relations, (ratings,).
        without: the scores of the items by the same parameters on the history without these films, (20,).
    """

    weights: Array
    without: Callable[[list[int]], Array]


def by_attention(case: AttentionCase, method: str, k: int) -> Chosen | None:
    """The set of attention or pure attention among the first k items; None if it finds none."""
    order = np.argsort(-case.weights, kind="stable").tolist()
    return one_by_one(
        order,
        case.scores[:k],
        lambda removed: case.without(removed)[:k],
        only_shrinking=method == "attention",
    )


def film_weights(net: RCF, user: int, item: int, mine: NDArray[np.intp]) -> Array:
    """The weight of each film of the user for the item, (films,)."""
    entries, users = net.relations.entries(np.array([[user, item]])), torch.tensor([user])
    with torch.no_grad():
        weights = net.attention(net.user(users), torch.tensor([item]), entries, net.present)
    sums = np.bincount(entries.member, weights.double().numpy(), minlength=len(net.present))
    return np.asarray(sums[mine])


def scores_without(net: RCF, user: int, items: NDArray[np.int64], members: NDArray[np.intp]) -> Array:
    """The scores of items by these parameters on the history without these training triples, (items,)."""
    users, present = torch.full((len(items),), user), net.present.clone()
    present[torch.as_tensor(members)] = 0.0
    entries = net.relations.entries(np.stack([users.numpy(), items], axis=1))
    with torch.no_grad():
        scores = net.scores(net.user(users), torch.as_tensor(items), entries, present)
    return np.asarray(scores.double().numpy())
