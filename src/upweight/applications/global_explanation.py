"""Global explanations: the few local models that together show which features a model uses."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from upweight.applications.interpretable.choice import Neighbours
from upweight.applications.local_model import FEWEST, LocalModel, fitted_method, local_model
from upweight.applications.surrogate import Surrogate
from upweight.core.attributor import Attributor, Fitted
from upweight.core.blocks import require_count
from upweight.core.capability_checks import require
from upweight.core.choices import require_choice
from upweight.core.examples import Examples
from upweight.core.model import Measurable
from upweight.core.progress import as_progress
from upweight.core.tabular import Tabular
from upweight.core.weights import weighted_positions

Array = NDArray[np.float64]
QUERIES_TOGETHER = 500  # attributed at a time


@dataclass(frozen=True, kw_only=True)
class Pick:
    """Which local models are made, and how many are picked.

    Args:
        k: how many to pick.
        candidates: of how many local models.
        of: "queries" draws the candidates from the queries and explains each by its surrogate on random neighbours;
            "influential" takes the training examples with the largest |score| for all queries together, and explains
            each by its surrogate on influential neighbours.
        features: of each surrogate.
    """

    k: int = 5
    candidates: int = 50
    of: Literal["queries", "influential"] = "queries"
    features: int = 10

    def __post_init__(self) -> None:
        for name in ("k", "candidates", "features"):
            require_count(name, getattr(self, name))
        if self.k > self.candidates:
            raise ValueError(f"expected k of at most {self.candidates}, the number of candidates, got {self.k}")
        require_choice("of", self.of, "queries", "influential")


@dataclass(frozen=True, eq=False)
class GlobalExplanation(Tabular):
    """A few local models that together show which features a model uses.

    Attributes:
        picked: the local models, in the order in which they were picked.
        candidates: all local models that were made.
        surrogates: of the candidates, as they were compared: (candidates,).
        importance: feature → √Σ |coefficient| over all candidates, the largest first.
        coverage: the share of the whole importance that the picked ones show, after each, (k,).
        examples: the queries or training examples that the candidates are about.
        scores: of training examples as candidates, for all queries together; None for queries.
        pick: the settings.
        diagnostics: `warnings`.
    """

    picked: tuple[LocalModel, ...]
    candidates: tuple[LocalModel, ...]
    surrogates: tuple[Surrogate, ...]
    importance: Mapping[str, float]
    coverage: Array
    examples: Examples
    scores: Array | None
    pick: Pick
    diagnostics: Mapping[str, Any] = field(default_factory=dict)

    def surrogate_of(self, local: LocalModel) -> Surrogate:
        """The surrogate by which this candidate was compared."""
        return self.surrogates[self.candidates.index(local)]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "of": self.pick.of,
            "candidates": self.examples.ids.tolist(),
            "importance": dict(self.importance),
            "picked": [
                {
                    "id": local.query.ids[0].item(),
                    "output": local.output,
                    "value": local.value,
                    "coefficients": self.surrogate_of(local).effects,
                    "coverage": coverage,
                }
                for local, coverage in zip(self.picked, self.coverage.tolist(), strict=True)
            ],
            "warnings": list(self.diagnostics["warnings"]),
        }

    def _rows(self) -> Iterable[Mapping[str, Any]]:
        return [{"feature": feature, "importance": importance} for feature, importance in self.importance.items()]

    def __repr__(self) -> str:
        ids = ", ".join(str(local.query.ids[0]) for local in self.picked)
        shown = f"{self.coverage[-1]:.0%} of the importance of {len(self.importance)} features"
        return f"GlobalExplanation({len(self.picked)} of {len(self.candidates)} local models ({ids}) show {shown})"


def global_explanation(
    model: Measurable,
    queries: Examples,
    train: Examples,
    recipe: Attributor | Fitted[Any, Any] | None = None,
    *,
    pick: Pick | None = None,
    neighbours: Neighbours | None = None,
    progress: Any = None,
) -> GlobalExplanation:
    """Pick a few local models that together show the features that matter: SP-LIME, and IFME on training examples.

    The importance of a feature is I = √Σ |coefficient| over all candidates. Local models are picked one by one, each
    the one with the most importance in features that those before do not show (submodular pick, Ribeiro, Singh &
    Guestrin 2016).

    Args:
        model, queries, train: as for `explain`.
        recipe: as for `local_model`.
        pick: how many, of which candidates.
        neighbours: how neighbours are drawn; None for `Neighbours(samples=1000)`.
        progress: called with (stage, done, total).

    Raises:
        ValueError: as for `local_model`.
        TypeError: anything but a model, or a model that lacks what the recipe needs.
    """
    require(model, [Measurable], "global_explanation", train, queries)
    choice, settings = pick or Pick(), neighbours or Neighbours(samples=1000)
    report = as_progress(progress, "explain")
    fitted = None if choice.of == "queries" else _scoring_method(model, train, recipe)
    settings = replace(settings, influential=0 if fitted is None else max(settings.influential, FEWEST))
    scores: Array | None = None
    if fitted is None:
        chosen = _some(queries, choice.candidates, settings.seed)
    else:
        chosen, scores = _most_influential(fitted, queries, train, choice.candidates)
    candidates = list[LocalModel]()
    for i in range(len(chosen)):
        query = chosen.take([i])
        candidates.append(local_model(model, query, train, fitted, features=choice.features, neighbours=settings))
        report("explain", i + 1, len(chosen))
    surrogates = [c.random if c.influential is None else c.influential for c in candidates]
    names, sizes = explanation_matrix(surrogates)
    importance = np.sqrt(sizes.sum(axis=0))
    picked, coverage = submodular_pick(sizes, importance, choice.k)
    order = np.argsort(-importance, kind="stable").tolist()
    return GlobalExplanation(
        picked=tuple(candidates[i] for i in picked),
        candidates=tuple(candidates),
        surrogates=tuple(surrogates),
        importance={names[j]: float(importance[j]) for j in order},
        coverage=coverage,
        examples=chosen,
        scores=scores,
        pick=choice,
        diagnostics={"warnings": _warnings(candidates, len(picked), choice)},
    )


def explanation_matrix(surrogates: Sequence[Surrogate]) -> tuple[list[str], Array]:
    """(names of all features that a surrogate chose; |coefficients|, (surrogates, features))."""
    names = list(dict.fromkeys(name for surrogate in surrogates for name in surrogate.effects))
    places = {name: j for j, name in enumerate(names)}
    sizes = np.zeros((len(surrogates), len(names)))
    for row, surrogate in zip(sizes, surrogates, strict=True):
        for name, coefficient in surrogate.effects.items():
            row[places[name]] += abs(coefficient)
    return names, sizes


def submodular_pick(sizes: Array, importance: Array, k: int) -> tuple[list[int], Array]:
    """(positions of at most k rows that cover the most importance, picked one by one; the share covered after each).

    It ends where no row shows another feature. Of equal rows it takes the last, as lime does.
    """
    shown, picked, coverage = np.zeros(sizes.shape[1], dtype=bool), list[int](), list[float]()
    for _ in range(k):
        gains = ((sizes > 0) & ~shown) @ importance
        gains[picked] = -1.0
        best = len(gains) - 1 - int(gains[::-1].argmax())
        if picked and gains[best] <= 0:
            break
        picked.append(best)
        shown |= sizes[best] > 0
        coverage.append(float(importance[shown].sum() / (importance.sum() or 1.0)))
    return picked, np.array(coverage)


def _scoring_method(
    model: Measurable, train: Examples, recipe: Attributor | Fitted[Any, Any] | None
) -> Fitted[Any, Any]:
    fitted = fitted_method(model, train, recipe)
    if fitted is None:
        raise ValueError(
            "expected a recipe, because no method scores training examples of this model without many trainings; pass "
            'one, or Pick(of="queries")'
        )
    return fitted


def _some(queries: Examples, count: int, seed: int) -> Examples:
    if len(queries) <= count:
        return queries
    return queries.take(np.sort(np.random.default_rng(seed).choice(len(queries), count, replace=False)))


def _most_influential(
    fitted: Fitted[Any, Any], queries: Examples, train: Examples, count: int
) -> tuple[Examples, Array]:
    """The training examples with the largest |score| for all queries together, and these scores."""
    total = np.zeros(len(train))
    for batch in queries.batches(QUERIES_TOGETHER):
        total += np.nan_to_num(fitted.attribute(batch).values).sum(axis=0)
    present = weighted_positions(train)
    chosen = present[np.argsort(-np.abs(total[present]), kind="stable")[:count]]
    return train.take(chosen), total[chosen]


def _warnings(candidates: Sequence[LocalModel], picked: int, pick: Pick) -> list[str]:
    poor = sum(bool(candidate.diagnostics["warnings"]) for candidate in candidates)
    warnings = []
    if poor:
        warnings.append(f"Local models with warnings of their own: {poor} of {len(candidates)}.")
    if picked < min(pick.k, len(candidates)):
        warnings.append(f"{picked} of {pick.k} local models are picked: the others show no further feature.")
    return warnings
