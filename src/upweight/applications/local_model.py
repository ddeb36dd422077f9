"""Local models: what a model does near one query, as a few features with coefficients."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.applications.explained_output import ExplainedOutput, explained_output, require_one
from upweight.applications.interpretable.choice import Neighbours
from upweight.applications.interpretable.features import InterpretableFeatures
from upweight.applications.neighbourhoods import influential_set, nearest_training, random_set
from upweight.applications.surrogate import Neighbourhood, Surrogate, fit_surrogate, weighted_r2
from upweight.core.attributor import Attributor, Fitted
from upweight.core.blocks import require_count
from upweight.core.capability_checks import can, require
from upweight.core.examples import Examples
from upweight.core.model import Measurable, Retrainable
from upweight.core.replayable import Replayable
from upweight.core.scores import Attribution
from upweight.core.tabular import Tabular
from upweight.core.weights import weighted_positions
from upweight.methods.registry import first_choice

Array = NDArray[np.float64]
POOR = 0.3  # R² on held-out neighbours below which coefficients say little
NO_SECOND = "There is no surrogate on influential training examples:"
FEWEST = 8  # influential training examples that a neighbourhood is made of


@dataclass(frozen=True)
class Fidelity:
    """How well a surrogate imitates the model on neighbours that it was not fitted to.

    Attributes:
        surrogate: `random` or `influential`.
        neighbours: `random`, `influential`, or `training` for the training examples nearest to the query.
        r2: weighted R²; NaN if the model says the same of all of them.
        error: weighted mean |model − surrogate|, in the unit of the output.
        count: how many neighbours.
    """

    surrogate: str
    neighbours: str
    r2: float
    error: float
    count: int


@dataclass(frozen=True, eq=False)
class LocalModel(Tabular):
    """Linear surrogates of a model near one query, and how well they imitate it.

    Attributes:
        query: the query.
        output: what is explained, in words: the probability of a label, or the prediction.
        label: the label; None if the output is of none.
        value: the output of the query.
        random: the surrogate on random neighbours, as in LIME.
        influential: the surrogate on neighbours made of the influential training examples (IFME); None without them.
        fidelity: of both surrogates on neighbours of both kinds that were held out, and on training examples.
        examples: the influential training examples with their scores, the largest |score| first.
        neighbourhoods: `random`, `influential`: what the surrogates were fitted to.
        features: columns, words or superpixels.
        train: the training set; None if none was passed.
        diagnostics: `warnings`; `method`, `measurement` and `unit` of the scores.
    """

    query: Examples
    output: str
    label: Any
    value: float
    random: Surrogate
    influential: Surrogate | None
    fidelity: tuple[Fidelity, ...]
    examples: tuple[Attribution, ...]
    neighbourhoods: Mapping[str, Neighbourhood]
    features: InterpretableFeatures
    train: Examples | None
    diagnostics: Mapping[str, Any] = field(default_factory=dict)

    @property
    def surrogates(self) -> dict[str, Surrogate]:
        """`random` and, if there is one, `influential`."""
        both = {"random": self.random, "influential": self.influential}
        return {name: surrogate for name, surrogate in both.items() if surrogate is not None}

    def fidelity_of(self, surrogate: str, neighbours: str) -> Fidelity:
        """The fidelity of one surrogate on neighbours of one kind. Raises KeyError if there is none."""
        for fidelity in self.fidelity:
            if (fidelity.surrogate, fidelity.neighbours) == (surrogate, neighbours):
                return fidelity
        pairs = [f"{f.surrogate} on {f.neighbours}" for f in self.fidelity]
        raise KeyError(f"no fidelity of {surrogate!r} on {neighbours!r}; there is {', '.join(pairs)}")

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; an R² that is not known is None."""
        return {
            "query": self.query.ids[0].item(),
            "output": self.output,
            "label": self.label,
            "value": self.value,
            "local_value": {name: float(self._of_query(name)) for name in self.surrogates},
            "coefficients": {name: surrogate.effects for name, surrogate in self.surrogates.items()},
            "intercept": {name: surrogate.intercept for name, surrogate in self.surrogates.items()},
            "fidelity": [
                {**vars(fidelity), "r2": None if np.isnan(fidelity.r2) else fidelity.r2} for fidelity in self.fidelity
            ],
            "examples": [{"id": a.id, "score": a.score} for a in self.examples],
            "warnings": list(self.diagnostics["warnings"]),
        }

    def _of_query(self, name: str) -> float:
        return float(self.surrogates[name].predict(self.neighbourhoods[name].rows[:1])[0])

    def _rows(self) -> Iterable[Mapping[str, Any]]:
        for name, surrogate in self.surrogates.items():
            for feature, coefficient in surrogate.effects.items():
                yield {"surrogate": name, "feature": feature, "coefficient": coefficient}

    def __repr__(self) -> str:
        fidelities = [self.fidelity_of(name, name).r2 for name in self.surrogates]
        held_out = " and ".join(f"{r2:.2f} ({name})" for r2, name in zip(fidelities, self.surrogates, strict=True))
        return f"LocalModel({self.output} {self.value:.3g}, held-out R² {held_out})"


