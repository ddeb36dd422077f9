"""Roots of the output Hessian of sequences do not depend on the batch, nor on how certain the net is."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
import torch.nn.functional as F  # noqa: E402, N812
from torch import nn  # noqa: E402

import upweight as uw  # noqa: E402
from upweight.curvature import label_expectation  # noqa: E402
from upweight.curvature.output_roots import output_root  # noqa: E402
from upweight.gradients.outputs import Outputs  # noqa: E402

EXAMPLES, LENGTH, SYMBOLS = 12, 5, 9
RNG = np.random.default_rng(0)
TOKENS = RNG.integers(1, SYMBOLS, (EXAMPLES, LENGTH))
TOKENS[2, 3:] = TOKENS[5, 1:] = 0  # padding; of one example it is all that is predicted


class Language(nn.Module):
    """Logits of the next token, which are the larger the more certain the net is."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table, self.hidden, self.head = nn.Embedding(SYMBOLS, 6), nn.Linear(6, 6), nn.Linear(6, SYMBOLS)
        self.scale = scale

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(torch.tanh(self.hidden(self.table(ids).cumsum(1)))) * self.scale
        return logits


def cross_entropy(net: nn.Module, batch: Any) -> torch.Tensor:
    losses = F.cross_entropy(net(batch.x)[:, :-1].mT, batch.x[:, 1:], reduction="none", ignore_index=0)
    return losses.sum(1)


def focal(net: nn.Module, batch: Any) -> torch.Tensor:
    """Another loss of tokens, whose output Hessian is not cross-entropy's."""
    labels = batch.x[:, 1:]
    log_p = torch.log_softmax(net(batch.x)[:, :-1], -1).gather(2, labels[..., None])[..., 0]
    return (-((1 - log_p.exp()) ** 2) * log_p * (labels != 0)).sum(1)


@pytest.mark.parametrize("scale", [1.0, 30.0, 1000.0])
@pytest.mark.parametrize("loss", [cross_entropy, focal])
@pytest.mark.parametrize("curvature", [uw.KFAC(), uw.EKFAC()], ids=["KFAC", "EK-FAC"])
def test_scores_are_the_same_for_any_batches_however_certain_the_net_is(curvature, loss, scale, monkeypatch):
    train = uw.Examples(TOKENS, np.zeros(EXAMPLES, int), weights=np.arange(EXAMPLES) % 3)
    queries = uw.Examples(TOKENS[:3], np.zeros(3, int), ids=list("abc"))
    values = []
    for size in (256, 5, 1):
        monkeypatch.setattr(label_expectation, "MAX_BATCH_EXAMPLES", size)
        monkeypatch.setattr(label_expectation, "expectation_of", lambda _: label_expectation.Expectation(2))
        recipe = uw.Influence(curvature=curvature, damping=1e-3, correction=None)
        values.append(recipe.fit(uw.TorchModel(Language(scale).double(), loss), train).attribute(queries).values)
    for others in values[1:]:
        np.testing.assert_allclose(others, values[0], rtol=1e-6, atol=1e-7 * np.abs(values[0]).max())


def test_a_net_that_is_certain_of_most_tokens_needs_no_blocks(monkeypatch):
    monkeypatch.setattr(label_expectation, "output_root", functools.partial(output_root, max_numbers=1))
    monkeypatch.setattr(label_expectation, "expectation_of", lambda _: label_expectation.Expectation(2))
    train = uw.Examples(TOKENS, np.zeros(EXAMPLES, int))
    for precision in (torch.float32, torch.float64):
        model = uw.TorchModel(Language(1000.0).to(precision), cross_entropy)
        uw.Influence(curvature=uw.KFAC(), damping=1e-3).fit(model, train)


@pytest.mark.parametrize("precision", [torch.float32, torch.float64])
@pytest.mark.parametrize("certain", ["some", "all"])
def test_cross_entropy_has_its_own_root_however_certain_tokens_are(certain, precision):
    generator = torch.Generator().manual_seed(0)
    z, labels = torch.randn(4, LENGTH, SYMBOLS, generator=generator), torch.as_tensor(TOKENS[:4])
    strengths = torch.rand(4, LENGTH, generator=generator) + 0.5
    steps = torch.arange(4 * LENGTH).view(4, LENGTH) * 4.0 + (8.0 if certain == "all" else 0.0)
    z = (z + steps[..., None] * F.one_hot(labels, SYMBOLS)).to(precision)  # from uncertain to certain in all bits

    def losses(z: torch.Tensor, part: slice) -> torch.Tensor:
        return (F.cross_entropy(z.mT, labels[part], reduction="none") * strengths[part]).sum(1)

    p, c = torch.softmax(z.double(), -1), strengths.double()[..., None, None]
    exact = c * (torch.diag_embed(p) - p[..., None] * p[..., None, :])
    for part in (slice(0, 4), slice(0, 1), slice(3, 4)):  # the last one has no uncertain token
        out = Outputs(z[part], functools.partial(losses, part=part))
        root = output_root(out, 1, max_numbers=1)
        columns = [root(torch.eye(SYMBOLS)[i].expand_as(z[part]).to(precision)) for i in range(SYMBOLS)]
        whole = torch.stack(columns, -1).double()
        error = (whole @ whole.mT - exact[part]).abs().amax((-1, -2))
        size = exact[part].abs().amax((-1, -2))
        assert bool((error <= 1e-3 * size + 2 * torch.finfo(precision).eps).all())
