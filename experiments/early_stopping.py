"""Influence on nets trained for a short, long and very long time: with damping 1/τ, and with the default damping.

    python -m experiments.early_stopping [--subsets 48]

LDS against retraining with the same seed: mean over 40 queries of the Spearman correlation of predicted and measured
margins over random subsets of 600 digits; the net that is explained was trained with every example at its mean weight.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from benchmarks.replayed import Task, digits
from torch import nn

import upweight as uw
from upweight.evaluate.agreement import finite_mean, rank_correlations


def linear(_: int) -> nn.Module:
    return nn.Linear(24, 10)


def agreement(task: Task, removed: np.ndarray, truth: np.ndarray, share: float, influence: uw.Influence) -> float:
    weights = np.full(len(task.train), 1 - share)
    model = task.model.retrain(task.train, weights)
    fitted = influence.fit(model, uw.Examples(task.train.x, task.train.y, weights=weights))
    return float(finite_mean(rank_correlations(fitted.attribute(task.queries).values @ (removed - 1).T, truth)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--subsets", type=int, default=48)
    subsets = parser.parse_args().subsets
    torch.set_num_threads(1)
    short = digits(Path())
    print("net, epochs, removed: 1/τ, default")
    for name, fresh in (("24-24-10", short.fresh), ("24-10", linear)):
        for epochs in (3, 12, 48, 150):
            training = replace(short.training, epochs=epochs)
            task = replace(short, training=training, fresh=fresh, subsets=subsets)
            tau = training.time(len(task.train))
            for share in (0.1, 0.5):
                removed = task.removed(share)
                truth = uw.retrain(
                    task.model, task.train, removed, [0] * subsets, retraining=uw.Retraining(processes=1)
                ).measure(task.queries)
                agreements = [
                    agreement(task, removed, truth, share, influence)
                    for influence in (uw.Influence(damping=1 / tau), uw.Influence())
                ]
                print(f"{name}, {epochs}, {share:.0%}: {agreements[0]:.3f}, {agreements[1]:.3f}", flush=True)


if __name__ == "__main__":
    main()
