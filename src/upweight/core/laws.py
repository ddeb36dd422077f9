"""The laws that hold for every method on every model that it fits; `upweight.testing` tests them."""

from __future__ import annotations

from enum import StrEnum


class Law(StrEnum):
    """The laws of methods. The value is the sentence by which a law is waived and reported."""

    FACTS = "a method states its facts and what it promises"
    SHAPE = "rows are queries and columns are training examples, by id"
    COPY = "a copy helps, its flipped copy harms"
    PERMUTATION = "permuting examples permutes scores"
    BATCHES = "queries may come together or alone"
    HISTORY = "earlier questions change neither values nor units"
    SEED = "fitted again, the same question gives the same bits"
    TOP = "top holds both ends of the matrix"
    SELF = "self-influence is the score of each example on itself"
    GROUPS = "groups are column sums"
    REMOVAL = "one example removed as a group has the effect that its score states"
    SAVED = "saved and loaded, a fit gives the same answers"
    IDENTITY = "a fit of another model, other data or other settings does not load"
    CHANGED_QUERIES = "queries changed in place are answered as new ones"
    CHANGED_TRAINING = "a training set changed in place is refused"
    UNTOUCHED = "nothing of the user's is changed"
    WEIGHTS = "weight 0 is absence, weight k is k copies"
    RETRAINING = "scores agree with retraining, above the stated floor"
