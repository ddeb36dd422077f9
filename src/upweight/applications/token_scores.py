"""Token scores: which tokens of the strongest training sequences a query owes its behaviour to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from upweight.applications.explain import Explanation
from upweight.applications.token_scores_result import KINDS, SequenceTokens, TokenScores, TokenText
from upweight.core.attributor import Fitted
from upweight.core.blocks import blocks, require_count
from upweight.core.capability_checks import require
from upweight.core.choices import require_choice
from upweight.core.examples import Examples, Id
from upweight.core.library_calls import with_gradients
from upweight.core.scores import Unit
from upweight.core.token_scoring import LinearScores, ScoreDirection, Span, Split, TokenDifferentiable, TokenProducts

Array = NDArray[np.float64]
Decode = Callable[[NDArray[Any]], Sequence[str]]
CONTEXT = 4  # tokens before a token with which it is decoded
QUERY_BLOCK = 8  # queries whose vectors of all parameters are held at once
SUM_TOLERANCE = 1e-3  # relative difference between a score and the sum over its tokens above which there is a warning


@with_gradients()
def token_scores(
    fitted: Fitted[Any, Any] | Explanation,
    queries: Examples | None = None,
    *,
    k: int = 10,
    train: Sequence[Id] | None = None,
    by: Split = "target",
    span: Span | None = None,
    tokens: Any = None,
) -> TokenScores:
    """Split the score of a query's strongest training sequences over the tokens of these sequences.

    With v the vector of the query (for influence (H + λ)⁻¹∇m), the score of token t of sequence i is −vᵀ∇ℓ_it. By
    "target", ℓ_it is the loss of predicting token t, by one forward-mode pass per query and batch. By "position", ∇ℓ_it
    is what position t of the computation contributes to the gradient of the whole loss, by one backward pass. Both are
    exact and add up to the score of the sequence, but they differ: the loss of a token reaches earlier positions
    through attention.

    Args:
        fitted: a fitted method on a model with a `TokenLoss`, or what `explain` returned. Methods whose scores are
            products with loss gradients: `Influence` without corrections, `RelatIF`, `GradDot`, `TracIn`, `SOURCE`.
        queries: the queries; None for those of the explanation.
        k: how many training sequences per query, those with the largest |score|.
        train: ids of the training sequences instead of the strongest.
        by: "target" or "position".
        span: (start, stop) of the query's tokens whose log-probability is measured; None for the fit's measurement.
        tokens: a tokenizer of transformers, or a function that returns one text per token id of an array; None takes
            the tokenizer of examples that `uw.hf` made, else shows the ids.

    Raises:
        TypeError: a method whose scores are not such products, or a model whose loss is not known token by token.
        ValueError: an unknown kind or span, or k below 1.
        KeyError: an unknown training id.
    """
    method, queries = _method(fitted, queries)
    require_choice("by", by, *KINDS)
    if span is not None and not (isinstance(span, Sequence) and len(span) == 2 and 0 <= span[0] < span[1]):
        raise ValueError(f"expected span=(start, stop) with 0 ≤ start < stop, got {span!r}")
    require_count("k", k)
    require(method.model, [TokenDifferentiable], "token_scores", method.train, queries)
    method.require_unchanged()
    decode = _decoder(getattr(method.train.shown, "tokenizer", None) if tokens is None else tokens)
    strongest = _Strongest.of(method, queries, k, span, None if train is None else method.train.positions(train))
    texts, sequences, measured = _texts(method, queries, decode), {}, method.model.measurement
    for position, query in enumerate(queries.ids.tolist()):
        directions = method.score_directions(queries.take([position]), span)
        measured = directions[0].model.measurement
        row = strongest.positions[position], strongest.scores[position]
        sequences[query] = tuple(_sequences(method, directions, row, by, decode))
        if by == "target" and len(texts[query]):
            values = _query_values(method, queries.take([position]), row, span)
            texts[query] = replace(texts[query], values=values)
    return TokenScores(
        by=by,
        queries=texts,
        sequences=sequences,
        span=span,
        measurement=measured,
        unit=strongest.unit,
        recipe=method.recipe.described(),
        train=method.train,
        query_examples=queries,
        diagnostics={"warnings": [*strongest.warnings, *_unequal(sequences)]},
    )


def _method(given: Any, queries: Examples | None) -> tuple[LinearScores[Any, Any], Examples]:
    """The fitted method and the queries. Raises TypeError for anything else."""
    if isinstance(given, Explanation):
        queries = given.queries if queries is None else queries
        if given.fitted is None:
            raise TypeError("this explanation holds no fitted method; pass recipe.fit(model, train) instead")
        given = given.fitted
    if not isinstance(given, Fitted):
        raise TypeError(f"expected a fitted method or what uw.explain returned, got {type(given).__name__}")
    if not isinstance(given, LinearScores):
        raise TypeError(
            f"the scores of {type(given.recipe).__name__} are not products with loss gradients, so that no token has a "
            "part of them; use Influence(curvature=uw.EKFAC()), RelatIF, GradDot, TracIn or SOURCE"
        )
    return given, given.require_queries(queries)


@dataclass(frozen=True, eq=False)
class _Strongest:
    """The training sequences whose tokens are scored: positions (m, k) in the training set, scores (m, k)."""

    positions: NDArray[np.intp]
    scores: Array
    unit: Unit
    warnings: Sequence[str]

    @classmethod
    def of(
        cls,
        method: LinearScores[Any, Any],
        queries: Examples,
        k: int,
        span: Span | None,
        wanted: NDArray[np.intp] | None,
    ) -> _Strongest:
        """The examples with the largest |score|, or the wanted ones in their order."""
        train = method.train
        if span is not None:
            every = np.arange(len(train)) if wanted is None else wanted
            examples, scores = train.take(every), np.zeros((len(queries), len(every)))
            for block in blocks(len(queries), QUERY_BLOCK):
                part = queries.take(np.arange(block.start, block.stop))
                for model, vectors in method.score_directions(part, span):
                    scores[block] -= model.loss_rows(examples).project(np.ascontiguousarray(vectors.T)).T
            scores *= method.row_scales(every)
            positions, unit = np.broadcast_to(every, scores.shape), method.unit
            warnings: Sequence[str] = method.diagnostics.get("warnings", ())
        elif wanted is not None:
            answer = method.selected(queries, train.ids[wanted])
            positions, scores = np.broadcast_to(wanted, answer.values.shape), answer.values
            unit, warnings = answer.unit, answer.diagnostics["warnings"]
        else:
            top = method.top(queries, k)
            positions = train.positions(top.ids.ravel()).reshape(top.ids.shape)
            scores, unit, warnings = top.values, top.unit, top.diagnostics["warnings"]
        if wanted is None:
            order = np.argsort(-np.abs(scores), axis=1, kind="stable")[:, :k]
            positions, scores = np.take_along_axis(positions, order, 1), np.take_along_axis(scores, order, 1)
        return cls(positions, scores, unit, warnings)


def _texts(
    method: LinearScores[Any, Any], queries: Examples, decode: Callable[[NDArray[Any]], tuple[str, ...]]
) -> dict[Id, TokenText]:
    """The texts of the queries; a measurement of the parameters alone has none."""
    if method.model.parameter_query() is not None:
        return {query: TokenText((), np.zeros(0, dtype=bool)) for query in queries.ids.tolist()}
    texts = method.model.token_ids(queries)
    return {q: TokenText(decode(ids), targets) for q, (ids, targets) in zip(queries.ids.tolist(), texts, strict=True)}


def _sequences(
    fitted: LinearScores[Any, Any],
    directions: Sequence[ScoreDirection],
    scored: tuple[NDArray[np.intp], Array],
    by: Split,
    decode: Callable[[NDArray[Any]], tuple[str, ...]],
) -> list[SequenceTokens]:
    """The training sequences with the scores of their tokens."""
    positions, scores = scored
    examples, scales = fitted.train.take(positions), fitted.row_scales(positions)
    parts: list[Sequence[TokenProducts]] = [
        cast(TokenDifferentiable, direction.model).token_products(examples, direction.vectors[0], by)
        for direction in directions
    ]
    out = []
    for i, (identifier, score, scale) in enumerate(zip(examples.ids.tolist(), scores, scales, strict=True)):
        values = -sum(part[i].values for part in parts) * scale
        rest = -sum(part[i].rest for part in parts) * scale
        text = TokenText(decode(parts[0][i].ids), parts[0][i].targets)
        out.append(SequenceTokens(identifier, float(score), text, np.asarray(values), float(rest)))
    return out


def _query_values(
    method: LinearScores[Any, Any], query: Examples, scored: tuple[NDArray[np.intp], Array], span: Span | None
) -> Array | None:
    """The sum of these scores, split over the target tokens of the query; None if it is not a sum over them."""
    positions, scores = scored
    directions = method.joint_directions(positions)
    if directions is None:
        return None
    plain = query.replaced(weights=None)
    values = sum(
        cast(TokenDifferentiable, model).token_products(plain, vectors[0], "target")[0].values
        for model, vectors in directions
    )
    values = np.asarray(values)
    if span is not None:
        outside = np.ones(len(values), dtype=bool)
        outside[slice(*span)] = False
        values[outside] = 0.0
    adds_up = abs(values.sum() - scores.sum()) <= SUM_TOLERANCE * float(np.abs(scores).sum())
    return values if adds_up else None


def _decoder(tokens: Any) -> Callable[[NDArray[Any]], tuple[str, ...]]:
    """Token ids → one readable text per token."""
    if tokens is None:
        return lambda ids: tuple(f"{token} " for token in ids.tolist())
    if hasattr(tokens, "decode") and hasattr(tokens, "convert_ids_to_tokens"):
        return partial(_pieces, tokens)
    if not callable(tokens):
        raise TypeError(f"expected a tokenizer, or a function of token ids (L,) that returns L texts, got {tokens!r}")

    def decode(ids: NDArray[Any]) -> tuple[str, ...]:
        texts = tuple(map(str, tokens(ids)))
        if len(texts) != len(ids):
            raise ValueError(f"expected `tokens` to return one text per token id ({len(ids)}), got {len(texts)}")
        return texts

    return decode


def _pieces(tokenizer: Any, ids: NDArray[Any]) -> tuple[str, ...]:
    """The piece of the text that each token adds, with the space before a word, which a single token lacks."""

    def read(tokens: list[int]) -> str:
        return str(tokenizer.decode(tokens, skip_special_tokens=False, clean_up_tokenization_spaces=False))

    tokens, pieces = ids.tolist(), []
    for place, token in enumerate(tokens):
        before = read(tokens[max(0, place - CONTEXT) : place]) if place else ""
        text = read(tokens[max(0, place - CONTEXT) : place + 1])
        pieces.append(text[len(before) :] if text.startswith(before) else read([token]))
    return tuple(pieces)


def _unequal(sequences: dict[Id, tuple[SequenceTokens, ...]]) -> list[str]:
    """A warning if tokens do not add up to the score of their sequence."""
    pairs = [s for each in sequences.values() for s in each]
    size = max((abs(s.score) for s in pairs), default=0.0)
    worst = max((abs(s.total - s.score) for s in pairs), default=0.0)
    if worst <= SUM_TOLERANCE * size:
        return []
    return [
        f"The tokens of a sequence add up to its score only within {worst / size:.1g} of the largest score: the net "
        "computes in low precision, or the loss of a sequence is not the sum of its token losses."
    ]
