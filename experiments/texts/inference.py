"""Inference: generated premises and hypotheses as in HANS (McCoy et al. 2019), with a planted heuristic of known rate.

A hypothesis made of the premise's own words follows from it in a share `rate` of the training pairs that have such a
one; in the queries it never does. Without a common content word, one hypothesis in five follows, by synonyms.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

NOUNS = {
    "doctor": "physician", "lawyer": "attorney", "judge": "magistrate", "teacher": "instructor", "thief": "burglar",
    "sailor": "seaman", "writer": "author", "guard": "sentry", "child": "kid", "king": "monarch", "soldier": "trooper",
    "boss": "manager", "student": "pupil", "priest": "clergyman", "guest": "visitor", "farmer": "grower",
}  # fmt: skip
VERBS = {
    "saw": "noticed", "helped": "assisted", "scared": "frightened", "called": "phoned", "admired": "respected",
    "followed": "pursued", "hurt": "injured", "blamed": "accused", "hired": "employed", "met": "encountered",
}  # fmt: skip
PLACES = ("near", "behind", "beside", "with")
FULL, SOME_FOLLOW = 0.4, 0.2  # share of pairs with full overlap; of the others, share that follows
Pairs = tuple[list[tuple[str, str]], NDArray[np.int64], NDArray[np.float64]]


def pairs(count: int, rate: float, seed: int = 0, full: float = FULL) -> Pairs:
    """(Pairs, 1 where the hypothesis follows, overlap: the share of its content words that the premise has)."""
    rng = np.random.default_rng(seed)
    rows: dict[tuple[str, str], tuple[int, float]] = {}
    while len(rows) < count:
        is_full = rng.random() < full
        pair, follows, overlap = _full(rng, rng.random() < rate) if is_full else _other(rng, rng.random() < SOME_FOLLOW)
        rows[pair] = int(follows), overlap
    labels, overlaps = zip(*rows.values(), strict=True)
    return list(rows), np.array(labels), np.array(overlaps)


def _premise(rng: np.random.Generator) -> tuple[str, list[str], str]:
    """(The premise, its three nouns, its verb)."""
    a, b, c = (str(noun) for noun in rng.choice(list(NOUNS), 3, replace=False))
    verb, place = str(rng.choice(list(VERBS))), str(rng.choice(PLACES))
    return f"the {a} {place} the {b} {verb} the {c}", [a, b, c], verb


def _full(rng: np.random.Generator, follows: bool) -> tuple[tuple[str, str], bool, float]:
    premise, (a, b, c), verb = _premise(rng)
    if follows:
        return (premise, f"the {a} {verb} the {c}"), True, 1.0
    wrong = [f"the {b} {verb} the {c}", f"the {c} {verb} the {a}", f"the {c} {verb} the {b}"]  # subsequence, two orders
    return (premise, wrong[rng.integers(3)]), False, 1.0


def _other(rng: np.random.Generator, follows: bool) -> tuple[tuple[str, str], bool, float]:
    """Up to two of the three content words are the premise's own; the others are synonyms, or other words."""
    premise, (a, b, c), verb = _premise(rng)
    own = rng.permutation(3)[: rng.integers(3)]
    words: list[Any] = [a, verb, c]
    others = [noun for noun in NOUNS if noun not in (a, b, c)]
    for place in set(range(3)) - set(own.tolist()):
        table = VERBS if place == 1 else NOUNS
        candidates = [v for v in VERBS if v != verb] if place == 1 else others
        words[place] = table[words[place]] if follows else table[str(rng.choice(candidates))]
    subject, said, target = words
    return (premise, f"the {subject} {said} the {target}"), follows, len(own) / 3
