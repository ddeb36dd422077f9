"""What a model can do: each model family picks the capabilities it has, each method names the ones it needs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.curvature import Curvature
from upweight.core.examples import Examples, require_examples
from upweight.core.identity import digest
from upweight.core.replay import Replay
from upweight.core.rows import Rows
from upweight.core.weights import require_any_weight


@dataclass(frozen=True)
class Predictions:
    """What the model says of some examples: `predicted` (m,), and `probabilities` (m, classes) where it has them."""

    predicted: tuple[Any, ...]
    classes: tuple[Any, ...] = ()
    probabilities: NDArray[np.float64] | None = None


class Measurable(ABC):
    """A model whose behaviour on a query is a number."""

    @property
    @abstractmethod
    def measurement(self) -> str:
        """What is measured, in words and with its unit, e.g. `−loss (nats)`."""

    @abstractmethod
    def measure(self, queries: Examples) -> NDArray[np.float64]:
        """The measurement of every query, shape (m,); higher = more of the behaviour."""

    @abstractmethod
    def predict(self, examples: Examples) -> Predictions:
        """Predictions, for people to read."""

    @property
    def notes(self) -> Sequence[str]:
        """What a reader of its scores should know, in sentences; nothing, where it is left out."""
        return ()

    def identity(self) -> Mapping[str, str]:
        """Digests of what makes this model another than others: parameters, objective, loss, measurement, training.

        Fits, truths and retrainings are kept under them and refuse every other model. Left as it is, everything that
        the object holds is taken for its parameters.

        Raises:
            UnidentifiedError: it holds what cannot be told apart from another (see `digest`).
        """
        return {"parameters": digest(self), "measurement": digest(self.measurement)}

    def version(self) -> Any:
        """Something cheap, equal until the model is changed in place; None, where that is not noticed."""
        return None

    def lacks(self, capability: type) -> str | None:
        """Why this very model cannot do what others of its class can, as the rest of a sentence; None where it can."""
        return None

    def __repr__(self) -> str:
        of = getattr(self, "name", "")
        return f"{type(self).__name__}({of}{', ' * bool(of)}measuring {self.measurement})"


class Differentiable(Measurable):
    """A model with gradients and a curvature."""

    @abstractmethod
    def loss_rows(self, train: Examples) -> Rows:
        """∇θ of every training example's share of the objective (weight and regulariser share included)."""

    @abstractmethod
    def measure_rows(self, queries: Examples) -> Rows:
        """∇θ of every query's measurement."""

    @abstractmethod
    def curvature(self, train: Examples, recipe: Any, damping: float | None) -> Curvature:
        """The curvature on the training set at the model's parameters; `recipe=None` is the model's own best.

        `damping` is λ on the scale of the mean loss, beyond the objective's own l2; None leaves it to the model.
        """

    @abstractmethod
    def gradient_norm(self, train: Examples) -> float | None:
        """‖∇objective‖ in units of what random-sign gradients would leave: 0 at the optimum, about 1 for other data.

        None where training minimised something without a gradient.
        """

    @abstractmethod
    def dispersion(self, train: Examples, effective: float) -> float:
        """s², the noise variance of a squared loss with this many effective parameters; 1 for a likelihood."""

    def hypothetical(self, new_inputs: bool = False) -> Differentiable:
        """The same model, ready for training sets that it was not fitted on, where its parameters are no optimum.

        `new_inputs`: whether inputs may be others than those of its training set. Raises TypeError where its
        parameters are made of the training inputs (a kernel machine).
        """
        return self

    @abstractmethod
    def measure_shifted(self, queries: Examples, shifts: NDArray[np.float64]) -> NDArray[np.float64]:
        """The measurement of every query under each of these parameter shifts (g, parameters): (m, g)."""


@dataclass(frozen=True, eq=False)
class Movable:
    """The numbers of some examples that a perturbation moves.

    Attributes:
        values: (n, …), one array of numbers per example.
        names: one per number where an example is a row of them, else None.
        described: what they are, for people.
        is_input: whether they are the examples' own inputs, so that moved ones can be trained on.
    """

    values: NDArray[np.float64]
    names: tuple[str, ...] | None
    described: str
    is_input: bool


class Perturbable(Differentiable):
    """A model whose training examples are made of numbers that can be moved."""

    @abstractmethod
    def movable(self, examples: Examples) -> Movable:
        """What is moved: the inputs, or where those are no numbers what the last steps before training made of them."""

    @abstractmethod
    def input_gradients(self, train: Examples, vectors: NDArray[np.float64]) -> NDArray[np.float64]:
        """∂⟨rowᵢ, v⟩/∂xᵢ of these examples for vectors (k, parameters): (k, n, …), x as in `movable`."""


class Embeddable(Measurable):
    """A model that turns inputs into features, on which its last step works."""

    @abstractmethod
    def embed(self, examples: Examples) -> Any:
        """The features of every example, (n, d): an array, or a sparse matrix where most of them are 0."""


