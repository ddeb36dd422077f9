"""Losses of single examples, as a transformer was trained on them: of sequences, and of their tokens."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional

from upweight.core.curvature_recipes import EKFAC

IGNORED = -100  # the label of a position that the loss leaves out
Reduction = Literal["sum", "mean"]
Problem = Literal["single_label_classification", "multi_label_classification", "regression"]

CURVATURE = EKFAC()  # of `Influence()`, for a net of more parameters than a matrix is assembled for
NO_LABELS = (
    "expected examples with labels, because the loss is measured, got some without; add a column of labels, or measure "
    "something else: measure=lambda net, batch: net(**batch).logits[:, 0]"
)
NOTES = {
    "sum": "The loss of a sequence is the sum over its target tokens. The Trainer also divides each step by its number "
    "of tokens; scores leave out how a removal changes that number.",
    "mean": "The loss of a sequence is the mean over its target tokens: every sequence counts alike, however long.",
}


@dataclass(frozen=True)
class TokenCrossEntropy:
    """Cross-entropy of the target tokens of a sequence, summed or averaged; labels of −100 are left out.

    Args:
        reduction: "sum", or "mean" over the sequence's own targets.
        shift: whether position t predicts label t + 1 (a causal language model).
        label_smoothing: ε of the training: (1 − ε) −log p(label) + ε times the mean of −log p over the vocabulary.
        use_cache: the value with which the net is called; None if it takes no such argument.
    """

    reduction: Reduction = "sum"
    shift: bool = False
    label_smoothing: float = 0.0
    use_cache: bool | None = None
    default_curvature: ClassVar[EKFAC] = CURVATURE

    def __call__(self, net: Any, batch: dict[str, Any]) -> Tensor:
        """The loss of every sequence, (n,); 0 for one without target tokens."""
        total = self.per_token(net, batch).sum(1)
        if self.reduction == "sum":
            return total
        return total / self.targets(batch).sum(1).clamp(min=1)

    def per_token(self, net: Any, batch: dict[str, Any]) -> Tensor:
        """The loss of every label, (n, T): entry t is that of predicting label t, and 0 if it is ignored."""
        logits, labels = wide(call(net, batch, self.use_cache).logits), labels_of(batch, self.shift)
        if self.shift:
            logits, labels = logits[:, :-1], labels[:, 1:]
        losses = functional.cross_entropy(
            logits.transpose(1, 2),
            labels,
            reduction="none",
            ignore_index=IGNORED,
            label_smoothing=self.label_smoothing,
        )
        return functional.pad(losses, (1, 0)) if self.shift else losses

    def targets(self, batch: dict[str, Any]) -> Tensor:
        """Which labels the loss contains, (n, T)."""
        return labels_of(batch, self.shift) != IGNORED

    def unsmoothed(self) -> TokenCrossEntropy:
        """The same without label smoothing: −log p of the labels."""
        return replace(self, label_smoothing=0.0)

    @property
    def notes(self) -> tuple[str, ...]:
        """A sentence about what removing a sequence means."""
        return (NOTES[self.reduction],)


@dataclass(frozen=True)
class SequenceLoss:
    """The loss of a whole sequence, as transformers computes it for this kind of problem.

    Args:
        problem: cross-entropy for one label, the mean of binary cross-entropies for several, the mean of squared
            errors for numbers.
        label_smoothing: as in `TokenCrossEntropy`, for one label only.
    """

    problem: Problem = "single_label_classification"
    label_smoothing: float = 0.0
    default_curvature: ClassVar[EKFAC] = CURVATURE

    def __call__(self, net: Any, batch: dict[str, Any]) -> Tensor:
        """The loss of every sequence, (n,)."""
        logits, labels = wide(call(net, batch, None).logits), batch.get("labels")
        if labels is None:
            raise ValueError(NO_LABELS)
        if self.problem == "single_label_classification":
            return functional.cross_entropy(
                logits, labels.view(-1), reduction="none", label_smoothing=self.label_smoothing
            )
        labels = labels.reshape(len(logits), -1).to(logits)
        logits = logits.reshape(len(logits), -1)
        if labels.shape != logits.shape:
            raise ValueError(
                f"expected {logits.shape[1]} labels per example, one for each output of the net, got "
                f"{labels.shape[1]}; a class among {logits.shape[1]} is a whole number"
            )
        if self.problem == "regression":
            squares: Tensor = (logits - labels) ** 2
            return squares.mean(1)
        losses: Tensor = functional.binary_cross_entropy_with_logits(logits, labels, reduction="none")
        return losses.mean(1)


def labels_of(batch: dict[str, Any], shift: bool = False) -> Tensor:
    """The labels of a batch; without labels those of a causal model are the tokens themselves, except padding.

    With `shift`, a label that no token comes before is ignored: the first, also after padding on the left. Raises
    ValueError for other models without labels, and for a causal one with labels of another length than its tokens.
    """
    mask: Tensor | None = batch.get("attention_mask")
    labels: Tensor | None = batch.get("labels")
    if not shift:
        if labels is None:
            raise ValueError(NO_LABELS)
        return labels
    if labels is None:
        labels = batch["input_ids"] if mask is None else batch["input_ids"].masked_fill(mask == 0, IGNORED)
    if mask is not None and mask.shape != labels.shape:
        raise ValueError(
            f"expected a label for every token {tuple(mask.shape)}, got labels {tuple(labels.shape)}: the net itself "
            "compares position t with label t + 1, so labels are not moved"
        )
    before = torch.ones_like(labels) if mask is None else mask
    return labels.masked_fill(functional.pad(before[:, :-1], (1, 0)) == 0, IGNORED)


def call(net: Any, batch: dict[str, Any], use_cache: bool | None) -> Any:
    """The output of the net for the inputs of a batch; the labels are not passed, so that it computes no loss."""
    options = {} if use_cache is None else {"use_cache": use_cache}
    return net(**{name: value for name, value in batch.items() if name != "labels"}, **options)


def wide(logits: Tensor) -> Tensor:
    """Logits in float32 or better: in half precision a loss has two or three digits."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
