"""The loss of a sequence as a sum over its tokens, and which tokens of a batch these losses belong to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from upweight.core.choices import require_choice

TokenLosses = Callable[[Any, Any], Tensor | tuple[Tensor, Tensor]]
NOT_TEXT = ("attention_mask", "decoder_attention_mask", "token_type_ids", "position_ids")  # entries of a batch
IGNORED = -100  # the label of a position without a target, in torch and transformers


class SplitLoss(NamedTuple):
    """The loss of every example, token by token.

    Attributes:
        parts: (n, T), whose sum over T is the loss of the example.
        targets: (n, T), which tokens the loss is about; the others have part 0.
    """

    parts: Tensor
    targets: Tensor


class Text(NamedTuple):
    """The tokens of a batch, and where the columns of the token losses are among them.

    Attributes:
        ids: (n, L) token ids; the positions themselves if the batch holds none.
        present: (n, L), False for padding.
        first: the position of the token that the first column of the losses is about.
    """

    ids: Tensor
    present: Tensor
    first: int


@dataclass(frozen=True)
class TokenLoss:
    """The loss of a sequence: the sum or the mean of the losses of its tokens. It is a `loss` for `TorchModel`.

    Args:
        token_losses: `token_losses(net, batch) -> (n, T)`, column t the loss of predicting token t, or (n, T − 1) for a
            causal model, whose first token nothing predicts. Tokens other than targets (padding, prompts) have loss 0.
            With a pair `(losses, targets)`, the booleans (n, T) say which tokens are targets.
        reduction: "sum" over tokens, or "mean" over the targets of the sequence, for which the pair is needed.
        ids: name of the batch's entry that holds the token ids. None: "labels" for an encoder–decoder of transformers,
            else the first integers of this width, or one wider.

    With "sum" every token counts alike, and without a sequence all its tokens go; with "mean" every sequence does.
    """

    token_losses: TokenLosses
    reduction: Literal["sum", "mean"] = "sum"
    ids: str | None = None

    def __post_init__(self) -> None:
        if not callable(self.token_losses):
            raise TypeError(f"expected token_losses(net, batch) -> (n, T), got {self.token_losses!r}")
        require_choice("reduction", self.reduction, "sum", "mean")

    @classmethod
    def of(cls, loss: Any) -> TokenLoss | None:
        """A loss as a token loss; None if it is not known token by token.

        It is one itself, or has `per_token(net, batch) -> (n, T)`, `targets(batch) -> (n, T)` and a `reduction`, as the
        losses of `uw.hf` have.
        """
        if isinstance(loss, TokenLoss):
            return loss
        if callable(getattr(loss, "per_token", None)) and callable(getattr(loss, "targets", None)):
            return cls(_PerToken(loss), loss.reduction)
        return None

    def likelihood(self) -> TokenLoss:
        """The sum over tokens, without the label smoothing of a loss of `uw.hf`: −log p of the targets."""
        losses = self.token_losses
        if isinstance(losses, _PerToken) and hasattr(losses.loss, "unsmoothed"):
            losses = _PerToken(losses.loss.unsmoothed())
        return TokenLoss(losses, "sum", self.ids)

    @property
    def __name__(self) -> str:
        return f"{self.reduction} of token losses"

    def __call__(self, net: Any, batch: Any) -> Tensor:
        """The loss of every sequence, (n,)."""
        return self.split(net, batch).parts.sum(1)

    def split(self, net: Any, batch: Any) -> SplitLoss:
        """The losses token by token. Raises ValueError for losses that are not (n, T), or a mean without targets."""
        returned = self.token_losses(net, batch)
        losses, targets = returned if isinstance(returned, tuple) else (returned, None)
        if not isinstance(losses, Tensor) or losses.ndim != 2:
            shape = tuple(losses.shape) if isinstance(losses, Tensor) else type(losses).__name__
            raise ValueError(
                f"expected token_losses(net, batch) to return one loss per token (n, T), got {shape}; take "
                'cross_entropy(…, reduction="none") without the sum over tokens'
            )
        if targets is not None and targets.shape != losses.shape:
            raise ValueError(
                f"expected targets of the shape of the token losses {tuple(losses.shape)}, got {tuple(targets.shape)}"
            )
        if targets is None and self.reduction == "mean":
            raise ValueError(
                'reduction="mean" divides by the number of targets; let token_losses return (losses, targets), '
                "e.g. with targets = labels[:, 1:] != -100"
            )
        if targets is None:
            return SplitLoss(losses, losses.detach() != 0)
        targets = targets.bool()
        losses = torch.where(targets, losses, 0.0)
        if self.reduction == "mean":
            losses = losses / targets.sum(1, keepdim=True).clamp_min(1)
        return SplitLoss(losses, targets)

    def text(self, net: Any, batch: Any, width: int, count: int) -> Text:
        """The tokens of a batch of `count` examples whose losses have `width` columns.

        Raises ValueError if the batch has no entry of the name `ids`, or one of another width.
        """
        tensors = dict(named_tensors(batch))
        fitting = {
            name: tensor
            for name, tensor in tensors.items()
            if tensor.ndim == 2 and len(tensor) == count and _is_integer(tensor) and tensor.shape[1] - width in (0, 1)
        }
        wanted = self.ids
        if (
            wanted is None
            and getattr(getattr(net, "config", None), "is_encoder_decoder", False)
            and "labels" in fitting
        ):
            wanted = "labels"
        if wanted is not None and wanted not in fitting:
            raise ValueError(
                f"expected an entry {wanted!r} of the batch with {width} or {width + 1} columns of token ids, got "
                f"{ ({name: tuple(tensor.shape) for name, tensor in tensors.items()}) }"
            )
        names = [wanted] if wanted is not None else [name for name in fitting if name not in (*NOT_TEXT, "labels")]
        if not names:
            device = next(iter(tensors.values())).device if tensors else None
            positions = torch.arange(width, device=device).expand(count, width)
            return Text(positions, torch.ones_like(positions, dtype=torch.bool), 0)
        ids = fitting[names[0]]
        mask = tensors.get("decoder_attention_mask" if wanted == "labels" else "attention_mask")
        present = ids != IGNORED
        if mask is not None and mask.shape == ids.shape:
            present = present & mask.bool()
        return Text(ids, present, ids.shape[1] - width)


@dataclass(frozen=True)
class _PerToken:
    """The token losses and targets of a loss that has both as methods."""

    loss: Any

    def __call__(self, net: Any, batch: Any) -> tuple[Tensor, Tensor]:
        losses: Tensor = self.loss.per_token(net, batch)
        return losses, self.loss.targets(batch)


def _is_integer(tensor: Tensor) -> bool:
    return not (tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool)


def named_tensors(batch: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """(name, tensor) of what a batch holds, outermost name last."""
    if isinstance(batch, Tensor):
        yield name, batch
    elif isinstance(batch, Mapping):
        for key, value in batch.items():
            yield from named_tensors(value, str(key))
    elif isinstance(batch, list | tuple):
        for position, value in enumerate(batch):
            yield from named_tensors(value, str(position))
    elif is_dataclass(batch) and not isinstance(batch, type):
        for each in fields(batch):
            yield from named_tensors(getattr(batch, each.name), each.name)
