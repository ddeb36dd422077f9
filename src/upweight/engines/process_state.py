"""Settings of this process on which results depend, so that a worker computes what this process would."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from typing import Any

import numpy as np

logger = logging.getLogger("upweight")

# Read once, when a library is loaded; limits that are set later do not reach every library.
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)


TORCH_DEFAULTS = {
    "dtype": "torch.float32",
    "device": "cpu",
    "gradients": "True",
    "deterministic": "False",
    "warn_only": "False",
    "precision": "highest",
    "mkldnn": "True",
    "cudnn": str({"enabled": True, "deterministic": False, "benchmark": False, "allow_tf32": True}),
}


def environment(threads: int) -> dict[str, str]:
    """The environment of a worker whose libraries start this many threads."""
    return {**os.environ, **dict.fromkeys(THREAD_VARIABLES, str(threads))}


def read_state() -> dict[str, Any]:
    """The settings of this process, to be sent to a worker."""
    state: dict[str, Any] = {
        "warnings": list(warnings.filters),
        "numpy": np.geterr(),
        "level": logger.getEffectiveLevel(),
        "recursion": sys.getrecursionlimit(),
        "arguments": list(sys.argv),
        "environment": {name: value for name, value in os.environ.items() if name not in THREAD_VARIABLES},
    }
    # A library whose settings are as it has them by itself is not mentioned, since a worker would have to import it.
    if "sklearn" in sys.modules:
        config, initial = sys.modules["sklearn"].get_config(), sys.modules.get("sklearn._config")
        if config != getattr(initial, "_global_config", None):
            state["sklearn"] = config
    if hasattr(sys.modules.get("torch"), "get_default_dtype"):
        settings = _read_torch(sys.modules["torch"])
        if {name: str(value) for name, value in settings.items()} != TORCH_DEFAULTS:
            state["torch"] = settings
    return state


def apply_state(state: dict[str, Any]) -> None:
    """Give this process the settings of another."""
    os.environ.update(state["environment"])
    warnings.filters[:] = state["warnings"]  # type: ignore[index]
    warnings._filters_mutated()  # type: ignore[attr-defined]
    np.seterr(**state["numpy"])
    logger.setLevel(state["level"])
    sys.setrecursionlimit(state["recursion"])
    sys.argv[:] = state["arguments"]
    if "sklearn" in state:
        import sklearn

        sklearn.set_config(**state["sklearn"])
    if "torch" in state:
        _apply_torch(__import__("torch"), state["torch"])


def _read_torch(torch: Any) -> dict[str, Any]:
    backends = torch.backends
    return {
        "dtype": torch.get_default_dtype(),
        "device": torch.get_default_device() if hasattr(torch, "get_default_device") else None,
        "gradients": torch.is_grad_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "warn_only": torch.is_deterministic_algorithms_warn_only_enabled(),
        "precision": torch.get_float32_matmul_precision(),
        "mkldnn": backends.mkldnn.enabled,
        "cudnn": {
            name: getattr(backends.cudnn, name) for name in ("enabled", "deterministic", "benchmark", "allow_tf32")
        },
    }


def _apply_torch(torch: Any, state: dict[str, Any]) -> None:
    torch.set_default_dtype(state["dtype"])
    if state["device"] is not None and state["device"] != torch.get_default_device():
        torch.set_default_device(state["device"])
    torch.set_grad_enabled(state["gradients"])
    torch.use_deterministic_algorithms(state["deterministic"], warn_only=state["warn_only"])
    torch.set_float32_matmul_precision(state["precision"])
    torch.backends.mkldnn.enabled = state["mkldnn"]
    for name, value in state["cudnn"].items():
        setattr(torch.backends.cudnn, name, value)
