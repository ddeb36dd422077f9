"""An error in a function of the user's is a sentence: what it was called with, what it raised, what to try."""

import re

import numpy as np
import pytest
import torch
from torch import nn

import upweight as uw
from support.small_nets import CLASSES, Case, cross_entropy, mlp

EXAMPLES = Case("mlp", mlp, (5,)).examples()
ARRAYS = re.escape("x torch.float64 (3, 5), y torch.int64 (3,)")
READ = "Read inputs and labels as batch.x and batch.y"


class OtherError(Exception):
    """An error of a library."""


def fail(error):
    raise error


FAILURES = {
    "a tuple": (lambda net, b: cross_entropy(net, uw.gradients.batches.Batch(*b)), TypeError, READ),
    "a place": (lambda net, b: net(b[0]), TypeError, READ),
    "a name": (lambda net, b: net(b.images), AttributeError, READ),
    "a key": (lambda net, b: net({}["images"]), TypeError, r"KeyError \('images'\).*collate=f"),
    "one argument": (lambda net: net(0), TypeError, r"takes loss\(net, batch\) -> \(n,\)|takes measure\(net, batch\)"),
    "one example": (lambda net, b: cross_entropy(net, b).reshape(1), RuntimeError, "on a batch of one"),
    "a list": (lambda net, b: [0.0][len(b.y)], IndexError, "list index out of range"),
    "a value": (lambda net, b: int("?"), ValueError, "invalid literal"),
    "a check": (lambda net, b: fail(AssertionError()), AssertionError, "failed with AssertionError"),
    "arithmetic": (lambda net, b: 1 / 0, ZeroDivisionError, "division by zero"),
}


@pytest.mark.parametrize("name", FAILURES)
@pytest.mark.parametrize("quantity", ["loss", "measure"])
def test_a_failed_loss_or_measurement_is_a_sentence_about_its_batch(name, quantity):
    function, kind, words = FAILURES[name]
    functions = {"loss": cross_entropy, "measure": cross_entropy, quantity: function}
    model = uw.TorchModel(mlp().double(), **functions)
    with pytest.raises(kind, match=rf"{quantity}\(net, batch\) failed with .*{ARRAYS}") as raised:
        uw.GradDot().fit(model, EXAMPLES).attribute(EXAMPLES.take(np.arange(3)))
    assert type(raised.value) is kind and isinstance(raised.value.__cause__, Exception)
    assert re.search(words, str(raised.value))


def test_errors_of_other_types_and_of_this_package_are_raised_themselves_with_a_note():
    for error in (OtherError("theirs"), torch.OutOfMemoryError("full")):
        with pytest.raises(type(error), match=r"theirs|full") as raised:
            uw.TorchModel(mlp().double(), lambda net, b, error=error: fail(error)).measure(EXAMPLES)
        assert raised.value is error and "loss(net, batch) failed" in error.__notes__[0]
    prompts = uw.MeanOverPrompts(lambda net, batch: torch.zeros(1), EXAMPLES)
    with pytest.raises(ValueError, match=r"^expected one number per prompt"):
        uw.TorchModel(mlp(), cross_entropy, measure=prompts).measure(prompts.query())


def test_a_failed_collate_or_augmentation_is_a_sentence_too():
    model = uw.TorchModel(mlp(), cross_entropy, collate=lambda examples: examples.images)
    with pytest.raises(AttributeError, match=r"collate\(examples\) failed .* x float64 \(\d+, 5\), y int64") as raised:
        model.measure(EXAMPLES)
    assert isinstance(raised.value.__cause__, AttributeError)
    training = uw.Training(epochs=1, lr=0.1, initial=lambda seed: nn.Linear(5, CLASSES), augment=lambda b, g: b["x"])
    with pytest.raises(TypeError, match=r"augment\(batch, generator\) failed .* x torch.float32 .*\(augment=f\)"):
        uw.TorchModel.trained(nn.Linear(5, CLASSES), cross_entropy, EXAMPLES, training=training)


def test_what_other_batches_hold_is_named():
    batches = {
        "input_ids torch.int64 (2, 4), more (a_1 torch.float32 (2,))": {
            "input_ids": torch.zeros(2, 4, dtype=torch.int64),
            "more": {"a_1": torch.zeros(2)},
        },
        "[0] torch.float32 (2, 3), [1] a str": (torch.zeros(2, 3), "words"),
        "an empty dict": {},
        "batch a set": {1},
    }
    assert [uw.gradients.batches.describe(batch) for batch in batches.values()] == list(batches)
