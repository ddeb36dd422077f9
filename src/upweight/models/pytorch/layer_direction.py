"""The activation of a layer along a direction, as a measurement for `TorchModel(measure=…)`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from upweight.core.choices import require_choice
from upweight.gradients.net_call import layer_of
from upweight.gradients.token_loss import IGNORED, named_tensors

LABELS = "labels"  # the entry of a batch that transformers computes a loss from


@dataclass(frozen=True, eq=False)
class LayerDirection:
    """How far the activation of a layer points along a direction: a probe or a concept as measurement.

    ⟨h, u⟩ with h the output of the layer and u as it is given, not normalised.

    Args:
        layer: name of a module, as in `net.named_modules()`.
        direction: (d,), e.g. the weights of a linear probe, or the difference of two mean activations.
        positions: of a sequence h (m, T, d): the "last" token, or the "mean" of all; padding, where the batch's
            `attention_mask` is 0 (in a decoder beside an encoder, its labels are −100), does not count.
        call: `call(net, batch)`, a forward pass; None calls it with the `x` of a batch or with the entries of a dict
            except its labels.
    """

    layer: str
    direction: Any
    positions: Literal["last", "mean"] = "last"
    call: Callable[[Any, Any], Any] | None = None

    def __post_init__(self) -> None:
        direction = torch.as_tensor(self.direction).detach().clone()
        if direction.ndim != 1 or not direction.is_floating_point() or not bool(torch.isfinite(direction).all()):
            raise ValueError(
                f"expected a direction of finite real numbers (d,), got {direction.dtype} {tuple(direction.shape)}"
            )
        require_choice("positions", self.positions, "last", "mean")
        object.__setattr__(self, "direction", direction)

    @property
    def __name__(self) -> str:
        return f"activation of {self.layer} along a direction"

    def __call__(self, net: Any, batch: Any) -> Tensor:
        """⟨h, u⟩ of every query, (m,). Raises ValueError for an unknown layer, or one of another width."""
        outputs: list[Any] = []
        handle = layer_of(net, self.layer).register_forward_hook(lambda module, args, output: outputs.append(output))
        try:
            (self.call or _call)(net, batch)
        finally:
            handle.remove()
        if not outputs:
            raise ValueError(f"the forward pass never calls {self.layer!r}; name another layer")
        output = outputs[-1][0] if isinstance(outputs[-1], tuple) else outputs[-1]
        width = len(self.direction)
        if not isinstance(output, Tensor) or output.ndim not in (2, 3) or output.shape[-1] != width:
            shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise ValueError(f"expected activations (m, {width}) or (m, T, {width}) of {self.layer!r}, got {shape}")
        along = output @ self.direction.to(output)
        return along if along.ndim == 1 else self._pooled(along, self._mask(net, batch))

    def _mask(self, net: Any, batch: Any) -> Tensor | None:
        """Which positions of the layer are not padding; in a decoder that reads an encoder, those of its labels."""
        tensors = dict(named_tensors(batch))
        if not has_encoder(net) or "decoder" not in self.layer.split("."):
            return tensors.get("attention_mask")
        if LABELS in tensors and "decoder_attention_mask" not in tensors:
            return tensors[LABELS] != IGNORED
        return tensors.get("decoder_attention_mask")

    def _pooled(self, along: Tensor, mask: Tensor | None) -> Tensor:
        mask = torch.ones_like(along) if mask is None or mask.shape != along.shape else mask.to(along)
        if self.positions == "mean":
            return (along * mask).sum(1) / mask.sum(1).clamp_min(1)
        last = torch.where(mask > 0, torch.arange(along.shape[1], device=along.device), 0).amax(1)
        return along.gather(1, last[:, None])[:, 0]


def has_encoder(net: Any) -> bool:
    """Whether a net of transformers has an encoder beside its decoder."""
    return bool(getattr(getattr(net, "config", None), "is_encoder_decoder", False))


def _call(net: Any, batch: Any) -> Any:
    if isinstance(batch, Mapping):
        return net(**{name: value for name, value in batch.items() if name != LABELS})
    return net(batch.x if hasattr(batch, "x") else batch)
