"""How long a build takes: its own work on few examples, timed."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from hashlib import sha256
from typing import Any
from zlib import crc32

import numpy as np
import torch
from torch import Tensor

from upweight.core.examples import Examples
from upweight.curvature.kfac import FactoredLayer, factor_sums
from upweight.curvature.label_expectation import Weighted
from upweight.curvature.summed_objective import SummedObjective
from upweight.curvature.unfactored_parameters import decompose_parameters
from upweight.gradients.inspection import inspect
from upweight.store.basis import Basis, moments_of_part
from upweight.store.build import codes_of
from upweight.store.codes import Code
from upweight.store.encode_rows import encoded_rows
from upweight.store.header import Header
from upweight.store.shard_files import serialise

ENOUGH_SECONDS = 0.02  # of a timing, which then is no longer about fixed costs
FIRST_EXAMPLES, GROWTH, MOST_EXAMPLES = 8, 4, 512
LARGEST_DECOMPOSED = 128  # width of a factor that the pilot decomposes; wider ones take (d / 512)³ times as long


def estimated_seconds(model: Any, train: Examples, header: Header, left: Mapping[str, float]) -> float:
    """Seconds in which one process makes the files that are missing.

    Every phase is timed on up to 512 examples, as few as take a fiftieth of a second. Wide factors are not decomposed:
    the identity stands for their eigenvectors, and the time is that of a narrower one.

    Args:
        model: the model, which has a `network` and sample `weights`.
        train: the training set.
        header: of the store.
        left: phase → share of its files that are missing.
    """
    network, weights = model.network, np.asarray(model.weights(train), dtype=np.float64)
    inspect(network, "loss", train)  # once for a net, and not part of any phase
    total, codes = 0.0, list[Code]()
    if not header.encoding.keeps_gradients:
        summed = SummedObjective(network, train, weights, 0.0, 0.0)
        counted = np.flatnonzero(weights)

        def part(size: int) -> Weighted:
            chosen = counted[_spread(len(counted), size)]
            return train.take(chosen), weights[chosen]

        most = min(MOST_EXAMPLES, header.sample)
        if left["factors"] > 0:
            total += left["factors"] * header.sample * _per_example(lambda n: factor_sums(summed, part(n)), most)
        basis, seconds = _stand_in(summed, part(min(most, FIRST_EXAMPLES)))
        total += (left["eigenvectors"] + left["basis"]) * seconds
        codes = codes_of(header, basis)
        if left["moments"] > 0:
            seconds = _per_example(lambda n: moments_of_part(summed, basis, part(n)), most)
            total += left["moments"] * header.sample * seconds
    if left["rows"] > 0:

        def rows(size: int) -> None:
            examples = train.take(_spread(len(train), size))
            content = serialise(encoded_rows(network, examples, header, codes), {})
            crc32(content), sha256(content)

        total += left["rows"] * header.rows * _per_example(rows, min(MOST_EXAMPLES, header.rows))
    return total


def _spread(count: int, size: int) -> Any:
    """Positions of this many of `count` examples, evenly spread."""
    return np.linspace(0, count - 1, min(size, count)).astype(int)


def _per_example(work: Callable[[int], Any], most: int) -> float:
    """Seconds of the work on one example, from as many as take long enough, at most this many."""
    size = min(FIRST_EXAMPLES, most)
    while True:
        start = time.perf_counter()
        work(size)
        seconds = time.perf_counter() - start
        if seconds >= ENOUGH_SECONDS or size >= most:
            return seconds / size
        size = min(most, GROWTH * size)


def _stand_in(summed: SummedObjective, part: Weighted) -> tuple[Basis, float]:
    """(a basis from few examples, with identities for wide factors; seconds to decompose all of them)."""
    layers, parameters, _ = factor_sums(summed, part)
    start, made = time.perf_counter(), {}
    wide: list[int] = []
    for name, layer in layers.items():
        made[name] = _narrow_layer(layer)
        wide += [len(factor) for factor in (layer.inputs, layer.slopes) if _is_wide(factor)]
    basis = Basis(made, decompose_parameters(parameters.squares(), parameters.covariances), {})
    seconds = time.perf_counter() - start
    if wide:
        seconds += _seconds_of_decomposition() * sum((width / LARGEST_DECOMPOSED) ** 3 for width in wide)
    return basis, seconds


def _seconds_of_decomposition() -> float:
    """The least of a few: what disturbs it is multiplied with the cube of the widths."""
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        torch.linalg.eigh(torch.eye(LARGEST_DECOMPOSED, dtype=torch.float64) + 1.0)
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def _is_wide(factor: Tensor) -> bool:
    return factor.ndim == 2 and len(factor) > LARGEST_DECOMPOSED


def _narrow_layer(layer: FactoredLayer) -> FactoredLayer:
    """The layer decomposed, with identities as the eigenvectors of wide factors."""
    inputs, slopes = (torch.ones_like(f[0]) if _is_wide(f) else f for f in (layer.inputs, layer.slopes))
    narrow = replace(layer, inputs=inputs, slopes=slopes, examples=max(layer.examples, 1.0))
    narrow.decompose(1.0)
    if _is_wide(layer.inputs):
        narrow.right = torch.eye(len(layer.inputs)).to(layer.inputs)
    if _is_wide(layer.slopes):
        narrow.left = torch.eye(len(layer.slopes)).to(layer.slopes)
    return narrow
