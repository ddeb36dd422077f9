"""Representer points: a logit of the model as a sum over training examples, on the features of its last step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from upweight.core.answers import AnswerFacts, Blocks
from upweight.core.archive import stored_array
from upweight.core.attributor import Attributor, Fitted, Promises
from upweight.core.blocks import blocks
from upweight.core.capability_checks import can
from upweight.core.choices import require_choice
from upweight.core.examples import Examples
from upweight.core.head_objective import HeadObjective
from upweight.core.input_kinds import is_sparse
from upweight.core.laws import Law
from upweight.core.model import Embeddable, Retrainable
from upweight.core.scores import Scores, Unit
from upweight.core.weights import sample_weights
from upweight.linear.representer_head import RepresenterHead
from upweight.methods.parts.head_targets import HeadTargets, agreement

Array = NDArray[np.float64]
TRAIN_BLOCK = 4096  # training examples whose scores are held in memory at once
FAITHFUL = 0.99  # Pearson correlation of reconstructed and predicted probabilities below which a head is not used
MAX_CHANGE = 0.05  # mean difference of these probabilities above which a head is not used
MATERIAL = 0.1  # difference of a probability above which a query is named
COMPARED_ON = {"labels": "the training set", "predictions": "every tenth training example"}
HELD_OUT, OWN_HEAD = "held-out examples", "the training set, for which the model's last step is such a head"
MAX_NAMED = 10  # queries that a warning names
L2 = (0.006, 0.001, 1e-4, 1e-5)  # 2λ of the paper, and smaller ones for a head that this l2 changes too much


@dataclass(frozen=True, kw_only=True)
class RepresenterPoints(Attributor):
    """Yeh et al. (2018): the logit of the query's label is Σ_i α_i f_i·f_q + b, score = α_i f_i·f_q. RANK.

    f are the features on which the model's last step works (`embed`), α_i = −w_i ∂ℓ_i/∂Φ_i / (l2 Σw). The sum is exact
    at the optimum of an l2 objective, so a head on these features is taken there first. It is used only if it predicts
    what the model itself predicts.

    Args:
        targets: what the head is trained on: the "labels", or the probabilities that the model predicts ("predictions",
            as in the paper), in which the training labels play no part.
        l2: on one logit per class, with the mean loss; twice the paper's λ. "auto" takes the first one with which the
            head predicts what the model predicts: for labels that of the model's own training, then the paper's .006,
            .001, 1e-4 and 1e-5.
    """

    summary = "The logit of the query's label as a sum over training examples, on the features of the model's last step"
    paper = "Yeh, Kim, Yen & Ravikumar (2018), 1811.09720, theorem 3.1"
    cost = "features of all examples, a softmax regression on them, and one product per pair"
    needs = (Embeddable,)

    targets: Literal["labels", "predictions"] = "labels"
    l2: float | Literal["auto"] = "auto"

    def __post_init__(self) -> None:
        require_choice("targets", self.targets, "labels", "predictions")
        if self.l2 != "auto" and not (isinstance(self.l2, int | float) and 0 < self.l2 < np.inf):
            raise ValueError(f'expected l2="auto" or a number > 0, got {self.l2!r}')

    @property
    def promises(self) -> Promises:
        """No floor against retraining."""
        unlabelled = "the head is trained on the model's predictions, in which a training label plays no part"
        return Promises(
            no_floor="the scores say what a logit is made of, not what it is without a training example",
            waives={} if self.targets == "labels" else {Law.COPY: unlabelled},
        )

    def fit(self, model: Any, train: Examples, held_out: Examples | None = None) -> FittedRepresenterPoints:
        """Take a head to its optimum, and compare it with the model.

        Args:
            model: a classifier with features.
            train: its training set.
            held_out: examples that the model was not trained on, on which to compare. Without them, a head on
                predictions is compared on every tenth training example, which it did not see, and a head on labels on
                the training set, whose labels model and head have seen; a warning says so.

        Raises TypeError if the model has no class probabilities, measures something else than −loss, or predicts
        something else than such heads.
        """
        if not model.measurement.startswith("−loss"):
            raise TypeError(
                f"a representer value is a part of the logit of the query's label, not of {model.measurement!r}; make "
                "the model without measure="
            )
        features, predicted = _float64(model.embed(train)), _probabilities(model, train)
        others = None if held_out is None else (_float64(model.embed(held_out)), _probabilities(model, held_out))
        own = model.head_objective(train) if can(model, Retrainable) and model.converges else None
        tried = []
        for targets in self._candidates(model, train, predicted):
            head = targets.fit(features, np.arange(len(train)))
            facts: dict[str, Any] = {"targets": targets.kind, "l2": targets.l2}
            if others is not None:
                facts |= agreement(head.probabilities(others[0]), others[1], np.ones(len(others[1])))
                facts["compared_on"] = HELD_OUT
            else:
                is_own = own is not None and targets.kind == "labels" and targets.l2 == own.l2
                facts |= targets.compare(head, features, predicted)
                facts["compared_on"] = OWN_HEAD if is_own else COMPARED_ON[targets.kind]
            if facts["faithful"] > FAITHFUL and facts["change"] < MAX_CHANGE:
                return FittedRepresenterPoints(self, model, train, head, facts)
            tried.append(f"{facts['faithful']:.3f}, {facts['change']:.2g} with l2={targets.l2:g}")
        other = (
            '; targets="predictions" may do so' if self.targets == "labels" else ": its last step is not linear in them"
        )
        raise TypeError(
            "expected a model whose predictions a linear head on its features reproduces, got one whose probabilities "
            f"on {facts['compared_on']} correlate with the head's, and differ from them on average, by "
            f"{'; '.join(tried)} (needed: more than {FAITHFUL}, less than {MAX_CHANGE}){other}, or use Influence or "
            "KNNShapley"
        )

    def restore(
        self, model: Any, train: Examples, state: Mapping[str, NDArray[Any]], facts: Mapping[str, Any]
    ) -> FittedRepresenterPoints:
        """Take the head from the saved state."""
        classes = _probabilities(model, train.take(np.arange(1))).shape[1]
        logits = 1 if classes == 2 else classes
        alpha = stored_array(state, "alpha", (len(train), logits))
        coefficients = stored_array(state, "coefficients", (None, logits))
        intercept = stored_array(state, "intercept", (logits,))
        described, unexplained = facts["head"], facts["unexplained"]
        if not isinstance(described, dict) or type(unexplained) is not float:
            raise TypeError("expected the description of a head, and how much of it the examples do not explain")
        head = RepresenterHead(alpha, coefficients, intercept, unexplained)
        fitted = FittedRepresenterPoints(self, model, train, head, described)
        if fitted.width != len(coefficients):
            raise ValueError(f"expected {fitted.width} coefficients of each logit, got {len(coefficients)}")
        return fitted

    def _candidates(self, model: Embeddable, train: Examples, predicted: Array) -> Iterator[HeadTargets]:
        """The possible targets of a head, in the order in which to try them."""
        objective = model.head_objective(train) or HeadObjective(sample_weights(train), L2[0])
        values, first, intercept = predicted, L2[0], True
        if self.targets == "labels":
            values = np.eye(predicted.shape[1])[_positions(model, train, predicted.shape[1], "the training set")]
            first, intercept = objective.l2, objective.intercept
        for l2 in dict.fromkeys((first, *L2)) if self.l2 == "auto" else (float(self.l2),):
            yield HeadTargets(self.targets, values, objective.weights, l2, intercept)


class FittedRepresenterPoints(Fitted[RepresenterPoints, Embeddable]):
    """The head, ready to answer.

    Attributes:
        head: the head at its optimum, with α.
    """

    def __init__(
        self,
        recipe: RepresenterPoints,
        model: Embeddable,
        train: Examples,
        head: RepresenterHead,
        facts: dict[str, Any],
    ) -> None:
        super().__init__(recipe, model, train, Unit.RANK)
        self.head, self._facts = head, facts
        self._features = _float64(model.embed(train))

    @property
    def width(self) -> int:
        """The number of features."""
        return int(self._features.shape[1])

    def blocks(self, queries: Examples) -> Blocks:
        """α of the query's label times the inner product of the features.

        A warning names the queries for which the head predicts another label than the model.
        """
        signed, features = self._label_logits(queries, "the queries"), _float64(self.model.embed(queries))
        for block in blocks(len(self.train), TRAIN_BLOCK):
            inner = features @ self._features[block].T
            inner = inner.toarray() if is_sparse(inner) else np.asarray(inner)
            yield block, inner * (signed @ self.head.alpha[block].T)
        own, rebuilt = _probabilities(self.model, queries), self.head.probabilities(features)
        is_other = own.argmax(axis=1) != rebuilt.argmax(axis=1)
        is_far = ~is_other & (np.abs(own - rebuilt).max(axis=1) > MATERIAL)
        warnings = [
            f"For {chosen.sum()} of {len(queries)} queries ({_named(queries.ids[chosen].tolist())}) the head predicts "
            f"{what}: their scores explain the head."
            for chosen, what in (
                (is_other, "another label than the model"),
                (is_far, f"probabilities that differ from the model's by more than {MATERIAL}"),
            )
            if chosen.any()
        ]
        return AnswerFacts(diagnostics={"warnings": warnings}) if warnings else AnswerFacts()

    def compare(self, examples: Examples) -> dict[str, float]:
        """The head beside the model on these examples, which should be held out from the training of both.

        Returns:
            `faithful`, Pearson's correlation of their class probabilities, and `change`, the mean difference.
        """
        return agreement(
            self.head.probabilities(_float64(self.model.embed(examples))),
            _probabilities(self.model, examples),
            np.ones(len(examples)),
        )

    def self_values(self) -> Array:
        """α_i of the own label times ‖f_i‖²."""
        features = self._features
        squares = features.multiply(features) if is_sparse(features) else features**2
        return np.asarray(self.label_alpha() * np.asarray(squares.sum(axis=1)).ravel())

    def label_alpha(self) -> Array:
        """α_i of each training example's own label, (n,): a large one belongs to an example that the head misfits."""
        return np.asarray((self._label_logits(self.train, "the training set") * self.head.alpha).sum(axis=1))

    def suspicion(self) -> Array:
        """|α_i| of the own label, by which the paper finds label errors."""
        return np.abs(self.label_alpha())

    def scores(self, *parts: Any, **named: Any) -> Scores:
        """The values as scores of the logit; the measurement of the model (−loss) does not apply to them."""
        return replace(super().scores(*parts, **named), measurement="logit of the label", measured=None)

    @property
    def diagnostics(self) -> Mapping[str, Any]:
        """The targets of the head, how well it predicts the model, and how far training moved it."""
        warnings = list(self.model.notes)
        if self._facts.get("compared_on") == COMPARED_ON["labels"]:
            warnings.append(
                "The head was compared with the model on the training set alone, whose labels both have seen: "
                "elsewhere they may differ more. Pass fit(…, held_out=) examples that the model was not trained on, or "
                'use targets="predictions".'
            )
        return {"warnings": warnings, **self._facts, "unexplained": self.head.unexplained}

    def state(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """The head."""
        head = self.head
        arrays = {"alpha": head.alpha, "coefficients": head.coefficients, "intercept": head.intercept}
        return arrays, {"head": self._facts, "unexplained": head.unexplained}

    def _label_logits(self, examples: Examples, what: str) -> Array:
        """The logit of each example's label as a combination of the head's, (m, K)."""
        logits = self.head.alpha.shape[1]
        positions = _positions(self.model, examples, max(logits, 2), what)
        return np.where(positions == 1, 1.0, -1.0)[:, None] if logits == 1 else np.eye(logits)[positions]


def _named(ids: list[Any]) -> str:
    return ", ".join(map(repr, ids[:MAX_NAMED])) + ", …" * (len(ids) > MAX_NAMED)


def _probabilities(model: Embeddable, examples: Examples) -> Array:
    """Class probabilities (n, classes). Raises TypeError if the model has none."""
    probabilities = model.predict(examples).probabilities
    if probabilities is None:
        raise TypeError(
            "expected a classifier with probabilities, whose logits are sums over examples, got a model that predicts "
            "none; use Influence or KNNShapley"
        )
    return np.asarray(probabilities, dtype=np.float64)


def _positions(model: Embeddable, examples: Examples, classes: int, what: str) -> NDArray[np.intp]:
    """Positions of the labels among the classes. Raises ValueError for examples without a label or of another class."""
    if examples.y is None or examples.y.ndim != 1:
        raise ValueError(f"expected {what} with one class label per example, whose logit is the sum over examples")
    known = list(range(classes)) if model.classes is None else model.classes.tolist()
    positions = {label: position for position, label in enumerate(known)}
    unknown = [label for label in examples.y.tolist() if label not in positions]
    if unknown:
        raise ValueError(f"expected labels of {what} among {known[:12]}, got {unknown[0]!r}")
    return np.array([positions[label] for label in examples.y.tolist()], dtype=np.intp)


def _float64(features: Any) -> Any:
    """Features (n, d) as float64; a sparse matrix as CSR."""
    if is_sparse(features):
        return features.tocsr().astype(np.float64)
    return np.asarray(features, dtype=np.float64).reshape(len(features), -1)
