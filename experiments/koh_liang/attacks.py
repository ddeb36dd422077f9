"""Attacks on a model by moving its training images, each pixel by less than half a grey level."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from experiments.koh_liang.observations import cluster
from experiments.koh_liang.photographs import Extractor, Photographs, channels_first
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

import upweight as uw

Array = NDArray[Any]
L2 = 1e-3
BOX = 0.499  # grey levels by which a pixel may move: rounded to 8 bits the image is the same
PLAIN = uw.Influence(correction=None)


@dataclass(frozen=True)
class Plan:
    """The extent of the attacks: test images, sets of training images (first, last position), steps in grey levels."""

    tests: int
    stages: tuple[tuple[int, int], ...]
    steps: int
    size: float
    candidates: int
    group: int
    group_steps: int
    group_size: float


@dataclass(frozen=True)
class AttackResults:
    """The results of the attacks.

    Attributes:
        tests: the number of test images; `right`: those that the model classified correctly before.
        tried: the images that were attacked one by one.
        known, once: p(true) of these before, and after the attack with the best training image.
        needed: the number of training images that flipped each, 0 if no attack did.
        group: test images of one kind; p(true) of each `before` and `after` one training image was `moved`.
        place, feature: the position of that training image, and its features after the move.
        head: the model before the attacks.
    """

    tests: int
    right: Array
    tried: Array
    known: Array
    once: Array
    needed: Array
    group: Array
    before: Array
    after: Array
    place: int
    moved: Array
    feature: Array
    head: LogisticRegression

    def share_flipped(self, count: int) -> float:
        """Share of the tried test images that at most `count` training images flipped."""
        return float(((self.needed > 0) & (self.needed <= count)).mean())

    @property
    def flipped(self) -> int:
        """Number of test images of the group that one training image flipped."""
        return int((self.after < 0.5).sum())


class Attack:
    """An attack that moves some training images to flip the predictions for some test images.

    The gradient goes from the test loss through the retrained head to the features (`uw.perturb`) and from there
    through the frozen net to the pixels.
    """

    def __init__(self, net: Extractor, train: Photographs, test: Photographs, queries: Array) -> None:
        self.net, self.train = net, train
        self.queries = test.examples().take(queries)
        self.features = train.features.copy()
        self.head = LogisticRegression(
            C=1 / (L2 * len(train.y)), fit_intercept=False, warm_start=True, tol=1e-6, max_iter=5000
        ).fit(self.features, train.y)

    def p_true(self) -> Array:
        """Probability of the true label for every query."""
        p = self.head.predict_proba(self.queries.x)
        return np.asarray(p[np.arange(len(p)), self.queries.y])

    def moves(self, **more: Any) -> Any:
        """Derivative of the queries' measurements in the features of training images, with retraining."""
        examples = uw.Examples(self.features, self.train.y)
        model = uw.explainable(self.head, examples, objective="mean")
        return uw.perturb(model, examples, self.queries, recipe=PLAIN, **more)

    def pixel_gradients(self, pictures: torch.Tensor, cotangents: Array) -> torch.Tensor:
        """∂ (mean measurement of the queries) / ∂ pixel."""
        moved = pictures.clone().requires_grad_(True)
        (self.net(moved) * torch.from_numpy(cotangents.astype(np.float32))).sum().backward()
        return moved.grad

    def choose(self, candidates: int, most: int) -> Array:
        """The training images of largest reach in pixels, among the candidates of largest reach in features."""
        perturbation = self.moves(k=candidates)
        pictures = channels_first(self.train.pictures[perturbation.example_ids])
        gradients = self.pixel_gradients(pictures, perturbation.gradients.mean(axis=0))
        reach = gradients.abs().sum(dim=(1, 2, 3)).numpy()
        return np.asarray(perturbation.example_ids[np.argsort(-reach, kind="stable")[:most]])

    def run(self, chosen: Array, steps: int, size: float, stop: bool = True) -> tuple[bool, Array]:
        """Make signed steps inside the box, and retrain after each; return (whether all flipped, moved pictures)."""
        origin = channels_first(self.train.pictures[chosen])
        low, high = (origin - BOX).clamp(min=0), (origin + BOX).clamp(max=255)
        moved = origin.clone()
        for _ in range(steps):
            toward = self.moves(examples=chosen.tolist()).gradients.mean(axis=0)
            moved = (moved - size * self.pixel_gradients(moved, toward).sign()).clamp(low, high)
            with torch.no_grad():
                self.features[chosen] = self.net(moved).double().numpy()
            self.head.fit(self.features, self.train.y)
            if stop and (self.p_true() < 0.5).all():
                break
        if not np.array_equal(moved.round().byte().numpy(), origin.byte().numpy()):
            raise AssertionError("expected moved pictures that are unchanged in 8 bits, got one that differs")
        return bool((self.p_true() < 0.5).all()), moved.permute(0, 2, 3, 1).numpy()


def images_needed(net: Extractor, train: Photographs, test: Photographs, query: int, plan: Plan) -> tuple[int, float]:
    """(number of training images that flipped this test image, 0 if no attack did; p(true) after the first try)."""
    chosen, first_try = Attack(net, train, test, np.array([query])).choose(plan.candidates, 10), np.nan
    for first, last in plan.stages:
        attack = Attack(net, train, test, np.array([query]))
        is_flipped, _ = attack.run(chosen[first:last], plan.steps, plan.size)
        first_try = float(attack.p_true()[0]) if np.isnan(first_try) else first_try
        if is_flipped:
            return last - first, first_try
    return 0, first_try


def attacked(net: Extractor, train: Photographs, test: Photographs, plan: Plan) -> AttackResults:
    """Attack single test images first, then a group of one kind with one training image."""
    whole = Attack(net, train, test, np.arange(len(test.y)))
    right = np.flatnonzero(whole.p_true() > 0.5)
    tried = np.random.default_rng(0).permutation(right)[: plan.tests]
    each = [images_needed(net, train, test, int(query), plan) for query in tried]
    group = cluster(test, right, whole.p_true(), plan.group)
    attack = Attack(net, train, test, group)
    before = attack.p_true()
    chosen = attack.choose(plan.candidates, 1)
    _, moved = attack.run(chosen, plan.group_steps, plan.group_size, stop=False)
    return AttackResults(
        tests=len(test.y),
        right=right,
        tried=tried,
        known=whole.p_true()[tried],
        once=np.array([p for _, p in each]),
        needed=np.array([count for count, _ in each]),
        group=group,
        before=before,
        after=attack.p_true(),
        place=int(chosen[0]),
        moved=moved[0],
        feature=attack.features[chosen[0]],
        head=whole.head,
    )
