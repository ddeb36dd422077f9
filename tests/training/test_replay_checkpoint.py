"""An interrupted backward pass through a training resumes where it was, to the same bits."""

from __future__ import annotations

import io
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
    training = uw.Training(**{"epochs": 4, "batch_size": 6, **TRAININGS[name]})  # 16 steps, a state stored every 4
    model = uw.TorchModel.trained(fresh, loss, train, training=training)
    return model, train, uw.Examples(rng.normal(size=(3, 6)), rng.integers(0, 3, 3))


class Segments:
    """Records the first step of every replayed segment between stored states, and interrupts one of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen: list[int] = []
        self.interrupted_at: int | None = None
        replay_steps = TrainingReplay._steps

        def steps(replay: TrainingReplay, stored: Any) -> Any:
            if len(self.seen) == self.interrupted_at:
                raise KeyboardInterrupt
            self.seen.append(stored.t)
            return replay_steps(replay, stored)

        monkeypatch.setattr(TrainingReplay, "_steps", steps)

    def interrupt_at(self, place: int | None) -> None:
        self.seen, self.interrupted_at = [], place


@pytest.fixture
def segments(monkeypatch: pytest.MonkeyPatch) -> Segments:
    return Segments(monkeypatch)


def rows_of(model: uw.TorchModel, replay: Any, queries: uw.Examples) -> Any:
    return model.with_parameters(replay.parameters).measure_rows(queries)


@pytest.mark.parametrize("name", TRAININGS)
def test_an_interrupted_pass_resumes_to_the_same_bits(name: str, segments: Segments, tmp_path: Any) -> None:
    model, train, queries = problem(name)
    weights = np.linspace(0.2, 1.0, N)
    replay = model.replay(train, weights)
    whole = replay.gradients(rows_of(model, replay, queries))
    assert segments.seen == [12, 8, 4, 0]
    segments.interrupt_at(2)
    with pytest.raises(KeyboardInterrupt):
        replay.gradients(rows_of(model, replay, queries), tmp_path)
    segments.interrupt_at(None)
    resumed = model.replay(train, weights)  # as another process would make it
    assert np.array_equal(resumed.gradients(rows_of(model, resumed, queries), tmp_path), whole)
    assert segments.seen == [4, 0]
    segments.interrupt_at(0)
    assert np.array_equal(
        resumed.gradients(rows_of(model, resumed, queries), tmp_path), whole
    )  # a finished pass is read


def test_a_clipped_pass_resumes_to_the_same_bits_and_has_its_own_file(segments: Segments, tmp_path: Any) -> None:
    model, train, queries = problem("adamw")
    replay = model.replay(train, np.ones(N))
    rows = rows_of(model, replay, queries)
    exact = replay.gradients(rows, tmp_path)
    whole = replay.gradients(rows, clip=0.97)
    clipped = replay.clipped
    assert 0 < clipped < 1 and not np.array_equal(whole, exact)
    segments.interrupt_at(2)
    with pytest.raises(KeyboardInterrupt):
        replay.gradients(rows, tmp_path, clip=0.97)
    segments.interrupt_at(None)
    assert np.array_equal(replay.gradients(rows, tmp_path, clip=0.97), whole)
    assert segments.seen == [4, 0] and replay.clipped == clipped
    segments.interrupt_at(None)
    for clip in (0.98, None):
        expected = replay.gradients(rows, clip=clip)
        assert np.array_equal(replay.gradients(rows, tmp_path, clip=clip), expected)


def test_an_interrupted_write_leaves_the_file_before_it(
    segments: Segments, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, train, queries = problem()
    replay = model.replay(train, np.ones(N))
    whole = replay.gradients(rows_of(model, replay, queries))
    save, written = np.savez, []

    def savez(file: Any, **arrays: Any) -> None:
        written.append(file)
        if len(written) == 3:
            file.write(b"half of it")
            raise KeyboardInterrupt
        save(file, **arrays)

    monkeypatch.setattr(np, "savez", savez)
    with pytest.raises(KeyboardInterrupt):
        replay.gradients(rows_of(model, replay, queries), tmp_path)
    assert len(list(tmp_path.iterdir())) == 1
    segments.interrupt_at(None)
    assert np.array_equal(replay.gradients(rows_of(model, replay, queries), tmp_path), whole)
    assert segments.seen == [4, 0]


def test_passes_that_share_a_folder_never_read_each_others_files(segments: Segments, tmp_path: Any) -> None:
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
    for what, (other_model, other_replay, queries_asked) in others.items():
        segments.interrupt_at(None)
        rows = rows_of(other_model, other_replay, queries_asked)
        gradients = other_replay.gradients(rows, tmp_path)
        assert segments.seen == [12, 8, 4, 0], what
        assert np.array_equal(gradients, other_replay.gradients(rows)), what


def test_a_damaged_file_is_logged_and_the_pass_starts_again(
    segments: Segments, tmp_path: Any, logged: io.StringIO
) -> None:
    model, train, queries = problem()
    replay = model.replay(train, np.ones(N))
    whole = replay.gradients(rows_of(model, replay, queries), tmp_path)
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-40])
    segments.interrupt_at(None)
    assert np.array_equal(replay.gradients(rows_of(model, replay, queries), tmp_path), whole)
    assert "starts from its beginning" in logged.getvalue() and segments.seen == [12, 8, 4, 0]


def test_cotangents_in_low_precision_are_saved_exactly(segments: Segments, tmp_path: Any) -> None:
    _, train, queries = problem()
    model = uw.TorchModel.trained(
        lambda seed: fresh(seed).to(torch.bfloat16), loss, train, training=uw.Training(lr=0.1, epochs=4, batch_size=6)
    )
    replay = model.replay(train, np.ones(N))
    whole = replay.gradients(rows_of(model, replay, queries))
    segments.interrupt_at(3)
    with pytest.raises(KeyboardInterrupt):
        replay.gradients(rows_of(model, replay, queries), tmp_path)
    segments.interrupt_at(None)
    assert np.array_equal(replay.gradients(rows_of(model, replay, queries), tmp_path), whole)


def test_metagradients_resume_after_an_interruption(segments: Segments, tmp_path: Any) -> None:
    model, train, queries = problem()
    whole = uw.Metagradient(seeds=2, removals=0).fit(model, train).attribute(queries)
    recipe = uw.Metagradient(seeds=2, removals=0, folder=tmp_path)
    segments.interrupt_at(6)  # in the middle of the second run
    with pytest.raises(KeyboardInterrupt):
        recipe.fit(model, train).attribute(queries)
    segments.interrupt_at(None)
    scores = recipe.fit(model, train).attribute(queries)
    assert segments.seen == [4, 0]
    assert np.array_equal(scores.values, whole.values) and scores.recipe == whole.recipe


def test_passes_with_other_smoothing_never_read_each_others_files(tmp_path: Any) -> None:
    model, train, queries = problem()
    for more in ({}, {"clip": 0.95}, {"jitter": 0.1, "samples": 2}, {"jitter": 0.2, "samples": 2, "clip": 0.95}):
        gradients, expected = (
            uw.Metagradient(removals=0, folder=folder, **more).fit(model, train).attribute(queries).values
            for folder in (tmp_path, None)
        )
        assert np.array_equal(gradients, expected), more
    assert len(list(tmp_path.iterdir())) == 6
