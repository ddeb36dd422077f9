"""`uw.hf.from_trainer` reads net, data, collator and loss of a Trainer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import upweight as uw

pytest.importorskip("transformers")
pytest.importorskip("datasets")
pytest.importorskip("accelerate")
import transformers

from support.tiny_transformers import text_dataset, tiny, word_tokenizer


def trainer(folder: Path, net: Any, dataset: Any = None, kind: type = transformers.Trainer, **settings: Any) -> Any:
    passed = {name: settings.pop(name) for name in ("data_collator", "compute_loss_func") if name in settings}
    quiet = {"report_to": [], "save_strategy": "no", "use_cpu": True, "logging_strategy": "no", "disable_tqdm": True}
    arguments = transformers.TrainingArguments(
        str(folder), max_steps=3, per_device_train_batch_size=4, **quiet, **settings
    )
    return kind(net, arguments, train_dataset=dataset, processing_class=word_tokenizer(), **passed)


def test_a_trained_trainer_gives_the_model_that_its_parts_give(tmp_path: Path) -> None:
    net, rows = tiny("bert"), text_dataset(12)
    trained = trainer(tmp_path, net, rows)
    trained.train()
    model, train = uw.hf.from_trainer(trained, ids="key")
    same, _ = uw.hf.classifier(net, rows, word_tokenizer(), ids="key")
    assert model.network.net is net and train.ids[3] == "row3" and train.label("row3") == rows["label"][3]
    assert train.preview("row3").value == rows["text"][3]
    assert model.measure(train).tolist() == same.measure(train).tolist()
    assert model.identity() == same.identity()


def test_a_net_that_was_trained_under_autocast_keeps_it_and_its_copies_are_copies(tmp_path: Path) -> None:
    net, rows = tiny("bert"), text_dataset(12)
    trained = trainer(tmp_path, net, rows, bf16=True)
    trained.train()
    model, train = uw.hf.from_trainer(trained)
    assert "forward" in vars(net)  # accelerate's, which calls the net's own under autocast
    moved = model.with_parameters(1.2 * model.parameters)
    other = tiny("bert")
    with torch.no_grad():
        for parameter, new in zip(other.parameters(), net.parameters(), strict=True):
            parameter.copy_(1.2 * new)
    exact = uw.hf.classifier(other, rows, word_tokenizer())[0]
    np.testing.assert_allclose(moved.measure(train), exact.measure(train), atol=0.02)
    assert abs(moved.measure(train) - model.measure(train)).max() > 0.03
    assert model.identity() == model.identity()


def test_a_collator_of_the_users_gets_the_columns_that_the_trainer_leaves(tmp_path: Path) -> None:
    def collate(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        longest = max(len(row["input_ids"]) for row in rows)
        padded = {name: [] for name in rows[0]}
        for row in rows:
            for name, value in row.items():
                padded[name].append(value + [0] * (longest - len(value)) if isinstance(value, list) else value)
        return {name: torch.tensor(values) for name, values in padded.items()}

    net, rows = tiny("bert"), text_dataset(8).rename_column("label", "labels")
    model, train = uw.hf.from_trainer(trainer(tmp_path, net, rows, data_collator=collate), ids="key")
    same = uw.hf.classifier(net, rows, word_tokenizer())[0].measure(train)
    assert model.measure(train) == pytest.approx(same, rel=1e-5)
    assert train.preview("row3").value == rows["text"][3]


class PicturesForConditionalGeneration(transformers.GPT2LMHeadModel):
    """A language model that takes pictures too has no encoder, and a class of this name."""


def test_a_net_for_conditional_generation_without_an_encoder_is_causal(tmp_path: Path) -> None:
    rows = text_dataset(8).remove_columns("label")
    rows = rows.add_column("labels", rows["input_ids"])
    net = PicturesForConditionalGeneration(tiny("gpt2").config).eval()
    collator = transformers.DataCollatorForSeq2Seq(word_tokenizer())
    model, train = uw.hf.from_trainer(trainer(tmp_path, net, rows, data_collator=collator))
    batch = model.network.batch(train.take([0]))
    targets = batch["labels"].shape[1] - 1
    assert model.measure(train.take([0])).item() == pytest.approx(-net(**batch).loss.item() * targets, rel=1e-5)


@pytest.mark.parametrize(("kind", "expected"), [("gpt2", True), ("t5", False)])
def test_the_task_follows_from_the_class_of_the_net(kind: str, expected: bool, tmp_path: Path) -> None:
    rows = text_dataset(8).remove_columns("label")
    rows = rows.add_column("labels", rows["input_ids"])
    collator = transformers.DataCollatorForSeq2Seq(word_tokenizer())
    given = trainer(tmp_path, tiny(kind), rows, data_collator=collator, label_smoothing_factor=0.1)
    loss = uw.hf.from_trainer(given)[0].network.loss
    assert isinstance(loss, uw.hf.TokenLoss)
    assert (loss.shift, loss.label_smoothing, loss.reduction) == (expected, 0.1, "sum")


def test_label_smoothing_is_that_of_the_trainer(tmp_path: Path) -> None:
    net, rows = tiny("bert", torch.float64), text_dataset(8)
    given = trainer(tmp_path, net, rows, label_smoothing_factor=0.2)
    model, train = uw.hf.from_trainer(given)
    batch = model.network.batch(train)
    outputs = net(**{name: value for name, value in batch.items() if name != "labels"})
    expected = given.label_smoother(outputs, batch["labels"])
    assert -model.measure(train).mean() == pytest.approx(expected.item(), rel=1e-6)  # the Trainer smooths in float32


class OwnLoss(transformers.Trainer):
    def compute_loss(self, *arguments: Any, **settings: Any) -> Any:
        return super().compute_loss(*arguments, **settings)


def test_what_is_no_such_trainer_is_refused(tmp_path: Path) -> None:
    rows = text_dataset(8)
    with pytest.raises(TypeError, match=r"expected a transformers.Trainer, got int"):
        uw.hf.from_trainer(5)
    with pytest.raises(ValueError, match="with its train_dataset, got None"):
        uw.hf.from_trainer(trainer(tmp_path, tiny("bert")))
    with pytest.raises(ValueError, match="a loss of its own"):
        uw.hf.from_trainer(trainer(tmp_path, tiny("bert"), rows, OwnLoss))
    with pytest.raises(ValueError, match="a loss of its own"):
        uw.hf.from_trainer(trainer(tmp_path, tiny("bert"), rows, compute_loss_func=lambda *_, **__: None))
    with pytest.raises(TypeError, match=r"got BertModel.*loss of your own to uw.TorchModel"):
        uw.hf.from_trainer(trainer(tmp_path, tiny("bert").bert, rows))
