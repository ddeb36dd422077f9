"""`uw.hf`: models and examples of transformers, held against plain autograd and the losses of transformers itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import upweight as uw

pytest.importorskip("transformers")
pytest.importorskip("datasets")
from support.tiny_transformers import text_dataset, tiny, word_tokenizer

Task = tuple[uw.TorchModel, uw.Examples]


def token_labels(rows: Any) -> Any:
    """The words as labels of their own; the first is left out."""
    labels = [[-100, *(word % 2 for word in row[1:])] for row in rows["input_ids"]]
    return rows.remove_columns("label").add_column("labels", labels)


def completions(rows: Any) -> Any:
    """The words as labels, except the first two, which are the prompt."""
    labels = [[-100, -100, *row[2:]] for row in rows["input_ids"]]
    return rows.remove_columns("label").add_column("labels", labels)


def targets(rows: Any) -> Any:
    return rows.remove_columns("label").add_column("labels", [row[::-1] for row in rows["input_ids"]])


def task(kind: str, dtype: torch.dtype = torch.float64, count: int = 8, **settings: Any) -> Task:
    net, rows, tokenizer = tiny(kind, dtype), text_dataset(count), word_tokenizer()
    if kind == "bert":
        return uw.hf.classifier(net, rows, tokenizer, ids="key", **settings)
    if kind == "bert tokens":
        return uw.hf.classifier(net, token_labels(rows), tokenizer, ids="key", **settings)
    if kind == "t5":
        return uw.hf.seq2seq(net, targets(rows), tokenizer, ids="key", **settings)
    return uw.hf.causal_lm(net, completions(rows), tokenizer, ids="key", **settings)


def loss_of_transformers(model: uw.TorchModel, example: uw.Examples) -> torch.Tensor:
    """What the net itself computes for one example: a mean over its targets."""
    batch = model.network.batch(example)
    batch.pop("decoder_input_ids", None)
    loss: torch.Tensor = model.network.net(**batch).loss
    return loss


KINDS = ["bert", "bert tokens", "gpt2", "llama", "t5"]


@pytest.mark.parametrize("kind", KINDS)
def test_losses_and_gradients_are_those_of_transformers_on_each_example_alone(kind: str) -> None:
    model, train = task(kind, tokens="mean")
    parameters = list(model.network.parameters().values())
    precision = 1e-6 if kind in ("gpt2", "llama") else 1e-10  # transformers casts their logits to float32
    rows = model.loss_rows(train).dense()
    together = -model.measure(train)
    for i, example in enumerate(train.batches(1)):
        loss = loss_of_transformers(model, example)
        gradient = torch.autograd.grad(loss, parameters, allow_unused=True)
        flat = [torch.zeros_like(p) if g is None else g for g, p in zip(gradient, parameters, strict=True)]
        assert together[i] == pytest.approx(loss.item(), rel=precision)
        np.testing.assert_allclose(
            rows[i], torch.cat([g.flatten() for g in flat]), atol=10 * precision * abs(rows).max()
        )
