"""Runs of transformers' Trainer, recorded, against the recording of a loop written by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import upweight as uw
from support import trainer_runs as runs

pytest.importorskip("transformers")
STEPS_A_PASS = 3  # 14 examples in micro-batches of 3, two micro-batches a step: 6, 6 and 2


class Witness:
    """A collator that remembers which examples it was called with."""

    def __init__(self) -> None:
        self.seen: list[list[int]] = []

    def __call__(self, items: list[dict[str, Any]]) -> Any:
        self.seen.append([int(item["name"].split()[1]) for item in items])
        return runs.pad(items)


def by_hand(net: nn.Module, steps: list[list[list[int]]], folder: Path, every: int, is_fused: bool) -> None:
    """The Trainer's steps, with torch alone: AdamW without decay of norms and biases, warm-up, clipping."""
    from transformers import get_linear_schedule_with_warmup
    from transformers.trainer_pt_utils import get_parameter_names

    rows, parameters = runs.sequences(), dict(net.named_parameters())
    decayed = {n for n in get_parameter_names(net, [nn.LayerNorm]) if "bias" not in n}
    groups = [
        {"params": [p for n, p in parameters.items() if n in decayed], "weight_decay": 0.1},
        {"params": [p for n, p in parameters.items() if n not in decayed], "weight_decay": 0.0},
    ]
    optimiser = torch.optim.AdamW(groups, lr=2e-2, fused=is_fused)
    scheduler = get_linear_schedule_with_warmup(optimiser, 2, len(steps))
    trajectory = uw.Trajectory(folder, every=every, clip=1.0)
    trajectory.save(net, optimiser)
    net.train()
    for step in steps:
        trajectory.start_step()
        batches = [runs.pad([rows[at] for at in micro]) for micro in step]
        count = sum(int((batch["labels"][:, 1:] != -100).sum()) for batch in batches)
        for batch in batches:
            net(**batch, num_items_in_batch=torch.tensor(count)).loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        ids = [at for micro in step for at in micro]
        batch = step if len(step) > 1 else step[0]
        trajectory.record(net, optimiser, batch=batch, shares=np.full(len(ids), 1.0 / count))
        scheduler.step()
        optimiser.zero_grad()
    trajectory.save(net, optimiser)


def micro_batches_of_steps(seen: list[list[int]], accumulation: int = 2, per_pass: int = 5) -> list[list[list[int]]]:
    passes = [seen[start : start + per_pass] for start in range(0, len(seen), per_pass)]
    return [p[start : start + accumulation] for p in passes for start in range(0, per_pass, accumulation)]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: Any) -> Any:
    """(model of the Trainer's run, model of the loop's, training set, queries)."""
    folder, witness = tmp_path_factory.mktemp("runs"), Witness()
    net = runs.language_model()
    trainer = runs.make_trainer(
        net, folder, witness, weight_decay=0.1, eval_strategy="steps", eval_steps=2, remove_unused_columns=False
    )
    recorder = uw.TrajectoryCallback(folder / "trainer", every=2).attach(trainer)
    trainer.train()
    fed = [ids for ids in witness.seen if len(ids) <= 3]  # evaluations have batches of five
    copy = runs.language_model()
    is_fused = trainer.args.optim.endswith("fused")  # which it chooses by the version of torch
    by_hand(copy, micro_batches_of_steps(fed), folder / "hand", every=2, is_fused=is_fused)
    models = [
        uw.TorchModel(n, runs.token_loss, collate=runs.collate, trajectory=uw.Trajectory(folder / name))
        for n, name in ((net, "trainer"), (copy, "hand"))
    ]
    train = uw.Examples(runs.sequences(), ids=np.arange(runs.N))
    assert recorder.trajectory.batches() == [s if len(s) > 1 else s[0] for s in micro_batches_of_steps(fed)]
    return (*models, train, uw.Examples(runs.sequences(3, seed=2)))


def test_checkpoints_rates_batches_and_moments_are_those_of_the_loop(recorded: Any) -> None:
    of_trainer, of_loop, *_ = recorded
    first, second = of_trainer.trajectory, of_loop.trajectory
    assert [shard.step for shard in first.shards] == [0, 2, 4, 6]
    assert (first.rates() == second.rates()).all()
    assert first.rates()[0] == 0.0  # warm-up begins there
    for position in range(4):
        ours, theirs = first.read(position), second.read(position)
        assert ours.keys() == theirs.keys()
        drawn = {"random_states"}  # also by the Trainer's sampler; these nets draw none
        assert all(torch.equal(ours[name], theirs[name]) for name in ours.keys() - drawn), position


METHODS = {
    "TracIn": uw.TracIn(),
    "GAS": uw.GAS(),
    "SOURCE by steps": uw.SOURCE(),
    "SOURCE by segments": uw.SOURCE(segments=2),
    "SOURCE with EK-FAC": uw.SOURCE(segments=2, curvature=uw.EKFAC()),
}
SLOW = ("SOURCE by segments", "SOURCE with EK-FAC")


@pytest.mark.parametrize(
    "method", [pytest.param(m, id=n, marks=[pytest.mark.slow] * (n in SLOW)) for n, m in METHODS.items()]
)
def test_scores_are_those_of_the_loop_bit_for_bit(recorded: Any, method: Any) -> None:
    of_trainer, of_loop, train, queries = recorded
    first, second = (method.fit(model, train).attribute(queries).values for model in (of_trainer, of_loop))
    assert np.abs(first).max() > 0
    assert (first == second).all()


def test_source_through_a_recorded_trainer_is_its_metagradient(tmp_path: Path) -> None:
    weights = torch.ones(runs.N, dtype=torch.float64)
    settings = {"weight_decay": 0.1, "adam_epsilon": 1e-6, "max_grad_norm": 0.5, "remove_unused_columns": False}
    trainer = runs.make_trainer(runs.weighted_language_model(weights, 0.1), tmp_path, runs.pad_named, **settings)
    recorder = uw.TrajectoryCallback(tmp_path / "run").attach(trainer)
    trainer.train()
    run = {"trajectory": recorder.trajectory, "training": recorder.training()}
    model = uw.TorchModel(trainer.model, runs.token_loss, collate=runs.collate, **run)
    train, queries = uw.Examples(runs.sequences()), uw.Examples(runs.sequences(3, seed=2))
    scores = uw.SOURCE().fit(model, train).attribute(queries)
    assert not [w for w in scores.diagnostics["warnings"] if "not the one that SOURCE replays" in w]
    replay = model.replay(train, np.ones(runs.N))
    exact = replay.gradients(model.measure_rows(queries))
    assert np.abs(scores.values - exact).max() <= 1e-7 * np.abs(exact).max()
