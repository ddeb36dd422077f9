"""Weak and strong augmentations of pictures (n, channels, height, width) by torch operations."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

SHIFT = 0.1  # of the size of a picture, at most
TURN = 30.0  # degrees, at most
BRIGHTNESS, CONTRAST = 0.3, 0.5  # at most
HOLE = 0.4  # side of the square that is cut out, as a share of the picture


def weak(x: Tensor, flips: bool) -> Tensor:
    """Shifted by a tenth at most, and flipped half of the time if `flips`."""
    return _moved(x, flips, 0.0)


def strong(x: Tensor, flips: bool) -> Tensor:
    """Shifted, flipped and rotated, with another brightness and contrast, and a square cut out."""
    x = _moved(x, flips, TURN)
    count, _, height, width = x.shape
    brightness, contrast = (torch.rand(count, 1, 1, 1) * 2 - 1 for _ in range(2))
    mean = x.mean(dim=(1, 2, 3), keepdim=True)
    x = ((x - mean) * (1 + CONTRAST * contrast) + mean + BRIGHTNESS * brightness).clamp(0, 1)
    rows, columns = (torch.rand(count, 1, 1, 1) * size for size in (height, width))
    down, across = torch.arange(height).view(1, 1, -1, 1), torch.arange(width).view(1, 1, 1, -1)
    hole = ((down - rows).abs() < HOLE * height / 2) & ((across - columns).abs() < HOLE * width / 2)
    return x.masked_fill(hole, 0.0)


def _moved(x: Tensor, flips: bool, turn: float) -> Tensor:
    """Shifted, flipped and rotated at random, one way per picture."""
    count = len(x)
    angle = (torch.rand(count) * 2 - 1) * math.radians(turn)
    sign = torch.where(torch.rand(count) < 0.5, -1.0, 1.0) if flips else torch.ones(count)
    shift = (torch.rand(count, 2) * 2 - 1) * 2 * SHIFT
    rows = torch.stack([sign * angle.cos(), -angle.sin(), shift[:, 0]], dim=1)
    below = torch.stack([sign * angle.sin(), angle.cos(), shift[:, 1]], dim=1)
    grid = functional.affine_grid(torch.stack([rows, below], dim=1), list(x.shape), align_corners=False)
    return functional.grid_sample(x, grid, padding_mode="zeros", align_corners=False)


class SmallNet(nn.Module):
    """Three convolutions with batch norm, a hidden layer, and a linear head."""

    def __init__(self, channels: int, classes: int, width: int) -> None:
        super().__init__()
        sizes = [channels, width, 2 * width, 2 * width]
        layers: list[nn.Module] = []
        for inner, outer in pairwise(sizes):
            layers += [nn.Conv2d(inner, outer, 3, padding=1), nn.BatchNorm2d(outer), nn.ReLU(), nn.MaxPool2d(2)]
        self.body = nn.Sequential(*layers, nn.Flatten(), nn.LazyLinear(64), nn.ReLU())
        self.head = nn.Linear(64, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))
