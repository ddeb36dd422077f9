"""What one forward pass of a training took: examples, terms of their losses, and the state of random numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

IGNORED = -100  # labels of this value have no term in the loss, as in torch's cross-entropy
BOOKKEEPING = ("num_items_in_batch", "position_ids", "cache_position")  # inputs that say nothing of an example


@dataclass(eq=False)
class MicroBatch:
    """One forward pass.

    Attributes:
        ids: of the examples, in the order of the rows.
        terms: (rows,), the labels of every row that are not ignored; 1 if there are no labels.
        shifted_terms: the same without the first label of every row, as losses of causal language models count.
        contents: (rows,), a digest of the inputs of every row without its padding.
        items: what the Trainer passed as `num_items_in_batch`; None if nothing.
        state: the state of torch's random numbers before the pass; None if it drew none.
    """

    ids: list[Any]
    terms: NDArray[np.float64]
    shifted_terms: NDArray[np.float64]
    contents: NDArray[np.int64]
    items: float | None
    state: Tensor | None = None

    @classmethod
    def of(cls, ids: list[Any], inputs: Mapping[str, Any], terms: Any = None) -> MicroBatch:
        """From the ids and the inputs of the net by name, and the terms (rows, 2) if labels are not among these.

        Raises ValueError if ids and rows do not match.
        """
        tensors = {name: v for name, v in inputs.items() if isinstance(v, Tensor) and name not in BOOKKEEPING}
        rows = {name: v for name, v in tensors.items() if v.ndim and len(v) == len(ids)}
        if tensors and not rows:
            shapes = {name: tuple(v.shape) for name, v in tensors.items()}
            raise ValueError(f"expected one id per row of the batch, got {len(ids)} ids for inputs of shapes {shapes}")
        items = inputs.get("num_items_in_batch")
        counted = terms_of(rows, len(ids)).numpy() if terms is None else np.asarray(terms)
        counted = counted.astype(np.float64)
        contents = _digests(rows, len(ids))
        return cls(
            ids, counted[:, 0], counted[:, 1], contents, None if items is None else float(torch.as_tensor(items))
        )


def terms_of(batch: Mapping[str, Any], rows: int) -> Tensor:
    """The number of labels of every row that have a term in the loss, and without the first label, (rows, 2)."""
    shifted = batch.get("shift_labels")
    labels = batch.get("labels") if shifted is None else shifted
    if not isinstance(labels, Tensor) or labels.ndim == 0 or len(labels) != rows:
        return torch.ones(rows, 2, dtype=torch.long)
    without_first = labels if shifted is not None or labels.ndim < 2 else labels[:, 1:]
    return torch.stack([part.ne(IGNORED).reshape(rows, -1).sum(dim=1).cpu() for part in (labels, without_first)], dim=1)


def random_state(device: torch.device) -> Tensor:
    """The state of torch's random numbers on this device, (bytes,)."""
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def _digests(inputs: Mapping[str, Tensor], rows: int) -> NDArray[np.int64]:
    """A digest of every row; padding, which depends on the other rows of a batch, is left out."""
    mask = inputs.get("attention_mask")
    sinks = [blake2b(digest_size=8) for _ in range(rows)]
    for name in sorted(inputs):
        values = inputs[name].detach()
        for row, sink in enumerate(sinks):
            part = values[row]
            if name in ("labels", "shift_labels") and not part.is_floating_point():
                part = part[part != IGNORED]
            elif mask is not None and mask.shape == values.shape:
                part = part[mask[row] != 0]
            sink.update(name.encode() + part.contiguous().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return np.array([int.from_bytes(sink.digest(), "big", signed=True) for sink in sinks], dtype=np.int64)
