"""TorchModel: any torch.nn.Module with a loss per example."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from upweight.core.curvature import Curvature
from upweight.core.examples import Examples
from upweight.core.model import Differentiable, Objective, Parametric, Predictions
from upweight.gradients.network import Function, Network
from upweight.gradients.outputs import NoOutputsError, outputs
from upweight.gradients.rows import CapturedRows

Array = NDArray[np.float64]
BATCH = 256  # examples per forward pass


class TorchModel(Differentiable, Parametric):
    """A trained network, its loss and what is asked of a query.

    Args:
        net: the trained module. It is never changed: passes run in eval mode and put everything back.
        loss: `loss(net, batch) -> (n,)`, the training loss of every example without the regulariser, e.g.
            `lambda net, batch: F.cross_entropy(net(batch.x), batch.y, reduction="none")`.
        measure: `measure(net, batch) -> (m,)`, higher = more of the behaviour; None for −loss.
        objective: "mean" (losses are averaged, as in most training loops) or "sum", or an `Objective` with its l2.
        l2: the λ in λ/2 ‖θ‖² over all trainable parameters (the `weight_decay` of `torch.optim.SGD`).
        collate: `collate(examples) -> batch`, what `loss` gets; None for an object with tensors `.x` and `.y`.

    Raises:
        TypeError: `net` is no module.
        ValueError: a net without gradients of single examples (batch norm without running statistics), nothing to
            train, complex parameters; a negative l2.

    Frozen parameters (`requires_grad=False`) are held fixed and left out of everything; `notes` says so.
    """

    def __init__(
        self,
        net: nn.Module,
        loss: Function,
        measure: Function | None = None,
        *,
        objective: Objective | Literal["mean", "sum"] = "mean",
        l2: float = 0.0,
        collate: Callable[[Examples], Any] | None = None,
    ) -> None:
        self.objective = _objective(objective, float(l2))
        self.network = Network(net, loss, measure, collate)

    @property
    def measurement(self) -> str:
        """−loss, or the name of the function that measures."""
        if self.network.measure is None:
            return "−loss"
        return str(getattr(self.network.measure, "__name__", type(self.network.measure).__name__))

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader should know: frozen parameters, training mode, gradients that hooks could not see."""
        said = [note for found in self.network.inspections.values() for note in found.notes]
        return tuple(dict.fromkeys([*self.network.notes, *said]))

    @property
    def parameters(self) -> Array:
        """All trainable parameters as one vector, in the order of `net.named_parameters()`."""
        return self.network.vector()

    def with_parameters(self, parameters: Array) -> TorchModel:
        """The same model at other parameters, on a copy of the net."""
        network = self.network
        net = _copied(network.net)
        _write(Network(net, network.loss), np.asarray(parameters, dtype=np.float64))
        return TorchModel(net, network.loss, network.measure, objective=self.objective, collate=network.collate)

    def weights(self, train: Examples) -> Array:
        """Sample weights, (n,)."""
        return np.ones(len(train)) if train.weights is None else train.weights

    def measure(self, queries: Examples) -> Array:
        """The measurement of every query, (m,)."""
        return _measured(self.network, queries)

    def measure_shifted(self, queries: Examples, shifts: Array) -> Array:
        """The measurement at θ + shift, for every shift (g, parameters): (m, g), on a copy of the net."""
        shifts = np.atleast_2d(shifts)
        here, network = self.parameters, self.network
        moved = Network(_copied(network.net), network.loss, network.measure, network.collate)
        out = np.empty((len(queries), len(shifts)))
        for g, shift in enumerate(shifts):
            _write(moved, here + shift)
            out[:, g] = _measured(moved, queries)
        return out

    def predict(self, examples: Examples) -> Predictions:
        """What the net says: the likeliest class with softmax probabilities for outputs (n, C), else the output.

        Where no output of one number or one row per example is to be seen, the measurement stands for it.
        """
        try:
            batches = list(self._outputs(examples))
        except NoOutputsError:
            batches = []
        readable = bool(batches) and all(z.ndim <= 2 for z in batches)
        said = np.concatenate(batches) if readable else self.measure(examples)
        if said.ndim == 2 and said.shape[1] > 1 and _are_classes(examples.y):
            spread = np.exp(said - said.max(axis=1, keepdims=True))
            classes = tuple(examples.labels.get(c, c) for c in range(said.shape[1]))
            return Predictions(
                tuple(classes[c] for c in said.argmax(axis=1)), classes, spread / spread.sum(axis=1, keepdims=True)
            )
        flat = said[:, 0] if said.ndim == 2 and said.shape[1] == 1 else said
        return Predictions(tuple(flat.tolist()))

    def loss_rows(self, train: Examples) -> CapturedRows:
        """wᵢ(∇ℓᵢ + l2 θ), the second term only where the objective takes the mean."""
        share = None
        if self.objective.reduction == "mean" and self.objective.l2 > 0:
            share = {name: self.objective.l2 * p.detach() for name, p in self.network.parameters().items()}
        return CapturedRows(self.network, train, "loss", self.weights(train), share)

    def measure_rows(self, queries: Examples) -> CapturedRows:
        """∇θ of every query's measurement."""
        return CapturedRows(self.network, queries, "measure")

    def gradient_norm(self, train: Examples) -> float:
        """‖∇objective‖ over √Σ‖wᵢ∇ℓᵢ‖²: 0 at the optimum, about 1 on data with gradients of random signs."""
        total: dict[str, Tensor] = {}
        squares = 0.0
        for _, batch in CapturedRows(self.network, train, "loss", self.weights(train)).passes():
            squares += float(batch.squares().double().sum())
            found = batch.sums(torch.ones(1, batch.count).to(batch.like))
            total = {name: total[name] + block if total else block for name, block in found.items()}
        scale = self.weights(train).sum() if self.objective.reduction == "mean" else 1.0
        gradient = self.network.join(total)[0] + scale * self.objective.l2 * self.parameters
        return float(np.linalg.norm(gradient) / max(np.sqrt(squares), 1e-300))

    def dispersion(self, train: Examples, effective: float) -> float:
        """1: the loss is taken for a negative log-likelihood."""
        return 1.0

    def curvature(self, train: Examples, recipe: Any, damping: float | None) -> Curvature:
        """The curvature that the recipe names (None: Gauss–Newton); damping None is chosen from the spectrum."""
        from upweight.curvature import registry

        built: Curvature = registry.build(self, train, recipe, damping)
        return built

    def _outputs(self, examples: Examples) -> Iterator[NDArray[Any]]:
        for part in examples.batches(BATCH):
            with self.network.untouched(), torch.no_grad():
                said = outputs(self.network, self.network.batch(part), part.ids).values.double().cpu().numpy()
            yield said


