"""Draw every figure and page of the package on scikit-learn's data: `python docs/gallery.py` writes docs/gallery/."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import gallery_pages
import numpy as np
import torch
from sklearn.datasets import load_diabetes, load_digits
from sklearn.linear_model import LinearRegression, LogisticRegression
from torch.nn.functional import cross_entropy

import upweight as uw

FIGURES = (
    *("influence", "strip", "check", "removal_curve", "leverage", "label_errors", "trajectory", "gap"),
    *("strip_marked", "strip_recordings", "strip_series"),
)
FOLDER = Path(__file__).resolve().parent / "gallery"


def digits() -> None:
    """Influence on a misread digit, its pictures, the check by retraining and the curves of removals."""
    data = load_digits()
    everything = uw.Examples(data.data / 16, data.target, shown=data.images)
    train, queries = everything.take(range(700)), everything.select([1553, 1658, 1690])
    model = uw.explainable(LogisticRegression(tol=1e-8, max_iter=2000).fit(train.x, train.y), train)
    scores = uw.Influence().fit(model, train).attribute(queries)
    _keep(uw.InfluenceDisplay.from_scores(scores, 1553, train=train, queries=queries), "influence")
    _keep(uw.StripDisplay.from_scores(scores, train, queries), "strip")
    check = uw.verify(model, train, queries, scores, removals=24)
    _keep(check.plot(), "check")
    _keep(uw.removal_curve(model, train, queries, scores).plot(), "removal_curve")


def label_errors() -> None:
    """How many planted label errors three rankings find."""
    data = load_digits()
    train, planted = uw.plant(uw.Examples(data.data[:600] / 16, data.target[:600]), 0.1)
    model = uw.explainable(LogisticRegression(C=0.1, tol=1e-8, max_iter=2000).fit(train.x, train.y), train)
    rankings = {
        "self-influence": uw.Influence().fit(model, train).self_influence().values[0],
        "loss": -model.measure(train),
        "random": np.random.default_rng(0).random(len(train)),
    }
    _keep(uw.LabelErrorDisplay.from_rankings(rankings, train, planted), "label_errors")


def leverage() -> None:
    """Residuals and leverages of a regression."""
    data = load_diabetes()
    train = uw.Examples(data.data, data.target)
    _keep(uw.LeverageDisplay.from_estimator(LinearRegression().fit(train.x, train.y), train), "leverage")


def training() -> None:
    """A query of a small network over its training."""
    data = load_digits()
    torch.manual_seed(0)
    everything = uw.Examples((data.data / 16).astype(np.float32), data.target)
    train, queries = everything.take(range(400)), everything.select([1553])
    net = torch.nn.Sequential(torch.nn.Linear(64, 24), torch.nn.GELU(), torch.nn.Linear(24, 10))
    optimiser = torch.optim.SGD(net.parameters(), lr=0.2)
    x, y = torch.as_tensor(train.x), torch.as_tensor(train.y)
    with tempfile.TemporaryDirectory() as folder:
        trajectory = uw.Trajectory(folder, every=10)
        trajectory.save(net, optimiser)
        for _ in range(20):
            for batch in torch.randperm(400).split(50):
                optimiser.zero_grad()
                cross_entropy(net(x[batch]), y[batch]).backward()
                optimiser.step()
                trajectory.record(net, optimiser, batch=batch)

        def loss(net: torch.nn.Module, batch: Any) -> torch.Tensor:
            return cross_entropy(net(batch.x), batch.y, reduction="none")

        model = uw.TorchModel(net, loss, objective=uw.Objective("mean"), trajectory=uw.Trajectory(folder))
        scores = uw.TracIn().fit(model, train).attribute(queries)
        _keep(uw.follow(model, train, queries, scores).plot(), "trajectory")


def gap() -> None:
    """Why influence and retraining of a small network differ."""
    data = load_digits()
    train, queries = (uw.Examples(data.data[a:b] / 16, data.target[a:b]) for a, b in ((0, 300), (300, 320)))

    def fresh(seed: int) -> torch.nn.Module:
        return torch.nn.Sequential(torch.nn.Linear(64, 16), torch.nn.GELU(), torch.nn.Linear(16, 10))

    def loss(net: torch.nn.Module, batch: Any) -> torch.Tensor:
        return cross_entropy(net(batch.x), batch.y, reduction="none")

    training = uw.Training(lr=0.1, momentum=0.9, weight_decay=1e-3, epochs=20, batch_size=50)
    model = uw.TorchModel.trained(fresh, loss, train, training=training)
    scores = uw.Influence(curvature=uw.EKFAC(), damping=0.01).fit(model, train).attribute(queries)
    removals = uw.subsets(train, 12, 0.95)
    _keep(uw.influence_gap(model, train, queries, scores, removals, damping=0.01).plot(), "gap")


def viewer() -> None:
    """The viewer in a browser: its looks, and the comparison on a phone."""
    data = load_digits()
    everything = uw.Examples(data.data / 16, data.target, shown=data.images)
    train, queries = everything.take(range(700)), everything.take(range(1400, 1797))
    model = uw.explainable(LogisticRegression(tol=1e-8, max_iter=2000).fit(train.x, train.y), train)
    scores, other = (recipe.fit(model, train).attribute(queries) for recipe in (uw.Influence(), uw.GradDot()))
    with uw.Viewer(scores, train, queries, against=other).serve() as server, gallery_pages.browser() as browser:
        address = server.url + "#query=1553"
        gallery_pages.photograph(browser, address, "viewer", "#overview .overall")
        for name, width, height in (("viewer", 1280, 1240), ("viewer_phone", 390, 844)):
            page = browser.new_page(viewport={"width": width, "height": height})
            page.goto(address)
            page.wait_for_selector("#overview .overall")
            if width < 1000:
                page.locator(".card button.id").first.click()
                page.wait_for_selector("#compare[open]")
            page.screenshot(path=FOLDER / f"{name}.png")


def _keep(display: Any, name: str) -> None:
    FOLDER.mkdir(exist_ok=True)
    display.figure_.savefig(FOLDER / f"{name}.png", dpi=110)


if __name__ == "__main__":
    digits()
    label_errors()
    leverage()
    training()
    gap()
    viewer()
    gallery_pages.draw_kinds()
    gallery_pages.draw_pages()
    gallery_pages.draw_notebook()
    gallery_pages.draw_grey(FIGURES)
