"""TracIn, GAS, GradDot, GradCos and RelatIF, compared with sums over gradients of single examples."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

import upweight as uw
from support.small_linear_models import small

KINDS = ("logistic", "softmax", "ridge", "poisson")


def cosines(a, b):
    return (a / np.linalg.norm(a, axis=1, keepdims=True)) @ (b / np.linalg.norm(b, axis=1, keepdims=True)).T


class Net(nn.Module):
    """A sequence model: embedding, positions, a norm, two linear layers; every kind of captured factor."""

    def __init__(self):
        super().__init__()
        self.table, self.inner = nn.Embedding(12, 5), nn.Linear(5, 6)
        self.norm, self.head = nn.LayerNorm(6), nn.Linear(6, 3)

    def forward(self, x):
        return self.head(self.norm(F.gelu(self.inner(self.table(x)))).mean(1))


def losses(net, batch):
    return F.cross_entropy(net(batch.x), batch.y, reduction="none")


def margin(net, batch):
    z = net(batch.x)
    return z.gather(1, batch.y[:, None])[:, 0] - z.mean(1)


@pytest.fixture(scope="module")
def net_run(tmp_path_factory):
    torch.manual_seed(0)
    net = Net().double()
    rng = np.random.default_rng(0)
    train = uw.Examples(rng.integers(0, 12, (30, 4)), rng.integers(0, 3, 30), weights=rng.uniform(0.5, 2, 30))
    optimiser = torch.optim.SGD(net.parameters(), lr=0.3)
    trajectory = uw.Trajectory(tmp_path_factory.mktemp("run"), every=3)
    for _ in range(9):
        optimiser.zero_grad()
        F.cross_entropy(net(torch.as_tensor(train.x)), torch.as_tensor(train.y)).backward()
        optimiser.step()
        trajectory.record(net, optimiser)
    queries = uw.Examples(rng.integers(0, 12, (7, 4)), rng.integers(0, 3, 7), ids=[f"q{i}" for i in range(7)])
    return (
        uw.TorchModel(net, losses, margin, objective=uw.Objective("mean", l2=0.1), trajectory=trajectory),
        train,
        queries,
    )


def gradients(net, examples, function, names):
    """One backward pass per example: (n, parameters of these names)."""
    named, rows = dict(net.named_parameters()), []
    for example in examples.batches(1):
        batch = type("Batch", (), {"x": torch.as_tensor(example.x), "y": torch.as_tensor(example.y)})
        parts = torch.autograd.grad(function(net, batch).sum(), [named[n] for n in names])
        rows.append(torch.cat([part.flatten() for part in parts]).numpy())
    return np.stack(rows)


LAYERS = {"table": ["table.weight"], **{n: [f"{n}.weight", f"{n}.bias"] for n in ("inner", "norm", "head")}}
EVERY = [name for names in LAYERS.values() for name in names]


def expected(run, form, names):
    """−Σ τ_c form(∇m, ∇ℓ) over the checkpoints."""
    model, train, queries = run
    total = 0.0
    for checkpoint in model.checkpoints():
        net = checkpoint.model().network.net
        total = total - checkpoint.learning_rate_sum * form(
            gradients(net, queries, margin, names), gradients(net, train, losses, names)
        )
    return total


def test_tracin_is_a_sum_over_checkpoints(net_run):
    model, train, queries = net_run
    assert sum(c.learning_rate_sum for c in model.checkpoints()) == pytest.approx(9 * 0.3)
    scores = uw.TracIn().fit(model, train).attribute(queries)
    expected_values = expected(net_run, lambda q, g: q @ g.T, EVERY) * train.weights
    assert np.allclose(scores.values, expected_values, atol=1e-12)
    assert scores.unit == uw.Unit.RANK
    assert scores.diagnostics["checkpoints"] == [3, 6, 9]


@pytest.mark.parametrize(("layers", "names"), [("last", LAYERS["head"]), (("inner", "table"), EVERY[:3])])
def test_layers_can_be_chosen(net_run, layers, names):
    model, train, queries = net_run
    scores = uw.TracIn(modules=layers).fit(model, train).attribute(queries)
    expected_values = expected(net_run, lambda q, g: q @ g.T, names) * train.weights
    assert np.allclose(scores.values, expected_values, atol=1e-12)


def test_the_last_layer_needs_no_pass_below_it(net_run):
    model, train, queries = net_run
    below = []
    handle = model.network.net.norm.register_full_backward_hook(lambda *_: below.append(1))
    try:
        uw.GradDot(modules="last").fit(model, train).attribute(queries)
        assert below == []
        uw.GradDot().fit(model, train).attribute(queries)
        assert below != []
    finally:
        handle.remove()


def test_gas_is_a_sum_of_cosines(net_run):
    model, train, queries = net_run
    scores = uw.GAS().fit(model, train).attribute(queries)
    assert np.allclose(scores.values, expected(net_run, cosines, EVERY), atol=1e-12)
    by_layer = uw.GAS(by="layer").fit(model, train).attribute(queries)
    assert np.allclose(by_layer.values, sum(expected(net_run, cosines, n) for n in LAYERS.values()), atol=1e-12)


def test_the_final_checkpoint_alone_is_graddot_and_gradcos(net_run):
    model, train, queries = net_run
    last = model.checkpoints()[-1].model()
    for recipe, form in ((uw.GradDot(), lambda q, g: q @ g.T), (uw.GradCos(), cosines)):
        q, g = gradients(last.network.net, queries, margin, EVERY), gradients(last.network.net, train, losses, EVERY)
        weights = train.weights if isinstance(recipe, uw.GradDot) else 1.0
        assert np.allclose(recipe.fit(last, train).attribute(queries).values, -form(q, g) * weights, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_linear_models_have_products_of_their_rows(kind):
    model, train, queries = small(kind, weighted=True)
    q, g = model.measure_rows(queries).dense(), model.loss_rows(train).dense()
    assert np.allclose(uw.GradDot().fit(model, train).attribute(queries).values, -q @ g.T)
    assert np.allclose(uw.GradCos().fit(model, train).attribute(queries).values, -cosines(q, g))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("relative", ["loss", "parameters"])
def test_relatif_is_influence_divided_by_the_movement(kind, relative):
    model, train, queries = small(kind, weighted=True)
    steps = model.curvature(train, None, None).solve(model.loss_rows(train)).rows.dense()
    g = model.loss_rows(train).dense()
    moved = np.sqrt((steps * (g if relative == "loss" else steps)).sum(axis=1))
    plain = uw.Influence(correction=None).fit(model, train).attribute(queries).values
    scores = uw.RelatIF(relative=relative).fit(model, train).attribute(queries)
    assert np.allclose(scores.values, plain / moved)
    assert scores.unit == uw.Unit.RANK


def test_an_example_without_gradient_scores_zero():
    rows = small("logistic")[0].loss_rows(small("logistic")[1])
    rows.slopes[3] = 0.0
    assert (rows.normalised().dense()[3] == 0).all()
    assert np.isfinite(rows.normalised().dense()).all()


def test_bad_settings_are_refused(net_run):
    model, train, _ = net_run
    linear, data, _ = small("logistic")
    with pytest.raises(
        ValueError, match=r"modules with trained parameters .'table', 'inner', 'norm', 'head'., got 'tail'"
    ):
        uw.TracIn(modules=("tail",)).fit(model, train)
    with pytest.raises(TypeError, match=r'GradCos\(by="layer"\) needs a model that is Layered'):
        uw.GradCos(by="layer").fit(linear, data)
    with pytest.raises(TypeError, match="TracIn needs a model that is Checkpointed"):
        uw.TracIn().fit(linear, data)
    for wrong in (lambda: uw.GAS(by="row"), lambda: uw.GradCos(by=1), lambda: uw.RelatIF(relative="rank")):
        with pytest.raises(ValueError, match="expected"):
            wrong()
    with pytest.raises(ValueError, match="damping"):
        uw.RelatIF(damping=-1.0)


def test_other_checkpoints_do_not_load(net_run, tmp_path):
    model, train, _ = net_run
    net = model.network.net
    fitted = uw.TracIn().fit(model, train)
    fitted.save(tmp_path / "fit")
    other = uw.Trajectory(tmp_path / "other")
    optimiser = torch.optim.SGD(net.parameters(), lr=0.0)
    other.record(net, optimiser)
    changed = uw.TorchModel(net, losses, margin, objective=uw.Objective("mean", l2=0.1), trajectory=other)
    with pytest.raises(ValueError, match="other checkpoints"):
        uw.TracIn().load(tmp_path / "fit", changed, train)