def local_model(
    model: Measurable,
    query: Examples,
    train: Examples | None = None,
    recipe: Attributor | Fitted[Any, Any] | None = None,
    *,
    label: Any = None,
    features: int = 10,
    neighbours: Neighbours | None = None,
) -> LocalModel:
    """Explain one prediction by linear surrogates near it, on random neighbours and on influential training examples.

    LIME (Ribeiro, Singh & Guestrin 2016): a weighted ridge regression of the model's output on interpretable features
    of random neighbours: columns of a table, words of a text, superpixels of a picture. IFME (2019): the same on
    neighbours made of, and weighted by, the training examples that influence the prediction.

    Args:
        model: any model; only its predictions are used.
        query: one example.
        train: the training set; tables and the second surrogate need it.
        recipe: the method whose scores say which training examples influence the prediction, or one that is fitted
            (`explained.fitted`); None for the one that suits the model, unless that would retrain it.
        label: the label whose probability is explained; None for the predicted one.
        features: how many features to choose.
        neighbours: how neighbours are drawn.

    Raises:
        ValueError: more than one query, a query with other columns than the training set, an unknown label, outputs
            that are not finite, fewer than 8 training examples for the second surrogate.
        ImportError: a picture, without scikit-image and without `Neighbours(segments=…)`.
        TypeError: anything but a model, or a model that lacks what the recipe needs.
    """
    require(model, [Measurable], "local_model", *([query] if train is None else [train, query]))
    require_count("features", features)
    settings = neighbours or Neighbours()
    require_one(query)
    described = settings.features_of(train, query)
    output = explained_output(model, query, label)
    examples, diagnostics = _influential(output, train, recipe, settings)
    sets, tests = _neighbour_sets(described, output, train, examples, settings)
    surrogates = {name: fit_surrogate(neighbours_of, features) for name, neighbours_of in sets.items()}
    fidelity = tuple(
        _fidelity(name, surrogate, kind, test) for name, surrogate in surrogates.items() for kind, test in tests.items()
    )
    diagnostics["warnings"] += _fidelity_warnings(fidelity, sets["random"], output)
    return LocalModel(
        query=query,
        output=output.described,
        label=output.label,
        value=float(sets["random"].outputs[0]),
        random=surrogates["random"],
        influential=surrogates.get("influential"),
        fidelity=fidelity,
        examples=examples,
        neighbourhoods=sets,
        features=described,
        train=train,
        diagnostics=diagnostics,
    )


def _neighbour_sets(
    features: InterpretableFeatures,
    output: ExplainedOutput,
    train: Examples | None,
    examples: tuple[Attribution, ...],
    settings: Neighbours,
) -> tuple[dict[str, Neighbourhood], dict[str, Neighbourhood]]:
    """(the neighbourhoods to fit surrogates to, those to try them on), by name."""
    samples, seed = settings.samples or type(features).samples, settings.seed
    sets = {"random": random_set(features, output, samples, np.random.default_rng([seed, 0]))}
    used = np.empty(0, dtype=np.intp)
    if train is not None and examples:
        used = train.positions([a.id for a in examples])
        sizes = np.abs([a.score for a in examples])
        rng = np.random.default_rng([seed, 1])
        sets["influential"] = influential_set(features, output, (used, sizes), samples, rng)
    tests = {name: neighbour_set.held_out for name, neighbour_set in sets.items()}
    if train is not None:
        others = np.setdiff1d(weighted_positions(train), used)
        near = nearest_training(features, output, others, np.random.default_rng([seed, 2]))
        tests |= {} if near is None else {"training": near}
    return {name: neighbour_set.fitted for name, neighbour_set in sets.items()}, tests


