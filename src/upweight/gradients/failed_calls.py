"""Errors in a loss or measurement of the user's, as sentences: what it was called with, what failed, what to try."""

from __future__ import annotations

import re
import traceback
from typing import Any, NoReturn

from torch import Tensor

from upweight.core.examples import Examples
from upweight.gradients.batches import Batch, describe, is_integer_input

OUT_OF_RANGE = ("out of range in self", "is out of bounds", "smaller than num_classes")  # of torch's look-ups
FORM_ERRORS = (TypeError, AttributeError, KeyError)  # of a batch that is read as if it had another form
ARITHMETIC_ERRORS = (ValueError, ZeroDivisionError, OverflowError, AssertionError)
COMMON_ERRORS = (*FORM_ERRORS, *ARITHMETIC_ERRORS, IndexError, RuntimeError, NotImplementedError)


def raise_explained(error: Exception, quantity: str, batch: Any) -> NoReturn:
    """Raise what says in a sentence that `quantity(net, batch)` failed with this error, which is its cause.

    An error of a common type keeps its type: this package catches some types when it tries a call in several ways. A
    KeyError becomes a TypeError, because Python shows the text of a KeyError in quotes. An error of another type (for
    example of memory), or one that this package raised inside the call, is raised itself, with the sentence as a note.

    Raises:
        TypeError: also for examples without labels.
        ValueError: also for integer inputs, numbers that a look-up does not have, and labels as a column.
    """
    if isinstance(error, TypeError | AttributeError) and isinstance(batch, Batch) and batch.y is None:
        raise TypeError(f"the examples have no labels, and {quantity} seems to need them ({error})") from error
    if isinstance(error, RuntimeError) and "type" in str(error) and is_integer_input(batch):
        raise ValueError(
            f"expected inputs of the kind that the net takes, got {describe(batch)}, with which "
            f"{quantity}(net, batch) fails ({first_line(error)}). Integer inputs stay integers, because they may be "
            "token ids: for images, convert x to floats in the Examples, scaled as in the training (for example x / "
            "255), or pass TorchModel(…, collate=f)"
        ) from error
    if isinstance(error, IndexError | RuntimeError) and any(words in str(error) for words in OUT_OF_RANGE):
        raise ValueError(
            "expected token ids, labels and other whole numbers by which the net looks something up to be "
            f"among those that it knows, got {describe(batch)}, with which {quantity}(net, batch) fails "
            f"({first_line(error)}). Encode texts with the tokenizer of this net, and number classes from 0"
        ) from error
    y = batch.y if isinstance(batch, Batch) else None
    if isinstance(error, RuntimeError) and isinstance(y, Tensor) and y.ndim == 2 and y.shape[1] == 1:
        raise ValueError(
            f"expected labels of the shape that {quantity} takes, got {describe(batch)}, with which it fails "
            f"({first_line(error)}). The labels of the Examples came as a column; pass y[:, 0] if the loss takes "
            "labels of shape (n,)"
        ) from error
    _raise_sentence(error, f"{quantity}(net, batch)", f"a batch of {describe(batch)}", _advice(error, quantity, batch))


def raise_failed_collate(error: Exception, examples: Examples) -> NoReturn:
    """As `raise_explained`, for the `collate(examples)` that makes a batch."""
    form = describe({"x": examples.x} if examples.y is None else {"x": examples.x, "y": examples.y})
    advice = "TorchModel(…, collate=f) takes f(examples) -> batch, which reads examples.x and examples.y"
    _raise_sentence(error, "collate(examples)", f"examples of {form}", advice)


def raise_failed_augment(error: Exception, batch: Any) -> NoReturn:
    """As `raise_explained`, for the `augment(batch, generator)` that changes a batch in training."""
    advice = "Training(augment=f) takes f(batch, generator) -> batch, which draws from the generator alone"
    _raise_sentence(error, "augment(batch, generator)", f"a batch of {describe(batch)}", advice)


def _raise_sentence(error: Exception, call: str, given: str, advice: str) -> NoReturn:
    sentence = f"{call} failed with {type(error).__name__} ({first_line(error)}) for {given}. {advice}"
    if type(error) in COMMON_ERRORS and not _is_of_this_package(error):
        raise (TypeError if isinstance(error, KeyError) else type(error))(sentence) from error
    error.add_note(sentence)
    raise error


def first_line(error: BaseException) -> str:
    """The first line of the error that the user's function raised; its type if it has no text."""
    if type(error) in COMMON_ERRORS and isinstance(error.__cause__, Exception):
        error = error.__cause__
    return (str(error).splitlines() or [type(error).__name__])[0]


def _is_of_this_package(error: Exception) -> bool:
    """Whether code of this package, inside of the call, raised the error: its text says what to try."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return len(frames) > 1 and str(frames[-1].f_globals.get("__name__")).startswith("upweight.")


def _advice(error: Exception, quantity: str, batch: Any) -> str:
    if isinstance(batch, Batch) and isinstance(error, FORM_ERRORS) and re.search(r"\bBatch\b", str(error)):
        return (
            "Read inputs and labels as batch.x and batch.y, or pass TorchModel(…, collate=f), where f(examples) "
            f"returns the batch that {quantity} takes, for example (x, y)"
        )
    if isinstance(error, FORM_ERRORS):
        return (
            f"TorchModel takes {quantity}(net, batch) -> (n,); to give it a batch of another form, pass collate=f with "
            "f(examples) -> batch"
        )
    advice = f"Try {quantity} on such a batch, and on a batch of one: for both it returns one number per example"
    if is_integer_input(batch):
        return f"{advice}. Integer inputs stay integers (token ids): convert images to floats"
    return advice
