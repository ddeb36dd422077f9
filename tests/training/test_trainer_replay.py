"""A recorded run of transformers' Trainer, made again and differentiated."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import upweight as uw
from support import trainer_runs as runs

pytest.importorskip("transformers")
TRAIN = uw.Examples(runs.sequences())


class MeanLoss(nn.Module):
    """A net that does not take `num_items_in_batch`: the Trainer divides its means by the number of micro-batches."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table, self.drop, self.head = nn.Embedding(runs.VOCABULARY, 6), nn.Dropout(0.2), nn.Linear(6, 2)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, labels: Any = None) -> Any:
        mask = attention_mask[..., None]
        logits = self.head(self.drop((self.table(input_ids) * mask).sum(1) / mask.sum(1)))
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
        return {"loss": loss, "logits": logits}


def mean_loss(net: nn.Module, batch: Any) -> Tensor:
    logits = net(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])["logits"]
    return nn.functional.cross_entropy(logits, batch["labels"], reduction="none")


LANGUAGE = (lambda: runs.language_model(0.1), runs.pad, runs.token_loss, runs.collate)
CLASSES = (lambda: runs.classifier(0.1), runs.pad_classes, runs.class_loss, runs.collate_classes)
MEANS = (MeanLoss, runs.pad_classes, mean_loss, runs.collate_classes)
# Keys in attention have a bias whose gradient is 0 but for rounding, which AdamW with a small epsilon makes large.
TOKENS = {"adam_epsilon": 1e-6, "weight_decay": 0.1, "remove_unused_columns": False}
RUNS: dict[str, tuple[Any, dict[str, Any]]] = {
    "tokens, decay groups, dropout": (LANGUAGE, TOKENS),
    "items ignored, cosine": (CLASSES, {**TOKENS, "lr_scheduler_type": "cosine", "max_grad_norm": 0.05}),
    "means averaged, no clipping": (MEANS, {"max_grad_norm": 0.0, "optim": "sgd", "learning_rate": 0.5}),
    "one micro-batch": (LANGUAGE, {**TOKENS, "gradient_accumulation_steps": 1, "adam_beta2": 0.9}),
}


def weighted(changed: int = 0, by: float = 0.0) -> Any:
    """As `LANGUAGE` in float64, with another weight of one example."""
    weights = torch.ones(runs.N, dtype=torch.float64)
    weights[changed] += by
    return (lambda: runs.weighted_language_model(weights, 0.1), runs.pad_named, runs.token_loss, runs.collate)


def recorded(folder: Path, kind: Any, **settings: Any) -> tuple[Any, Any, uw.TorchModel]:
    """(trainer, recorder, model that can be retrained) of a run."""
    make, pad, loss, collate = kind
    trainer = runs.make_trainer(make(), folder, pad, **settings)
    recorder = uw.TrajectoryCallback(folder / "run", every=3).attach(trainer)
    trainer.train()
    training = recorder.training()
    model = uw.TorchModel(trainer.model, loss, collate=collate, trajectory=recorder.trajectory, training=training)
    return trainer, recorder, model


def distance(model: uw.TorchModel) -> float:
    """How far the repeated run ends from the recorded one."""
    again = model.retrain(TRAIN, np.ones(runs.N))
    assert np.abs(model.parameters - model.replay(TRAIN, np.ones(runs.N)).beginning).max() > 1e-2
    return float(np.abs(again.parameters - model.parameters).max())


@pytest.mark.parametrize(("kind", "settings"), RUNS.values(), ids=RUNS)
def test_the_replay_ends_at_the_parameters_of_the_trainer(tmp_path: Path, kind: Any, settings: dict[str, Any]) -> None:
    assert distance(recorded(tmp_path, kind, **settings)[2]) <= 1e-6


def test_in_float64_it_ends_there_to_the_last_digits(tmp_path: Path) -> None:
    assert distance(recorded(tmp_path / "tokens", weighted(), **TOKENS)[2]) <= 1e-12
    make, *others = CLASSES
    double = (lambda: make().double(), *others)
    assert distance(recorded(tmp_path / "classes", double, **TOKENS)[2]) <= 1e-12


