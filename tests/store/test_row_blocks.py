"""Products of pairs of factors and of plain numbers, and numbers in few bits."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

pytest.importorskip("torch")

from upweight.store import row_blocks
from upweight.store.encode_rows import decode_block, encode_block
from upweight.store.encodings.encoding import Layout
from upweight.store.factors import Factors
from upweight.store.quantisation import PRECISIONS, WORDS_AT_A_TIME, bytes_of, quantise, scale_bytes, unpacked
from upweight.store.row_blocks import Numbers, Pairs, products, times_sizes

RNG = np.random.default_rng(0)


def pairs(n, rank, p=5, q=7, scaled=True):
    sides = (RNG.normal(size=(n, rank, size)).astype(np.float32) for size in (p, q))
    return Pairs(*sides, RNG.uniform(1, 2, (n, rank)).astype(np.float32) if scaled else None)


@pytest.mark.parametrize("query", [pairs(3, 1), pairs(3, 2, scaled=False), Numbers(RNG.normal(size=(3, 35)))])
@pytest.mark.parametrize(
    "row", [pairs(4, 1), pairs(4, 6), pairs(4, 2, scaled=False), Numbers(RNG.normal(size=(4, 35)))]
)
def test_products_are_those_of_the_rows_multiplied_out(query, row):
    out = np.ones((3, 4), np.float32)
    products(query, row, out)
    np.testing.assert_allclose(out, 1 + query.matrix() @ row.matrix().T, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("rank", [1, 2])
def test_products_leave_out_where_terms_are_zero_and_nothing_else(rank):
    u, v = np.ones((3, 40), np.float32), RNG.normal(size=(3, 50)).astype(np.float32)
    u[0, :9], v[1, 20:], u[2], u[1, 5] = 0, 0, 0, 0
    factors = Factors((u.T @ v).astype(np.float64), (0.0, 0.0), (np.ones(40), np.ones(50)))
    vars(factors)["terms"] = u, v
    block, row = pairs(3, rank, 40, 50), pairs(4, 2, 40, 50)
    query = block.times(factors)
    spans = [(slice(9, 40), slice(0, 50)), (slice(0, 40), slice(0, 20)), (slice(0, 0), slice(0, 50))]
    assert isinstance(query, Pairs) and [span for span, *_ in query.terms()] == spans * rank
    assert query.multiplications == rank * (31 + 50 + 40 + 20 + 50)
    np.testing.assert_allclose(query.matrix(), block.matrix() * factors.flat, rtol=1e-4, atol=1e-4)
    for kept in (query, query.take([2, 0]), times_sizes(query, np.full(40, 2.0), np.full(50, 0.5))):
        assert [span for span, *_ in kept.terms()] == spans * rank
        out, turned = np.zeros((len(kept), 4), np.float32), np.zeros((4, len(kept)), np.float32)
        products(kept, row, out)
        products(row, kept, turned)
        np.testing.assert_allclose(out, kept.matrix() @ row.matrix().T, rtol=1e-4, atol=1e-3)
        np.testing.assert_allclose(turned, out.T, rtol=1e-4, atol=1e-3)
        twice = np.zeros((len(kept), 3), np.float32)
        products(kept, query, twice)
        np.testing.assert_allclose(twice, kept.matrix() @ query.matrix().T, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kind", [np.int8, np.float32])
def test_products_leave_out_numbers_that_are_zero_in_all_queries(kind, monkeypatch):
    monkeypatch.setattr(row_blocks, "NUMBERS_AT_A_TIME", 200)
    monkeypatch.setattr(row_blocks, "SHORTEST_GAP", 16)
    query, rows = RNG.normal(size=(3, 120)).astype(np.float32), RNG.integers(-3, 4, (70, 120)).astype(kind)
    query[:, :10] = query[:, 50:52] = query[:, 60:100] = 0.0  # two numbers are too few to be left out
    rows[:, 60:100] = 100  # whatever they are
    assert row_blocks._used(query) == [slice(10, 60), slice(100, 120)]
    out = np.zeros((3, 70), np.float32)
    products(Numbers(query), Numbers(rows), out)
    np.testing.assert_allclose(out, query @ rows.astype(np.float32).T, rtol=1e-4, atol=1e-4)
    nothing = np.zeros((3, 70), np.float32)
    products(Numbers(np.zeros_like(query)), Numbers(rows), nothing)
    assert (nothing == 0).all()


def test_the_smallest_factors_of_numbers_are_left_out_within_the_tolerance():
    sizes = np.arange(1, 41) ** -2.0, np.arange(1, 51) ** -2.0
    values = 1 / (np.outer(*sizes) + 1e-3)
    flat = Factors(values, (1e-2, 1e-2), sizes).flat.astype(np.float64).reshape(40, 50)
    weighted, rest = np.outer(*sizes) * values, np.outer(*sizes) * (values - flat)
    assert 5e-3 * np.linalg.norm(weighted) <= np.linalg.norm(rest) <= 1.001e-2 * np.linalg.norm(weighted)
    assert np.count_nonzero(flat) < 0.5 * flat.size
    for kept in (Factors(values, (0.0, 0.0), sizes), Factors(values, (1e-2, 1e-2), sizes, is_dense=False)):
        np.testing.assert_array_equal(kept.flat, values.ravel().astype(np.float32))


@pytest.mark.parametrize("kind", [np.int8, np.float16, np.float32])
def test_products_with_numbers_of_a_file_are_those_in_double_precision_for_any_number_of_parts(kind, monkeypatch):
    monkeypatch.setattr(row_blocks, "LEAST_ROWS", 3)
    monkeypatch.setattr(row_blocks, "NUMBERS_AT_A_TIME", 1)
    rows = Numbers(RNG.integers(-3, 4, (10, 35)).astype(kind), RNG.uniform(1, 2, 10).astype(np.float32))
    query, out = Numbers(RNG.normal(size=(4, 35)).astype(np.float32)), np.zeros((4, 10), np.float32)
    products(query, rows, out)
    exact = query.values.astype(np.float64) @ (rows.values.astype(np.float64) * rows.scale[:, None]).T
    assert np.abs(out - exact).max() < 1e-6 * np.abs(exact).max()


def test_three_bits_are_decoded_from_any_rows_and_beyond_one_part_of_them():
    levels = RNG.integers(-3, 4, (2 * WORDS_AT_A_TIME // 3, 29)).astype(np.int8)
    levels[:, 0] = 3
    arrays = quantise(levels.astype(np.float32), "int3")
    for part in (slice(None), slice(1, None, 2), slice(-1, None), slice(0)):
        decoded, _ = unpacked({"numbers": arrays["numbers"][part]}, 29, "int3")
        np.testing.assert_array_equal(decoded, levels[part])


def test_products_do_not_depend_on_torchs_default_type_nor_need_numbers_that_can_be_written_to():
    import torch

    query, row = pairs(3, 1), pairs(4, 1)
    for side in (query.left, query.right, query.scale, row.left, row.right, row.scale):
        side.flags.writeable = False
    out, before = np.zeros((3, 4), np.float32), torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            products(query, row, out)
    finally:
        torch.set_default_dtype(before)
    np.testing.assert_allclose(out, query.matrix() @ row.matrix().T, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("rank", [1, 3])
def test_factors_multiply_every_row_and_stay_pairs_if_few_terms_make_them_up(rank):
    block, rows, ones = pairs(4, rank, 40, 40), pairs(6, 1, 40, 40), (np.ones(40), np.ones(40))
    values = np.outer(RNG.uniform(1, 9, 40), RNG.uniform(1, 9, 40))
    for factors, tolerance, form in ((1 / values, 1e-6, Pairs), (1 / (values + 1), 1e-7, None)):
        scaled, out = block.times(Factors(factors, (tolerance, tolerance), ones)), np.zeros((4, 6), np.float32)
        expected = block.matrix() * factors.ravel()
        np.testing.assert_allclose(scaled.matrix(), expected, atol=1e-5 * np.abs(expected).max())
        products(scaled, rows, out)
        expected = expected @ rows.matrix().T
        np.testing.assert_allclose(out, expected, atol=1e-4 * np.abs(expected).max())
        assert form is None or isinstance(scaled, form)


def test_sizes_multiply_both_forms_alike():
    block, sizes = pairs(4, 2), (RNG.uniform(1, 2, 5), RNG.uniform(1, 2, 7))
    numbers = times_sizes(Numbers(block.matrix()), *sizes)
    np.testing.assert_allclose(times_sizes(block, *sizes).matrix(), numbers.matrix(), rtol=1e-4)


@pytest.mark.parametrize("precision", [precision for precision in PRECISIONS if precision != "int3"])
@pytest.mark.parametrize("count", [1, 6, 7])
def test_numbers_come_back_within_half_a_step_and_take_the_bytes_that_are_said(precision, count):
    values = (10.0 ** RNG.uniform(-30, 6, (5, 3, 1)) * RNG.normal(size=(5, 3, count))).astype(np.float32)
    values[0, 0] = 0.0
    arrays = quantise(values, precision)
    numbers, scale = unpacked(arrays, count, precision)
    restored = numbers.astype(np.float32) * (1 if scale is None else scale[..., None])
    steps = {"float32": 1e9, "float16": 2**11, "int8": 254, "int4": 14}[precision]
    assert (np.abs(restored - values) <= np.abs(values).max(-1, keepdims=True) * (1.001 / steps)).all()
    assert sum(array.nbytes for array in arrays.values()) == 15 * (bytes_of(count, precision) + scale_bytes(precision))


@pytest.mark.parametrize("count", [1, 7, 8, 21, 64])
def test_three_bits_keep_their_levels_and_cut_large_numbers_if_that_leaves_less_error(count):
    levels = RNG.integers(-3, 4, (5, 3, count))
    levels[..., 0] = 3
    arrays = quantise(levels.astype(np.float32), "int3")
    np.testing.assert_array_equal(unpacked(arrays, count, "int3")[0], levels)
    np.testing.assert_array_equal(arrays["scale"], 1.0)
    assert sum(array.nbytes for array in arrays.values()) == 15 * (bytes_of(count, "int3") + scale_bytes("int3"))
    values = np.random.default_rng(1).standard_t(4, size=(200, count)).astype(np.float32)
    values[0] = 0.0
    arrays = quantise(values, "int3")
    numbers, scale = unpacked(arrays, count, "int3")
    largest = np.abs(values).max(axis=1, keepdims=True)
    plain = np.rint(values / np.maximum(largest / 3, 1e-30)) * largest / 3
    error, error_without_cuts = (((part - values) ** 2).sum(axis=1) for part in (numbers * scale[:, None], plain))
    assert (error <= 1.0001 * error_without_cuts + 1e-12).all()
    assert count < 64 or error.sum() < 0.75 * error_without_cuts.sum()


def test_pairs_keep_one_scale_and_those_of_older_stores_are_read():
    left, right = RNG.normal(size=(4, 2, 5)), RNG.normal(size=(4, 2, 7))
    block, layout, ids = Pairs(left, right), Layout("pairs", 5, 7, 2), np.arange(4)
    arrays = encode_block("w", block, "int8", ids)
    assert set(arrays) == {"w/left/numbers", "w/right/numbers", "w/left/scale"}
    assert sum(array.nbytes for array in arrays.values()) == 4 * layout.bytes("int8")
    matrix = decode_block("w", arrays, layout, "int8").matrix()
    np.testing.assert_allclose(matrix, block.matrix(), atol=0.02 * np.abs(block.matrix()).max())
    older = arrays | {"w/right/scale": np.full((4, 2), 2.0, np.float32)}
    np.testing.assert_allclose(decode_block("w", older, layout, "int8").matrix(), 2 * matrix)


def test_no_factor_is_left_out_that_counts_by_eigenvalues_or_by_their_roots():
    eigenvalues = np.arange(1, 41) ** -2.0, np.arange(1, 51) ** -2.0
    product = np.outer(*eigenvalues)
    values = 1 / (product + 1e-5)  # the directions of the largest eigenvalues have the smallest factors
    flat = (
        Factors(values, (1e-2, 1e-2), (eigenvalues[0] ** 0.5, eigenvalues[1] ** 0.5))
        .flat.astype(np.float64)
        .reshape(40, 50)
    )
    assert np.count_nonzero(flat) < flat.size
    for weights in (product, product**0.5):
        assert np.linalg.norm(weights * (values - flat)) <= 1.001e-2 * np.linalg.norm(weights * values)