class Retrainable(Measurable):
    """A model that can be trained again with other example weights.

    `converges`: training ends at the optimum of the objective, wherever it begins; False where it stops after so many
    steps, as for networks. `threads`: a training keeps all processors busy with threads of its own, which do not
    outlive a fork: trainings are done one after the other in this process. `reads_examples`: training sees the examples
    that `retrain` is handed; False where it is a function of the user's that knows its own and takes weights alone.
    """

    converges: bool = True
    threads: bool = False
    reads_examples: bool = True

    @property
    def forks(self) -> bool:
        """Whether a forked process can train it; False where what it computes with survives no fork (a GPU)."""
        return True

    @abstractmethod
    def retrain(self, train: Examples, weights: NDArray[np.float64], seed: int = 0) -> Retrainable:
        """Another model, trained with these weights (n,) on top of its own; ones reproduce the model, 0 removes.

        Seed 0 is the run that made the model, every other seed another run of the same training.
        """

    def retrain_roughly(self, train: Examples, weights: NDArray[np.float64], seed: int = 0) -> Retrainable:
        """As `retrain`, but no nearer to the optimum than the user's own fit was: for predictions, not for effects."""
        return self.retrain(train, weights, seed)


class Parametric(Measurable):
    """A model that is a point in a space: training chose one vector and nothing else."""

    @property
    @abstractmethod
    def parameters(self) -> NDArray[np.float64]:
        """Everything training chose, as one vector."""

    @abstractmethod
    def with_parameters(self, parameters: NDArray[np.float64]) -> Parametric:
        """The same model with other parameters; this one stays as it is."""


class TreeBased(Measurable):
    """A sum of trees: every example falls into one leaf of each, and leaves hold numbers.

    `grown`, `trees` and `loss` are nouns of the room `trees`, which this one does not know.
    """

    loss: Any

    @abstractmethod
    def trees(self) -> Any:
        """The `TreeEnsemble`: leaf values, which output each tree adds to, and at which step."""

    @abstractmethod
    def leaves(self, examples: Examples) -> NDArray[np.intp]:
        """Which leaf of every tree each example falls into, (n, trees), leaves counted over all trees."""

    @abstractmethod
    def grown(self, train: Examples) -> Any:
        """How the leaf values followed from these examples: a `Boosting` or a `Forest`."""

    @abstractmethod
    def measure_margins(self, queries: Examples, margins: NDArray[np.float64]) -> NDArray[np.float64]:
        """The measurement of every query if these (m, outputs) were its margins, (m,)."""

    @abstractmethod
    def measure_slopes(self, queries: Examples, margins: NDArray[np.float64]) -> NDArray[np.float64]:
        """∂measurement/∂margins there, (m, outputs)."""


class Boosted(TreeBased):
    """Trees grown one after the other on what those before left over: `grown` is a `Boosting`."""


class Averaged(TreeBased):
    """A forest: trees grown side by side, whose mean is the output: `grown` is a `Forest`."""


class Stackable(Retrainable):
    """A model of which many weighted copies can be trained at once."""

    @abstractmethod
    def stack(self, train: Examples) -> Stack:
        """How many copies to train at once."""

    @abstractmethod
    def retrain_many(
        self, train: Examples, weights: NDArray[np.float64], seeds: Sequence[int]
    ) -> Sequence[Retrainable]:
        """One model per row of weights (M, n) and entry of seeds (M,), as `retrain` would train each."""


class Replayable(Retrainable):
    """A model whose training can be made again step by step, and differentiated in the example weights."""

    @abstractmethod
    def replay(self, train: Examples, weights: NDArray[np.float64], seed: int = 0) -> Replay:
        """The training with these weights (n,) on top of the examples' own, as `retrain` would make it."""


@dataclass(frozen=True)
class Stack:
    """How many models are trained at once: `size` 1 where one by one is cheaper or nothing else works, and `why`."""

    size: int
    why: str = ""


def can(model: Any, capability: type) -> bool:
    """Whether the model has this capability."""
    return isinstance(model, capability) and (not isinstance(model, Measurable) or model.lacks(capability) is None)


def require(model: Any, capabilities: Sequence[type], wanted_by: str, *examples: Examples) -> None:
    """Raise TypeError when the model lacks a capability, or these are no Examples, in words that say what to do.

    The first of `examples` is the training set: ValueError if all its weights are zero.
    """
    missing = [c.__name__ for c in capabilities if not isinstance(model, c)]
    if missing:
        way_out = "wrap a fitted estimator with upweight.explainable(estimator, train) first"
        if isinstance(model, Measurable):
            way_out = "such a model cannot give that; `upweight methods` lists others"
        raise TypeError(
            f"{wanted_by} needs a model that is {' and '.join(missing)}, got {type(model).__name__}; {way_out}"
        )
    for capability in capabilities:
        why = model.lacks(capability)
        if why is not None:
            raise TypeError(f"{wanted_by} needs a model that is {capability.__name__}: {why}")
    for given in examples:
        require_examples(given)
    if examples:
        require_any_weight(examples[0])


def require_reads_examples(model: Any, wanted_by: str) -> None:
    """Raise TypeError where a model trained again would not see that labels or inputs are other ones."""
    if isinstance(model, Retrainable) and not model.reads_examples:
        raise TypeError(
            f"{wanted_by} changes labels or inputs, and the training function of this {type(model).__name__} takes "
            "weights alone: it would train on the old ones; pass training=uw.Training(…), or only remove and reweight"
        )
