"""Seeds for estimators: clones whose every source of random numbers has a seed."""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

MAX_SEED = 2**31 - 1
SETTING = "random_state"


def random_states(estimator: Any) -> dict[str, Any]:
    """The settings of the estimator and of those inside it that hold a random state: name → value."""
    settings = estimator.get_params(deep=True)
    return {name: value for name, value in settings.items() if name.rpartition("__")[2] == SETTING}


def is_seeded(estimator: Any) -> bool:
    """Whether every random state in the estimator is a whole number, so that its own training can be repeated."""
    return all(isinstance(state, int | np.integer) for state in random_states(estimator).values())


def seeded_clone(estimator: Any, seed: int) -> Any:
    """A clone that is not fitted. Seed 0 keeps random states that are numbers; every other seed replaces them all."""
    from sklearn.base import clone

    new = clone(estimator)
    states = random_states(new)
    changed = {
        name: _derived(name, state, seed)
        for name, state in states.items()
        if seed != 0 or not isinstance(state, int | np.integer)
    }
    return new.set_params(**changed) if changed else new


@contextmanager
def seeded_globally(seed: int) -> Iterator[None]:
    """Seed the random numbers that numpy and Python share among all callers; afterwards they are as they were.

    Splitters of cross-validation without a seed, and estimators without `random_state`, draw from them.
    """
    numpy_state, python_state = np.random.get_state(), random.getstate()
    np.random.seed(_derived("global", None, seed))
    random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(numpy_state)
        random.setstate(python_state)


def _derived(name: str, state: Any, seed: int) -> int:
    """A seed that follows from the setting's name, from its own number if it has one, and from `seed`."""
    own = int(state) if isinstance(state, int | np.integer) else 0
    return int(np.random.default_rng([seed, own % 2**32, zlib.crc32(name.encode())]).integers(MAX_SEED))
