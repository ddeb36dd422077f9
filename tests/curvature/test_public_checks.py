"""The checks of a public test suite for influence functions: products, inverses, leave-one-out."""

import os
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

torch = pytest.importorskip("torch")
import torch.nn.functional as F  # noqa: E402, N812
from torch import nn  # noqa: E402

import upweight as uw  # noqa: E402
from support.curved_nets import bowl, columns, cross_entropy, damped  # noqa: E402
from upweight.core.curvature_recipes import CG, Arnoldi, Direct, LiSSA, Nystrom  # noqa: E402
from upweight.curvature.operators import HessianOperator, Operator  # noqa: E402
from upweight.curvature.solvers import prepare  # noqa: E402
from upweight.curvature.summed_objective import SummedObjective  # noqa: E402

L2 = 0.02
SOLVERS = {
    "direct": Direct(),
    "cg": CG(tolerance=1e-10),
    "lissa": LiSSA(depth=600, batch=1000),
    "arnoldi": Arnoldi(rank=33, steps=33),
    "nystrom": Nystrom(rank=33),
}


def regression() -> tuple[Operator, np.ndarray]:
    """Softmax regression on three classes and ten features, and its Hessian in closed form, l2 included."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((80, 10)), rng.integers(0, 3, 80)
    torch.manual_seed(0)
    net = nn.Linear(10, 3).double()
    operator = HessianOperator(
        SummedObjective(uw.TorchModel(net, cross_entropy).network, uw.Examples(x, y), np.ones(80), 0.0, 4.0)
    )
    p = F.softmax(net(torch.as_tensor(x)), 1).detach().numpy()
    matrix = np.zeros((33, 33))
    for row, q in zip(x, p, strict=True):  # weights class by class, then biases
        jacobian = np.hstack([np.kron(np.eye(3), row), np.eye(3)])
        matrix += jacobian.T @ (np.diag(q) - np.outer(q, q)) @ jacobian
    return operator, matrix + 4.0 * np.eye(33)


def five_by_five() -> tuple[Operator, np.ndarray]:
    operator, matrix = bowl([0.3, 0.5, 1.0, 2.0, 3.0])
    return damped(operator, 4.0), matrix + 4.0 * np.eye(5)


PROBLEMS = {"softmax regression": regression, "5 × 5": five_by_five}


@pytest.mark.parametrize("problem", PROBLEMS)
def test_products_are_symmetric_linear_and_equal_to_the_matrix(problem):
    operator, matrix = PROBLEMS[problem]()
    b, blocks = columns(operator, 3)
    products = operator.network.join(operator.matvec(blocks))
    np.testing.assert_allclose(products, b @ matrix, atol=1e-9)
    np.testing.assert_allclose(b @ products.T, products @ b.T, atol=1e-9)
    mixed = operator.network.split(2.0 * b[:1] - 3.0 * b[1:2])
    product = operator.network.join(operator.matvec(mixed))[0]
    np.testing.assert_allclose(product, 2 * products[0] - 3 * products[1], atol=1e-9)


@pytest.mark.sweep(3)
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("problem", PROBLEMS)
def test_every_solver_is_the_dense_inverse(problem, solver):
    operator, matrix = PROBLEMS[problem]()
    b, blocks = columns(operator, 3)
    x = operator.network.join(prepare(operator, SOLVERS[solver]).solve(blocks).blocks)
    expected = np.linalg.solve(matrix, b.T).T
    np.testing.assert_allclose(x, expected, atol=1e-6 * np.abs(expected).max())


def optimum(x: np.ndarray, y: np.ndarray, start: LogisticRegression | None = None) -> LogisticRegression:
    """The optimum of mean cross-entropy + l2/2 ‖w‖², without intercept."""
    fitted = LogisticRegression(C=1 / (L2 * len(y)), fit_intercept=False, tol=1e-10, max_iter=2000, warm_start=True)
    if start is not None:
        fitted.coef_, fitted.intercept_, fitted.classes_ = start.coef_.copy(), np.zeros(1), start.classes_
    return fitted.fit(x, y)


def leave_one_out(x: np.ndarray, y: np.ndarray, query: tuple[np.ndarray, int]) -> tuple[np.ndarray, np.ndarray]:
    """Predicted and true changes of one query's loss for the twenty strongest examples at either end."""

    def loss(net: nn.Module, batch: object) -> torch.Tensor:
        return F.binary_cross_entropy_with_logits(net(batch.x)[:, 0], batch.y.to(batch.x), reduction="none")

    fitted = optimum(x, y)
    net = nn.Linear(x.shape[1], 1, bias=False).double()
    with torch.no_grad():
        net.weight.copy_(torch.as_tensor(fitted.coef_))
    train, queries = uw.Examples(x, y), uw.Examples(query[0][None], [query[1]])
    solver = Direct() if x.shape[1] < 100 else CG(tolerance=1e-6)
    model = uw.TorchModel(net, loss, objective=uw.Objective("mean", l2=L2))
    scores = uw.Influence(curvature=uw.Hessian(solver=solver)).fit(model, train).attribute(queries)
    assert scores.unit == uw.Unit.EFFECT
    order = np.argsort(scores.values[0])
    ends = np.concatenate([order[:20], order[-20:]])
    before = model.measure(queries)[0]
    true = []
    for i in ends:
        without = optimum(np.delete(x, i, 0), np.delete(y, i), fitted)
        z = float(query[0] @ without.coef_[0])
        true.append(before + np.logaddexp(0.0, -z if query[1] else z))
    return scores.values[0, ends], np.array(true)


def hardest(x: np.ndarray, y: np.ndarray, others: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, int]:
    z = others @ optimum(x, y).coef_[0] * (2 * labels - 1)
    position = int(np.argmin(z))
    return others[position], int(labels[position])


def assert_agreement(predicted: np.ndarray, true: np.ndarray) -> None:
    assert np.corrcoef(predicted, true)[0, 1] > 0.9
    assert 0.8 < (predicted @ true) / (predicted @ predicted) < 1.25


def test_leave_one_out_of_handwritten_ones_and_sevens():
    x, y = load_digits(return_X_y=True)
    used = np.isin(y, [1, 7])
    x, y = x[used] / 16, (y[used] == 7).astype(int)
    assert_agreement(*leave_one_out(x[:240], y[:240], hardest(x[:240], y[:240], x[240:], y[240:])))


@pytest.mark.slow
@pytest.mark.skipif("UPWEIGHT_DATA" not in os.environ, reason="UPWEIGHT_DATA names the folder with mnist.npz")
def test_leave_one_out_of_mnist_ones_and_sevens():
    with np.load(Path(os.environ["UPWEIGHT_DATA"]) / "mnist.npz") as data:
        sides = [(data[f"x{s}"].reshape(len(data[f"y{s}"]), -1) / 255.0, data[f"y{s}"]) for s in ("tr", "te")]
    (x, y), (others, labels) = ((x[np.isin(y, [1, 7])], (y[np.isin(y, [1, 7])] == 7).astype(int)) for x, y in sides)
    x, y = x[:4000], y[:4000]
    assert_agreement(*leave_one_out(x, y, hardest(x, y, others, labels)))
