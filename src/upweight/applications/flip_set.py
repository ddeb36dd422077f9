"""The smallest set of training examples without which a reader would see something else, proved by retraining."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.applications.contests import (
    Classes,
    Contest,
    Measured,
    Significance,
    Threshold,
    labelled_with_each_class,
)
from upweight.applications.flip_search import FlipSearch, Removed
from upweight.applications.flip_set_result import FlipSet, sentence_of
from upweight.applications.removable import copies_of, removable
from upweight.core.attributor import Attributor
from upweight.core.capability_checks import require
from upweight.core.examples import Examples, Id, require_examples
from upweight.core.model import Measurable, Retrainable
from upweight.core.printable import printable
from upweight.core.scores import Unit
from upweight.core.weights import weighted_positions
from upweight.linear.model import LinearModel
from upweight.methods.registry import first_choice
from upweight.retraining.retraining import Retraining

MAX_NAMED = 10  # examples that a message names
AFFORDABLE_SETS = 2000  # sets of which all are retrained by Newton steps


@dataclass(frozen=True, kw_only=True)
class SetSearch:
    """How `flip_set` searches.

    Args:
        method: scores the candidates; None for the method that suits the model best.
        most: the largest removal that is tried; None for all given candidates, or for a fifth of the training set.
        proof: False to trust the sum of scores and to retrain nothing; the result then has a warning.
        exhaustive: if there are at most this many smaller sets, all of them are retrained; None for 2,000 if Newton
            steps retrain the model, else 0.
        noun: what training examples are called in sentences, e.g. "ratings".

    Raises:
        ValueError: fewer than one example, or fewer than 0 sets.
    """

    method: Attributor | None = None
    most: int | None = None
    proof: bool = True
    exhaustive: int | None = None
    noun: str = "training examples"

    def __post_init__(self) -> None:
        if self.most is not None and self.most < 1:
            raise ValueError(f"expected most ≥ 1, got {self.most}")
        if self.exhaustive is not None and self.exhaustive < 0:
            raise ValueError(f"expected exhaustive ≥ 0, got {self.exhaustive}")


def flip_set(
    model: Measurable,
    train: Examples,
    queries: Examples | None = None,
    *,
    against: float | Significance | None = None,
    candidates: Sequence[Id] | str | None = None,
    search: SetSearch | None = None,
    retraining: Retraining | None = None,
) -> FlipSet:
    """Find the smallest set of training examples without which another value would be the highest.

    What is compared depends on the arguments:

    - several queries: their measurements. A recommender shows the highest one (Tran et al. 2021, ACCENT).
    - one query: the classes, for a model that predicts classes and measures −loss or the margin of the label.
    - a number as `against`: the measurement of one query, or of the parameters (`uw.Coefficient`), and that number. For
      a coefficient it is 0 by default, so that its sign flips (Broderick, Giordano & Meager 2020).
    - `against=uw.Significance(0.05)`: a coefficient, by Wald's test, and what is significant at this level.

    The search is greedy on pairwise scores: for every rival of the leader, candidates are removed in the order of how
    much of the gap between the two they hold open, and every size that is tried is retrained. Examples that the flip
    does not need are put back. Linear models are also searched one example at a time, with new scores after each. If
    there are few enough smaller sets, all of them are retrained.

    Args:
        model: a model that can be retrained; without proof, any that the method can score.
        train: its training set.
        queries: what is compared; None for a measurement of the parameters.
        against: see above.
        candidates: ids of the training examples that may be removed; or the name of a column, for those that have the
            queries' value there (the ratings of a user). None for all.
        search: method, largest removal, proof.
        retraining: where and how; with several seeds, values are means over them. Its progress is called with the
            stage "search".

    Raises:
        ValueError: there are no candidates, nothing to compare, or a measurement that does not rank the queries.
        TypeError: a model that cannot be retrained, or that does not measure a coefficient.
    """
    search = SetSearch() if search is None else search
    require(model, [Retrainable] if search.proof else [Measurable], "flip_set", train)
    contest = _contest(model, train, queries, against)
    positions = removable(train, candidates, contest.queries)
    limit = _limit(train, positions, search.most, is_given=candidates is not None)
    recipe = first_choice(model, train) if search.method is None else search.method
    sets = FlipSearch(
        contest, (model, train), positions, limit, recipe, Retraining() if retraining is None else retraining
    )
    flip = sets.prove(_budget(model, search.exhaustive)) if search.proof else sets.predict()
    warnings = [*sets.warnings, *_warnings(contest, sets, search.proof, is_found=flip is not None)]
    return _result(contest, sets, flip, search, warnings)


def _contest(model: Any, train: Examples, queries: Examples | None, against: float | Significance | None) -> Contest:
    """The values that are compared."""
    if isinstance(against, Significance):
        if queries is not None:
            raise ValueError(
                "expected no queries: the significance of a coefficient is a measurement of the parameters"
            )
        return against.tested(model)
    given = model.parameter_query() if queries is None else queries
    if given is None:
        raise TypeError(
            "expected queries, or a model that measures a coefficient: explainable(…, measure=uw.Coefficient(…))"
        )
    require_examples(given, "the queries")
    if against is not None or queries is None:
        if against is not None and not _is_finite(against):
            raise ValueError(f"expected a finite number or uw.Significance as against, got {against!r}")
        if against is not None and against > 0 and model.measurement == "−loss (half squared error)":
            raise ValueError(
                f"expected a number that {model.measurement} can reach, which is never above 0, got {against:g}; to "
                "compare the predicted number, pass explainable(…, measure=lambda outputs, labels: outputs[:, 0])"
            )
        if len(given) > 1:
            raise ValueError(f"expected one query whose measurement is compared with {against}, got {len(given)}")
        return Threshold(("above", "below"), given, 0.0 if against is None else float(against))
    if len(given) == 1:
        if not model.predict(given).classes:
            raise ValueError(
                "expected a model that predicts classes, or several queries to compare, or against= a number that the "
                "measurement of the one query is compared with"
            )
        return labelled_with_each_class(model, train, given)
    if model.measurement.startswith("−loss"):
        raise ValueError(
            f"expected a measurement that ranks the {len(given)} queries, e.g. the predicted rating, got "
            f"{model.measurement}; pass TorchModel(…, measure=…) or explainable(…, measure=…), or one query alone "
            "(--query ID on the command line)"
        )
    return Measured(tuple(given.ids.tolist()), given)


def _is_finite(number: Any) -> bool:
    is_number = isinstance(number, int | float | np.integer | np.floating) and not isinstance(number, bool)
    return is_number and bool(np.isfinite(number))


def _limit(train: Examples, positions: NDArray[np.intp], most: int | None, is_given: bool) -> int:
    n = len(weighted_positions(train))
    largest = min(len(positions), n - 1)
    if most is None:
        return largest if is_given else max(1, min(largest, n // 5))
    if not 0 < most <= largest:
        raise ValueError(f"expected most between 1 and {largest}, got {most}")
    return most


def _budget(model: Any, exhaustive: int | None) -> int:
    """How many smaller sets may all be retrained."""
    if exhaustive is not None:
        return exhaustive
    return AFFORDABLE_SETS if isinstance(model, LinearModel) and model.refit is None else 0


def _warnings(contest: Contest, sets: FlipSearch, proof: bool, *, is_found: bool) -> list[str]:
    """Which queries could be removed themselves, and that nothing was proved."""
    warnings = []
    queries = contest.queries.take([0]) if isinstance(contest, Classes) else contest.queries
    copies = copies_of(queries, sets.train, sets.positions)
    if copies:
        names = ", ".join(map(repr, copies[:MAX_NAMED])) + (", …" if len(copies) > MAX_NAMED else "")
        warnings.append(
            f"Training examples with the inputs of a query may be removed too ({names}): pass candidates= without them "
            "to ask about the others."
        )
    if not proof:
        unit = "" if sets.unit == Unit.EFFECT else ", whose sizes no retraining confirmed"
        found, none = "The set was not retrained: it is the smallest one", "Nothing was retrained: no set flips it"
        warnings.append(f"{found if is_found else none} by the sum of scores{unit}.")
    return warnings


def _result(
    contest: Contest, sets: FlipSearch, flip: Removed | None, search: SetSearch, warnings: list[str]
) -> FlipSet:
    removed = () if flip is None else flip.positions
    retrained = None if flip is None else flip.values
    predicted = sets.predicted(removed)
    values = predicted if retrained is None else retrained
    result = FlipSet(
        before=contest.names[sets.leader],
        after=None if flip is None else contest.names[int(np.argmax(values))],
        removed=tuple(sets.train.ids[list(removed)].tolist()),
        shares=sets.contributions_to_gap(int(np.argmax(values)))[list(removed)],
        names=contest.names,
        values=sets.values,
        predicted=predicted,
        retrained=retrained,
        nearest=sets.nearest if flip is None else None,
        tried=sets.tried,
        trainings=sets.trainings,
        is_smallest=flip is not None and flip.is_smallest,
        train=sets.train,
        candidates=sets.train.ids[sets.positions],
        queries=contest.queries,
        measurement=sets.model.measurement,
        noun=search.noun,
        diagnostics={"warnings": warnings, "method": sets.recipe.described()},
        sentence="",
    )
    return replace(result, sentence=printable(sentence_of(contest, result, search.proof)))
