"""Signed steps of queries against their loss."""

import numpy as np
import pytest

import upweight as uw

torch = pytest.importorskip("torch")
pytest.importorskip("captum", reason="captum is not installed: pip install 'upweight[captum]'")
F, nn = torch.nn.functional, torch.nn
RNG = np.random.default_rng(0)
QUERIES = uw.Examples(RNG.random((12, 1, 4, 4)), RNG.integers(0, 2, 12), labels={0: "no", 1: "yes"})


def cross_entropy(net, batch):
    return F.cross_entropy(net(batch.x), batch.y, reduction="none")


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return uw.TorchModel(
        nn.Sequential(nn.Flatten(), nn.Linear(16, 6), nn.Tanh(), nn.Linear(6, 2)).double(), cross_entropy
    )


def test_every_number_moves_by_the_radius_in_the_sign_of_the_gradient(model):
    result = uw.fgsm(model, QUERIES, 0.05)
    x = torch.tensor(QUERIES.x, requires_grad=True)
    (gradient,) = torch.autograd.grad(F.cross_entropy(model.network.net(x), torch.as_tensor(QUERIES.y)), x)
    assert np.allclose(result.moved.x, QUERIES.x + 0.05 * gradient.sign().numpy())
    assert (result.measured[1] < result.measured[0]).all() and result.moved.ids.tolist() == QUERIES.ids.tolist()
    assert np.allclose(result.measured[1], model.measure(result.moved))
    large = uw.fgsm(model, QUERIES, 1.0)
    pairs = zip(QUERIES.ids.tolist(), *large.predicted, strict=True)
    assert large.flipped == [i for i, a, b in pairs if a != b] and len(large.flipped) > 0


def test_steps_towards_a_label_raise_its_probability_and_bounds_hold(model):
    result = uw.fgsm(model, QUERIES, 0.3, low=0.0, high=1.0, towards="yes")
    probability = [model.predict(e).probabilities[:, 1] for e in (QUERIES, result.moved)]
    assert (probability[1] > probability[0]).all()
    assert result.moved.x.min() >= 0 and result.moved.x.max() <= 1


def test_confident_queries_move_too(model):
    """The gradient of a loss near 0 is tiny and still has a sign."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 2, bias=False)).double()
    with torch.no_grad():
        net[1].weight[0].fill_(0.0)
        net[1].weight[1].fill_(3.0)
    confident = uw.TorchModel(net, cross_entropy)
    result = uw.fgsm(confident, QUERIES.replaced(y=[1] * 12), 0.01)
    assert np.allclose(result.moved.x, QUERIES.x - 0.01) and result.diagnostics["warnings"] == []
    with torch.no_grad():
        net[1].weight.fill_(0.0)
    still = uw.fgsm(confident, QUERIES, 0.01)
    assert still.diagnostics["warnings"] == ["12 of 12 queries did not move: the gradient of their loss is 0."]


@pytest.mark.parametrize("radius", [0, -1.0, np.nan, np.inf])
def test_a_radius_that_is_not_above_zero_is_refused(model, radius):
    with pytest.raises(ValueError, match="expected a radius above 0"):
        uw.fgsm(model, QUERIES, radius)


def test_queries_that_cannot_be_moved_are_refused(model):
    with pytest.raises(ValueError, match="expected queries with labels"):
        uw.fgsm(model, QUERIES.replaced(y=None), 0.1)
    with pytest.raises(ValueError, match="expected low ≤ high"):
        uw.fgsm(model, QUERIES, 0.1, low=1, high=0)
    embedded = uw.TorchModel(nn.Sequential(nn.Embedding(5, 4), nn.Flatten(), nn.Linear(8, 2)).double(), cross_entropy)
    with pytest.raises(TypeError, match="texts and integers cannot be perturbed"):
        uw.fgsm(embedded, uw.Examples(RNG.integers(0, 5, (3, 2)), [0, 1, 0]), 0.1)


def test_the_page_shows_pictures_before_and_after(model, tmp_path):
    result = uw.fgsm(model, QUERIES, 1.0)
    html = uw.write_page(tmp_path / "page.html", result).read_text(encoding="utf-8")
    assert html.count("<figure>") == 12 and "every number moved by 1" in html
