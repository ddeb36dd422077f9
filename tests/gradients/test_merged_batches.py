"""Consecutive batches that are joined: the same gradients, each in memory once."""

from __future__ import annotations

import weakref

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from upweight.gradients.captured_batch import CapturedBatch  # noqa: E402
from upweight.gradients.gradient_terms import DenseTerm, LookupTerm, OuterTerm  # noqa: E402
from upweight.gradients.merged_batches import merge_batches  # noqa: E402
from upweight.gradients.patches import PatchTerm  # noqa: E402

SHAPES = {"bias": (3,), "weight": (3, 5), "table": (7, 4), "kernel": (2, 3, 3, 3)}
CONVOLUTION = torch.nn.Conv2d(3, 2, 3)


def batch(count, seed, length=2):
    drawn = torch.Generator().manual_seed(seed)

    def random(*shape):
        return torch.randn(*shape, generator=drawn, dtype=torch.float64)

    terms = {
        "bias": (DenseTerm(random(count, 3)),),
        "weight": (OuterTerm(random(count, length, 3), random(count, length, 5), (3, 5)),) * 2,
        "table": (LookupTerm(torch.randint(7, (count, length), generator=drawn), random(count, length, 4), (7, 4)),),
        "kernel": (PatchTerm(random(count, 16, 2), random(count, 3, 6, 6), CONVOLUTION),),
    }
    return CapturedBatch(count, terms, torch.empty(0, dtype=torch.float64), SHAPES, {})


def passes(batches):
    start = 0
    for each in batches:
        yield slice(start, start + each.count), each
        start += each.count


def rows(batches):
    return {name: torch.cat([each.materialise(name) for each in batches]) for name in SHAPES}


@pytest.mark.parametrize("lengths", [(2, 2, 2, 2), (2, 3, 2, 2), (2, 2, 2, 3), (3, 2, 2, 2)], ids=str)
@pytest.mark.parametrize("at_a_time", [1, 7, 10, 100])
def test_joined_batches_have_the_same_gradients_in_order(lengths, at_a_time):
    counts = (3, 4, 4, 2)
    given = [batch(count, seed, length) for seed, (count, length) in enumerate(zip(counts, lengths, strict=True))]
    merged = list(merge_batches(passes(given), at_a_time * batch(1, 0, 3).floats, sum(counts)))
    assert [where.start for where, _ in merged] == [0, *(where.stop for where, _ in merged[:-1])]
    assert all(where.stop - where.start == each.count for where, each in merged)
    assert max(each.count for _, each in merged) <= max(at_a_time * 2, *counts)
    assert len(merged) == 1 if at_a_time == 100 else len(merged) >= 2
    for name, expected in rows(given).items():
        np.testing.assert_array_equal(rows([each for _, each in merged])[name], expected)


def test_joined_batches_share_memory_that_has_room_for_their_rows_and_no_others():
    given = [batch(3, seed) for seed in range(4)]
    ((_, merged),) = merge_batches(passes(given), 10**9, 12)
    parts = [merged.terms["bias"][0].values, merged.terms["weight"][1].left, merged.terms["kernel"][0].inputs]
    assert all(part.untyped_storage().nbytes() == part.numel() * part.element_size() for part in parts)
    few = list(merge_batches(passes(given), 7 * given[0].floats, 12))
    assert [each.count for _, each in few] == [6, 6]
    kept = few[0][1].terms["bias"][0].values
    assert kept.untyped_storage().nbytes() <= 7 * 3 * kept.element_size()


def test_a_batch_is_free_before_the_next_one_is_captured():
    alive = []

    def captured():
        for seed in range(5):
            assert sum(each() is not None for each in alive) <= 1  # the first waits for a second
            new = batch(3, seed)
            alive.append(weakref.ref(new))
            yield slice(3 * seed, 3 * seed + 3), new
            del new

    assert [where for where, _ in merge_batches(captured(), 10**9, 15)] == [slice(0, 15)]
