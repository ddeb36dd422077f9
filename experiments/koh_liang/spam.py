"""Spam: mails as bags of lemmas."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS, CountVectorizer

WORD = re.compile(r"[^\W\d_]{2,}")
RULES = (
    *(("ies", "y"), ("sses", "ss"), ("ches", "ch"), ("shes", "sh"), ("xes", "x"), ("zes", "z"), ("s", "")),
    *(("ied", "y"), ("ed", "e"), ("ed", ""), ("ing", "e"), ("ing", "")),
)
COMMON = 5  # times that a shorter form must be seen to be a word


def lemmas(mails: list[str]) -> list[str]:
    """Each mail as its lemmas: words of letters, without stop words, endings taken off where that leaves a word."""
    words = [[w for w in WORD.findall(mail.lower()) if w not in ENGLISH_STOP_WORDS] for mail in mails]
    counts = Counter(word for mail in words for word in mail)
    lemma = {word: _lemma(word, counts) for word in counts}
    return [" ".join(lemma[word] for word in mail) for mail in words]


def _lemma(word: str, counts: Counter[str]) -> str:
    for ending, instead in RULES:
        stem = word[: len(word) - len(ending)] + instead
        if not word.endswith(ending) or len(stem) < 3 or word.endswith("ss"):
            continue
        if counts[stem] >= COMMON:
            return stem
        if not instead and stem[-1] == stem[-2] and counts[stem[:-1]] >= COMMON:
            return stem[:-1]  # running, dropped
    return word


def bags(mails: list[str], y: NDArray[Any], share: float) -> tuple[tuple[Any, NDArray[Any]], tuple[Any, NDArray[Any]]]:
    """((counts, labels) of the training share, the same of the rest), shuffled with seed 0."""
    order = np.random.RandomState(0).permutation(len(mails))
    mails, y, n = [mails[i] for i in order], y[order], int(share * len(mails))
    vectorizer = CountVectorizer(min_df=5)
    x = vectorizer.fit_transform(mails[:n]).astype(np.float64)
    return (x, y[:n]), (vectorizer.transform(mails[n:]).astype(np.float64), y[n:])
