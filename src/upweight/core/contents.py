"""The contents of data, networks and other objects, as parts that can be compared and digested.

Libraries are recognised by the attributes of their objects, so that none of them is imported.
"""

from __future__ import annotations

import copyreg
import dis
import functools
import pickle
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from upweight.core.functions import is_library
from upweight.core.input_kinds import columns_of, is_sparse

# Attributes of library objects that do not change results: threads, verbosity, caches.
IRRELEVANT = frozenset(
    {"n_jobs", "verbose", "verbosity", "thread_count", "num_threads", "nthread", "memory", "_stop_words_id"}
)


class UnidentifiedError(ValueError):
    """Raised for a value whose contents cannot be compared, so that it cannot identify a saved file."""


def unidentified(value: Any, why: Any) -> UnidentifiedError:
    """The error for a value without comparable contents; the message names the alternatives."""
    return UnidentifiedError(
        f"a {type(value).__name__} has no contents by which it could be compared with another ({why}), so nothing can "
        'be saved for it; name a function that uses it, uw.named("name", function), give a model of your own an '
        "identity() method, or pass inputs as arrays"
    )


def data_parts(value: Any) -> tuple[Any, ...] | None:
    """(kind, parts) of tensors, sparse matrices, frames, their columns and networks; None for everything else."""
    if hasattr(value, "detach") and hasattr(value, "untyped_storage"):
        return _tensor_parts(value)
    if is_sparse(value):
        csr = value.tocsr(copy=True)
        csr.sum_duplicates()
        return "sparse", csr.shape, csr.data, csr.indices.astype(np.int64), csr.indptr.astype(np.int64)
    return _frame_parts(value) or _module_parts(value)


def object_parts(value: Any) -> tuple[Any, ...]:
    """What pickle would store of an object: (constructor, its arguments, state, members)."""
    if callable(value) and hasattr(value, "__wrapped__"):  # a cached function
        return "wrapped", type(value), value.__wrapped__
    reduce = copyreg.dispatch_table.get(type(value))
    try:
        reduced = value.__reduce_ex__(4) if reduce is None else reduce(value)
    except Exception as error:  # libraries raise many types of error for objects that cannot be pickled
        raise unidentified(value, error) from error
    if isinstance(reduced, str):
        return _global_parts(value, reduced)
    made_by, made_from, state, listed, mapped = (*reduced[:5], None, None, None)[:5]
    members = None if listed is None else list(listed), None if mapped is None else dict(mapped)
    return "object", made_by, made_from, _lasting(value, state), *members


def relevant(kind: type, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings without those that do not change results, if the class belongs to a library."""
    skipped = IRRELEVANT if is_library(kind) else frozenset[str]()
    return {name: setting for name, setting in settings.items() if name not in skipped}


def _lasting(value: Any, state: Any) -> Any:
    """The state without cached properties and settings that do not change results."""
    if not isinstance(state, dict):
        return state
    kind = type(value)
    filled_in = {name for name in state if isinstance(getattr(kind, name, None), functools.cached_property)}
    return {name: part for name, part in relevant(kind, state).items() if name not in filled_in} or None


def _global_parts(value: Any, name: str) -> tuple[Any, ...]:
    """An object that pickle stores by its name, if the module has it."""
    try:
        module = pickle.whichmodule(value, name)  # type: ignore[attr-defined]
    except pickle.PicklingError as error:  # from Python 3.14 on it looks there itself
        raise unidentified(value, f"its module has nothing of its name ({error})") from error
    named_object: Any = sys.modules.get(module)
    for part in name.split("."):
        named_object = getattr(named_object, part, None)
    if named_object is not value:
        raise unidentified(value, f"{module} has nothing of its name")
    return "global", module, name


def _tensor_parts(tensor: Any) -> tuple[Any, ...]:
    """A torch tensor. numpy has no bfloat16 and no float8; float32 holds all their values."""
    try:
        plain = tensor.detach().cpu().resolve_conj().resolve_neg()
        if str(plain.layout) != "torch.strided":
            plain = plain.to_dense()
        is_narrow = str(plain.dtype).startswith(("torch.bfloat16", "torch.float8"))
        array = (plain.float() if is_narrow else plain).numpy()
    except Exception as error:  # quantised, nested, without storage, complex in half precision
        raise unidentified(tensor, error) from error
    return "tensor", str(tensor.dtype), bool(tensor.requires_grad), array


def _frame_parts(value: Any) -> tuple[Any, ...] | None:
    """Data frames (without their index), Arrow tables and single columns."""
    if (names := columns_of(value)) is not None:
        columns = (
            value.iloc[:, position] if hasattr(value, "iloc") else value[:, position] for position in range(len(names))
        )
        return "frame", names, [_column_parts(column) for column in columns]
    if hasattr(value, "to_pandas") and hasattr(value, "schema"):
        return "table", value.to_pandas()
    if hasattr(value, "to_numpy") and hasattr(value, "dtype"):
        return "column", str(getattr(value, "name", None)), _column_parts(value)
    return None


def _column_parts(column: Any) -> tuple[Any, ...]:
    """A column's type and values: codes and categories, times as numbers, and where values are missing."""
    array: Any = getattr(column, "array", None)
    dtype = str(column.dtype)
    if hasattr(array, "codes") and hasattr(array, "categories"):
        return dtype, np.asarray(array.codes), np.asarray(array.categories), bool(array.ordered)
    if hasattr(array, "asi8"):  # dates, times and periods
        return dtype, array.asi8
    missing = column.is_null().to_numpy() if hasattr(column, "is_null") else None
    return dtype, column.to_numpy(), missing


def _module_parts(value: Any) -> tuple[Any, ...] | None:
    """A network: its class, parameters, buffers, submodules, forward hooks and settings.

    The training mode and attributes that the forward pass assigns are left out.
    """
    if not (hasattr(value, "_parameters") and hasattr(value, "_buffers") and hasattr(value, "_modules")):
        return None
    torch = sys.modules.get("torch")
    internal = {"_parameters", "_buffers", "_modules"} if torch is None else set(vars(torch.nn.Module()))
    forward = getattr(type(value), "forward", None)
    written = _written_attributes(getattr(forward, "__code__", None))
    left_out = {*internal, *written, "_flat_weight_refs"}  # recurrent layers refer to their own parameters there
    settings = {name: part for name, part in vars(value).items() if name not in left_out}
    contents = (list(part.items()) for part in (value._parameters, value._buffers, value._modules))
    hooks = [list(getattr(value, name, {}).values()) for name in ("_forward_pre_hooks", "_forward_hooks")]
    return "module", type(value), *contents, hooks, settings


def _written_attributes(code: Any) -> set[str]:
    """Names of the attributes to which the code assigns."""
    if code is None:
        return set()
    return {instruction.argval for instruction in dis.get_instructions(code) if instruction.opname == "STORE_ATTR"}
