"""A model and its training examples, one function per task."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Unpack

from torch import Tensor, nn

from upweight.core.examples import Examples
from upweight.core.objective import Objective
from upweight.models.huggingface.adapter_checks import require_trained_adapters
from upweight.models.huggingface.collation import Task, base_of, forward_arguments, make_collate
from upweight.models.huggingface.dataset_examples import examples
from upweight.models.huggingface.dataset_rows import column_names
from upweight.models.huggingface.decoded_texts import DecodedTexts
from upweight.models.huggingface.input_checks import check_inputs
from upweight.models.huggingface.losses import Problem, Reduction, SequenceLoss, TokenCrossEntropy
from upweight.models.huggingface.net_tasks import require_task
from upweight.models.pytorch.torch_model import TorchModel

if TYPE_CHECKING:
    from upweight.training.trajectory import Trajectory

Ids = str | Sequence[int | str] | None


class ModelSettings(TypedDict, total=False):
    """Settings of every task.

    `measure`, `objective`, `training` and `trajectory` are those of `TorchModel`; `label_smoothing` is the ε of the
    training.
    """

    measure: Callable[[Any, Any], Tensor] | None
    objective: Objective | Literal["mean", "sum", "fixed"] | None
    training: Any
    trajectory: Trajectory | None
    label_smoothing: float


def classifier(
    net: nn.Module,
    dataset: Any,
    collator: Any = None,
    *,
    ids: Ids = None,
    tokens: Reduction = "sum",
    **settings: Unpack[ModelSettings],
) -> tuple[TorchModel, Examples]:
    """A classifier of sequences or of their tokens, and its training examples.

    Labels with one number per sequence make it one of sequences; the loss then is that of the net's configuration
    (`problem_type`: one label, several, or numbers). Labels with one number per token (−100 is left out) make it one of
    tokens; a masked language model with masks that are fixed in the data set is one too.

    Args:
        net: the trained net, with adapters or without. Only parameters that require gradients are explained.
        dataset: the training set, tokenised: see `examples`.
        collator: the data collator of the training, or the tokenizer (then padding to the longest of a batch).
        ids: the name of a column with one id per row, or the ids; None for positions.
        tokens: how the losses of a sequence's tokens are combined: "sum", also for the Trainer's default, or "mean".
        settings: `measure`, `objective`, `training` and `trajectory` as in `TorchModel`; `label_smoothing`.

    Raises:
        TypeError: a data set that is streamed, or a net without logits, or of another task.
        ValueError: adapters that are merged, switched off or frozen; tokens that the net does not know, sequences
            beyond its context, a collator that masks at random, labels that are all −100, or a base whose quantised
            layers do not differentiate.
    """
    require_task(net, "classifier")
    train = examples(dataset, collator, ids=ids)
    if train.y is not None and train.y.dtype.kind not in "biuf":
        raise TypeError(
            f"expected labels that are numbers, got {train.y[0].item()!r}; number them by net.config.label2id, or with "
            'dataset.class_encode_column("label")'
        )
    if train.y is None and not type(base_of(net)).__name__.endswith("ForSequenceClassification"):
        return _build(net, train, collator, "tokens", tokens, settings)
    if train.y is not None and not train.labels:
        train = train.replaced(labels=_configured_names(net))
    return _build(net, train, collator, "sequences", tokens, settings)


def causal_lm(
    net: nn.Module,
    dataset: Any,
    collator: Any = None,
    *,
    ids: Ids = None,
    tokens: Reduction = "sum",
    **settings: Unpack[ModelSettings],
) -> tuple[TorchModel, Examples]:
    """A causal language model, and its training examples.

    The targets are the labels that the collator makes: those of the data set (−100 in a prompt leaves only the
    completion), or the tokens themselves without padding. Position t predicts label t + 1.

    Args, returns and errors as for `classifier`.
    """
    require_task(net, "causal_lm")
    return _build(net, examples(dataset, collator, ids=ids), collator, "causal", tokens, settings)


def seq2seq(
    net: nn.Module,
    dataset: Any,
    collator: Any = None,
    *,
    ids: Ids = None,
    tokens: Reduction = "sum",
    **settings: Unpack[ModelSettings],
) -> tuple[TorchModel, Examples]:
    """A model from sequence to sequence (T5, BART), and its training examples, whose labels are the target texts.

    Args, returns and errors as for `classifier`.
    """
    require_task(net, "seq2seq")
    train = examples(dataset, collator, ids=ids)
    if "labels" not in column_names(train.x):
        raise ValueError(
            f"expected a column of labels (the tokens of the target texts), got {sorted(column_names(train.x))}; "
            "tokenise the targets with tokenizer(text_target=…)"
        )
    if isinstance(train.shown, DecodedTexts):
        train = train.replaced(shown=DecodedTexts(train.x, train.shown.tokenizer, has_own_targets=True))
    return _build(net, train, collator, "seq2seq", tokens, settings)


def _build(
    net: nn.Module, train: Examples, collator: Any, task: Task, reduction: Reduction, settings: ModelSettings
) -> tuple[TorchModel, Examples]:
    """The model of a task, after everything was checked that can be checked before a pass over the data."""
    smoothing = settings.pop("label_smoothing", 0.0)
    require_trained_adapters(net)
    loss: SequenceLoss | TokenCrossEntropy
    if task == "sequences":
        loss = SequenceLoss(_problem(net, train), smoothing)
    else:
        use_cache = False if "use_cache" in forward_arguments(net) else None
        loss = TokenCrossEntropy(reduction, task == "causal", smoothing, use_cache)
    collate = make_collate(net, train, collator, task)
    notes = check_inputs(net, train, collate, loss)
    model = TorchModel(net, loss, collate=collate, **settings)  # type: ignore[misc]  # ε was taken out above
    model.network.notes = (*model.network.notes, *notes)
    return model, train


def _problem(net: nn.Module, train: Examples) -> Problem:
    """The problem type, as transformers chooses it from the configuration and the labels."""
    config: Any = getattr(base_of(net), "config", None)
    known: Problem | None = getattr(config, "problem_type", None)
    if known is not None:
        return known
    if getattr(config, "num_labels", None) == 1:
        return "regression"
    has_classes = train.y is not None and train.y.dtype.kind in "iu"
    return "single_label_classification" if has_classes else "multi_label_classification"


def _configured_names(net: nn.Module) -> dict[int, str]:
    """The names of the labels in the net's configuration, if they are not just numbers."""
    names = getattr(getattr(base_of(net), "config", None), "id2label", None) or {}
    return {} if all(re.fullmatch(r"LABEL_\d+", str(name)) for name in names.values()) else dict(names)
