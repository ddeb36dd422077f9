"""Metagradients through batch norm: does the derivative of a ResNet's training predict removals?

python -m benchmarks.batch_norm --data DIR
python -m benchmarks.batch_norm --data DIR --only rough        the other tables stay

A narrow ResNet with BatchNorm2d learns 16 × 16 pictures of CIFAR-10, flipped at random. The truth is the same run with
the same seed, in which the losses of 10 % of the examples have weight 0. Retrainings are saved in the system's
temporary folder.
"""

from __future__ import annotations

import argparse
import io
import tempfile
import time
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from benchmarks.metagradients import agreement, slope
from benchmarks.results import Section, Table, kept_section, verdict, versions
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

import upweight as uw

Array = NDArray[np.float64]
TRAIN, QUERIES, SHARE, SUBSETS, GATE = 400, 16, 0.1, 40, 8
SETTINGS: dict[str, Any] = {
    "lr": 0.02, "momentum": 0.9, "weight_decay": 5e-4, "epochs": 8, "batch_size": 50, "schedule": "cosine", "warmup": 8,
}  # fmt: skip


EVERY, FEW_QUERIES, FEW_SUBSETS = 4, 6, 20  # of SOURCE: steps between checkpoints; what is asked of it
CENTRE = "metagradient at the centre"
RECIPES: dict[str, uw.Attributor] = {
    CENTRE: uw.Metagradient(keep=1 - SHARE, removals=0),
    "metagradient at the full set": uw.Metagradient(at="full", removals=0),
    "Influence, EK-FAC": uw.Influence(curvature=uw.EKFAC()),
}


