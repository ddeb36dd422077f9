"""The refusal of models that hold functions which pickle cannot store."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from typing import Any


def require_picklable(owner: str, parts: Mapping[str, Any]) -> None:
    """Raise TypeError that names the part of the owner that pickle cannot take, and what to do instead."""
    for name, part in parts.items():
        try:
            pickle.dumps(part)
        except (pickle.PicklingError, AttributeError, TypeError, ValueError) as error:
            raise TypeError(
                f"the {name} of this {owner} cannot be pickled ({error}): define its functions with def at the top "
                "level of a module. Without pickle, scores.save and fitted.save keep results, and recipe.load reads "
                "a fit again for the same model"
            ) from error
