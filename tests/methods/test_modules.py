"""Scores about a part of a network: modules by patterns and rows of embeddings, against dense blocks and refits."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

import upweight as uw

USERS, ITEMS, WIDTH = 7, 9, 3


class Recommender(nn.Module):
    """Rating = head(user ∘ item, mlp(user, item)): two embeddings of users and of items, as NCF has them."""

    def __init__(self):
        super().__init__()
        self.user, self.item = nn.Embedding(USERS, WIDTH), nn.Embedding(ITEMS, WIDTH)
        self.user_mlp, self.item_mlp = nn.Embedding(USERS, WIDTH), nn.Embedding(ITEMS, WIDTH)
        self.mlp = nn.Sequential(nn.Linear(2 * WIDTH, 4), nn.Tanh(), nn.Linear(4, 2))
        self.head = nn.Linear(WIDTH + 2, 1)

    def forward(self, pairs):
        users, items = pairs[:, 0], pairs[:, 1]
        joint = self.mlp(torch.cat([self.user_mlp(users), self.item_mlp(items)], 1))
        return self.head(torch.cat([self.user(users) * self.item(items), joint], 1))[:, 0]


class Factors(nn.Module):
    """Rating = user · item."""

    def __init__(self):
        super().__init__()
        self.user, self.item = nn.Embedding(USERS, WIDTH), nn.Embedding(ITEMS, WIDTH)

    def forward(self, pairs):
        return (self.user(pairs[:, 0]) * self.item(pairs[:, 1])).sum(1)


def squared(net, batch):
    return (net(batch.x) - batch.y) ** 2 / 2


def rating(net, batch):
    return net(batch.x)


@pytest.fixture(scope="module")
def ratings():
    rng = np.random.default_rng(1)
    pairs = np.array([(u, i) for u in range(USERS) for i in range(ITEMS) if (u, i) not in {(2, 5), (2, 6), (4, 5)}])
    weights = rng.uniform(0.5, 2, len(pairs))
    weights[[3, 30]] = 0.0
    train = uw.Examples(pairs, rng.normal(size=len(pairs)), weights=weights, ids=[f"u{u}i{i}" for u, i in pairs])
    return train, uw.Examples(np.array([[2, 5], [2, 6], [4, 5]]), ids=["a", "b", "c"])


def recommender(reduction="mean", net=None):
    torch.manual_seed(0)
    net = (Recommender() if net is None else net).double()
    return uw.TorchModel(net, squared, rating, objective=uw.Objective(reduction, 0.05))


def chosen(net, rows):
    """The numbers of these parameters among all, name → rows (None for all)."""
    masks = []
    for name, p in net.named_parameters():
        mask = torch.zeros(p.shape, dtype=torch.bool)
        if name in rows:
            mask[slice(None) if rows[name] is None else rows[name]] = True
        masks.append(mask.flatten())
    return torch.cat(masks).numpy()


USER_AND_ITEMS = {name + kind: rows for name, rows in (("user", [2]), ("item", [5, 6])) for kind in ("", "_mlp")}
PARTS = {
    "rows of a user and of items": (
        {"user*": [2], "item*": [6, 5]},
        {f"{k}.weight": v for k, v in USER_AND_ITEMS.items()},
    ),
    "rows of one table": ({"user_mlp": 4}, {"user_mlp.weight": [4]}),
    "rows and a module": ({"user": [2], "head": None}, {"user.weight": [2], "head.weight": None, "head.bias": None}),
    "modules": (
        ["mlp", "head.bias"],
        dict.fromkeys(("mlp.0.weight", "mlp.0.bias", "mlp.2.weight", "mlp.2.bias", "head.bias")),
    ),
    "one pattern": (
        "*.weight",
        dict.fromkeys((*(f"{k}.weight" for k in USER_AND_ITEMS), "mlp.0.weight", "mlp.2.weight", "head.weight")),
    ),
}


@pytest.mark.sweep(3)
@pytest.mark.parametrize("reduction", ["mean", "sum", "fixed"])
@pytest.mark.parametrize("part", PARTS)
def test_influence_of_a_part_is_the_solve_with_its_block_of_the_curvature(ratings, part, reduction):
    train, queries = ratings
    model, (modules, rows) = recommender(reduction), PARTS[part]
    mask = chosen(model.network.net, rows)
    whole = uw.Influence(damping=0.1, correction=None).fit(model, train)
    block = whole.curvature.matvec(np.eye(len(mask)))[np.ix_(mask, mask)]
    measured, losses = model.measure_rows(queries).dense()[:, mask], model.loss_rows(train).dense()[:, mask]
    fitted = uw.Influence(modules=modules, damping=0.1, correction=None).fit(model, train)
    scores = fitted.attribute(queries)
    np.testing.assert_allclose(scores.values, -measured @ np.linalg.solve(block, losses.T), atol=1e-12)
    assert scores.diagnostics["damping"] == pytest.approx(0.1)  # on the scale of the mean loss of all examples
    own = model.measure_rows(train).dense()[:, mask]
    expected = -np.einsum("ip,ip->i", own, np.linalg.solve(block, losses.T).T)
    np.testing.assert_allclose(fitted.self_influence().values[0], expected, atol=1e-12)


def test_a_fisher_kernel_of_a_part_is_that_of_its_block(ratings):
    train, _ = ratings
    torch.manual_seed(0)
    model = uw.TorchModel(Recommender().double(), squared, objective=uw.Objective("mean", 0.05))
    mask = chosen(model.network.net, PARTS["modules"][1])
    whole = uw.Influence(damping=0.1, correction=None).fit(model, train)
    block = whole.curvature.matvec(np.eye(len(mask)))[np.ix_(mask, mask)]
    gradients = model.measure_rows(train).dense()[:, mask]
    kernel = uw.FisherKernel(damping=0.1, modules=PARTS["modules"][0]).between(model, train)
    expected = gradients @ np.linalg.solve(block, gradients.T)
    np.testing.assert_allclose(kernel.diagonal, expected.diagonal(), atol=1e-12)
    np.testing.assert_allclose(kernel.column(3), expected[:, 3], atol=1e-12)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_with_the_items_fixed_the_influence_on_a_user_is_that_of_refitting_the_user(ratings, reduction):
    train, queries = ratings
    net, user = Factors().double(), 2
    items = net.item.weight.detach().numpy()

    def refit(without=None):
        weights = train.weights.copy()
        weights[train.positions([without] if without else [])] = 0
        mine = train.x[:, 0] == user
        x, w = items[train.x[mine, 1]], weights[mine]
        ridge = 0.05 * (weights.sum() if reduction == "mean" else 1.0)
        return np.linalg.solve(x.T * w @ x + ridge * np.eye(WIDTH), x.T @ (w * train.y[mine]))

    with torch.no_grad():
        net.user.weight[user] = torch.as_tensor(refit())
    model = recommender(reduction, net)
    fitted = uw.Influence(modules={"user": [user]}, damping=0, correction="leverage").fit(model, train)
    scores = fitted.attribute(queries.take([0, 1]))
    for identifier in ("u2i0", "u2i8"):
        effect = items[[5, 6]] @ (refit() - refit(without=identifier))
        got = scores.values[:, train.positions([identifier])[0]]
        if reduction == "sum":  # a mean is renormalised, of which the Newton step without a rating keeps first order
            np.testing.assert_allclose(got, effect, atol=1e-12)
        else:
            np.testing.assert_allclose(got, effect, rtol=0.05)


def test_ratings_of_others_have_no_influence_on_the_row_of_a_user_and_cost_no_pass(ratings):
    train, queries = ratings
    model = recommender("sum")
    fitted = uw.Influence(modules={"user*": [2]}).fit(model, train)
    values = fitted.attribute(queries).values
    others = (train.x[:, 0] != 2) | (train.weights == 0)
    assert not values[:, others].any() and values[0, ~others].all()
    assert not values[2].any()  # the rating of another user does not depend on this row
    assert len(fitted.inner.train) == (train.x[:, 0] == 2).sum()


@pytest.mark.parametrize("modules", ["head", {"user": [2]}])
def test_scores_about_a_part_are_ranks_because_retraining_moves_the_other_parameters_too(ratings, modules):
    train, queries = ratings
    fitted = uw.Influence(modules=modules, damping=0).fit(recommender(), train)
    assert fitted.attribute(queries).unit == uw.Unit.RANK


def test_gradient_products_and_relatif_are_about_the_chosen_part_too(ratings):
    train, queries = ratings
    model = recommender()
    modules, rows = PARTS["rows and a module"]
    mask = chosen(model.network.net, rows)
    measured, losses = model.measure_rows(queries).dense()[:, mask], model.loss_rows(train).dense()[:, mask]
    graddot = uw.GradDot(modules=modules).fit(model, train).attribute(queries)
    np.testing.assert_allclose(graddot.values, -measured @ losses.T, atol=1e-12)
    whole = uw.Influence(damping=0.1, correction=None).fit(model, train)
    block = whole.curvature.matvec(np.eye(len(mask)))[np.ix_(mask, mask)]
    solved = np.linalg.solve(block, losses.T)
    lengths = np.sqrt(np.einsum("ip,pi->i", losses, solved))
    expected = np.divide(-measured @ solved, lengths, where=train.weights > 0, out=np.zeros((3, len(train))))
    relatif = uw.RelatIF(modules=modules, damping=0.1).fit(model, train).attribute(queries)
    np.testing.assert_allclose(relatif.values, expected, atol=1e-12)


def test_the_net_is_left_as_it_was_and_a_fit_is_loaded_for_the_same_part_only(ratings, tmp_path):
    train, queries = ratings
    model = recommender()
    before = copy.deepcopy(model.network.net.state_dict())
    recipe = uw.Influence(modules={"user*": [2]})
    fitted = recipe.fit(model, train)
    scores = fitted.attribute(queries)
    assert all(torch.equal(before[name], now) for name, now in model.network.net.state_dict().items())
    assert isinstance(model.network.net.user, nn.Embedding)
    fitted.save(tmp_path / "fit.npz")
    again = recipe.load(tmp_path / "fit.npz", model, train).attribute(queries)
    np.testing.assert_array_equal(again.values, scores.values)
    with pytest.raises(ValueError, match="another recipe"):
        uw.Influence(modules={"user*": [3]}).load(tmp_path / "fit.npz", model, train)
    with torch.no_grad():
        model.network.net.head.bias.add_(1)
    with pytest.raises(ValueError, match="changed"):
        fitted.attribute(queries)


@pytest.mark.parametrize(
    ("modules", "message"),
    [
        ("usr", "which matches none; did you mean 'user'"),
        ([], "at least one module"),
        ({}, "at least one module"),
        ({"user": []}, "rows of 'user' as whole numbers"),
        ({"user": [1.5]}, "rows of 'user' as whole numbers"),
        ({"user": [2, 2]}, "from 0 on, each once"),
        ({"user": [-1]}, "from 0 on, each once"),
        ({"user": [USERS]}, f"rows of 'user.weight' between 0 and {USERS - 1}, got {USERS}"),
        ({"head": [0]}, "got rows of 'head.weight', a parameter of a Linear"),
    ],
)
def test_a_part_that_the_net_does_not_have_is_refused(ratings, modules, message):
    with pytest.raises(ValueError, match=message):
        uw.Influence(modules=modules).fit(recommender(), ratings[0])


def test_modules_of_another_kind_and_models_without_modules_are_refused(ratings):
    with pytest.raises(TypeError, match="expected modules as patterns"):
        uw.Influence(modules=3)
    from sklearn.linear_model import Ridge

    train = uw.Examples(np.arange(6.0)[:, None], np.arange(6.0))
    with pytest.raises(TypeError, match=r"Influence\(modules=…\) needs a model that is Layered"):
        uw.Influence(modules="head").fit(uw.explainable(Ridge().fit(train.x, train.y), train), train)


def test_rows_that_no_training_example_looks_up_are_refused(ratings):
    train, _ = ratings
    others = train.take(train.x[:, 0] != 2)
    with pytest.raises(ValueError, match="rows that none of the 53 examples does"):
        uw.Influence(modules={"user*": [2]}).fit(recommender(), others)


def test_a_table_that_is_used_otherwise_than_by_looking_up_rows_is_refused(ratings):
    train, queries = ratings

    def by_hand(net, batch):  # indexes the table itself, which has one row only if it is restricted to it
        return (net.user.weight[batch.x[:, 0] * 0] * net.item(batch.x[:, 1])).sum(1)

    model = uw.TorchModel(Factors().double(), squared, by_hand)
    with pytest.raises(ValueError, match=r"in another way than by looking up its rows"):
        uw.Influence(modules={"user": [2]}).fit(model, train).attribute(queries)
    tied = Factors().double()
    tied.item.weight = tied.user.weight
    with pytest.raises(ValueError, match="shared by 2 modules"):
        uw.Influence(modules={"user": [2]}).fit(recommender(net=tied), train.take(train.x[:, 1] < USERS))
    padded = Factors().double()
    padded.user.padding_idx = 2
    with pytest.raises(ValueError, match=r"row 2 of 'user.weight' is the padding row"):
        uw.Influence(modules={"user": [2]}).fit(recommender(net=padded), train)


def test_layers_is_the_older_name_of_modules(ratings):
    train, queries = ratings
    model = recommender()
    with pytest.warns(DeprecationWarning, match="write modules="):
        older = uw.GradDot(layers=("mlp.2", "head"))
    np.testing.assert_array_equal(
        older.fit(model, train).attribute(queries).values,
        uw.GradDot(modules=["mlp.2", "head"]).fit(model, train).attribute(queries).values,
    )
