"""Small networks (an MLP, a CNN and a transformer) on small data sets, for the laws."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from upweight.testing.networks import NetworkFamily, RecordedFamily, TrainedFamily, cross_entropy, digits, mlp

__all__ = ["NETWORKS", "RECORDED", "TRAINED", "Transformer", "cnn", "cross_entropy", "digits", "mlp"]


class Transformer(nn.Module):
    """One block of attention and an MLP over the rows of an image, mean-pooled."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(8, 12)
        self.qkv, self.out = nn.Linear(12, 36), nn.Linear(12, 12)
        self.norm, self.head = nn.LayerNorm(12), nn.Linear(12, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits (n, 3) of flattened images (n, 64)."""
        h = self.embed(x.unflatten(1, (8, 8)))
        q, k, v = self.qkv(h).chunk(3, dim=-1)
        h = h + self.out(F.scaled_dot_product_attention(q, k, v))
        return self.head(F.gelu(self.norm(h)).mean(dim=1))


def cnn() -> nn.Module:
    """Two convolutions and a linear layer, for flattened images of 8 × 8 pixels."""
    layers = nn.Conv2d(1, 4, 3, stride=2), nn.GELU(), nn.Conv2d(4, 6, 2), nn.GELU(), nn.Flatten(), nn.Linear(24, 3)
    return nn.Sequential(nn.Unflatten(1, (1, 8, 8)), *layers)


RECORDED = [RecordedFamily("recorded mlp", mlp), RecordedFamily("recorded transformer", Transformer, has_recipe=False)]
TRAINED = [TrainedFamily("trained mlp", mlp), TrainedFamily("trained transformer", Transformer)]
NETWORKS = [NetworkFamily("mlp", mlp), NetworkFamily("cnn", cnn), NetworkFamily("transformer", Transformer)]
