"""Picture nets: residual and depthwise convolutions with batch norm, and CIFAR-10; torch and numpy alone.

They are pretrained on other pictures first, as nets on 500 pictures mostly are, and with batch statistics.
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
PRETRAINING = 4000  # pictures that the net has seen before the ones that are attributed


class ResidualBlock(nn.Module):
    """Two convolutions and a shortcut, which is a convolution where the shape changes (He et al. 2016, option B)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.second = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norms = nn.ModuleList([nn.BatchNorm2d(outputs), nn.BatchNorm2d(outputs)])
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        out = self.norms[1](self.second(F.relu(self.norms[0](self.first(x)))))
        return F.relu(out + self.shortcut(x))


def resnet(width: int = 16, blocks: int = 3) -> nn.Module:
    """ResNet-20 for three blocks a stage; 272,474 parameters at width 16."""
    layers: list[nn.Module] = [nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    for stage in range(3):
        for block in range(blocks):
            stride = 2 if stage and not block else 1
            inputs = width << (stage - 1) if stride == 2 else width << stage
            layers.append(ResidualBlock(inputs, width << stage, stride))
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width << 2, 10))


def narrow_resnet() -> nn.Module:
    return resnet(width=8, blocks=1)


def depthwise() -> nn.Module:
    """Depthwise and pointwise convolutions in turn, as in MobileNet (Howard et al. 2017)."""
    layers: list[nn.Module] = [nn.Conv2d(3, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU()]
    for inputs, outputs, stride in ((32, 64, 1), (64, 128, 2), (128, 128, 1)):
        layers += [nn.Conv2d(inputs, inputs, 3, stride, 1, groups=inputs, bias=False), nn.BatchNorm2d(inputs)]
        layers += [nn.ReLU(), nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 10))


def pictures(data: Path, train: int, queries: int) -> tuple[Tensor, ...]:
    """CIFAR-10 pictures, standardised: train and queries, then what the net is pretrained on."""
    with zipfile.ZipFile(data / "cifar10-subset.zip") as archive:
        names = sorted(name for name in archive.namelist() if name.startswith("train/") and name.endswith(".jpg"))
        chosen = np.random.default_rng(0).permutation(len(names))[: train + queries + PRETRAINING]
        x = np.stack([_decode(archive.read(names[i])) for i in chosen])
    y = torch.tensor([CLASSES.index(names[i].split("/")[-2]) for i in chosen])
    pixels = torch.from_numpy(x).permute(0, 3, 1, 2).float().div(255)
    pixels = ((pixels - pixels.mean((0, 2, 3), keepdim=True)) / pixels.std((0, 2, 3), keepdim=True)).contiguous()
    parts = slice(0, train), slice(train, train + queries), slice(train + queries, None)
    return tuple(part for where in parts for part in (pixels[where], y[where]))


def _decode(jpeg: bytes) -> np.ndarray:
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(jpeg)))
