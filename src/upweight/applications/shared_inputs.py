"""Shared inputs: the parts that decide a query beside those that decide the training examples behind it."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np

from upweight.applications.attribute_inputs import Words, attribute_inputs
from upweight.applications.explain import Explanation
from upweight.applications.shared_inputs_result import SharedExample, SharedInputs, SharedPart
from upweight.core.blocks import require_count
from upweight.core.erasing import has_texts
from upweight.core.examples import Examples
from upweight.core.input_attributions import InputAttributions
from upweight.core.input_recipes import InputRecipe
from upweight.core.model import Measurable
from upweight.evaluate.part_ordering import PartOrdering, necessity, sufficiency

POINTS = 10  # of the curves of necessity and sufficiency


def shared_inputs(
    model: Measurable,
    explained: Explanation,
    recipe: InputRecipe | None = None,
    *,
    of: Any = "predicted",
    k: int = 4,
    words: Words | None = None,
) -> SharedInputs:
    """Attribute an output of each query to its input, and the same output of its strongest training examples to theirs.

    A person then sees what query and training example share: the same words, the same columns, the same strokes.

    Args:
        model: the model that was explained.
        explained: what `explain` returned.
        recipe, of, words: as for `attribute_inputs`; `words` of nets with token ids is a function of examples.
        k: how many training examples per query, those with the largest |score|.

    Raises:
        TypeError: anything but an explanation, and what `attribute_inputs` refuses.
        ValueError: k below 1, and what `attribute_inputs` refuses.
    """
    if not isinstance(explained, Explanation):
        raise TypeError(f"expected what uw.explain(model, train, queries) returned, got {type(explained).__name__}")
    require_count("k", k)
    if words is not None and not callable(words):
        raise TypeError("expected words= as a function of examples, because queries and training examples need it")
    train, queries = explained.train, explained.queries
    attributed = attribute_inputs(model, queries, recipe, of=of, train=train, words=words)
    beside, examples = {}, {}
    warnings = list(attributed.diagnostics["warnings"])
    for q, identifier in enumerate(queries.ids.tolist()):
        row = explained.scores.values[q]
        strongest = np.argsort(-np.nan_to_num(np.abs(row), nan=-1.0), kind="stable")[:k]
        ids = explained.scores.train_ids[strongest].tolist()
        target = attributed.targets[q]
        chosen = "predicted" if target is None else [target] * len(ids)
        part = attribute_inputs(model, train.select(ids), recipe, of=chosen, train=train, words=words)
        warnings += part.diagnostics["warnings"]
        beside[identifier] = part
        examples[identifier] = tuple(_shared(attributed, q, part, j, float(row[strongest[j]])) for j in range(len(ids)))
    need, enough = _criteria(model, attributed, train)
    return SharedInputs(
        queries=attributed,
        train=beside,
        examples=examples,
        necessity=need,
        sufficiency=enough,
        measurement=explained.scores.measurement,
        diagnostics={"warnings": list(dict.fromkeys(warnings))},
    )


def _shared(queries: InputAttributions, q: int, train: InputAttributions, j: int, score: float) -> SharedExample:
    """What one query and one training example have in common."""
    mine, theirs = _shares(queries, q), _shares(train, j)
    common = [
        SharedPart(name, share, theirs[name]) for name, share in mine.items() if share * theirs.get(name, 0.0) > 0
    ]
    common.sort(key=lambda part: -min(abs(part.query), abs(part.example)))
    overlap = float(sum(min(abs(part.query), abs(part.example)) for part in common))
    return SharedExample(train.examples.ids[j].item(), score, overlap, tuple(common))


def _shares(attributions: InputAttributions, position: int) -> dict[str, float]:
    """Part → its signed share of the attributions, whose absolute values add up to 1; equal words count together."""
    totals: defaultdict[str, float] = defaultdict(float)
    is_word = attributions.parts == "words"
    for name, value in zip(attributions.names[position], attributions.values[position].ravel().tolist(), strict=True):
        totals[name.casefold() if is_word else name] += value
    size = sum(abs(value) for value in totals.values()) or 1.0
    return {name: value / size for name, value in totals.items()}


def _criteria(
    model: Measurable, attributed: InputAttributions, train: Examples
) -> tuple[PartOrdering | None, PartOrdering | None]:
    baseline = getattr(attributed.recipe, "baseline", None)
    if attributed.parts == "words" and not has_texts(attributed.examples) and baseline is None:
        return None, None  # there is no token that means the absence of a part
    try:
        return (
            necessity(model, attributed, baseline=baseline, train=train, points=POINTS),
            sufficiency(model, attributed, baseline=baseline, train=train, points=POINTS),
        )
    except ValueError:  # parts of what a `collate` made cannot be erased from the examples
        return None, None
