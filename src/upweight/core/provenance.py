"""Provenance: which model and data a saved file or folder belongs to, and the refusal of any other."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from upweight.core.examples import Examples
from upweight.core.model import Measurable

# Inputs that are copied, so that a refusal can say that only their order differs:
MOST_BYTES_SORTED = 1 << 30
MOST_EXAMPLES_SORTED = 100_000  # if their bytes are not known, as those of files
WORDS = {
    "parameters": "other parameters",
    "data": "another training set",
    "order": "the same training examples in another order",
    "layers": "other layers",
    "queries": "another set of queries",
}


def identity_of(model: Measurable, train: Examples, queries: Examples | None = None) -> dict[str, str]:
    """The digests of a model's parts (`Measurable.identity`), of its training set (`data`) and of the queries.

    Raises:
        UnidentifiedError: they hold a value that cannot be compared.
    """
    of_queries = {} if queries is None else {"queries": queries.digest()}
    return {**model.identity(), "data": train.digest(), **of_queries}


def require_same(
    name: str | Path, stored: Mapping[str, Any], given: Mapping[str, str], advice: str, train: Examples | None = None
) -> None:
    """Raise ValueError if a saved result belongs to another model, other data or other settings, and say which.

    Args:
        name: the saved result, for the message.
        stored: the digests in it; `examples`, if it is there, is the one in the order of the ids.
        given: the digests of the model, data and settings passed by the caller.
        advice: what to do instead.
        train: the training set passed by the caller, to tell another order from other examples.
    """
    differ = [part for part in given if stored.get(part) != given[part]]
    if "data" in differ and train is not None:
        examples = stored.get("examples") or stored.get("data")
        if examples is not None and digest_in_order_of_ids(train) == examples:
            differ[differ.index("data")] = "order"
    others = [WORDS.get(part, f"another {part}") for part in differ]
    if others:
        raise ValueError(f"{name} was made with {_listed(others)} than those passed here; {advice}")


def digest_in_order_of_ids(train: Examples) -> str | None:
    """The digest of the examples in the order of their ids; None if they are too many to be copied for it.

    That of examples which are in this order is the digest of the training set.
    """
    order = np.argsort(train.ids, kind="stable")
    if (np.diff(order) == 1).all():
        return train.digest()
    size = getattr(train.x, "nbytes", None)
    is_small = len(train) <= MOST_EXAMPLES_SORTED if size is None else size <= MOST_BYTES_SORTED
    return train.take(order).digest() if is_small else None


def _listed(parts: list[str]) -> str:
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)
