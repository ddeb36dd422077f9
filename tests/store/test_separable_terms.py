"""Factors as sums of outer products: as exact as asked, and with fewer products where a side is cut."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from upweight.store.separable_terms import separable_terms


def left_out(factors, weights, terms):
    """The share of the factors that the terms leave out, in the norm with these weights."""
    of_left, of_right = weights
    whole = of_left[:, None] * factors * of_right
    rest = of_left[:, None] * (terms[0].astype(np.float64).T @ terms[1].astype(np.float64) - factors) * of_right
    return np.linalg.norm(rest) / np.linalg.norm(whole)


def inverse(left, right):
    """1/(λλ' + damping) of eigenvalues in descending order, and their roots as weights."""
    return 1 / (np.outer(left, right) + 1e-4), (np.sqrt(left), np.sqrt(right))


def test_the_terms_of_shifted_products_are_few():
    rng = np.random.default_rng(0)
    factors, weights = inverse(*(np.sort(10.0 ** -rng.uniform(0, 4, 64))[::-1] for _ in range(2)))
    for tolerance, most in ((3e-2, 6), (3e-3, 9), (1e-7, 25)):
        terms = separable_terms(factors, [tolerance], weights)
        assert len(terms[0]) <= most
        assert left_out(factors, weights, terms) <= 1.01 * (tolerance + 1e-6)


@pytest.mark.parametrize("transposed", [False, True])
def test_a_long_side_of_small_eigenvalues_takes_half_of_the_products(transposed):
    factors, weights = inverse(np.arange(1, 49) ** -1.5, np.arange(1, 1201) ** -1.5)
    sizes = np.linalg.svd(weights[0][:, None] * factors * weights[1], compute_uv=False)
    whole = next(rank for rank in range(49) if np.linalg.norm(sizes[rank:]) <= 3e-3 * np.linalg.norm(sizes))
    if transposed:
        factors, weights = factors.T, weights[::-1]
    terms = separable_terms(factors, [3e-3], weights)
    assert left_out(factors, weights, terms) <= 3.1e-3
    assert sum(np.count_nonzero(side) for side in terms) < 0.6 * whole * (48 + 1200)


def test_terms_that_are_about_the_largest_eigenvalues_end_after_them():
    sizes, noise = np.arange(1, 97) ** -1.5, np.random.default_rng(0).lognormal(0, 0.5, (96, 96))
    eigenvalues = np.outer(sizes, sizes) * noise  # as EK-FAC has them: no products of two
    factors, weights = 1 / (eigenvalues + 1e-4), (np.sqrt(sizes), np.sqrt(sizes))
    singular = np.linalg.svd(weights[0][:, None] * factors * weights[1], compute_uv=False)
    whole = next(rank for rank in range(97) if np.linalg.norm(singular[rank:]) <= 3e-2 * np.linalg.norm(singular))
    terms = separable_terms(factors, [3e-2], weights)
    assert left_out(factors, weights, terms) <= 3.01e-2
    assert sum(np.count_nonzero(side) for side in terms) < 0.7 * whole * (96 + 96)


@settings(deadline=None, max_examples=60)
@given(
    shape=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    tolerance=st.sampled_from([1e-7, 3e-4, 3e-2]),
    seed=st.integers(0, 10**6),
)
def test_the_terms_keep_to_the_tolerance_for_any_matrix(shape, tolerance, seed):
    rng = np.random.default_rng(seed)
    factors = rng.normal(size=shape) * 10.0 ** rng.uniform(-3, 3, shape)
    weights = rng.uniform(0.01, 1, shape[0]), rng.uniform(0.01, 1, shape[1])
    terms = separable_terms(factors, [tolerance], weights)
    assert terms[0].shape[1:] == shape[:1] and terms[1].shape[1:] == shape[1:]
    assert len(terms[0]) == len(terms[1]) >= 1
    assert left_out(factors, weights, terms) <= 1.001 * tolerance + 2e-6


@pytest.mark.parametrize("transposed", [False, True])
def test_the_terms_keep_to_the_tolerance_in_every_norm(transposed):
    rng = np.random.default_rng(0)
    sizes = 10.0 ** -np.linspace(0, 6, 40), 10.0 ** -np.linspace(0, 8, 90)
    eigenvalues = np.outer(*sizes) * rng.lognormal(0, 0.5, (40, 90))
    factors, weights = 1 / (eigenvalues + 1e-12), tuple(np.sqrt(side) for side in sizes)  # hardly any damping
    norms = [np.outer(*weights), eigenvalues]
    if transposed:
        factors, weights, norms = factors.T, weights[::-1], [norm.T for norm in norms]
    for terms, is_kept in (
        (separable_terms(factors, [3e-2], weights), [True, False]),
        (separable_terms(factors, [3e-2, 1e-2], weights, norms), [True, True]),
        (separable_terms(factors, [3e-2, 0.9], weights, norms), [True, False]),
    ):
        rest = terms[0].astype(np.float64).T @ terms[1].astype(np.float64) - factors
        errors = [np.linalg.norm(norm * rest) / np.linalg.norm(norm * factors) for norm in norms]
        assert [error <= limit for error, limit in zip(errors, (3.01e-2, 1.01e-2), strict=True)] == is_kept


@pytest.mark.parametrize(("decades", "power", "share"), [(1, 0.0, 0.98), (1, 0.5, 0.999), (2, 0.25, 0.98)])
def test_factors_that_one_term_nearly_makes_up_take_few_more_for_a_norm_that_differs_from_the_weights(
    decades, power, share
):
    sizes = 10.0 ** -np.linspace(0, decades, 64)
    product = np.outer(sizes, sizes)
    factors = product**-0.25 * np.random.default_rng(0).lognormal(0, 0.04, (64, 64))  # what noise keeps is all alike
    left, singular, right = np.linalg.svd(product * factors)
    one, norm = singular[0] * np.outer(left[:, 0], right[0]) / product, product**power
    of_one = np.linalg.norm(norm * (one - factors)) / np.linalg.norm(norm * factors)
    u, v = separable_terms(factors, [share * of_one], (sizes, sizes), [norm])
    rest = u.astype(np.float64).T @ v.astype(np.float64) - factors
    assert np.linalg.norm(norm * rest) <= 1.001 * share * of_one * np.linalg.norm(norm * factors)
    assert np.count_nonzero(u) + np.count_nonzero(v) < 0.2 * factors.size