@pytest.mark.parametrize(
    "settings",
    [
        {**TOKENS, "max_grad_norm": 0.1},
        pytest.param({**TOKENS, "max_grad_norm": 0.0, "warmup_steps": 1}, marks=pytest.mark.slow),
    ],
    ids=["clipped", "free"],
)
def test_metagradients_are_finite_differences_of_trainers_with_a_weight(tmp_path: Path, settings: Any) -> None:
    queries = uw.Examples(runs.sequences(3, seed=2))
    _, _, model = recorded(tmp_path / "whole", weighted(), **settings)
    replay = model.replay(TRAIN, np.ones(runs.N))
    rows = model.with_parameters(replay.parameters).measure_rows(queries)
    gradients = replay.gradients(rows)
    for changed in (0, 9):
        ends = []
        for sign in (1, -1):
            kind = weighted(changed, sign * 1e-5)
            trainer = runs.make_trainer(kind[0](), tmp_path / f"{changed} {sign}", runs.pad_named, **settings)
            trainer.train()
            ends.append(uw.TorchModel(trainer.model, runs.token_loss, collate=runs.collate).measure(queries))
        expected = (ends[0] - ends[1]) / 2e-5
        assert np.abs(gradients[:, changed] - expected).max() <= 1e-5 * np.abs(expected).max()


def test_the_tokens_of_a_renormalised_step_are_those_of_weight(tmp_path: Path) -> None:
    _, recorder, model = recorded(tmp_path, weighted(), **TOKENS)
    training = recorder.training(denominator="renormalised")
    renormalised = uw.TorchModel(model.network.net, runs.token_loss, collate=runs.collate, training=training)
    halves = renormalised.retrain(TRAIN, np.full(runs.N, 0.5))
    assert np.abs(halves.parameters - model.parameters).max() <= 1e-10
    left_out = np.ones(runs.N)
    left_out[3] = 0.0
    fixed, other = (m.retrain(TRAIN, left_out).parameters for m in (model, renormalised))
    assert np.abs(fixed - other).max() > 1e-4
    again = training.counts[3]
    assert again == (runs.pad([TRAIN.x[3]])["labels"][:, 1:] != -100).sum()


def test_verify_and_metagradient_agree_on_a_recorded_trainer(tmp_path: Path) -> None:
    _, _, model = recorded(tmp_path, LANGUAGE, **{**TOKENS, "learning_rate": 2e-3})
    queries = uw.Examples(runs.sequences(3, seed=2))
    scores = uw.Metagradient(at="full", removals=4).fit(model, TRAIN).attribute(queries)
    assert scores.unit == uw.Unit.EFFECT
    check = uw.verify(model, TRAIN, queries, scores, removals={str(at): [at] for at in range(runs.N)})
    assert check.diagnostics["seed_noise"] is None
    assert check.pearson > 0.75 and 0.8 < check.slope < 1.1  # steps of Adam bend the effects of single examples
    with pytest.raises(ValueError, match="seed 0 alone"):
        uw.verify(model, TRAIN, queries, scores, removals=4, retraining=uw.Retraining(seeds=2))
    with pytest.raises(ValueError, match="expected seed 0 for a recorded run, got 1"):
        model.retrain(TRAIN, np.ones(runs.N), seed=1)


def test_another_loss_or_other_examples_are_refused_at_the_first_step(tmp_path: Path) -> None:
    trainer, recorder, _ = recorded(tmp_path, LANGUAGE, **TOKENS)
    training = recorder.training()

    def mean_over_tokens(net: Any, batch: Any) -> Any:
        return runs.token_loss(net, batch) / (batch["labels"][:, 1:] != -100).sum(dim=1)

    model = uw.TorchModel(trainer.model, mean_over_tokens, collate=runs.collate, training=training)
    with pytest.raises(ValueError, match="the first step is not the recorded one"):
        model.retrain(TRAIN, np.ones(runs.N))
    model = uw.TorchModel(
        trainer.model, lambda net, b: 2 * runs.token_loss(net, b), collate=runs.collate, training=training
    )
    with pytest.raises(ValueError, match="the first step is not the recorded one"):
        model.retrain(TRAIN, np.ones(runs.N))
    other = uw.Examples(runs.sequences(seed=5))
    model = uw.TorchModel(trainer.model, runs.token_loss, collate=runs.collate, training=training)
    with pytest.raises(ValueError, match="the first step is not the recorded one"):
        model.replay(other, np.ones(runs.N))


OBSTACLES = {
    "noise": ({"neftune_noise_alpha": 5.0}, "NEFTune"),
}


@pytest.mark.parametrize(("settings", "sentence"), OBSTACLES.values(), ids=OBSTACLES)
def test_what_a_replay_does_not_know_is_refused(tmp_path: Path, settings: Any, sentence: str) -> None:
    trainer = runs.make_trainer(runs.language_model(), tmp_path, max_steps=1, **settings)
    recorder = uw.TrajectoryCallback(tmp_path / "run").attach(trainer)
    trainer.train()
    with pytest.raises(ValueError, match=f"cannot be replayed: .*{sentence}"):
        recorder.training()


