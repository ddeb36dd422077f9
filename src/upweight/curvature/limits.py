"""Sizes up to which a network's curvature takes its exact forms."""

from __future__ import annotations

from dataclasses import dataclass

from upweight.gradients.held_numbers import MAX_HELD_NUMBERS


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Sizes up to which exact forms are used; beyond them the form is iterative, sampled or approximate.

    Attributes:
        dense_parameters: parameters up to which a matrix is assembled although no solver was named.
        head_parameters: the same for a net that is linear in its parameters, whose matrix takes no passes; 512 MB.
        matrix_parameters: parameters up to which `Direct()` assembles a matrix; 15,000 take 1.8 GB.
        dual_rows: rows of the dual form at most; the matrix of 8,000 takes 512 MB.
        dual_trace: the share of the trace Σ tr(wᵢΛᵢ) that the rows of the dual form hold.
        hessian_numbers: numbers that the output Hessians of all examples may take; 1 GB.
        held_numbers: captured numbers of the roots in memory while other rows stream past.
        sketch_rank: rank of the Nyström sketch that preconditions conjugate gradients. With 200 they take a third of
            the steps that EK-FAC needs, and they converge.
        sketch_numbers: numbers that this sketch may take; 512 MB in float32.
        exact_outputs: outputs of an example up to which the expectation over labels is exact.
        exact_numbers: captured numbers of all examples along all directions up to which it is exact as well.
        direction_groups: groups that an example's directions are summed in, if they are more numbers than that.
        eigenvalue_share: share of the examples that EK-FAC's eigenvalues are from, if directions are grouped.
        eigenvalue_examples: the least number of them.
        total_draws: random directions of all examples together, if an example has more outputs than that.
        draws_per_example: random directions of one example at most.
    """

    dense_parameters: int = 3000
    head_parameters: int = 8000
    matrix_parameters: int = 15_000
    dual_rows: int = 8000
    dual_trace: float = 0.998
    hessian_numbers: int = 1 << 27
    held_numbers: int = MAX_HELD_NUMBERS
    sketch_rank: int = 200
    sketch_numbers: int = 1 << 27
    exact_outputs: int = 256
    exact_numbers: int = 1 << 28
    direction_groups: int = 2
    eigenvalue_share: float = 0.25
    eigenvalue_examples: int = 100
    total_draws: int = 256
    draws_per_example: int = 4


DEFAULT_LIMITS = Limits()
