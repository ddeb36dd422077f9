"""A small causal language model in plain torch, with its token losses, and its gradients position by position."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

import upweight as uw

VOCABULARY, WIDTH = 12, 6
RNG = np.random.default_rng(5)
SEQUENCES: list[list[int]] = [RNG.integers(1, VOCABULARY, n).tolist() for n in (5, 8, 6, 4, 7, 5, 6, 8)]
PROMPT = 2  # tokens at the beginning that the loss is not about


class SmallLM(nn.Module):
    """Embedding, one attention layer, a norm and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, WIDTH)
        self.query, self.key, self.value = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, VOCABULARY)

    def forward(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        x = self.embedding(ids)
        length = ids.shape[1]
        allowed = torch.ones(length, length, dtype=torch.bool).tril()
        if mask is not None:
            allowed = allowed & mask.bool()[:, None] | torch.eye(length, dtype=torch.bool)
        q, k, v = self.query(x), self.key(x), self.value(x)
        x = x + functional.scaled_dot_product_attention(q, k, v, attn_mask=allowed)
        logits: Tensor = self.head(torch.tanh(self.norm(x)))
        return logits


def small_lm(seed: int = 0) -> SmallLM:
    torch.manual_seed(seed)
    return SmallLM().double()


def token_losses(net: Any, batch: Any) -> tuple[Tensor, Tensor]:
    """Next-token losses of the completion."""
    logits = net(batch["input_ids"], batch["attention_mask"])[:, :-1]
    targets = batch["labels"][:, 1:]
    losses = functional.cross_entropy(logits.transpose(1, 2), targets, reduction="none", ignore_index=-100)
    return losses, targets != -100


def collate(examples: uw.Examples, left: bool = False) -> dict[str, Tensor]:
    """Padded batches, on the left or on the right."""
    longest = max(map(len, examples.x))
    ids = torch.zeros(len(examples), longest, dtype=torch.long)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
    for row, tokens in enumerate(examples.x):
        start = longest - len(tokens) if left else 0
        ids[row, start : start + len(tokens)] = torch.as_tensor(tokens)
        mask[row, start : start + len(tokens)] = 1
        labels[row, start + PROMPT : start + len(tokens)] = torch.as_tensor(tokens[PROMPT:])
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def left_padded(examples: uw.Examples) -> dict[str, Tensor]:
    return collate(examples, left=True)


def language_model(net: nn.Module | None = None, measure: Any = None, **settings: Any) -> uw.TorchModel:
    settings = {"collate": collate, **settings}
    return uw.TorchModel(small_lm() if net is None else net, uw.TokenLoss(token_losses), measure, **settings)


def sequences(count: int = 6, start: int = 0) -> uw.Examples:
    return uw.Examples(SEQUENCES[start : start + count], ids=list(range(start, start + count)))


class _AtPositions(nn.Module):
    """A layer whose parameters are copied once per position."""

    def __init__(self, layer: nn.Module, length: int) -> None:
        super().__init__()
        self.layer, self.copies = layer, {}  # type: nn.Module, dict[str, Tensor]
        for name, parameter in layer.named_parameters():
            self.copies[name] = parameter.detach().expand(length, *parameter.shape).clone().requires_grad_()

    def forward(self, x: Tensor) -> Tensor:
        outputs = []
        for t in range(x.shape[1]):
            own = {name: copies[t] for name, copies in self.copies.items()}
            outputs.append(torch.func.functional_call(self.layer, own, (x[:, t : t + 1],)))
        return torch.cat(outputs, dim=1)


def gradients_by_position(net: SmallLM, loss: Callable[[Any, Any], Tensor], batch: Any) -> dict[str, Tensor]:
    """name → (T, *shape): gradients of the summed loss in copies of the parameters, one per position, by autograd."""
    length = batch["input_ids"].shape[1]
    copied = SmallLM().double()
    copied.load_state_dict(net.state_dict())
    layers: dict[str, _AtPositions] = {}
    for name, layer in list(copied.named_children()):
        layers[name] = _AtPositions(layer, length)
        setattr(copied, name, layers[name])
    loss(copied, batch).sum().backward()
    return {
        f"{name}.{p}": torch.zeros_like(copies) if copies.grad is None else copies.grad
        for name, layer in layers.items()
        for p, copies in layer.copies.items()
    }
