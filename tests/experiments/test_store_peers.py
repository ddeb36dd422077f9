"""Stores beside others': a child is killed in the middle, and words say what an unfinished store answered."""

import os
import time

import numpy as np
import pytest
import torch
from benchmarks.counted_children import Ran, run
from benchmarks.nets import GPT
from benchmarks.store_peers import Whole, flip

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="children are forked")
NET = GPT(8, 1, 5)
IDS = torch.zeros((3, 4), dtype=torch.long)


def endless():
    while True:
        NET(IDS)
        time.sleep(0.001)


def test_a_child_counts_examples_and_returns_its_value():
    done = run(lambda: [NET(IDS).shape, NET(IDS[0:1]).shape][1])
    assert (done.value, done.error, done.examples, done.is_killed) == ((1, 4, 5), "", 4, False)


def test_a_child_is_killed_once_so_many_examples_went_through():
    stopped = run(endless, stop=9)
    assert stopped.is_killed and stopped.examples >= 9


def test_an_error_of_a_child_is_returned():
    assert run(lambda: 1 // 0).error.startswith("ZeroDivisionError")


@pytest.mark.parametrize(
    ("value", "examples", "error", "words"),
    [
        (np.ones((2, 3)), 2, "", "complete"),
        (np.ones((2, 3)), 5, "", "completes itself"),
        (np.ones((2, 3)) + 1e-3, 2, "", "wrong scores"),
        (np.ones((2, 2)), 2, "", "fewer rows, no warning"),
        (np.ones((2, 4)), 2, "", "more rows, no warning"),
        (None, 0, "OSError: no: such file", "refuses (OSError)"),
    ],
)
def test_what_an_unfinished_store_answered(value, examples, error, words):
    assert Whole(np.ones((2, 3)), 10, 2).in_words(Ran(value, error, 0.0, examples, False)) == words


def test_a_flipped_byte_is_another_one_until_it_is_flipped_again(tmp_path):
    path = tmp_path / "rows"
    path.write_bytes(b"abc")
    flip(path, 1)
    assert path.read_bytes() == b"a\x9dc"
    flip(path, 1)
    assert path.read_bytes() == b"abc"
