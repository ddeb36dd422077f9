"""The tests of Han et al. (2020): removals with retraining, masked tokens, and examples that share a salient word."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from experiments.texts import encoder
from experiments.texts.encoder import Array, Encoder

import upweight as uw

REMOVED, SEEDS, BASELINE_SEEDS = 0.1, 5, 1
TOP = 0.01  # of the training set, whose change is followed when a token is masked
MASKS = ("lowest", "median", "highest", "nearest zero", "random")
OURS = "influence"


@dataclass(frozen=True, eq=False)
class Case:
    """A model, what it was trained on, and the texts that are asked; `queries` have the predicted labels."""

    encoder: Encoder
    texts: Sequence[Any]
    train: uw.Examples
    model: uw.TorchModel
    asked: Sequence[Any]
    queries: uw.Examples

    @classmethod
    def of(cls, space: Encoder, texts: Sequence[Any], labels: Any, asked: Sequence[Any]) -> Case:
        train = space.examples(texts, labels)
        model = uw.TorchModel.trained(space.fresh, encoder.losses, train, training=encoder.TRAINING)
        queries = space.examples(asked, np.zeros(len(asked), dtype=np.int64), "q")
        return cls(space, texts, train, model, asked, queries.replaced(y=model.predict(queries).predicted))

    @cached_property
    def influence(self) -> uw.Fitted:
        return uw.Influence(curvature=uw.EKFAC()).fit(self.model, self.train)

    def few(self, count: int) -> uw.Examples:
        return self.queries.take(np.arange(count))

    def scores(self, queries: uw.Examples) -> dict[str, Array]:
        """Scores (queries, train) of every method; those without a sign get that of agreeing labels."""
        agree = np.where(queries.y[:, None] == self.train.y[None], 1.0, -1.0)
        found = {OURS: self.influence.attribute(queries).values}
        found["GradDot"] = uw.GradDot().fit(self.model, self.train).attribute(queries).values
        found["BM25"] = agree * uw.BM25().fit(self.model, self.train).attribute(queries).values
        asked = [self.asked[int(str(name)[1:])] for name in queries.ids]
        found["embeddings"] = agree * (self.encoder.pooled(asked) @ self.encoder.pooled(self.texts).T)
        found["loss"] = np.broadcast_to(-self.model.measure(self.train), agree.shape)
        return found


def removals(case: Case, scores: dict[str, Array], count: int) -> dict[str, Array]:
    """Change of the confidence in points, (queries, seeds), after a tenth is removed and the net trained again."""
    queries, n = case.few(count), len(case.train)
    size = int(REMOVED * n)
    confident = [_confidence(case, queries, np.ones(n), seed) for seed in range(SEEDS)]

    def changes(order: Array, seeds: int, query: int | None = None) -> list[Any]:
        weights = np.ones(n)
        weights[order[:size]] = 0.0
        asked = queries if query is None else queries.take([query])
        before = [c if query is None else c[[query]] for c in confident[:seeds]]
        return [_confidence(case, asked, weights, seed) - before[seed] for seed in range(seeds)]

    order = np.random.default_rng(0).permutation(n)
    found = {"random": np.transpose(changes(order, SEEDS))}
    found["highest loss"] = np.transpose(changes(np.argsort(scores["loss"][0]), BASELINE_SEEDS))
    kinds: dict[str, tuple[int, Callable[[int], Array]]] = {
        "most positive": (SEEDS, lambda q: np.argsort(-scores[OURS][q])),
        "most negative": (SEEDS, lambda q: np.argsort(scores[OURS][q])),
        "nearest zero": (BASELINE_SEEDS, lambda q: np.argsort(np.abs(scores[OURS][q]))),
    }
    for name in ("GradDot", "BM25", "embeddings"):
        kinds[f"most positive, {name}"] = (BASELINE_SEEDS, lambda q, name=name: np.argsort(-scores[name][q]))  # type: ignore[misc]
    for kind, (seeds, ordered) in kinds.items():
        found[kind] = np.concatenate([np.transpose(changes(ordered(q), seeds, q)) for q in range(count)])
        print(kind, found[kind].mean() * 100, flush=True)
    return {kind: 100 * values for kind, values in found.items()}


def _confidence(case: Case, queries: uw.Examples, weights: Array, seed: int) -> Array:
    probabilities = uw.retrain(case.model, case.train, weights, seed).predict(queries).probabilities
    assert probabilities is not None
    return np.asarray(probabilities)[np.arange(len(queries)), queries.y]


def masked(case: Case, scores: Array) -> list[dict[str, Array]]:
    """For every query: by word, the saliencies, and the share of the top 1 % that stays if the word is masked."""
    tokenizer, count = case.encoder.parts[1], int(TOP * len(case.train))
    found, encoded = [], []
    for text in case.asked:
        ids = case.encoder.tokens([text])["input_ids"][0]
        words = np.flatnonzero(~np.isin(ids.numpy(), tokenizer.all_special_ids))
        changed = ids.repeat(len(words), 1)
        changed[np.arange(len(words)), words] = tokenizer.mask_token_id
        encoded.append(changed)
        found.append({"gradient": case.encoder.saliency(case.model.network.net, text)[words]})
    asked = [text for text, changed in zip(case.asked, encoded, strict=True) for _ in changed]
    inputs = case.encoder.tokens(asked) | {"input_ids": torch.cat(encoded)}
    with torch.no_grad():
        x = case.encoder.below(case.encoder.embedded(inputs), inputs["attention_mask"]).numpy()
    owners = np.repeat(np.arange(len(encoded)), [len(changed) for changed in encoded])
    queries = uw.Examples(x, case.queries.y[owners])
    again = case.influence.attribute(queries).values
    lost = case.model.measure(case.queries)[owners] - case.model.measure(queries)
    top = [np.argsort(-values)[:count] for values in scores]
    kept = [len(np.intersect1d(top[o], np.argsort(-v)[:count])) / count for o, v in zip(owners, again, strict=True)]
    for query, of_words in enumerate(found):
        of_words["erasure"], of_words["kept"] = lost[owners == query], np.array(kept)[owners == query]
    return found


def places(saliency: Array, rng: np.random.Generator) -> dict[str, int]:
    """Which word is masked, by its saliency."""
    ordered = np.argsort(saliency, kind="stable")
    chosen = ordered[0], ordered[len(ordered) // 2], ordered[-1], np.argmin(np.abs(saliency)), rng.choice(ordered)
    return dict(zip(MASKS, map(int, chosen), strict=True))


def sharing(case: Case, scores: Array) -> Array:
    """Mean score of training texts with the label and the most salient token, minus that of the others, in their sd."""
    train_ids = case.encoder.tokens(case.texts)["input_ids"].numpy()
    found = []
    for query, text in enumerate(case.asked):
        saliency, ids = case.encoder.saliency(case.model.network.net, text), case.encoder.tokens([text])["input_ids"][0]
        words = np.flatnonzero(~np.isin(ids.numpy(), case.encoder.parts[1].all_special_ids))
        salient = int(ids[words[np.argmax(saliency[words])]])
        same = case.train.y == case.queries.y[query]
        has = (train_ids == salient).any(axis=1) & same
        if 2 <= has.sum() < same.sum():
            others = scores[query, same & ~has]
            found.append((scores[query, has].mean() - others.mean()) / others.std())
    return np.array(found)
