"""Building a store: a work list of files, each made from the model, the training set and the header alone."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.blocks import blocks
from upweight.core.examples import Examples
from upweight.core.identity import digest
from upweight.core.saved_state import SavedState
from upweight.core.weights import example_counts
from upweight.curvature.label_expectation import Weighted, independent_losses
from upweight.curvature.summed_objective import SummedObjective
from upweight.store.basis import Basis, decompose, moments_of_part, refined, sums_of_part
from upweight.store.codes import Code, LayerCode, ParameterCode, table_as_layer
from upweight.store.encode_rows import encoded_rows
from upweight.store.header import Header
from upweight.store.manifest import ManifestWriter, read_manifests
from upweight.store.shard_files import Receipt, checked_bytes, read_file, serialise, write_file

PHASES = ("factors", "eigenvectors", "moments", "basis", "rows")  # each needs all files of those before
TEMPORARY = ("factors", "eigenvectors", "moments")  # phases whose files are removed when the basis is finished


class Builder:
    """The work list of one store.

    `for phase in PHASES: for number in builder.missing(phase): builder.commit(phase, number, writer)` is the whole
    build, after which one process calls `remove_temporary`. Numbers of one phase may be made in any order and by any
    process. The bytes of a file depend on its phase and number, the header and the files of earlier phases, and on
    nothing else.

    Args:
        folder: of the store, which has a header.
        header: its header.
        model: has a `network`, an `objective` and sample `weights`.
        train: the training set.
    """

    def __init__(self, folder: Path, header: Header, model: Any, train: Examples) -> None:
        self.folder, self.header, self.model, self.train = folder, header, model, train
        self.network = model.network
        self.weights = np.asarray(model.weights(train), dtype=np.float64)

    def missing(self, phase: str) -> list[int]:
        """Numbers of the files of this phase that are not finished, in ascending order."""
        receipts = read_manifests(self.folder)
        if phase in TEMPORARY and self._is_there(receipts.get(("basis", 0))):
            return []
        numbers = range(self.header.shards(phase))
        return [number for number in numbers if not self._is_there(receipts.get((phase, number)))]

    def check(self) -> None:
        """Read every finished file that stays in the store. Raises ValueError that names one with other bytes."""
        for (phase, _), receipt in read_manifests(self.folder).items():
            if phase not in TEMPORARY and self._is_there(receipt):
                checked_bytes(self.folder, receipt)

    def commit(self, phase: str, number: int, writer: ManifestWriter) -> Receipt:
        """Make a file, write it, and add its line to the manifest."""
        state, file = self.make(phase, number), f"{phase}/{number:05d}.safetensors"
        identity = self.identity(phase)
        label = {"phase": phase, "number": number, "identity": identity, "facts": state.facts}
        receipt = write_file(self.folder, (phase, number, file), identity, serialise(state.arrays, label))
        writer.append(receipt)
        return receipt

    def remove_temporary(self) -> None:
        """Remove the files that only the basis needs, once it is finished."""
        if not self.missing("basis"):
            for phase in TEMPORARY:
                for path in (self.folder / phase).glob("*.safetensors"):
                    path.unlink()

    def make(self, phase: str, number: int) -> SavedState:
        """The contents of one file."""
        if phase == "rows":
            return self._rows(number)
        total = float(self.weights.sum())
        if phase == "factors":
            return sums_of_part(self.summed, self._part(number))
        if phase == "eigenvectors":
            basis = decompose(self._states("factors"), self.network, total)
            return basis.state()
        if phase == "moments":
            return moments_of_part(self.summed, self._eigenvectors, self._part(number))
        basis = refined(self._eigenvectors, self._states("moments"), total)
        state = basis.state()
        whole = float(example_counts(self.weights[self.weights > 0]).sum())
        losses = independent_losses(self.summed) * whole / float(self.summed.copies.sum())
        return SavedState(state.arrays, {**state.facts, "losses": losses})

    def identity(self, phase: str) -> str:
        """A digest of everything that the files of this phase depend on."""
        if phase != "rows" or self.header.encoding.keeps_gradients:
            return self.header.digest
        return digest(self.header.digest, self._receipt("basis", 0).sha256)

    @cached_property
    def summed(self) -> SummedObjective:
        """The objective on the examples from which the factors are computed."""
        examples, weights = self._sample
        return SummedObjective(self.network, examples, weights, self.model.objective.ridge(self.weights), 0.0)

    @cached_property
    def basis(self) -> Basis:
        """The finished basis."""
        return Basis.of(self._state("basis", 0), self.network)

    @cached_property
    def basis_facts(self) -> dict[str, Any]:
        """The facts that were kept with the basis."""
        return dict(self._state("basis", 0).facts)

    @cached_property
    def codes(self) -> list[Code]:
        """How gradients become numbers of rows, layer by layer."""
        return codes_of(self.header, self.basis)

    @cached_property
    def _eigenvectors(self) -> Basis:
        return Basis.of(self._state("eigenvectors", 0), self.network)

    @cached_property
    def _sample(self) -> Weighted:
        """The examples from which the factors are computed, and their weights."""
        return sample_of(self.train, self.weights, self.header)

    def _part(self, number: int) -> Weighted:
        examples, weights = self._sample
        where = list(blocks(len(examples), self.header.sample_per_shard))[number]
        return examples.take(np.arange(where.start, where.stop)), weights[where]

    def _rows(self, number: int) -> SavedState:
        """One shard of rows. Raises ValueError that names an example whose gradient is not finite."""
        where = list(blocks(self.header.rows, self.header.rows_per_shard))[number]
        part = self.train.take(np.arange(where.start, where.stop))
        codes = () if self.header.encoding.keeps_gradients else self.codes
        arrays = encoded_rows(self.network, part, self.header, codes)
        return SavedState(arrays, {"first": where.start, "rows": len(part)})

    def _states(self, phase: str) -> Iterator[SavedState]:
        return (self._state(phase, number) for number in range(self.header.shards(phase)))

    def _state(self, phase: str, number: int) -> SavedState:
        arrays, label = read_file(self.folder, self._receipt(phase, number))
        return SavedState(arrays, label["facts"])

    def _receipt(self, phase: str, number: int) -> Receipt:
        receipt = read_manifests(self.folder).get((phase, number))
        if receipt is None:
            raise ValueError(f"{phase} {number} of {self.folder} is not finished: build the store first")
        if receipt.phase != "rows" and receipt.identity != self.header.digest:
            raise ValueError(f"{receipt.file} belongs to another store than the header of {self.folder}")
        return receipt

    def _is_there(self, receipt: Receipt | None) -> bool:
        """Whether a file is finished and has its size."""
        if receipt is None:
            return False
        path = self.folder / receipt.file
        return path.exists() and path.stat().st_size == receipt.bytes


def codes_of(header: Header, basis: Basis) -> list[Code]:
    """How gradients become numbers of rows in this basis, layer by layer."""
    codes = list[Code]()
    for name, layout in header.layouts.items():
        if name in basis.layers:
            codes.append(LayerCode(name, layout, basis.layers[name], header.seed))
        elif layout.right > 1:
            codes.append(LayerCode(name, layout, table_as_layer(name, basis.parameters[name]), header.seed))
        else:
            codes.append(ParameterCode(name, layout, basis.parameters[name]))
    return codes


def sample_of(train: Examples, weights: NDArray[np.float64], header: Header) -> Weighted:
    """Examples of positive weight, drawn with the seed of the store, and their weights."""
    counted = np.flatnonzero(weights)
    if header.sample < len(counted):
        counted = np.sort(np.random.default_rng(header.seed).choice(counted, header.sample, replace=False))
    return train.take(counted), weights[counted]
