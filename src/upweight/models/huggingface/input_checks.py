"""Checks before the first pass, which refuse or note: inputs that do not fit the net, and nets without gradients."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

from upweight.core.dataset_rows import is_dataset
from upweight.core.examples import Examples
from upweight.models.huggingface.adapter_checks import untrained_adapters
from upweight.models.huggingface.collation import Collate, base_of, moved_positions, no_tokens, tokenizer_of
from upweight.models.huggingface.dataset_rows import column_names, lengths_and_largest
from upweight.models.huggingface.gradient_checks import require_gradient
from upweight.models.huggingface.losses import SequenceLoss, TokenCrossEntropy

SAMPLED = 64  # examples whose targets are counted
COLLATED_TWICE = 4
SPARE_ROWS = 0.05  # share of an embedding's rows that padding of the vocabulary may leave unused


def check_inputs(
    net: nn.Module, train: Examples, collate: Collate, loss: TokenCrossEntropy | SequenceLoss
) -> tuple[str, ...]:
    """Sentences for the reader. Raises ValueError for what `classifier` names, with the id of an example."""
    _require_columns(train, collate)
    table = _input_embedding(net)
    tokenizer = tokenizer_of(collate.collator)
    notes = [*_position_notes(train), *_vocabulary_notes(tokenizer, table)]
    if "input_ids" in column_names(train.x):
        notes += _token_notes(net, train, table)
        _require_padding_on_the_right(train, collate, tokenizer)
    _require_same_batch_twice(train, collate)
    if isinstance(loss, TokenCrossEntropy):
        notes += _target_notes(train, collate, loss)
    require_gradient(net, train, collate, loss)
    untrained = untrained_adapters(net)
    return tuple(notes if untrained is None else [*notes, untrained])


def _position_notes(train: Examples) -> Iterator[str]:
    is_reordered = is_dataset(train.x) and train.x._indices is not None  # its rows in Arrow are others
    if is_reordered and np.array_equal(train.ids, np.arange(len(train))):
        yield (
            "Ids are positions in a data set that was shuffled, filtered or selected from another, so they name other "
            "rows there: to have the same names everywhere, add a column of ids before, and pass ids='column'."
        )


def _require_columns(train: Examples, collate: Collate) -> None:
    known = column_names(train.x)
    if collate.columns is not None and not known & collate.arguments:
        raise ValueError(
            f"expected columns that the net takes ({', '.join(sorted(collate.arguments)[:6])}, …), got "
            f"{sorted(known)}; tokenise first: dataset.map(lambda rows: tokenizer(rows['text'], truncation=True), "
            "batched=True)"
        )


def _vocabulary_notes(tokenizer: Any, table: nn.Embedding | None) -> Iterator[str]:
    """Raise ValueError if the tokenizer has more tokens than the net; a sentence if it has far fewer."""
    if tokenizer is None or table is None or not hasattr(tokenizer, "__len__"):
        return
    size, rows = len(tokenizer), table.num_embeddings
    if size > rows:
        raise ValueError(
            f"the tokenizer has {size:,} tokens and the net an embedding of {rows:,}: they are of different models; "
            "load the tokenizer that was saved with the net, or call net.resize_token_embeddings(len(tokenizer)) "
            "before training"
        )
    if rows - size > max(1024, SPARE_ROWS * rows):
        yield (
            f"The net has an embedding of {rows:,} tokens and the tokenizer only {size:,}: is it the tokenizer of "
            "another model?"
        )


def _token_notes(net: nn.Module, train: Examples, table: nn.Embedding | None) -> Iterator[str]:
    lengths, largest = lengths_and_largest(train.x)
    if not lengths.all():
        raise no_tokens(train, int(np.argmin(lengths)))
    if table is not None and int(largest.max()) >= table.num_embeddings:
        position = int(np.argmax(largest))
        raise ValueError(
            f"example {train.ids[position].item()!r} has the token {int(largest[position]):,}, and the net knows only "
            f"those below {table.num_embeddings:,}: the data were tokenised for another model; tokenise them with the "
            "tokenizer that was saved with the net"
        )
    position = int(np.argmax(lengths))
    longest, limit = int(lengths[position]), _position_limit(net)
    if limit is not None and longest > limit:
        raise ValueError(
            f"example {train.ids[position].item()!r} has {longest:,} tokens, and the net has positions for {limit:,}; "
            f"tokenise with truncation=True, max_length={limit}, as the training did"
        )
    stated = getattr(getattr(base_of(net), "config", None), "max_position_embeddings", None)
    if limit is None and isinstance(stated, int) and longest > stated:
        yield (
            f"Sequences are up to {longest:,} tokens long (example {train.ids[position].item()!r}), beyond the context "
            f"of {stated:,} that the net's configuration states."
        )


def _require_padding_on_the_right(train: Examples, collate: Collate, tokenizer: Any) -> None:
    """Raise ValueError if padding moves the positions of a sequence, as it does in GPT-2 on the left."""
    if getattr(tokenizer, "padding_side", "right") != "left" or len(np.unique(lengths_and_largest(train.x)[0])) == 1:
        return
    if collate.padding_moves is not None:
        raise moved_positions(collate.padding_moves)


def _require_same_batch_twice(train: Examples, collate: Collate) -> None:
    """Raise ValueError if a collator makes another batch of the same rows, as one that masks at random does."""
    few = train.take(np.arange(min(COLLATED_TWICE, len(train))))
    with torch.random.fork_rng(devices=[]):
        batches = []
        for seed in (1, 2):
            torch.manual_seed(seed)
            batches.append(_tensors(collate(few)))
    for name, tensor in batches[0].items():
        other = batches[1].get(name)
        if other is None or tensor.shape != other.shape or not torch.equal(tensor, other):
            raise ValueError(
                f"the collator makes other {name!r} of the same rows when it is called twice (it masks or augments at "
                "random), so that no example has a loss of its own; write the masks into the data set once (map), and "
                "pass a collator that only pads"
            )


def _target_notes(train: Examples, collate: Collate, loss: TokenCrossEntropy) -> Iterator[str]:
    positions = np.unique(np.linspace(0, len(train) - 1, min(SAMPLED, len(train))).astype(np.intp))
    counts = np.concatenate(
        [loss.targets(_tensors(collate(part))).sum(1).numpy() for part in train.take(positions).batches(8)]
    )
    if not counts.any():
        raise ValueError(
            f"expected targets, but all labels of the {len(counts)} examples that were looked at are −100 (or the only "
            "token of their sequence); check the template that marks completions, and the truncation"
        )
    empty = positions[counts == 0]
    if len(empty):
        yield (
            f"{len(empty)} of {len(counts)} examples that were looked at have no target (first "
            f"{train.ids[empty[0]].item()!r}): all their labels are −100, their loss is 0, and so are their scores."
        )


def _input_embedding(net: nn.Module) -> nn.Embedding | None:
    try:
        table = base_of(net).get_input_embeddings()
    except (AttributeError, NotImplementedError):
        return None
    table = getattr(table, "base_layer", table)
    return table if isinstance(table, nn.Embedding) else None


def _position_limit(net: nn.Module) -> int | None:
    """The longest sequence that the net's learned table of positions holds; None if it has none."""
    for name, module in base_of(net).named_modules():
        last = name.rpartition(".")[2]
        is_table = isinstance(module, nn.Embedding) and (last in ("wpe", "embed_positions", "position_embeddings"))
        if is_table and "decoder" not in name.split("."):
            reserved = getattr(module, "offset", 0) or (0 if module.padding_idx is None else module.padding_idx + 1)
            return int(module.num_embeddings) - int(reserved)
    return None


def _tensors(batch: dict[str, Any]) -> dict[str, torch.Tensor]:
    return {name: value for name, value in batch.items() if isinstance(value, torch.Tensor)}
