"""Notes of methods that recompute the leaves of trees and leave their splits as they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def fixed_structure_facts(notes: Sequence[str]) -> dict[str, Any]:
    """Diagnostics with these notes of the model, and a warning that splits are held fixed."""
    warning = "Splits are held fixed: effects on the structure of the trees are left out."
    return {"fixed_structure": True, "warnings": [*notes, warning]}
