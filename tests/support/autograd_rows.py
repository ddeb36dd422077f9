"""What scores of a net are compared with: gradients by autograd, or a refusal in words."""

from __future__ import annotations

from pathlib import Path
from traceback import extract_tb

import torch

import upweight as uw


def gradients(model: uw.TorchModel, examples: uw.Examples, create_graph: bool = False) -> torch.Tensor:
    """Per-example gradients by autograd, one example at a time, (n, parameters)."""
    network, rows = model.network, []
    with network.preserved():
        parameters = list(network.parameters().values())
        for example in examples.batches(1):
            loss = network.loss(network.net, network.batch(example)).sum()
            grads = torch.autograd.grad(loss, parameters, allow_unused=True, create_graph=create_graph)
            dense = [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, grads, strict=True)]
            rows.append(torch.cat([block.flatten() for block in dense]))
    return torch.stack(rows)


def is_sentence(error: Exception) -> bool:
    """Whether an error is one of this package, with words that help, and not one that came through from another."""
    source = Path(extract_tb(error.__traceback__)[-1].filename).resolve()
    return (
        isinstance(error, ValueError | TypeError)
        and len(str(error)) > 30
        and source.is_relative_to(Path(uw.__file__).resolve().parent)
    )