def _objective(given: Objective | Literal["mean", "sum"], l2: float) -> Objective:
    """Reduction and l2 from either way of saying them."""
    objective = given if isinstance(given, Objective) else Objective(given, l2)
    if l2 not in (0.0, objective.l2):
        raise ValueError(f"expected one l2, got {l2} and {objective.l2} in the objective")
    if objective.reduction not in ("mean", "sum"):
        raise ValueError(f'expected objective "mean" or "sum", got {objective.reduction!r}')
    if not (np.isfinite(objective.l2) and objective.l2 >= 0):
        raise ValueError(f"expected a finite l2 ≥ 0, got {objective.l2}")
    return objective


def _measured(network: Network, queries: Examples) -> Array:
    out = []
    for part in queries.batches(BATCH):
        with network.untouched(), torch.no_grad():
            out.append(network.values("measure", network.batch(part), part.ids).double().cpu().numpy())
    return np.concatenate(out)


def _write(network: Network, vector: Array) -> None:
    """Other parameters for a net of our own."""
    with torch.no_grad():
        for name, block in network.split(vector[None]).items():
            network.parameters()[name].copy_(block[0])


def _copied(net: nn.Module) -> nn.Module:
    try:
        return copy.deepcopy(net)
    except RuntimeError as error:
        raise TypeError(
            f"the net cannot be copied ({error}); keep no tensors with a graph as its attributes"
        ) from error


def _are_classes(y: Any) -> bool:
    return y is None or (y.ndim == 1 and y.dtype.kind in "iub")
