"""Tiny runs of transformers' Trainer, and the same steps by a loop written by hand."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import upweight as uw

N = 14
VOCABULARY = 23


def sequences(count: int = N, seed: int = 0) -> list[dict[str, Any]]:
    """Sequences of unequal lengths; the first third of each is a prompt, which has no loss."""
    rng = np.random.default_rng(seed)
    rows = [rng.integers(1, VOCABULARY, size=size).tolist() for size in rng.integers(4, 8, size=count)]
    return [{"input_ids": row, "label": int(row[0] % 2), "name": f"text {at}"} for at, row in enumerate(rows)]


def pad(items: list[dict[str, Any]], extra: int = 0) -> dict[str, Tensor]:
    """A batch for causal language models, padded to its longest sequence."""
    width = max(len(item["input_ids"]) for item in items) + extra
    ids = torch.zeros(len(items), width, dtype=torch.long)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
    for row, item in enumerate(items):
        size = len(item["input_ids"])
        ids[row, :size] = torch.tensor(item["input_ids"])
        mask[row, :size] = 1
        labels[row, size // 3 : size] = ids[row, size // 3 : size]
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def pad_named(items: list[dict[str, Any]]) -> dict[str, Tensor]:
    """The same with the number of every sequence, `at`."""
    return {**pad(items), "at": torch.tensor([int(item["name"].split()[1]) for item in items])}


def pad_classes(items: list[dict[str, Any]]) -> dict[str, Tensor]:
    """A batch for classifiers of sequences."""
    batch = pad(items)
    return {**batch, "labels": torch.tensor([item["label"] for item in items])}


def language_model(dropout: float = 0.0, seed: int = 0) -> nn.Module:
    """A GPT-2 of one layer."""
    from transformers import GPT2Config, GPT2LMHeadModel

    rates: Any = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), dropout)
    size: Any = {"vocab_size": VOCABULARY, "n_positions": 8, "n_embd": 8, "n_layer": 1, "n_head": 2}
    torch.manual_seed(seed)
    config = GPT2Config(**size, **rates, bos_token_id=None, eos_token_id=None)
    config.loss_type = "ForCausalLM"
    return GPT2LMHeadModel(config)


def classifier(dropout: float = 0.0) -> nn.Module:
    """A BERT of one layer, which takes `num_items_in_batch` and ignores it."""
    from transformers import BertConfig, BertForSequenceClassification

    rates: Any = dict.fromkeys(("hidden_dropout_prob", "attention_probs_dropout_prob"), dropout)
    size: Any = {"vocab_size": VOCABULARY, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    torch.manual_seed(0)
    return BertForSequenceClassification(BertConfig(**size, **rates, intermediate_size=16, max_position_embeddings=8))


def make_trainer(net: nn.Module, folder: Path, collate: Any = pad, rows: Any = None, **settings: Any) -> Any:
    """A Trainer on the CPU: two passes, AdamW, a linear schedule with warm-up, clipping."""
    from transformers import Trainer, TrainingArguments

    logging.getLogger("transformers").setLevel(logging.ERROR)
    chosen: dict[str, Any] = {
        "num_train_epochs": 2,
        "per_device_train_batch_size": 3,
        "gradient_accumulation_steps": 2,
        "learning_rate": 2e-2,
        "lr_scheduler_type": "linear",
        "warmup_steps": 2,
        "max_grad_norm": 1.0,
        "save_strategy": "no",
        "eval_strategy": "no",
        **settings,
    }
    quiet: dict[str, Any] = {"report_to": [], "use_cpu": True, "disable_tqdm": True, "logging_strategy": "no"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        arguments = TrainingArguments(str(folder / "out"), **quiet, **chosen)
        rows = sequences() if rows is None else rows
        return Trainer(net, arguments, train_dataset=rows, eval_dataset=sequences(5, seed=1), data_collator=collate)


def token_loss(net: nn.Module, batch: Any) -> Tensor:
    """The loss of every sequence: the sum over its tokens that have labels."""
    logits = net(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False).logits
    targets = nn.functional.pad(batch["labels"], (0, 1), value=-100)[:, 1:]
    terms = nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
    return terms.view(targets.shape).sum(dim=1)


def class_loss(net: nn.Module, batch: Any) -> Tensor:
    """The cross-entropy of every sequence's class."""
    logits = net(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    return nn.functional.cross_entropy(logits, batch["labels"], reduction="none")


def collate(examples: uw.Examples) -> dict[str, Tensor]:
    """`pad` for Examples."""
    return pad(list(examples.x))


def collate_classes(examples: uw.Examples) -> dict[str, Tensor]:
    """`pad_classes` for Examples."""
    return pad_classes(list(examples.x))


def weighted_language_model(weights: Tensor, dropout: float = 0.0) -> nn.Module:
    """The GPT-2 above in float64, with a loss of its own to the last digit: every sequence counts with its weight."""
    inside = language_model(dropout).double()
    kind: Any = type(inside)

    class Weighted(kind):  # type: ignore[misc]
        def forward(self, input_ids: Any, attention_mask: Any, labels: Any = None, at: Any = None, **more: Any) -> Any:
            items = more.pop("num_items_in_batch", None)
            output = super().forward(input_ids, attention_mask=attention_mask, **more)
            if labels is None:
                return output
            terms = nn.functional.cross_entropy(
                output.logits[:, :-1].transpose(1, 2), labels[:, 1:], reduction="none", ignore_index=-100
            )
            return {"loss": (terms.sum(dim=1) * weights[at]).sum() / items, "logits": output.logits}

    inside.__class__ = Weighted
    return inside