def fitted_method(
    model: Measurable, train: Examples, recipe: Attributor | Fitted[Any, Any] | None
) -> Fitted[Any, Any] | None:
    """The fitted method whose scores say which training examples matter.

    None without a recipe, if the method to try first would retrain the model or needs what the model cannot do.

    Raises ValueError for a method that is fitted on another model or training set.
    """
    if recipe is None:
        recipe = first_choice(model, train)
        if {Retrainable, Replayable} & set(recipe.needs) or not all(can(model, need) for need in recipe.needs):
            return None
    fitted = recipe if isinstance(recipe, Fitted) else recipe.fit(model, train)
    if fitted.original_model is not model or fitted.train is not train:
        raise ValueError("expected a method that is fitted on this model and training set, got one of others")
    return fitted


def _influential(
    output: ExplainedOutput, train: Examples | None, recipe: Attributor | Fitted[Any, Any] | None, settings: Neighbours
) -> tuple[tuple[Attribution, ...], dict[str, Any]]:
    """The training examples with the largest |score|, and what is known of the scores."""
    if train is None or not settings.influential:
        return (), {"warnings": []}
    present = weighted_positions(train)
    if len(present) < FEWEST or settings.influential < FEWEST:
        raise ValueError(
            f"expected at least {FEWEST} influential training examples, got "
            f"{min(len(present), settings.influential)}; pass Neighbours(influential=0) for none"
        )
    if recipe is None and _lacks_label(output):
        return (), {"warnings": [f"{NO_SECOND} {output.model.measurement} needs the label of the query."]}
    fitted = fitted_method(output.model, train, recipe)
    if fitted is None:
        text = f"{NO_SECOND} no method scores them for this model without many trainings; pass one as recipe."
        return (), {"warnings": [text]}
    scores = fitted.attribute(_with_label(output))
    values = np.nan_to_num(scores.values[0])
    order = present[np.argsort(-np.abs(values[present]), kind="stable")[: settings.influential]]
    facts = {"method": type(fitted.recipe).__name__, "measurement": scores.measurement, "unit": str(scores.unit)}
    warnings = [str(warning) for warning in scores.diagnostics.get("warnings", ())]
    if not values[order].any():
        text = "All scores of the query are 0: which training examples influence the prediction is not known."
        return (), {**facts, "warnings": [*warnings, text]}
    return tuple(Attribution(train.ids[i].item(), float(values[i])) for i in order), {**facts, "warnings": warnings}


def _lacks_label(output: ExplainedOutput) -> bool:
    return output.label is None and output.query.y is None and output.model.measurement.startswith("−loss")


def _with_label(output: ExplainedOutput) -> Examples:
    """The query with the label that is explained, which may be another than its own."""
    if output.label is None:
        return output.query
    return output.query.replaced(y=np.array([output.raw_label]))


def _fidelity(name: str, surrogate: Surrogate, kind: str, test: Neighbourhood) -> Fidelity:
    predictions = surrogate.predict(test.rows)
    error = float(np.average(np.abs(test.outputs - predictions), weights=test.weights))
    return Fidelity(name, kind, weighted_r2(test.outputs, predictions, test.weights), error, len(test.outputs))


def _fidelity_warnings(fidelity: tuple[Fidelity, ...], random: Neighbourhood, output: ExplainedOutput) -> list[str]:
    if np.ptp(random.outputs) == 0:
        return [f"The {output.described} is the same for all random neighbours: no feature is seen to matter."]
    poor = [f for f in fidelity if f.surrogate == f.neighbours and f.r2 < POOR]
    return [
        f"The surrogate on {f.neighbours} neighbours explains {max(f.r2, 0.0):.0%} of the variation of held-out ones: "
        "near this query the model is not linear in these features, and the coefficients say little."
        for f in poor
    ]