class Block(nn.Module):
    """Two convolutions with batch norms around a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norms = nn.ModuleList([nn.BatchNorm2d(outputs), nn.BatchNorm2d(outputs)])
        self.shortcut = nn.Identity() if stride == 1 else nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        inside = F.gelu(self.norms[0](self.first(x)))
        return F.gelu(self.norms[1](self.second(inside)) + self.shortcut(x))


def resnet(seed: int) -> nn.Module:
    """Three blocks of 6, 12 and 24 channels."""
    return nn.Sequential(
        *(nn.Conv2d(3, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.GELU()),
        *(Block(6, 6, 1), Block(6, 12, 2), Block(12, 24, 2)),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 10)),
    )


def loss(net: nn.Module, batch: Any) -> Tensor:
    """Cross-entropy of every example."""
    return F.cross_entropy(net(batch.x), batch.y, reduction="none")


def flipped(batch: Any, generator: torch.Generator) -> Any:
    """Half of the pictures, mirrored."""
    mirrored = torch.rand(len(batch.x), generator=generator) < 0.5
    return replace(batch, x=torch.where(mirrored[:, None, None, None], batch.x.flip(3), batch.x))


def pictures(data: Path, part: str, per_class: int) -> uw.Examples:
    """The first pictures of every class, 16 × 16, with mean 0 and deviation 1."""
    with zipfile.ZipFile(data / "cifar10-subset.zip") as archive:
        names = sorted(name for name in archive.namelist() if name.startswith(f"{part}/") and name.endswith(".jpg"))
        classes = sorted({name.split("/")[1] for name in names})
        chosen = [n for c in classes for n in [m for m in names if m.split("/")[1] == c][:per_class]]
        read = [Image.open(io.BytesIO(archive.read(n))).resize((16, 16), Image.Resampling.BOX) for n in chosen]
    x = np.stack([np.asarray(picture, dtype=np.float32) for picture in read]).transpose(0, 3, 1, 2)
    x = (x - 120.0) / 64.0
    return uw.Examples(x, np.array([classes.index(n.split("/")[1]) for n in chosen]))


ROUGH_RATE, ROUGH_QUERIES = 10 * SETTINGS["lr"], 4


def rough_table(data: Path) -> Table:
    """Whether the gate of the metagradient closes where the training is chaotic."""
    train = pictures(data, "train", TRAIN // 10)
    unseen = pictures(data, "test", 8)
    queries = unseen.take(np.random.default_rng(1).permutation(len(unseen))[:ROUGH_QUERIES])
    table = Table(
        f"The same net at ten times the learning rate: the gate of {GATE} retrainings, {SHARE:.0%} removed",
        "where the derivative does not predict the retrainings, scores are refused, or a ranking with a warning",
        ["learning rate", "agreement", "slope", "answer", "CPU seconds", "verdict"],
        notes=[f"Data and training as above, {ROUGH_QUERIES} queries. Answers: EFFECT, RANK, or refused."],
    )
    for rate, expected in ((SETTINGS["lr"], ("EFFECT",)), (ROUGH_RATE, ("RANK", "refused"))):
        training = uw.Training(**SETTINGS | {"lr": rate}, augment=flipped)
        model = uw.TorchModel.trained(resnet, loss, train, training=training)
        start = time.process_time()
        try:
            scores = uw.Metagradient(keep=1 - SHARE, removals=GATE).fit(model, train).attribute(queries)
        except ValueError as error:
            answer, agreement, slope_text, sentence = "refused", "", "", str(error)
        else:
            facts = scores.diagnostics
            answer, agreement, slope_text = scores.unit.name, f"{facts['agreement']:.2f}", f"{facts['slope']:.2f}"
            sentence = " ".join(facts["warnings"])
        seconds = f"{time.process_time() - start:.0f}"
        table.add(f"{rate:g}", agreement, slope_text, answer, seconds, verdict(answer in expected))
        print(table.rows[-1], sentence, flush=True)
        if answer != "EFFECT":
            table.notes.append(f"At {rate:g} the answer says: {sentence}")
    return table


def recorded(
    model: uw.TorchModel, training: uw.Training, train: uw.Examples, folder: str, keep: float
) -> uw.TorchModel:
    """The same training by a plain loop, in which every example weighs `keep`, with its steps and random numbers."""
    torch.manual_seed(training.seed)
    net = resnet(training.seed).train()
    optimiser = torch.optim.SGD(net.parameters(), 1.0, momentum=training.momentum, weight_decay=training.weight_decay)
    batches = training.drawn(np.arange(len(train)), training.seed)
    steps = zip(batches, training.rates(len(batches)), training.noise(len(batches), training.seed), strict=True)
    trajectory = uw.Trajectory(folder, every=EVERY, augment=training.augment)
    trajectory.save(net, optimiser)
    for where, rate, noise in steps:
        torch.manual_seed(noise)
        trajectory.start_step()
        batch = flipped(model.network.batch(train.take(where)), torch.default_generator)
        optimiser.param_groups[0]["lr"] = float(rate)
        optimiser.zero_grad()
        (keep * loss(net, batch).mean()).backward()
        optimiser.step()
        trajectory.record(net, optimiser, batch=where)
    trajectory.save(net, optimiser)
    objective = uw.Objective("mean", l2=training.weight_decay)
    return uw.TorchModel(net.eval(), loss, objective=objective, trajectory=trajectory)


def source_table(data: Path) -> Table:
    """SOURCE by steps from the run in which every example weighs what removals leave on average."""
    train, queries = pictures(data, "train", TRAIN // 10), asked(data).take(np.arange(FEW_QUERIES))
    training, weights = uw.Training(**SETTINGS, augment=flipped), drawn_removals()[:FEW_SUBSETS]
    model = uw.TorchModel.trained(resnet, loss, train, training=training)
    weighted, start = uw.Examples(train.x, train.y, weights=np.full(TRAIN, 1 - SHARE)), time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        run = recorded(model, training, train, folder, 1 - SHARE)
        scores = uw.SOURCE().fit(run, weighted).attribute(queries)
    seconds = time.process_time() - start
    print(f"{seconds:.0f} CPU seconds", *scores.diagnostics["warnings"], flush=True)
    retraining = uw.Retraining(processes=1, folder=retrainings())
    actual = uw.retrain(model, train, weights, retraining=retraining).measure(queries)
    predicted = -scores.values @ (1 - weights).T / (1 - SHARE)
    table = Table(
        f"The same net: SOURCE by steps, {SHARE:.0%} removed",
        "none was set beforehand",
        ["prediction", "LDS [95 %]", "slope", "CPU seconds"],
        notes=[
            f"Data and training as in the first table, {FEW_QUERIES} of its queries and {FEW_SUBSETS} of its removals. "
            f"A plain loop records a checkpoint every {EVERY} steps, batches and random numbers; every example weighs "
            f"{1 - SHARE:g} in it. CPU seconds include the loop; the machine was busy with other work."
        ],
    )
    table.add("SOURCE, by steps", agreement(predicted, actual)[1], f"{slope(predicted, actual):.2f}", f"{seconds:.0f}")
    return table


def asked(data: Path) -> uw.Examples:
    """Pictures that the training has not seen."""
    unseen = pictures(data, "test", 8)
    return unseen.take(np.random.default_rng(1).permutation(len(unseen))[:QUERIES])


def drawn_removals() -> Array:
    """Weights (removals, n) without random shares."""
    rng = np.random.default_rng(0)
    weights = np.ones((SUBSETS, TRAIN))
    for row in weights:
        row[rng.choice(TRAIN, int(SHARE * TRAIN), replace=False)] = 0.0
    return weights


def retrainings() -> Path:
    """Where they are saved."""
    return Path(tempfile.gettempdir()) / "upweight-batch-norm"


def calm_table(data: Path) -> Table:
    """The derivative beside 40 retrainings, where the training is smooth."""
    train = pictures(data, "train", TRAIN // 10)
    unseen = pictures(data, "test", 8)
    queries = asked(data)
    training = uw.Training(**SETTINGS, augment=flipped)
    start = time.process_time()
    model = uw.TorchModel.trained(resnet, loss, train, training=training)
    one = time.process_time() - start
    correct = np.mean([p == y for p, y in zip(model.predict(unseen).predicted, unseen.y.tolist(), strict=True)])
    print(f"{model.network.size} parameters, a training of {one:.1f} CPU seconds, {correct:.0%} correct", flush=True)

    weights, folder = drawn_removals(), retrainings()
    base = model.measure(queries)
    values: dict[str, tuple[Array, float]] = {}
    for name, recipe in RECIPES.items():
        start = time.process_time()
        values[name] = recipe.fit(model, train).attribute(queries).values, time.process_time() - start
        print(name, f"{values[name][1]:.0f} CPU seconds", flush=True)
    at_centre = model.replay(train, np.full(TRAIN, 1 - SHARE))
    rows = model.after(at_centre).outcome_rows(queries, at_centre).dense()
    rows[:, model.network.size :] = 0.0
    values["at the centre, running statistics held fixed"] = at_centre.gradients(uw.DenseRows(rows)), np.nan
    retraining = uw.Retraining(processes=1, folder=folder)
    actual = uw.retrain(model, train, weights, retraining=retraining).measure(queries) - base[:, None]
    other = uw.retrain(model, train, weights[:20], seed=1, retraining=retraining).measure(queries)

    table = Table(
        f"A narrow ResNet with BatchNorm2d ({model.network.size:,} parameters), {SHARE:.0%} removed",
        f"LDS ≥ .90, slope in [.9, 1.1] after {GATE} retrainings",
        ["prediction", "LDS [95 %]", "slope", f"slope after {GATE}", "CPU seconds", "verdict"],
        notes=[
            f"{TRAIN} pictures of CIFAR-10 (16 × 16), flipped at random, {SETTINGS['epochs']} epochs of SGD in batches "
            f"of {SETTINGS['batch_size']}; {QUERIES} queries, {SUBSETS} removals, same seed; one training takes "
            f"{one:.1f} CPU seconds; {correct:.0%} of the unseen pictures are classified correctly."
        ],
    )
    table.add("another seed's retraining (20 removals)", agreement(other, actual[:, :20])[1], "", "", "", "")
    for name, (scores, seconds) in values.items():
        predicted = -scores @ (1 - weights).T
        lds, text = agreement(predicted, actual)
        after = slope(predicted[:, GATE:], actual[:, GATE:]) / slope(predicted[:, :GATE], actual[:, :GATE])
        mark = verdict(lds >= 0.9 and 0.9 <= after <= 1.1) if name == CENTRE else ""
        cost = "" if np.isnan(seconds) else f"{seconds:.0f}"
        table.add(name, text, f"{slope(predicted, actual):.2f}", f"{after:.2f}", cost, mark)
        print(table.rows[-1], flush=True)
    return table


TABLES = {"calm": calm_table, "rough": rough_table, "source": source_table}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with cifar10-subset.zip")
    parser.add_argument("--only", choices=list(TABLES), help="one of the tables; the others stay")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    before = kept_section("batch norm")
    kept = dict(zip(TABLES, before.tables, strict=False)) if before and chosen.only else {}
    tables = [
        kept[name] if name in kept and name != chosen.only else made(chosen.data) for name, made in TABLES.items()
    ]
    command = "python -m benchmarks.batch_norm --data DIR"
    Section("batch norm", "Through batch norm", command, tables, versions(["torch", "upweight"])).keep()


if __name__ == "__main__":
    main()
