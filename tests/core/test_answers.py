"""Blocks of scores: what does not fit is refused by everything that reads them."""

import numpy as np
import pytest

from support.overlap_method import Overlap, problem


def ways_to_ask(fitted, queries):
    """Everything that reads blocks: the matrix, its two ends, and what adds them up as they come."""
    return (lambda: fitted.attribute(queries), lambda: fitted.top(queries, 2), lambda: list(fitted.answer(queries)))


def test_a_block_that_never_comes_is_no_score():
    model, train, queries = problem(n=9, m=3)
    fitted = Overlap(block=4).fit(model, train)
    fitted.holes = True
    for ask in ways_to_ask(fitted, queries):
        with pytest.raises(ValueError, match="got none for 5 of them, the first at position 4"):
            ask()


WHOLE, M = slice(0, 9), np.zeros((3, 9))
MISFITS = {
    "transposed": ([(WHOLE, M.T)], ValueError, r"\(slice\(0, 9, None\), ndarray of shape \(9, 3\)\)"),
    "too narrow": ([(WHOLE, M[:, :8])], ValueError, r"got \(slice.* ndarray of shape \(3, 8\)\)"),
    "every second": ([(slice(0, 9, 2), M[:, :5])], ValueError, r"slice\(0, 9, 2\)"),
    "scores alone": ([M], TypeError, r"\(slice, array of shape \(m, block\)\), .* got ndarray of shape \(3, 9\)"),
    "positions": ([(np.arange(9), M)], TypeError, r"got \(ndarray of shape \(9,\), ndarray of shape \(3, 9\)\)"),
    "words": ([(WHOLE, M.astype(str))], TypeError, "expected blocks of Overlap"),
    "nothing": (None, TypeError, "expected blocks of Overlap as .* got None"),
    "twice": ([(WHOLE, M), (slice(4, 5), M[:, :1])], ValueError, "that at position 4 a second time, in slice"),
    "none": ([], ValueError, "expected blocks of Overlap for all 9 training examples, got none for 9"),
}


@pytest.mark.parametrize("misfit", MISFITS)
def test_blocks_of_another_form_are_refused_by_everything_that_reads_them(misfit, monkeypatch):
    blocks, kind, message = MISFITS[misfit]
    model, train, queries = problem(n=9, m=3)
    fitted = Overlap().fit(model, train)
    monkeypatch.setattr(fitted, "blocks", lambda queries: blocks)
    for ask in ways_to_ask(fitted, queries):
        with pytest.raises(kind, match=message):
            ask()


@pytest.mark.parametrize("where", [slice(None), slice(-9, None), slice(0, 12)])
def test_a_slice_may_be_written_in_any_way(where, monkeypatch):
    model, train, queries = problem(n=9, m=3)
    fitted = Overlap().fit(model, train)
    scores, top = fitted.attribute(queries), fitted.top(queries, 2)
    monkeypatch.setattr(fitted, "blocks", lambda queries: [(where, scores.values)])
    np.testing.assert_array_equal(fitted.attribute(queries).values, scores.values)
    np.testing.assert_array_equal(fitted.top(queries, 2).ids, top.ids)


def test_facts_of_an_answer_are_facts(monkeypatch):
    model, train, queries = problem(n=9, m=3)
    fitted = Overlap().fit(model, train)

    def blocks(queries):
        yield slice(0, 9), np.zeros((3, 9))
        return {"warnings": ["all is 0"]}

    monkeypatch.setattr(fitted, "blocks", blocks)
    for ask in ways_to_ask(fitted, queries):
        with pytest.raises(TypeError, match=r"to end with `return AnswerFacts\(…\)` or without .* type dict"):
            ask()
