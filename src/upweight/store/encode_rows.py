"""The arrays that a shard keeps of one batch of captured gradients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.examples import Examples
from upweight.gradients.captured_batch import CapturedBatch
from upweight.gradients.captured_rows import CapturedRows
from upweight.gradients.matrices import flatten_each
from upweight.gradients.network import Network
from upweight.store.codes import Code, factors_by_weight
from upweight.store.encodings.encoding import Layout
from upweight.store.header import Header
from upweight.store.quantisation import Precision, quantise, unpacked
from upweight.store.row_blocks import Lookups, Numbers, Pairs, RowBlock

Arrays = dict[str, NDArray[Any]]
SIDES = ("left", "right")


def encoded_rows(network: Network, part: Examples, header: Header, codes: Sequence[Code]) -> Arrays:
    """The arrays of the rows of these examples. Raises ValueError that names one whose gradient is not finite.

    Args:
        network: whose gradients they are.
        part: the examples.
        header: of the store.
        codes: of an encoding that does not keep gradients themselves.
    """
    arrays, precision = list[Arrays](), header.encoding.precision
    for inside, batch in CapturedRows(network, part, "loss").passes(size=header.batch):
        ids = part.ids[inside]
        if header.encoding.keeps_gradients:
            arrays.append(exact_batch(batch, header.layouts, precision, ids))
        else:
            arrays.append(encode_batch(batch, codes, precision, ids))
    return {name: np.concatenate([of_batch[name] for of_batch in arrays]) for name in arrays[0]}


def encode_batch(batch: CapturedBatch, codes: Sequence[Code], precision: Precision, ids: NDArray[Any]) -> Arrays:
    """The rows of a batch, block by block. Raises ValueError that names an example whose gradient is not finite."""
    factors, arrays = factors_by_weight(batch), dict[str, NDArray[Any]]()
    for code in codes:
        arrays |= encode_block(code.name, code.row(batch, factors.get(code.name)), precision, ids)
    return arrays


def encode_block(name: str, block: RowBlock, precision: Precision, ids: NDArray[Any]) -> Arrays:
    """The arrays of one block, quantised."""
    parts = {"left": block.left, "right": block.right} if isinstance(block, Pairs) else {"numbers": block.values}
    arrays: Arrays = {f"{name}/lookups/ids": block.ids} if isinstance(block, Lookups) else {}
    for part, values in parts.items():
        finite = np.isfinite(values).reshape(len(values), -1).all(axis=1)
        if not finite.all():
            bad = ids[~finite]
            raise ValueError(
                f"the gradient of example {bad[0].item()!r} in {name!r} is not finite ({len(bad)} of {len(ids)} in its "
                "batch); check its inputs, and the loss for log(0) or overflow"
            )
        arrays |= {f"{name}/{part}/{key}": array for key, array in quantise(values, precision).items()}
    of_right = arrays.pop(f"{name}/right/scale", None)  # of a pair, the product of both scales counts
    if of_right is not None:
        arrays[f"{name}/left/scale"] = arrays[f"{name}/left/scale"] * of_right
    return arrays


def decode_block(name: str, arrays: Mapping[str, NDArray[Any]], layout: Layout, precision: Precision) -> RowBlock:
    """The block that was encoded, with its integers and scales. Raises ValueError if it is not among the arrays."""

    def part(which: str, count: int) -> tuple[NDArray[Any], NDArray[np.float32] | None]:
        names = {key: f"{name}/{which}/{key}" for key in ("numbers", "scale")}
        own = {key: arrays[full] for key, full in names.items() if full in arrays}
        if "numbers" not in own:
            raise ValueError(f"expected numbers of {name!r}, got none")
        return unpacked(own, count, precision)

    if layout.form == "pairs":
        (left, scale), (right, of_right) = part("left", layout.left), part("right", layout.right)
        if scale is not None and of_right is not None:  # older stores have one for each side
            scale = scale * of_right
        return Pairs(left, right, scale)
    if layout.form == "lookups":
        return Lookups(arrays[f"{name}/lookups/ids"], *part("numbers", layout.right), layout.left)
    count = layout.count if layout.form == "sketch" else layout.left * layout.right
    return Numbers(*part("numbers", count))


def exact_batch(batch: CapturedBatch, layouts: Mapping[str, Layout], precision: Precision, ids: NDArray[Any]) -> Arrays:
    """The gradients of a batch of examples with one position. Raises ValueError if one has several."""
    factors, arrays = factors_by_weight(batch), dict[str, NDArray[Any]]()
    for name, layout in layouts.items():
        if layout.form == "pairs":
            s, a = factors[name].s, factors[name].a
            if s.shape[1] > 1:
                raise ValueError(
                    f"exact factors are kept of layers with one position, got {s.shape[1]} positions in {name!r} for "
                    "some examples; use LowRank() or Coordinates()"
                )
            left, right = (side.detach().float().cpu().numpy() for side in (s, a))
            block: RowBlock = Pairs(left, right)
        else:
            block = Numbers(flatten_each(batch.materialise(name)).detach().float().cpu().numpy())
        arrays |= encode_block(name, block, precision, ids)
    return arrays
