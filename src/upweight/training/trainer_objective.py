"""What the objective of a step of transformers' Trainer is a mean over, and the share of every example in it."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from upweight.training.initial_network import preserve_random_state
from upweight.training.micro_batches import MicroBatch
from upweight.training.replay_record import RunFacts

Array = NDArray[np.float64]
LOSS_RATIO_TOLERANCE = 0.05  # how far a ratio of two losses may be from the expected one, in bf16 as well


class ItemsProbe:
    """Whether the net's loss is divided by the `num_items_in_batch` that the Trainer passes, or is a mean of its own.

    Many nets of transformers take the argument and ignore it. Then the gradients of accumulated micro-batches are added
    without a division by their number. So the first micro-batch passes through the net once more, with twice the items.

    Attributes:
        divides: True, False, or None as long as no micro-batch had items.
        is_scaled: whether the Trainer leaves the loss as it is; None if it divides it by the number of micro-batches
            only if no items were passed (its default).
        is_running: whether a forward pass is the probe's own.
    """

    def __init__(self, trainer: Any = None, args: Any = None) -> None:
        self.divides: bool | None = None
        self.is_scaled: bool | None = getattr(trainer, "loss_is_scaled_for_ga", None)
        if getattr(trainer, "compute_loss_func", None) is not None:  # a function of the user gets the items
            self.divides, self.is_scaled = True, True
        elif getattr(args, "label_smoothing_factor", 0.0):
            self.divides = _smoother_divides()
        self.is_running = False

    def __call__(self, net: nn.Module, args: Any, inputs: Mapping[str, Any], outputs: Any, state: Tensor) -> None:
        """Look at the pass that was just made; `state` is that of random numbers before it."""
        items, loss = inputs.get("num_items_in_batch"), _loss(outputs)
        if self.divides is not None or items is None or loss is None:
            return
        buffers = [buffer.clone() for buffer in net.buffers()]
        device = next(net.parameters()).device
        self.is_running = True
        try:
            with preserve_random_state(device), torch.no_grad():
                _restore(state, device)
                again = _loss(net(*args, **{**inputs, "num_items_in_batch": items * 2}))
        finally:
            self.is_running = False
            with torch.no_grad():
                for buffer, before in zip(net.buffers(), buffers, strict=True):
                    if not torch.equal(buffer, before):  # others may be needed by the backward pass, unchanged
                        buffer.copy_(before)
        ratio = float(again.detach()) / float(loss.detach()) if again is not None and float(loss.detach()) else np.nan
        if np.isfinite(ratio):
            self.divides = abs(ratio - 0.5) < LOSS_RATIO_TOLERANCE

    def accumulation(self, has_items: bool) -> str:
        """What the objective is a mean over, as in `RunFacts`."""
        if self.divides and has_items:
            return "pooled"
        scaled = has_items if self.is_scaled is None else self.is_scaled
        if self.divides and scaled:
            return "pooled"
        return "summed" if scaled else "averaged"


def objective_shares(taken: Sequence[MicroBatch], facts: RunFacts, probe: ItemsProbe, net: nn.Module) -> Array:
    """The factor of the sum of losses of every example in the objective of a step; fills in what `facts` lack."""
    items = taken[0].items
    if facts.shifted is None:
        facts.shifted = _is_shifted(taken, items, net)
    if facts.accumulation is None:
        facts.accumulation = probe.accumulation(items is not None)
    terms = [micro.shifted_terms if facts.shifted else micro.terms for micro in taken]
    total = float(sum(of_micro.sum() for of_micro in terms))
    if items is not None and items != total:
        facts.note(
            f"the Trainer counted {items:g} terms in the loss of a step (num_items_in_batch), and its labels have "
            f"{total:g}"
        )
    if facts.accumulation == "pooled":
        return np.full(sum(map(len, terms)), 1.0 / (items or total or 1.0))
    factor = 1.0 / len(taken) if facts.accumulation == "averaged" else 1.0
    return np.concatenate([np.full(len(of_micro), factor / (of_micro.sum() or 1.0)) for of_micro in terms])


def _is_shifted(taken: Sequence[MicroBatch], items: float | None, net: nn.Module) -> bool:
    """Whether the first label of a row has no term, by the Trainer's count, else by the kind of net."""
    plain, shifted = (float(sum(getattr(m, name).sum() for m in taken)) for name in ("terms", "shifted_terms"))
    if items is not None and plain != shifted and items in (plain, shifted):
        return items == shifted
    inside: Any = getattr(net, "get_base_model", lambda: net)()
    decoder_only = not getattr(getattr(inside, "config", None), "is_encoder_decoder", False)
    return decoder_only and getattr(inside, "loss_type", None) == "ForCausalLM"


def _smoother_divides() -> bool:
    """Whether the Trainer's smoothed loss is divided by the items; earlier versions took the micro-batch's mean."""
    from transformers.trainer_pt_utils import LabelSmoother

    return "num_items_in_batch" in inspect.signature(LabelSmoother.__call__).parameters


def _loss(outputs: Any) -> Tensor | None:
    loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs[0] if isinstance(outputs, tuple) else None
    return loss if isinstance(loss, Tensor) and loss.ndim == 0 else None


def _restore(state: Tensor, device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.set_rng_state(state, device)
    else:
        torch.set_rng_state(state)
