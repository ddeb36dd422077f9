"""Convolutions without stored patches: every product equals that of autograd's dense gradients."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from upweight.gradients.gradient_terms import OuterTerm, concatenate  # noqa: E402
from upweight.gradients.inner_products import pairwise_inner_products, per_example_inner_products  # noqa: E402
from upweight.gradients.layers import ConvolutionKind  # noqa: E402
from upweight.gradients.patches import PatchTerm, output_shape, patches, patches_at, rotated_patches  # noqa: E402

CONVOLUTIONS: dict[str, Any] = {
    "plain": lambda: nn.Conv2d(3, 4, 3, padding=1),
    "strided": lambda: nn.Conv2d(3, 4, (3, 2), stride=(2, 1), padding=(1, 0), bias=False),
    "dilated": lambda: nn.Conv2d(3, 4, 2, dilation=2),
    "circular": lambda: nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular"),
    "same": lambda: nn.Conv2d(3, 4, (2, 4), padding="same"),
    "sequence": lambda: nn.Conv1d(3, 4, 3, stride=2, padding=2),
    "volume": lambda: nn.Conv3d(3, 2, 2, padding=1),
}
GROUPED: dict[str, Any] = {
    "depthwise": lambda: nn.Conv2d(4, 4, 3, padding=1, groups=4),
    "multiplied": lambda: nn.Conv2d(4, 8, 3, stride=2, groups=4, bias=False),
    "groups": lambda: nn.Conv2d(4, 6, (3, 2), dilation=(1, 2), groups=2),
    "sequence": lambda: nn.Conv1d(6, 6, 3, padding=2, padding_mode="reflect", groups=3),
    "strided and dilated": lambda: nn.Conv2d(4, 8, (3, 2), (3, 2), (2, 1), (1, 2), groups=4),
    "depthwise sequence": lambda: nn.Conv1d(6, 6, 4, stride=2, padding=3, padding_mode="circular", groups=6),
    "depthwise volume": lambda: nn.Conv3d(3, 6, 2, (2, 1, 1), padding=1, groups=3),
}


def gradients(make: Any, seed: int = 0) -> tuple[Any, Any, Any, Any]:
    """A convolution, a random input, the term of its weight, and autograd's gradient of each example."""
    torch.manual_seed(seed)
    module = make().double()
    size = {nn.Conv1d: (7,), nn.Conv2d: (7, 6), nn.Conv3d: (3, 4, 3)}[type(module)]
    x = torch.randn(5, module.in_channels, *size, dtype=torch.float64)
    out = module(x)
    slope = torch.randn_like(out)
    dense = [torch.autograd.grad((module(a[None]) * s).sum(), module.weight)[0] for a, s in zip(x, slope, strict=True)]
    assert output_shape(module, x) == tuple(out.shape)
    return module, x, ConvolutionKind().terms(module, x, slope)["weight"], torch.stack(dense)


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_products_of_convolutions_are_those_of_dense_gradients(name: str) -> None:
    _, _, term, dense = gradients(CONVOLUTIONS[name])
    _, _, other, other_dense = gradients(CONVOLUTIONS[name], seed=1)
    flat, other_flat = dense.flatten(1), other_dense.flatten(1)
    assert isinstance(term, PatchTerm)
    torch.testing.assert_close(term.materialise(), dense)
    torch.testing.assert_close(term.outer().materialise(), dense)
    for vectors in (dense[:1], dense[:3]):
        torch.testing.assert_close(term.dot_vectors(vectors), flat @ vectors.flatten(1).T)
    for groups in (1, 2):
        membership = torch.randn(groups, 5, dtype=torch.float64)
        torch.testing.assert_close(term.sums(membership), torch.tensordot(membership, dense, dims=1))
    torch.testing.assert_close(pairwise_inner_products(term, other), flat @ other_flat.T)
    torch.testing.assert_close(per_example_inner_products(term, term), (flat**2).sum(1))
    torch.testing.assert_close(per_example_inner_products(term, other), (flat * other_flat).sum(1))
    scale = torch.arange(5.0).double()
    torch.testing.assert_close(
        term.scaled(scale).take(slice(1, 4)).materialise(), (dense.movedim(0, -1) * scale).movedim(-1, 0)[1:4]
    )
    joined = concatenate([term.take(slice(0, 2)), term.take(slice(2, 5))])
    assert isinstance(joined, PatchTerm)
    torch.testing.assert_close(joined.materialise(), dense)


@pytest.mark.parametrize("name", GROUPED)
@pytest.mark.parametrize("numbers", [1, 1 << 18])
def test_gradients_of_grouped_convolutions_are_autograds(
    name: str, numbers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("upweight.gradients.patches.MAX_CONVOLVED_NUMBERS", numbers)
    module, x, term, dense = gradients(GROUPED[name])
    torch.testing.assert_close(term.materialise(), dense)
    torch.manual_seed(1)
    slope = torch.randn_like(module(x))
    expected = ConvolutionKind().terms(module, x, slope)["weight"].materialise()
    single = ConvolutionKind().terms(module.float(), x.float(), slope.float())["weight"].materialise()
    torch.testing.assert_close(single.double(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_rotated_and_chosen_patches_are_those_of_all_patches(name: str) -> None:
    module, x, term, _ = gradients(CONVOLUTIONS[name])
    every = patches(module, x)
    basis = torch.randn(term.columns, term.columns, dtype=torch.float64)
    torch.testing.assert_close(rotated_patches(module, x, basis, has_ones=False), every @ basis)
    basis = torch.randn(term.columns + 1, 3, dtype=torch.float64)
    ones = torch.cat([every, torch.ones_like(every[..., :1])], dim=2)
    torch.testing.assert_close(rotated_patches(module, x, basis, has_ones=True), ones @ basis)
    positions = torch.randint(0, term.length, (5, 4))
    chosen = every.gather(1, positions[:, :, None].expand(-1, -1, term.columns))
    torch.testing.assert_close(patches_at(module, x, positions), chosen)


def test_pictures_of_several_sizes_are_joined_with_their_patches() -> None:
    module, _, term, dense = gradients(CONVOLUTIONS["plain"])
    small = PatchTerm(torch.randn(2, 20, 4, dtype=torch.float64), torch.randn(2, 3, 5, 4, dtype=torch.float64), module)
    joined = concatenate([term, small])
    assert isinstance(joined, OuterTerm) and not isinstance(joined, PatchTerm)
    torch.testing.assert_close(joined.materialise(), torch.cat([dense, small.materialise()]))