def test_a_run_under_autocast_is_made_again_but_has_no_metagradient(tmp_path: Path) -> None:
    _, _, model = recorded(tmp_path, LANGUAGE, **TOKENS, bf16=True)
    again = model.retrain(TRAIN, np.ones(runs.N))
    assert np.abs(again.parameters - model.parameters).max() <= 1e-6
    without = np.ones(runs.N)
    without[3] = 0.0
    assert np.abs(model.retrain(TRAIN, without).parameters - model.parameters).max() > 1e-4
    with pytest.raises(ValueError, match="bf16 under autocast, for which torch has no second derivatives"):
        uw.Metagradient(at="full", removals=0).fit(model, TRAIN)


def test_a_run_that_drew_its_random_numbers_on_another_device_is_not_made_again(tmp_path: Path) -> None:
    _, _, model = recorded(tmp_path, LANGUAGE, **TOKENS, max_steps=1)
    assert model.training is not None and model.training.recorded is not None
    on_a_gpu = replace(model.training, recorded=replace(model.training.recorded, device="cuda"))
    moved = uw.TorchModel(model.network.net, runs.token_loss, collate=runs.collate, training=on_a_gpu)
    scores = uw.GradDot().fit(model, TRAIN).attribute(TRAIN.take([0]))
    for make_again in (
        lambda: moved.replay(TRAIN, np.ones(runs.N)),
        lambda: uw.Metagradient(removals=0).fit(moved, TRAIN).attribute(TRAIN.take([0])),
        lambda: uw.verify(moved, TRAIN, TRAIN.take([0]), scores, removals=2),
    ):
        with pytest.raises(ValueError, match=r"device of the recorded run \(cuda\), got one on cpu.*Move the net"):
            make_again()


def test_inputs_that_change_between_passes_are_refused(tmp_path: Path) -> None:
    def mask_at_random(items: Any) -> Any:
        batch = runs.pad(items)
        batch["input_ids"][torch.rand(batch["input_ids"].shape) < 0.3] = 1
        return batch

    trainer = runs.make_trainer(runs.language_model(), tmp_path, mask_at_random)
    recorder = uw.TrajectoryCallback(tmp_path / "run").attach(trainer)
    trainer.train()
    with pytest.raises(ValueError, match=r"the inputs of .* examples differ between steps"):
        recorder.training()


def test_a_record_is_read_by_another_process_with_the_training_set(tmp_path: Path) -> None:
    trainer, recorder, model = recorded(tmp_path, LANGUAGE, **TOKENS)
    read = uw.TrajectoryCallback(tmp_path / "run").training(TRAIN)
    again = uw.TorchModel(trainer.model, runs.token_loss, collate=runs.collate, training=read)
    assert np.array_equal(
        again.retrain(TRAIN, np.ones(runs.N)).parameters, model.retrain(TRAIN, np.ones(runs.N)).parameters
    )
    assert recorder.training(TRAIN).batches is not None


def smooth_loss(net: Any, batch: Any) -> Tensor:
    """The Trainer's smoothed loss of every sequence, summed over its tokens."""
    logits = net(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False).logits
    log_p, targets = -logits[:, :-1].log_softmax(dim=-1), batch["labels"][:, 1:]
    of_label = log_p.gather(-1, targets.clamp(min=0)[..., None])[..., 0]
    return ((0.8 * of_label + 0.2 * log_p.mean(dim=-1)) * (targets != -100)).sum(dim=1)


def test_smoothed_labels_are_counted_and_replayed(tmp_path: Path) -> None:
    kind = (lambda: runs.language_model(0.1), runs.pad, smooth_loss, runs.collate)
    _, recorder, model = recorded(tmp_path, kind, label_smoothing_factor=0.2, **TOKENS)
    assert recorder.training().mean_over in ("step", "sum")  # the Trainer of transformers 5.0 adds up means
    assert distance(model) <= 1e-6


def test_adapters_on_a_frozen_base_are_replayed(tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")

    def adapted() -> Any:
        config = peft.LoraConfig(r=2, target_modules=["c_attn"], lora_dropout=0.2, task_type="CAUSAL_LM")
        return peft.get_peft_model(runs.language_model(), config)

    kind = (adapted, runs.pad, runs.token_loss, runs.collate)
    _, recorder, model = recorded(tmp_path, kind, **TOKENS)
    assert recorder.training().initial.keys() > set(model.network.names)
    assert len(model.network.names) == 2
    again = model.retrain(TRAIN, np.ones(runs.N))
    assert np.abs(again.parameters - model.parameters).max() <= 1e-6
    queries = uw.Examples(runs.sequences(3, seed=2))
    assert np.isfinite(uw.SOURCE().fit(model, TRAIN).attribute(queries).values).all()
