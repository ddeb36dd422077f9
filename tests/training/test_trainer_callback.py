"""What the callback of transformers' Trainer sees of a run, and the runs that it refuses."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import upweight as uw
from support import trainer_runs as runs

pytest.importorskip("transformers")
resumes = pytest.mark.skipif(
    tuple(map(int, torch.__version__.split(".")[:2])) < (2, 6), reason="transformers resumes no run with torch < 2.6"
)


def record(folder: Path, net: Any = None, collate: Any = runs.pad, ids: Any = None, **settings: Any) -> Any:
    """(trainer, recorder) after the run."""
    trainer = runs.make_trainer(net or runs.language_model(), folder, collate, **settings)
    recorder = uw.TrajectoryCallback(folder / "run", every=2).attach(trainer, ids=ids)
    trainer.train()
    return trainer, recorder


@pytest.mark.slow
def test_workers_that_prefetch_mix_no_examples_up(tmp_path: Path) -> None:
    _, alone = record(tmp_path / "a")
    _, with_workers = record(tmp_path / "b", dataloader_num_workers=1, dataloader_prefetch_factor=4)
    assert with_workers.trajectory.batches() == alone.trajectory.batches()
    assert sorted(itertools.chain(*steps_of(alone)[:3])) == list(range(runs.N))


def test_ids_of_a_column_travel_as_positions(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    rows = datasets.Dataset.from_list(runs.sequences())
    _, named = record(tmp_path / "named", rows=rows, ids="name", max_steps=2)
    _, counted = record(tmp_path / "counted", rows=rows, max_steps=2)
    assert steps_of(named) == [[f"text {at}" for at in ids] for ids in steps_of(counted)]


def test_a_column_of_ones_own_needs_no_attach(tmp_path: Path) -> None:
    rows = [{**row, "example": 100 + at} for at, row in enumerate(runs.sequences())]

    def collate(items: Any) -> Any:
        return {**runs.pad(items), "example": torch.tensor([item.get("example", 0) for item in items])}

    trainer = runs.make_trainer(runs.language_model(), tmp_path, collate, rows, remove_unused_columns=False)
    recorder = uw.TrajectoryCallback(tmp_path / "run")
    trainer.add_callback(recorder)
    trainer.train()
    trainer.evaluate()
    assert sorted(itertools.chain(*steps_of(recorder)[:3])) == list(range(100, 100 + runs.N))


@resumes
def test_a_resumed_trainer_goes_on_in_the_trajectory(tmp_path: Path) -> None:
    saved = {"save_strategy": "steps", "save_steps": 3}
    whole, of_whole = record(tmp_path / "whole", runs.language_model(0.1), **saved)
    record(tmp_path / "parts", runs.language_model(0.1), **saved)
    trainer = runs.make_trainer(runs.language_model(0.1), tmp_path / "parts", **saved)
    recorder = uw.TrajectoryCallback(tmp_path / "parts" / "run", every=2).attach(trainer)
    trainer.train(resume_from_checkpoint=str(tmp_path / "parts" / "out" / "checkpoint-3"))
    for a, b in zip(whole.model.parameters(), trainer.model.parameters(), strict=True):
        assert torch.equal(a, b)
    again, first = uw.Trajectory(recorder.trajectory.folder), of_whole.trajectory
    assert again.shards == first.shards
    assert again.batches() == first.batches()
    steps = [r._record.read(6) for r in (recorder, of_whole)]
    assert steps[0].sizes == steps[1].sizes
    for parts in zip(*([s.states[p] for step in s.places for p in step] for s in steps), strict=True):
        assert torch.equal(*parts)


@resumes
def test_a_resumed_trainer_without_a_checkpoint_of_that_step_is_refused(tmp_path: Path) -> None:
    record(tmp_path, save_strategy="steps", save_steps=3)
    trainer = runs.make_trainer(runs.language_model(), tmp_path)
    other = uw.TrajectoryCallback(tmp_path / "other").attach(trainer)
    optimiser = torch.optim.AdamW(trainer.model.parameters())
    other.trajectory.save(trainer.model, optimiser)
    with pytest.raises(ValueError, match="no checkpoint of step 3"):
        trainer.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-3"))


def test_the_trajectory_of_the_best_model_ends_at_its_step(tmp_path: Path) -> None:
    best = {"load_best_model_at_end": True, "save_strategy": "steps", "save_steps": 2, "eval_strategy": "steps"}
    trainer, recorder = record(tmp_path, eval_steps=2, learning_rate=3.0, **best)
    assert trainer.state.best_global_step == 2  # steps this large make it worse from there on
    assert [shard.step for shard in recorder.trajectory.shards] == [0, 2]
    recorder.trajectory.require_end(trainer.model)


def test_a_step_that_the_scaler_skipped_is_not_recorded(tmp_path: Path) -> None:
    trainer = runs.make_trainer(runs.language_model(), tmp_path)
    recorder = uw.TrajectoryCallback(tmp_path / "run").attach(trainer)

    from transformers import TrainerCallback

    class Scaler(TrainerCallback):
        """Skips the second step, as accelerate's optimiser in fp16 does after an overflow."""

        def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **others: Any) -> None:
            others["optimizer"]._is_overflow = state.global_step == 1
            others["optimizer"].optimizer.step, self.step = (
                (lambda closure=None: None, others["optimizer"].optimizer.step)
                if state.global_step == 1
                else (getattr(self, "step", others["optimizer"].optimizer.step),) * 2
            )

    trainer.add_callback(Scaler())
    trainer.train()
    assert len(recorder.trajectory.batches()) == 5
    assert recorder._record.facts.loop_steps == {"0": 0, "1": 1, "2": 3, "3": 4, "4": 5, "5": 6}
    assert len(recorder._record.read(5).sizes) == 5


