"""A model and its training examples, read from a Trainer of transformers."""

from __future__ import annotations

from typing import Any, Unpack

from upweight.core.dataset_rows import is_dataset
from upweight.core.examples import Examples
from upweight.models.huggingface import tasks
from upweight.models.huggingface.collation import (
    LABELS,
    base_of,
    forward_arguments,
    is_of_transformers,
    tokenizer_of,
)
from upweight.models.huggingface.dataset_examples import examples
from upweight.models.huggingface.net_tasks import ENDINGS, task_of
from upweight.models.huggingface.tasks import Ids, ModelSettings
from upweight.models.pytorch.torch_model import TorchModel
from upweight.training.indexed_batches import IndexedCollator, IndexedDataset


def from_trainer(trainer: Any, *, ids: Ids = None, **settings: Unpack[ModelSettings]) -> tuple[TorchModel, Examples]:
    """The model of a trained `Trainer`, and its training examples.

    The task follows from the class of the net. The losses of a sequence's tokens are summed, as the Trainer sums them.

    Args:
        trainer: a `transformers.Trainer`, with its net, `train_dataset`, `data_collator` and arguments.
        ids: the name of a column with one id per row, or the ids; None for positions.
        settings: as for `classifier`.

    Raises:
        TypeError: no Trainer, or a net of another task.
        ValueError: a Trainer without a training set, or with a loss of its own; and as for `classifier`.
    """
    net, dataset = getattr(trainer, "model", None), getattr(trainer, "train_dataset", None)
    dataset = dataset.dataset if isinstance(dataset, IndexedDataset) else dataset  # of a recorded run
    if net is None or not hasattr(trainer, "data_collator"):
        raise TypeError(f"expected a transformers.Trainer, got {type(trainer).__name__}")
    if dataset is None:
        raise ValueError("expected a Trainer with its train_dataset, got None; pass Trainer(…, train_dataset=…)")
    if getattr(trainer, "compute_loss_func", None) is not None or _has_own_loss(trainer):
        raise ValueError(
            "the Trainer computes a loss of its own (compute_loss), of which the losses of single examples are not "
            "known; write it as loss(net, batch) -> (n,) and pass it to uw.TorchModel"
        )
    kind = type(base_of(net)).__name__
    task = task_of(net)
    if task is None:
        raise TypeError(
            f"expected a net for {', '.join(sorted({ending.removeprefix('For') for ending in ENDINGS}))}, got {kind}; "
            "call uw.hf.classifier, causal_lm or seq2seq, or pass a loss of your own to uw.TorchModel"
        )
    settings.setdefault("label_smoothing", float(getattr(trainer.args, "label_smoothing_factor", 0.0)))
    collator = (
        trainer.data_collator.collate if isinstance(trainer.data_collator, IndexedCollator) else trainer.data_collator
    )
    train = examples(dataset, tokenizer_of(collator) or trainer.processing_class, ids=ids)
    if not is_of_transformers(collator) and _removes_columns(trainer):
        train = _only_known_columns(net, train)
    make = {"classifier": tasks.classifier, "causal_lm": tasks.causal_lm, "seq2seq": tasks.seq2seq}[task]
    return make(net, train, collator, **settings)


def _removes_columns(trainer: Any) -> bool:
    """Whether the Trainer takes columns that the net does not know out of the rows before the collator gets them."""
    collator = trainer.data_collator
    recorded = isinstance(collator, IndexedCollator) and collator.kept is not None
    return bool(recorded or trainer.args.remove_unused_columns)


def _only_known_columns(net: Any, train: Examples) -> Examples:
    if not is_dataset(train.x):
        return train
    known = [name for name in train.x.column_names if name in forward_arguments(net) or name in LABELS]
    return train.replaced(x=train.x.select_columns(known)) if known else train


def _has_own_loss(trainer: Any) -> bool:
    """Whether a subclass outside the library overrides how the loss is computed."""
    method = getattr(type(trainer), "compute_loss", None)
    return method is not None and method.__module__.partition(".")[0] not in ("transformers", "trl")
