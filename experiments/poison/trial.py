"""One attack under the defences: what it achieves, what Deep k-NN and FIT find, and what is left of it afterwards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.metrics import average_precision_score

import upweight as uw
from upweight.applications.nearest_copies import FeatureSpace

Array = NDArray[np.float64]
NEIGHBOURS = 50  # of Deep k-NN
FIRST = 0.01  # share of the queries, heaviest first, that a defender looks at


@dataclass(frozen=True)
class Attack:
    """A poisoned training set and what it is to achieve.

    Attributes:
        model: trained on `train`.
        train, poisons: the training set, and which of it are poisons, (n,).
        queries: with their true labels; most are clean.
        targets: positions of the targets among the queries.
        wanted: the label that each target is to get.
        inert: which poisons have no part in the attack by its own making, (n,); None if that is not known.
    """

    model: Any
    train: uw.Examples
    poisons: NDArray[np.bool_]
    queries: uw.Examples
    targets: NDArray[np.intp]
    wanted: NDArray[np.intp]
    inert: NDArray[np.bool_] | None = None

    def hits(self, model: Any) -> NDArray[np.bool_]:
        """Which targets this model predicts as wanted."""
        predicted = np.array(model.predict(self.queries).predicted)
        return np.asarray(predicted[self.targets] == self.wanted)


def outcome(attack: Attack, seed: int = 0, k: int = 3, recipe: uw.Attributor | None = None) -> dict[str, Any]:
    """All numbers of one attack; lists have one entry per target that the attack hit."""
    model, train, queries = attack.model, attack.train, attack.queries
    hit = attack.hits(model)
    clean = np.setdiff1d(np.arange(len(queries)), attack.targets)
    numbers: dict[str, Any] = {"hit": hit.tolist(), "clean": len(clean), "accuracy": _accuracy(attack, model, clean)}
    numbers["poisons"], numbers["train"] = int(attack.poisons.sum()), len(train)
    filtered = uw.deep_knn(model, train, k=NEIGHBOURS)
    flags = filtered.weights == 0
    by_neighbours = uw.retrain(model, train, filtered.weights)
    numbers["deep_knn"] = {
        "found": int((flags & attack.poisons).sum()),
        "clean": int((flags & ~attack.poisons).sum()),
        "hit": attack.hits(by_neighbours).tolist(),
        "accuracy": _accuracy(attack, by_neighbours, clean),
    }
    if not hit.any():
        return numbers
    targets = attack.targets[hit]
    first = uw.poisoned(model, train, queries, recipe, fit=uw.FIT(k=k), targets=0)
    heaviness = np.array([first.of(i).heaviness for i in queries.ids.tolist()])
    is_target = np.isin(np.arange(len(queries)), targets)
    numbers["rank"] = [1 + int((heaviness[clean] >= heaviness[t]).sum()) for t in targets]
    numbers["flagged_clean"] = int(np.isin(queries.ids[clean], first.flagged).sum())
    counted = np.sort(np.concatenate([clean, targets]))
    for name, values in {"fit": heaviness, **_target_baselines(attack, seed)}.items():
        numbers.setdefault("target_ap", {})[name] = _ap(is_target[counted], values[counted])
    is_seen = np.array(numbers["rank"]) <= max(1, FIRST * len(clean))
    z: dict[int, Array] = {}
    numbers["fit"] = {"hit": hit.tolist(), "removed": 0, "poisons_removed": 0, "accuracy": numbers["accuracy"]}
    for part, seen in ((targets[is_seen], True), (targets[~is_seen], False)):
        if not len(part):
            continue
        named = queries.ids[part].tolist()
        search = uw.poisoned(model, train, queries.take(part), recipe, fit=uw.FIT(k=k), targets=named)
        z |= {t: search.of(queries.ids[t].item()).z for t in part.tolist()}
        if seen:
            removed = train.positions(list(search.removed))
            numbers["fit"] = {
                "hit": attack.hits(search.model).tolist(),
                "removed": len(removed),
                "poisons_removed": int(attack.poisons[removed].sum()),
                "accuracy": _accuracy(attack, search.model, clean),
                "confirmed": len(search.targets),
            }
    baselines = _poison_baselines(attack, filtered, seed)
    for t in targets.tolist():
        wanted = attack.wanted[list(attack.targets).index(t)]
        own = attack.poisons & (train.y == wanted)
        for name, values in {"gas": z[t], **baselines}.items():
            finite = np.where(np.isfinite(values), values, -1e300)
            numbers.setdefault("poison_ap", {}).setdefault(name, []).append(_ap(own, finite))
        if attack.inert is not None:
            numbers["inert"], known = int(attack.inert.sum()), ~attack.inert
            numbers.setdefault("active_ap", []).append(_ap(own[known], np.maximum(z[t], -1e300)[known]))
    return numbers


def _accuracy(attack: Attack, model: Any, clean: NDArray[np.intp]) -> float:
    queries = attack.queries.take(clean)
    return float(np.mean(np.array(model.predict(queries).predicted) == queries.y))


def _ap(truth: NDArray[np.bool_], values: Array) -> float:
    return float(average_precision_score(truth, values))


def _probabilities(model: Any, examples: uw.Examples) -> Array:
    return np.asarray(model.predict(examples).probabilities)


def _target_baselines(attack: Attack, seed: int) -> dict[str, Array]:
    """Random numbers, the loss of the predicted label, the distance to the training examples of that label, and the
    distance to the smaller of the two clusters of that label (the nearer, the more suspicious).
    """
    model, train, queries = attack.model, attack.train, attack.queries
    chances = _probabilities(model, queries)
    predicted = np.array(model.predict(queries).predicted)
    features, of_queries = model.embed(train), model.embed(queries)
    far, cluster = np.zeros(len(queries)), np.zeros(len(queries))
    for label in np.unique(predicted):
        rows, members = np.flatnonzero(predicted == label), np.flatnonzero(train.y == label)
        if len(members) < 10:
            continue
        space = FeatureSpace(features, of_queries[rows], members)
        far[rows] = np.sort(space.distances(space.queries), axis=1)[:, :5].mean(axis=1)
        reduced, clusters = _two_clusters(features[members])
        small = np.bincount(clusters.labels_, minlength=2).argmin()
        distances = clusters.transform(reduced.transform(of_queries[rows]))
        cluster[rows] = distances[:, 1 - small] - distances[:, small]
    return {
        "random": np.random.default_rng(seed).random(len(queries)),
        "loss": -np.log(np.maximum(chances.max(axis=1), 1e-300)),
        "nearest neighbours": far,
        "activation clustering": cluster,
    }


def _poison_baselines(attack: Attack, filtered: uw.DeepKNN, seed: int) -> dict[str, Array]:
    """Random numbers, the training loss, the share of neighbours with another label, and activation clustering: the
    share of the other cluster of its label if the example is in the smaller one (Chen et al. 2018).
    """
    model, train = attack.model, attack.train
    features, cluster = model.embed(train), np.zeros(len(train))
    for label in np.unique(train.y):
        members = np.flatnonzero(train.y == label)
        if len(members) < 10:
            continue
        reduced, clusters = _two_clusters(features[members])
        sizes = np.bincount(clusters.labels_, minlength=2)
        distances = clusters.transform(reduced.transform(features[members]))
        margin = distances[:, sizes.argmax()] - distances[:, sizes.argmin()]
        is_small = clusters.labels_ == sizes.argmin()
        cluster[members] = np.where(is_small, 1.0 - sizes.min() / sizes.sum() + 1e-6 * margin, 0.0)
    return {
        "random": np.random.default_rng(seed).random(len(train)),
        "loss": -model.measure(train),
        "nearest neighbours": 1.0 - np.nan_to_num(filtered.share, nan=1.0),
        "activation clustering": cluster,
    }


def _two_clusters(features: Array) -> tuple[PCA, KMeans]:
    reduced = PCA(min(10, *features.shape), random_state=0).fit(features)
    return reduced, KMeans(2, n_init=5, random_state=0).fit(reduced.transform(features))
