"""A pass back through a training that is broken off goes on where it was, to the same bits."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import upweight as uw
from upweight.training.training_replay import TrainingReplay

N = 24
TRAININGS: dict[str, dict[str, Any]] = {
    "sgd": {"lr": 0.1},
    "momentum": {"lr": 0.1, "momentum": 0.9, "denominator": "renormalised"},
    "adamw": {"optimiser": "adamw", "lr": 0.02, "weight_decay": 0.1, "clip": 0.4},
}


def fresh(seed: int) -> nn.Module:
    return nn.Sequential(nn.Linear(6, 5), nn.GELU(), nn.Dropout(0.2), nn.Linear(5, 3))


def loss(net: nn.Module, batch: Any) -> Tensor:
    return nn.functional.cross_entropy(net(batch.x), batch.y, reduction="none")


def problem(name: str = "momentum", seed: int = 0) -> tuple[uw.TorchModel, uw.Examples, uw.Examples]:
    rng = np.random.default_rng(seed)
    train = uw.Examples(rng.normal(size=(N, 6)), rng.integers(0, 3, N))
    training = uw.Training(**{"epochs": 4, "batch_size": 6, **TRAININGS[name]})  # 16 steps, kept every 4
    model = uw.TorchModel.trained(fresh, loss, train, training=training)
    return model, train, uw.Examples(rng.normal(size=(3, 6)), rng.integers(0, 3, 3))


class Stretches:
    """Counts the stretches that are gone through, and breaks off at one of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen: list[int] = []
        self.breaks_at: int | None = None
        really = TrainingReplay._steps

        def steps(replay: TrainingReplay, kept: Any) -> Any:
            if len(self.seen) == self.breaks_at:
                raise KeyboardInterrupt
            self.seen.append(kept.t)
            return really(replay, kept)

        monkeypatch.setattr(TrainingReplay, "_steps", steps)

    def break_at(self, place: int | None) -> None:
        self.seen, self.breaks_at = [], place


@pytest.fixture
def stretches(monkeypatch: pytest.MonkeyPatch) -> Stretches:
    return Stretches(monkeypatch)


def rows_of(model: uw.TorchModel, replay: Any, queries: uw.Examples) -> Any:
    return model.with_parameters(replay.parameters).measure_rows(queries)


@pytest.mark.parametrize("name", TRAININGS)
def test_a_pass_that_was_broken_off_goes_on_to_the_same_bits(name: str, stretches: Stretches, tmp_path: Any) -> None:
    model, train, queries = problem(name)
    weights = np.linspace(0.2, 1.0, N)
    replay = model.replay(train, weights)
    whole = replay.gradients(rows_of(model, replay, queries))
    assert stretches.seen == [12, 8, 4, 0]
    stretches.break_at(2)
    with pytest.raises(KeyboardInterrupt):
        replay.gradients(rows_of(model, replay, queries), tmp_path)
    stretches.break_at(None)
    again = model.replay(train, weights)  # as another process would make it
    assert np.array_equal(again.gradients(rows_of(model, again, queries), tmp_path), whole)
    assert stretches.seen == [4, 0]
    stretches.break_at(0)
    assert np.array_equal(again.gradients(rows_of(model, again, queries), tmp_path), whole)  # done is read


def test_a_clipped_pass_goes_on_to_the_same_bits_and_is_never_taken_for_another(
    stretches: Stretches, tmp_path: Any
) -> None:
    model, train, queries = problem("adamw")
    replay = model.replay(train, np.ones(N))
    rows = rows_of(model, replay, queries)
    exact = replay.gradients(rows, tmp_path)
    whole = replay.gradients(rows, clip=0.97)
    clipped = replay.clipped
    assert 0 < clipped < 1 and not np.array_equal(whole, exact)
    stretches.break_at(2)
    with pytest.raises(KeyboardInterrupt):
        replay.gradients(rows, tmp_path, clip=0.97)
    stretches.break_at(None)
    assert np.array_equal(replay.gradients(rows, tmp_path, clip=0.97), whole)
    assert stretches.seen == [4, 0] and replay.clipped == clipped
    stretches.break_at(None)
    for clip in (0.98, None):
        expected = replay.gradients(rows, clip=clip)
        assert np.array_equal(replay.gradients(rows, tmp_path, clip=clip), expected)


