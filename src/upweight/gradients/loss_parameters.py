"""Parameters that belong to a loss and not to the net, which scores leave out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn


def notes_of_loss(loss: Any, net: nn.Module) -> Iterator[str]:
    """A sentence if the loss is a module with trainable parameters of its own."""
    if not isinstance(loss, nn.Module):
        return
    of_net = {id(parameter) for parameter in net.parameters()}
    own = {n: p for n, p in loss.named_parameters() if p.requires_grad and id(p) not in of_net}
    if own:
        count = sum(parameter.numel() for parameter in own.values())
        yield (
            f"{len(own)} trainable parameters of the loss ({count:,} numbers, e.g. {next(iter(own))}) are held fixed: "
            "scores are about the parameters of the net. If training moved them too, make them parameters of the net."
        )
