"""A perceptron of scikit-learn with hidden layers as a network of PyTorch, retrained by scikit-learn itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from upweight.core.examples import Examples
from upweight.core.input_kinds import is_sparse, take_rows
from upweight.core.measurement import Margin, Measurement, Probability
from upweight.core.model import Predictions
from upweight.core.objective import Objective
from upweight.core.weights import sample_weights
from upweight.gradients.captured_rows import CapturedRows
from upweight.gradients.optimality import gradient_norm
from upweight.models.estimator_clones import unfitted_clone
from upweight.models.input_checks import require_column_count, transform
from upweight.models.pipeline import last_step, steps_before
from upweight.models.pytorch.torch_model import TorchModel

LAYERS: dict[str, Callable[[], nn.Module]] = {"logistic": nn.Sigmoid, "tanh": nn.Tanh, "relu": nn.ReLU}
LARGE_ALPHA = 0.01  # alpha from which penalised intercepts may change the result
SEED_STEP = 1_000_003  # distance between the seeds of two retrainings


@dataclass
class Batch:
    """Inputs (n, columns), and targets: class positions (n,), or numbers (n, outputs); None without labels."""

    x: Tensor
    y: Tensor | None


@dataclass(frozen=True)
class MakeBatch:
    """Examples → inputs after the steps of a pipeline, and targets.

    Attributes:
        steps: the steps before the perceptron; None for none.
        columns: number of its inputs.
        classes: the class labels; None for numbers.
        dtype: of its weights.
    """

    steps: Any
    columns: int
    classes: NDArray[Any] | None
    dtype: Any

    def __call__(self, examples: Examples) -> Batch:
        """The batch. Raises ValueError for inputs of another form, and labels that it was not trained on."""
        x = examples.x if self.steps is None else transform(self.steps, examples.x)
        x = np.asarray(x.toarray() if is_sparse(x) else x)
        require_column_count(x.shape, self.columns)
        return Batch(torch.as_tensor(x.astype(self.dtype)), None if examples.y is None else self._targets(examples.y))

    def _targets(self, y: NDArray[Any]) -> Tensor:
        if self.classes is None:
            return torch.as_tensor(np.asarray(y, dtype=self.dtype).reshape(len(y), -1))
        positions = np.searchsorted(self.classes, y).clip(max=len(self.classes) - 1)
        if (self.classes[positions] != y).any():
            unknown = np.asarray(y)[self.classes[positions] != y][0]
            raise ValueError(f"expected labels among {self.classes.tolist()[:12]}, got {unknown!r}")
        return torch.as_tensor(positions)


def squared(net: nn.Module, batch: Batch) -> Tensor:
    """Half the squared error, (n,)."""
    assert batch.y is not None
    z: Tensor = net(batch.x)
    return 0.5 * ((z - batch.y) ** 2).sum(1)


def cross_entropy(net: nn.Module, batch: Batch) -> Tensor:
    """−log p of the label, (n,)."""
    assert batch.y is not None
    return functional.cross_entropy(net(batch.x), batch.y, reduction="none")


def logistic(net: nn.Module, batch: Batch) -> Tensor:
    """−log p of the label of two classes, (n,)."""
    assert batch.y is not None
    z = net(batch.x)[:, 0]
    return functional.binary_cross_entropy_with_logits(z, batch.y.to(z.dtype), reduction="none")


@dataclass(frozen=True)
class LabelMargin:
    """log p − log(1 − p) of the label, (m,)."""

    __name__ = "margin of the label"

    def __call__(self, net: nn.Module, batch: Batch) -> Tensor:
        """The margin of every query. Raises ValueError without labels."""
        if batch.y is None:
            raise ValueError("the queries have no labels, which the margin needs; pass Examples(x, y)")
        z: Tensor = net(batch.x)
        if z.shape[1] == 1:
            return z[:, 0] * (2 * batch.y - 1)
        own = z.gather(1, batch.y[:, None])[:, 0]
        others = z.masked_fill(functional.one_hot(batch.y, z.shape[1]).bool(), -torch.inf)
        return own - others.logsumexp(1)


@dataclass(frozen=True)
class ClassProbability:
    """The probability of the class at one position, (m,)."""

    position: int
    __name__ = "probability"

    def __call__(self, net: nn.Module, batch: Batch) -> Tensor:
        """The probability of every query."""
        return _probabilities(net(batch.x))[:, self.position]


def _probabilities(z: Tensor) -> Tensor:
    if z.shape[1] > 1:
        return z.softmax(1)
    p = z[:, 0].sigmoid()
    return torch.stack([1 - p, p], 1)


@dataclass(frozen=True)
class Refit:
    """Trains a clone of the perceptron on the examples with these weights, and returns its network.

    Attributes:
        final: the fitted perceptron.
        train: the examples that it was fitted on.
        make: examples → the batch that enters it.
    """

    final: Any
    train: Examples
    make: MakeBatch

    def __call__(self, weights: NDArray[np.float64], seed: int) -> nn.Module:
        """The network; seed 0 is that of the perceptron."""
        total = weights * sample_weights(self.train)
        used = np.flatnonzero(total)
        assert self.train.y is not None
        x = take_rows(self.make(self.train).x.numpy(), used)
        clone = unfitted_clone(self.final, seed, random_state=self.final.random_state + SEED_STEP * seed)
        weighted = {} if (total[used] == 1).all() else {"sample_weight": total[used]}
        return network_of(clone.fit(x, self.train.y[used], **weighted))


def network_of(final: Any) -> nn.Module:
    """The layers of a fitted perceptron, without the activation of its outputs."""
    layers: list[nn.Module] = []
    for place, (weight, bias) in enumerate(zip(final.coefs_, final.intercepts_, strict=True)):
        if place and final.activation != "identity":
            layers.append(LAYERS[final.activation]())
        inputs, outputs = weight.shape
        linear = nn.Linear(inputs, outputs, dtype=torch.as_tensor(weight).dtype)
        with torch.no_grad():
            linear.weight.copy_(torch.as_tensor(weight.T))
            linear.bias.copy_(torch.as_tensor(bias))
        layers.append(linear)
    return nn.Sequential(*layers)


def perceptron_network(estimator: Any, final: Any, train: Examples, measure: Measurement) -> PerceptronNetwork:
    """The fitted perceptron, the last step of a pipeline or alone, as a model."""
    classes = getattr(final, "classes_", None)
    weight = final.coefs_[0]
    make = MakeBatch(steps_before(estimator), weight.shape[0], classes, weight.dtype)
    loss = {"identity": squared, "softmax": cross_entropy, "logistic": logistic}[final.out_activation_]
    n = len(train)
    batch = n if final.solver == "lbfgs" else min(200 if final.batch_size == "auto" else final.batch_size, n)
    reduction = Objective("sum", float(final.alpha)) if final.solver == "lbfgs" else None
    objective = reduction or Objective("mean", float(final.alpha) / batch)
    is_seeded = isinstance(final.random_state, int | np.integer)
    model = PerceptronNetwork(
        network_of(final),
        loss,
        _measurement(measure, classes),
        objective=objective,
        collate=make,
        training=Refit(final, train, make) if is_seeded else None,
    )
    model.predictor, model.remarks = estimator, _remarks(final, is_seeded)
    return model


def _measurement(measure: Measurement, classes: NDArray[Any] | None) -> Any:
    """The measurement as a function of net and batch; None for −loss."""
    if isinstance(measure, Margin | Probability) and classes is None:
        raise TypeError("a regressor has neither a margin nor probabilities; measure the loss")
    if isinstance(measure, Probability):
        assert classes is not None
        if measure.of not in classes.tolist():
            raise ValueError(f"expected one of the classes {classes.tolist()[:12]}, got {measure.of!r}")
        return ClassProbability(classes.tolist().index(measure.of))
    return LabelMargin() if isinstance(measure, Margin) else None


def _remarks(final: Any, is_seeded: bool) -> tuple[str, ...]:
    """Sentences for the reader: what is explained, and what cannot be checked."""
    name = type(final).__name__
    remarks = [
        f"This {name} is explained as a network of PyTorch with its weights, by the curvature where its training "
        "stopped; retraining is by scikit-learn."
    ]
    if final.alpha >= LARGE_ALPHA:
        remarks.append(
            f"Its alpha of {final.alpha:g} also holds back the intercepts here, unlike in training; where that matters "
            "scores are a ranking."
        )
    if not is_seeded:
        remarks.append(
            f"It was fitted without a seed, so its training cannot be repeated to confirm scores; fit it as "
            f"{name}(random_state=0), or use uw.refittable for means over seeds."
        )
    return tuple(remarks)


class PerceptronNetwork(TorchModel):
    """A `TorchModel` of a perceptron of scikit-learn, which predicts its labels.

    Attributes:
        predictor: the estimator or pipeline.
        remarks: sentences for the reader of scores.
    """

    predictor: Any
    remarks: Sequence[str] = ()

    @property
    def classes(self) -> NDArray[Any] | None:
        """The class labels; None for numbers."""
        return self._make_batch.classes

    @property
    def _make_batch(self) -> MakeBatch:
        make = self.network.collate
        assert isinstance(make, MakeBatch)
        return make

    @property
    def name(self) -> str:
        """The class of the perceptron."""
        return type(last_step(self.predictor)).__name__

    @property
    def notes(self) -> tuple[str, ...]:
        """The remarks, and those of the network."""
        return (*self.remarks, *super().notes)

    def gradient_norm(self, train: Examples) -> float | None:
        """As of every network, with an l2 that leaves the intercepts out, as in the training."""
        weights = self.weights(train)
        rows = CapturedRows(self.network, train, "loss", weights)
        penalised = [np.full(p.numel(), float(p.ndim > 1)) for p in self.network.parameters().values()]
        return gradient_norm(rows, self.objective.ridge(weights) * self.parameters * np.concatenate(penalised))

    def explained_gradient_norm(self, train: Examples) -> float | None:
        """That of the objective which holds the intercepts back, as the curvature does."""
        return super().gradient_norm(train)

    def predict(self, examples: Examples) -> Predictions:
        """The likeliest class with probabilities, or the predicted numbers."""
        self.network.net.eval()
        with torch.no_grad():
            z = self.network.net(self._make_batch(examples).x)
            values = np.asarray((z if self.classes is None else _probabilities(z)).double().numpy())
        if self.classes is None:
            return Predictions(tuple(values[:, 0].tolist() if values.shape[1] == 1 else map(tuple, values.tolist())))
        names = tuple(examples.labels.get(label, label) for label in self.classes.tolist())
        return Predictions(tuple(names[place] for place in values.argmax(1)), names, values)

    def with_net(self, net: nn.Module) -> PerceptronNetwork:
        """This model with another net."""
        model = PerceptronNetwork(net, **self._arguments())
        model.predictor, model.remarks = self.predictor, self.remarks
        return model
