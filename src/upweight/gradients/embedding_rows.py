"""A network restricted to some rows of its embeddings: these rows are its parameters, all others are held fixed."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from upweight.core.blocks import blocks
from upweight.core.examples import Examples
from upweight.gradients.copied_net import copy_net
from upweight.gradients.network import Network, Quantity
from upweight.gradients.preserve_model import without_graph

Array = NDArray[np.float64]
BATCH_EXAMPLES = 4096
MOVED = 0.1  # how far the chosen rows are moved to see which examples use them, in standard deviations of the table
LOSS_TOLERANCE = 1e-5  # relative difference up to which two values of a loss are the same


class EmbeddingRows(nn.Module):
    """An embedding of which only some rows are parameters.

    Args:
        embedding: the whole table.
        rows: the rows that stay parameters, (r,).

    Attributes:
        weight: these rows, (r, d).
    """

    table: Tensor
    position: Tensor

    def __init__(self, embedding: nn.Embedding, rows: Sequence[int]) -> None:
        super().__init__()
        self.num_embeddings, self.embedding_dim = embedding.num_embeddings, embedding.embedding_dim
        self.padding_idx = embedding.padding_idx
        table = embedding.weight.detach()
        chosen = torch.as_tensor(rows, device=table.device)
        position = torch.full((len(table),), -1, device=table.device)
        position[chosen] = torch.arange(len(chosen), device=table.device)
        self.weight = nn.Parameter(table[chosen].clone())
        self.register_buffer("table", table)
        self.register_buffer("position", position)

    def forward(self, ids: Tensor) -> Tensor:
        """The rows of the table at these ids, (…, d); only chosen ones carry a gradient."""
        position = self.position[ids]
        chosen = functional.embedding(position.clamp_min(0), self.weight)
        return torch.where((position >= 0)[..., None], chosen, functional.embedding(ids, self.table))


def with_embedding_rows(network: Network, rows: Mapping[str, Sequence[int] | None]) -> Network:
    """The network on a copy of its net, with these parameters only: name → rows of an embedding; None for all of it.

    Raises:
        ValueError: rows of a parameter that is not the table of an `nn.Embedding`, that another module shares, or that
            the table does not have.
    """
    net = copy_net(network.net)
    owners = {id(p): [] for p in net.parameters()}  # type: dict[int, list[tuple[nn.Module, str]]]
    for name, module in net.named_modules(remove_duplicate=False):
        for parameter in module._parameters.values():
            if parameter is not None:
                owners[id(parameter)].append((module, name))
    parameters = dict(net.named_parameters())
    for name, chosen in rows.items():
        if chosen is None:
            continue
        module, path = owners[id(parameters[name])][0]
        _refuse(name, module, len(owners[id(parameters[name])]), chosen)
        assert isinstance(module, nn.Embedding)
        parent, _, attribute = path.rpartition(".")
        if not path:
            net = EmbeddingRows(module, chosen)
        else:
            setattr(net.get_submodule(parent), attribute, EmbeddingRows(module, chosen).train(module.training))
    restricted = copy.copy(network)
    restricted.net = net
    restricted.names = tuple(name for name in network.names if name in rows)
    shapes = {name: tuple(p.shape) for name, p in net.named_parameters()}
    restricted.shapes = {name: shapes[name] for name in restricted.names}
    return restricted


def _refuse(name: str, module: nn.Module, owners: int, rows: Sequence[int]) -> None:
    if not isinstance(module, nn.Embedding):
        raise ValueError(
            f"rows can be chosen of the table of an nn.Embedding, got rows of {name!r}, a parameter of a "
            f"{type(module).__name__}; pass None for all of it"
        )
    if owners > 1:
        raise ValueError(
            f"{name!r} is shared by {owners} modules, so its rows are used by more than this embedding; pass None for "
            "all of it"
        )
    if max(rows) >= module.num_embeddings:
        raise ValueError(
            f"expected rows of {name!r} between 0 and {module.num_embeddings - 1}, got {max(rows)}, which it lacks"
        )
    if module.padding_idx is not None and module.padding_idx in rows:
        raise ValueError(f"row {module.padding_idx} of {name!r} is the padding row, which training never changes")


def require_same_values(whole: Network, restricted: Network, quantity: Quantity, examples: Examples) -> None:
    """Raise ValueError if the restricted network has other values, as where a function uses the table itself."""
    try:
        before, after = (values(network, quantity, examples) for network in (whole, restricted))
        is_same = np.allclose(before, after, rtol=LOSS_TOLERANCE, atol=LOSS_TOLERANCE)
    except (RuntimeError, IndexError, ValueError):  # a function that reads the table gets one of other rows
        is_same = False
    if not is_same:
        raise ValueError(
            f"the {quantity} uses the table of an embedding in another way than by looking up its rows, so it cannot "
            "be restricted to rows; pass None for all of the table"
        )


def dependent_examples(restricted: Network, examples: Examples) -> NDArray[np.intp]:
    """Positions of the examples whose loss depends on the parameters of the restricted network.

    The loss of all others stays the same to the last bit when all of these parameters are moved at random, twice.
    """
    before = values(restricted, "loss", examples)
    moved, start = restricted.writable_copy(), restricted.vector()
    spread = float(np.std(np.concatenate([start, *_tables(restricted)]))) or 1.0
    random = np.random.default_rng(0)
    depends = np.zeros(len(examples), dtype=bool)
    for _ in range(2):
        moved.write(start + MOVED * spread * random.standard_normal(len(start)))
        depends |= values(moved, "loss", examples) != before
    return np.flatnonzero(depends)


def values(network: Network, quantity: Quantity, examples: Examples) -> Array:
    """Loss or measurement of every example, (n,), in passes without gradients."""
    parts = []
    for where in blocks(len(examples), BATCH_EXAMPLES):
        part = examples.take(np.arange(where.start, where.stop))
        with network.preserved():
            batch = without_graph(partial(network.values, quantity, network.batch(part), part.ids))
        parts.append(np.asarray(batch.detach().double().cpu().numpy()))
    return np.concatenate(parts)


def _tables(network: Network) -> list[Array]:
    """The numbers of the tables whose rows were chosen."""
    modules = [module for module in network.net.modules() if isinstance(module, EmbeddingRows)]
    return [np.asarray(module.table.double().cpu().numpy().ravel()) for module in modules]
