"""Batches of a transformer: rows through the data collator of its training."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from torch import Tensor, nn

from upweight.core.examples import Examples
from upweight.core.identity import digest
from upweight.models.huggingface.dataset_rows import column_names, lengths_and_largest, rows_of

LABELS = ("label", "labels", "label_ids")
Task = Literal["sequences", "tokens", "causal", "seq2seq"]


@dataclass(frozen=True)
class Collate:
    """`collate(examples) -> batch` by a data collator.

    Args:
        collator: a function of a list of dicts, as the Trainer takes it.
        arguments: the arguments of the net's forward pass: other entries of a batch are left out.
        columns: the columns that the collator gets besides labels; None for all.
        has_labels: whether the labels of the examples are the `labels` of the batch; else they are only shown.
        decoder_inputs: makes the inputs of a decoder from labels, if the collator does not.
        padding_moves: class of a net that counts positions from the padding; None for others.
    """

    collator: Callable[[list[dict[str, Any]]], Mapping[str, Any]]
    arguments: frozenset[str]
    columns: frozenset[str] | None
    has_labels: bool = True
    decoder_inputs: Callable[[Tensor], Tensor] | None = None
    padding_moves: str | None = None

    def __call__(self, examples: Examples) -> dict[str, Any]:
        """The batch, a dict of tensors."""
        rows = [self._row(row) for row in rows_of(examples.x)]
        for position, row in enumerate(rows):
            if "input_ids" in row and not len(row["input_ids"]):
                raise no_tokens(examples, position)
        if examples.y is not None and self.has_labels:
            labels = examples.y.tolist()
            rows = [{**_without_labels(row), "labels": label} for row, label in zip(rows, labels, strict=True)]
        batch = dict(self.collator(rows))
        batch = {name: value for name, value in batch.items() if name in self.arguments or name == "labels"}
        mask = batch.get("attention_mask")
        if self.padding_moves is not None and isinstance(mask, Tensor) and mask.ndim == 2 and not mask[:, 0].all():
            raise moved_positions(self.padding_moves)
        if self.decoder_inputs is not None and "decoder_input_ids" not in batch:
            batch["decoder_input_ids"] = self.decoder_inputs(batch["labels"])
        return batch

    def _row(self, row: Mapping[str, Any]) -> dict[str, Any]:
        columns = self.columns
        return {name: value for name, value in row.items() if columns is None or name in columns or name in LABELS}

    def identity(self) -> dict[str, str]:
        """Digests of the collator and its settings. A tokenizer counts by its vocabulary: padding changes its state."""
        parts: list[Any] = [self.collator]
        if not inspect.isroutine(self.collator) and hasattr(self.collator, "__dict__"):
            parts = [type(self.collator), {name: _lasting(value) for name, value in vars(self.collator).items()}]
        columns = None if self.columns is None else sorted(self.columns)
        return {"collator": digest(*parts), "columns": digest(sorted(self.arguments), columns, self.has_labels)}


def no_tokens(examples: Examples, position: int) -> ValueError:
    """The error for an empty text."""
    identifier = examples.ids[position].item()
    return ValueError(f"expected texts of at least one token, got none in example {identifier!r}; leave it out")


def moved_positions(kind: str) -> ValueError:
    """The error for padding on the left of a net that counts positions from it."""
    return ValueError(
        f"the tokenizer pads on the left, and {kind} counts positions from the padding, so that the loss of a sequence "
        "depends on the longest of its batch; set tokenizer.padding_side = 'right'"
    )


def make_collate(net: nn.Module, train: Examples, collator: Any, task: Task) -> Collate:
    """The batches of a task, by a collator or a tokenizer, or by stacking rows of one length if both are None."""
    arguments = forward_arguments(net)
    collator = _default_collator(net, train, collator, task) if collator is None or is_tokenizer(collator) else collator
    columns = arguments if is_of_transformers(collator) else None
    moved = any(name.rpartition(".")[2] == "wpe" for name, _ in base_of(net).named_modules())
    collate = Collate(
        collator,
        arguments,
        columns,
        has_labels=task == "sequences",
        padding_moves=type(base_of(net)).__name__ if moved else None,
    )
    if task != "seq2seq":
        return collate
    prepare = getattr(base_of(net), "prepare_decoder_input_ids_from_labels", None)
    return replace(collate, decoder_inputs=prepare)


def _default_collator(net: nn.Module, train: Examples, tokenizer: Any, task: Task) -> Any:
    import transformers

    if tokenizer is None:
        _require_one_length(train)
        return transformers.default_data_collator
    if getattr(tokenizer, "pad_token", None) is None:
        raise ValueError(
            "expected a tokenizer with a padding token, got one without; set tokenizer.pad_token = tokenizer.eos_token "
            "(padding is masked, so that any token will do)"
        )
    has_labels = "labels" in column_names(train.x)
    if task == "seq2seq":
        return transformers.DataCollatorForSeq2Seq(tokenizer, model=base_of(net))
    if task == "causal" and has_labels:
        return transformers.DataCollatorForSeq2Seq(tokenizer)  # it pads labels with −100 too
    if task == "tokens":
        return transformers.DataCollatorForTokenClassification(tokenizer)
    return transformers.DataCollatorWithPadding(tokenizer)


def _without_labels(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in LABELS}


def _require_one_length(train: Examples) -> None:
    if "input_ids" not in column_names(train.x):
        return
    lengths = np.unique(lengths_and_largest(train.x)[0])
    if len(lengths) > 1:
        raise ValueError(
            f"expected a collator or a tokenizer that pads, because sequences have {lengths[0]} to {lengths[-1]} "
            "tokens; pass the data collator of the training"
        )


def base_of(net: Any) -> Any:
    """The net below adapters, or the net itself."""
    return net.get_base_model() if hasattr(net, "get_base_model") else net


def forward_arguments(net: Any) -> frozenset[str]:
    """The arguments of a net's forward pass; of a net with adapters, those of the net below them."""
    names = set(inspect.signature(base_of(net).forward).parameters)
    return frozenset(names - {"kwargs", "args", "labels"})


def tokenizer_of(collator: Any) -> Any:
    """The tokenizer of a collator, or the tokenizer itself; None if there is none."""
    for name in ("tokenizer", "processing_class"):
        if getattr(collator, name, None) is not None:
            return getattr(collator, name)
    return collator if is_tokenizer(collator) else None


def is_of_transformers(collator: Any) -> bool:
    """Whether a collator is one of transformers, which make tensors of every column that they get."""
    module = str(getattr(collator, "__module__", type(collator).__module__))
    return module.partition(".")[0] == "transformers"


def is_tokenizer(collator: Any) -> bool:
    """Whether this is a tokenizer and not a collator."""
    return hasattr(collator, "decode") and hasattr(collator, "pad")


def _lasting(value: Any) -> Any:
    if isinstance(value, nn.Module):
        return type(value)
    if is_tokenizer(value):
        special = {name: str(token) for name, token in value.special_tokens_map.items()}
        return type(value).__name__, dict(value.get_vocab()), special, value.padding_side
    return value