@pytest.mark.parametrize(
    ("net", "collate", "accumulation"),
    [(runs.language_model, runs.pad, "pooled"), (runs.classifier, runs.pad_classes, "summed")],
    ids=["divided by the items", "items ignored"],
)
def test_of_what_a_step_is_the_mean_is_found_out(tmp_path: Path, net: Any, collate: Any, accumulation: str) -> None:
    _, recorder = record(tmp_path, net(0.1), collate, max_steps=1)
    assert recorder._record.facts.accumulation == accumulation
    (shares,), ((sizes, *_),) = recorder.trajectory.shares(), [recorder._record.read(1).sizes]
    assert sizes == [3, 3]
    if accumulation == "summed":
        assert np.allclose(shares, 1 / 3)
    else:
        labels = sum(int((runs.pad([row])["labels"][:, 1:] != -100).sum()) for row in drawn(recorder))
        assert np.allclose(shares, 1 / labels)


def steps_of(recorder: Any) -> list[list[Any]]:
    """The ids of every step; those of accumulated steps are recorded by micro-batch."""
    steps = recorder.trajectory.batches()
    return [list(itertools.chain(*ids)) if isinstance(ids[0], list) else ids for ids in steps]


def drawn(recorder: Any) -> list[Any]:
    rows = runs.sequences()
    return [rows[at] for at in steps_of(recorder)[0]]


def test_recording_changes_no_bit_of_the_run(tmp_path: Path) -> None:
    plain = runs.make_trainer(runs.language_model(0.1), tmp_path / "plain")
    plain.train()
    recorded, _ = record(tmp_path / "recorded", runs.language_model(0.1))
    for a, b in zip(plain.model.parameters(), recorded.model.parameters(), strict=True):
        assert torch.equal(a, b)
    assert not recorded.model._forward_pre_hooks
    assert not recorded.model._forward_hooks


REFUSED = {
    "fsdp": ({"fsdp": "full_shard"}, "on one device, got fsdp"),
    "two devices": ({"world_size": 2}, "on one device, got 2"),
    "batch size": ({"auto_find_batch_size": True}, "fixed batch size"),
}


@pytest.mark.parametrize(("changes", "sentence"), REFUSED.values(), ids=REFUSED)
def test_runs_that_a_callback_does_not_see_whole_are_refused(tmp_path: Path, changes: Any, sentence: str) -> None:
    from types import SimpleNamespace

    from upweight.training.trainer_arguments import require_recordable

    arguments = SimpleNamespace(**{"world_size": 1, "n_gpu": 1, "fsdp": "", "deepspeed": None, **changes})
    with pytest.raises(ValueError, match=sentence):
        require_recordable(arguments)


def test_another_optimiser_is_refused_before_the_first_step(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="Adafactor is not supported"):
        record(tmp_path, optim="adafactor")


def test_batches_without_ids_are_refused(tmp_path: Path) -> None:
    trainer = runs.make_trainer(runs.language_model(), tmp_path)
    trainer.add_callback(uw.TrajectoryCallback(tmp_path / "run"))
    with pytest.raises(ValueError, match=r"recorder\.attach\(trainer\) before"):
        trainer.train()


def test_a_stream_and_repeated_ids_are_refused(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    stream = datasets.Dataset.from_list(runs.sequences()).to_iterable_dataset()
    trainer = runs.make_trainer(runs.language_model(), tmp_path, rows=stream, max_steps=2)
    with pytest.raises(TypeError, match="a stream has no name"):
        uw.TrajectoryCallback(tmp_path / "run").attach(trainer)
    trainer = runs.make_trainer(runs.language_model(), tmp_path)
    with pytest.raises(ValueError, match="unique whole numbers or texts"):
        uw.TrajectoryCallback(tmp_path / "run").attach(trainer, ids=[0] * runs.N)


def test_the_model_of_a_recorded_trainer_is_made_of_its_own_rows(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    rows = datasets.Dataset.from_list([{"input_ids": row["input_ids"][:4]} for row in runs.sequences()])

    def collate(items: Any) -> Any:
        ids = torch.tensor([item["input_ids"] for item in items])
        return {"input_ids": ids, "labels": ids.clone()}

    trainer, recorder = record(tmp_path, collate=collate, rows=rows, max_steps=2)
    model, train = uw.hf.from_trainer(trainer, trajectory=recorder.trajectory)
    assert np.isfinite(uw.TracIn().fit(model, train).attribute(train.take([0, 1])).values).all()