def test_a_write_that_is_broken_off_leaves_the_one_before(
    stretches: Stretches, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, train, queries = problem()
    replay = model.replay(train, np.ones(N))
    whole = replay.gradients(rows_of(model, replay, queries))
    really, written = np.savez, []

    def savez(file: Any, **arrays: Any) -> None:
        written.append(file)
        if len(written) == 3:
            file.write(b"half of it")
            raise KeyboardInterrupt
        really(file, **arrays)

    monkeypatch.setattr(np, "savez", savez)
    with pytest.raises(KeyboardInterrupt):
        replay.gradients(rows_of(model, replay, queries), tmp_path)
    assert len(list(tmp_path.iterdir())) == 1
    stretches.break_at(None)
    assert np.array_equal(replay.gradients(rows_of(model, replay, queries), tmp_path), whole)
    assert stretches.seen == [4, 0]


def test_a_folder_never_answers_for_another_pass(stretches: Stretches, tmp_path: Any) -> None:
    model, train, queries = problem()
    replay = model.replay(train, np.ones(N))
    replay.gradients(rows_of(model, replay, queries), tmp_path)
    other_net, other_train, _ = problem(seed=1)
    others = {
        "weights": (model, model.replay(train, np.full(N, 0.5)), queries),
        "seed": (model, model.replay(train, np.ones(N), 1), queries),
        "queries": (model, replay, queries.take([1, 0, 2])),
        "model and data": (other_net, other_net.replay(other_train, np.ones(N)), queries),
    }
    for what, (one, other, asked) in others.items():
        stretches.break_at(None)
        found = other.gradients(rows_of(one, other, asked), tmp_path)
        assert stretches.seen == [12, 8, 4, 0], what
        assert np.array_equal(found, other.gradients(rows_of(one, other, asked))), what


def test_a_damaged_file_is_said_and_made_good(
    stretches: Stretches, tmp_path: Any, caplog: pytest.LogCaptureFixture
) -> None:
    model, train, queries = problem()
    replay = model.replay(train, np.ones(N))
    whole = replay.gradients(rows_of(model, replay, queries), tmp_path)
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-40])
    stretches.break_at(None)
    with caplog.at_level(logging.WARNING, "upweight"):
        assert np.array_equal(replay.gradients(rows_of(model, replay, queries), tmp_path), whole)
    assert "made from its beginning" in caplog.text and stretches.seen == [12, 8, 4, 0]


def test_low_precision_is_kept_as_it_is(stretches: Stretches, tmp_path: Any) -> None:
    _, train, queries = problem()
    model = uw.TorchModel.trained(
        lambda seed: fresh(seed).to(torch.bfloat16), loss, train, training=uw.Training(lr=0.1, epochs=4, batch_size=6)
    )
    replay = model.replay(train, np.ones(N))
    whole = replay.gradients(rows_of(model, replay, queries))
    stretches.break_at(3)
    with pytest.raises(KeyboardInterrupt):
        replay.gradients(rows_of(model, replay, queries), tmp_path)
    stretches.break_at(None)
    assert np.array_equal(replay.gradients(rows_of(model, replay, queries), tmp_path), whole)


def test_metagradients_go_on_after_an_interruption(stretches: Stretches, tmp_path: Any) -> None:
    model, train, queries = problem()
    whole = uw.Metagradient(seeds=2, removals=0).fit(model, train).attribute(queries)
    recipe = uw.Metagradient(seeds=2, removals=0, folder=tmp_path)
    stretches.break_at(6)  # in the middle of the second run
    with pytest.raises(KeyboardInterrupt):
        recipe.fit(model, train).attribute(queries)
    stretches.break_at(None)
    scores = recipe.fit(model, train).attribute(queries)
    assert stretches.seen == [4, 0]
    assert np.array_equal(scores.values, whole.values) and scores.recipe == whole.recipe


def test_a_folder_never_answers_for_other_smoothing(tmp_path: Any) -> None:
    model, train, queries = problem()
    for more in ({}, {"clip": 0.95}, {"jitter": 0.1, "samples": 2}, {"jitter": 0.2, "samples": 2, "clip": 0.95}):
        found, expected = (
            uw.Metagradient(removals=0, folder=folder, **more).fit(model, train).attribute(queries).values
            for folder in (tmp_path, None)
        )
        assert np.array_equal(found, expected), more
    assert len(list(tmp_path.iterdir())) == 6
