"""The saved state of a fit that is computed again from checkpoints: their identities."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from numpy.typing import NDArray

from upweight.core.checkpoints import Checkpoint


def checkpoint_state(checkpoints: Iterable[Checkpoint]) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """No arrays; the identities of the checkpoints, so that loading refuses other checkpoints."""
    return {}, {"checkpoints": [checkpoint.identity for checkpoint in checkpoints]}


def require_same_checkpoints(saved: Mapping[str, Any], fitted: Mapping[str, Any]) -> None:
    """Raise ValueError if the facts of a saved fit and those of this one name different checkpoints."""
    if saved["checkpoints"] != fitted["checkpoints"]:
        raise ValueError(
            f"fitted with other checkpoints ({saved['checkpoints']}, not {fitted['checkpoints']}); fit again"
        )
