"""The gradient of one prediction with respect to the pixels of the query, and to the pixels of training pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from experiments.koh_liang.pictures import panels, picture, plt, save
from experiments.results import Result, Row
from sklearn.linear_model import LogisticRegression

import upweight as uw

CLASSES = (4, 9)
TRAIN, SHOWN = 1000, 4
RADIUS = 0.007  # of the panda (Goodfellow et al. 2015), for pixels from 0 to 1
MOVES = 10  # training pictures that are moved, with retraining


def twin(estimator: LogisticRegression) -> uw.TorchModel:
    """The same logistic regression as a net, which captum can differentiate in its inputs."""
    net = torch.nn.Linear(784, 2).double()
    with torch.no_grad():
        net.weight.copy_(torch.as_tensor(np.concatenate([-estimator.coef_, estimator.coef_]) / 2))
        net.bias.copy_(torch.as_tensor([-estimator.intercept_[0], estimator.intercept_[0]]) / 2)
    return uw.TorchModel(net, lambda net, batch: F.cross_entropy(net(batch.x), batch.y, reduction="none"))


def run(digits: Any, folder: Path) -> Result:
    """A mistake on 4 against 9, explained by both gradients."""
    (x, y), (xq, yq) = digits
    rows, query_rows = np.isin(y, CLASSES), np.isin(yq, CLASSES)
    train = uw.Examples(x[rows][:TRAIN], (y[rows][:TRAIN] == 9).astype(int))
    queries = uw.Examples(xq[query_rows][:500], (yq[query_rows][:500] == 9).astype(int))
    estimator = LogisticRegression(C=0.1, tol=1e-10, max_iter=5000).fit(train.x, train.y)
    model, net = uw.explainable(estimator, train), twin(estimator)
    wrong = queries.take(np.asarray(model.predict(queries).predicted) != queries.y)
    query = wrong.take([int(np.argmax(wrong.ids == wrong.ids[np.argmax(model.measure(wrong))]))])  # the closest mistake
    assert np.allclose(model.measure(queries), net.measure(queries))

    test_maps = np.array(uw.attribute_inputs(net, queries.take(range(50)), uw.Saliency(), of="label").values)
    of_query = uw.attribute_inputs(net, query, uw.Saliency(), of="label").values[0]
    perturbation = uw.perturb(model, train, query, k=TRAIN)
    moved = uw.fgsm(net, query, RADIUS)
    test_change = float(np.diff(moved.measured[:, 0])[0])
    error = float(1 - model.predict(query).probabilities[0, query.y[0]])
    predicted_test = -RADIUS * 2 * error * float(np.abs(of_query).sum())  # two outputs, of opposite signs

    actual, predicted = [], []
    for place in range(MOVES):
        gradient = perturbation.gradients[0, place]
        inputs = train.x.copy()
        position = int(train.positions([perturbation.example_ids[place]])[0])
        inputs[position] -= RADIUS * np.sign(gradient)
        again = LogisticRegression(C=0.1, tol=1e-10, max_iter=5000).fit(inputs, train.y)
        retrained = uw.explainable(again, train.replaced(x=inputs))
        actual.append(float((retrained.measure(query) - model.measure(query))[0]))
        predicted.append(-RADIUS * float(np.abs(gradient).sum()))
    actual_all, predicted_all = moved_training_set(model, perturbation, train, query)
    draw(folder, train, query, of_query, perturbation)
    train_maps = np.abs(perturbation.gradients[0]).reshape(TRAIN, -1)
    slope = float(np.dot(predicted, actual) / np.dot(predicted, predicted))
    return Result(
        title="Gradients in test features and in training features",
        claim="The gradient in the pixels of a query says how the query would have to change; that in the pixels of "
        "training pictures, through retraining, says which pictures made the prediction, and by which strokes.",
        rows=[
            Row(
                "retraining after a training picture moved by .007 per pixel: slope of actual on predicted change",
                "–",
                f"{slope:.3f}",
                abs(slope - 1) < 0.05,
            ),
            Row(
                "the query moved by .007 per pixel: change of −loss, predicted and actual",
                "–",
                f"{predicted_test:+.4f}, {test_change:+.4f}",
            ),
            Row(
                "the training picture of largest reach moved by .007: predicted and actual",
                "–",
                f"{predicted[0]:+.5f}, {actual[0]:+.5f}",
            ),
            Row(
                f"all {TRAIN:,} training pictures moved by .007: predicted and actual",
                "–",
                f"{predicted_all:+.3f}, {actual_all:+.3f}",
            ),
            Row(
                "cosine of the maps of two queries, gradient in test features (median)",
                "1: the model is linear",
                f"{cosine(test_maps.reshape(50, -1)):.3f}",
            ),
            Row(
                "cosine of the maps of two training pictures, gradient in training features (median)",
                "–",
                f"{cosine(train_maps[:50]):.3f}",
            ),
        ],
        settings=f"MNIST, 4 against 9, {TRAIN:,} training digits, logistic regression, C = 0.1; the misjudged "
        "digit that is "
        "nearest to the boundary. Test gradients by captum on the same model as a net (`uw.Saliency`, "
        "`uw.fgsm`), training "
        "gradients by `uw.perturb`.",
        pictures=["contrast.png"],
        notes=[
            "A linear model has the same gradient in test features for every query: the map says what the model "
            "looks at, and "
            "nothing about this query. In training features the maps show the strokes of the query, and differ "
            "from picture "
            "to picture.",
            "Moving one of a thousand training pictures changes the prediction far less than moving the query; "
            "moving all of "
            "them by the same invisible amount changes it ten times as much. Predictions are of first order.",
        ],
        numbers={"predicted": predicted, "actual": actual},
    )


def moved_training_set(
    model: Any, perturbation: uw.Perturbation, train: uw.Examples, query: uw.Examples
) -> tuple[float, float]:
    """The change of the measurement if every training picture moves against the prediction: (actual, predicted)."""
    inputs = train.x.copy()
    inputs[train.positions(perturbation.example_ids)] -= RADIUS * np.sign(perturbation.gradients[0])
    again = LogisticRegression(C=0.1, tol=1e-10, max_iter=5000).fit(inputs, train.y)
    actual = uw.explainable(again, train.replaced(x=inputs)).measure(query) - model.measure(query)
    return float(actual[0]), -RADIUS * float(np.abs(perturbation.gradients[0]).sum())


def cosine(maps: np.ndarray) -> float:
    """Median cosine over all pairs."""
    unit = maps / np.linalg.norm(maps, axis=1, keepdims=True)
    return float(np.median((unit @ unit.T)[np.triu_indices(len(unit), 1)]))


def draw(
    folder: Path, train: uw.Examples, query: uw.Examples, of_query: np.ndarray, perturbation: uw.Perturbation
) -> None:
    """The query and its map; below each other, training pictures of largest reach and their maps."""
    figure, axes = panels(SHOWN + 1, 2, (1.9, 2.0))
    picture(axes[0], query.x[0].reshape(28, 28), f"query: a {CLASSES[query.y[0]]}")
    picture(axes[SHOWN + 1], of_query.reshape(28, 28), "∂ in its pixels")
    for place in range(SHOWN):
        identifier = perturbation.example_ids[place].item()
        position = int(train.positions([identifier])[0])
        picture(axes[1 + place], train.x[position].reshape(28, 28), f"training {CLASSES[train.y[position]]}")
        heat = perturbation.gradients[0, place].reshape(28, 28)
        picture(axes[SHOWN + 2 + place], heat, "∂ in its pixels,\nretrained")
        axes[SHOWN + 2 + place].images[0].set(cmap=plt.get_cmap("RdBu"), clim=(-np.abs(heat).max(), np.abs(heat).max()))
    axes[SHOWN + 1].images[0].set(cmap=plt.get_cmap("Blues"))
    save(figure, folder / "contrast.png")
