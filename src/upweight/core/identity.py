"""Identity: a short name for the contents of values, equal for equal contents in every process, and only for those."""

from __future__ import annotations

import copyreg
import zlib
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import fields, is_dataclass
from enum import Enum
from hashlib import blake2b
from pathlib import PurePath
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from upweight.core.functions import Named, class_parts, function_parts, module_parts
from upweight.core.sources import columns_of, is_sparse

SIZE = 16  # bytes of a digest
ADDRESSES = ("_stop_words_id",)  # attributes that hold where an object was in memory (scikit-learn's vectorizers)
PLAIN = (type(None), bool, int, float, complex, type(...), type(NotImplemented))


class UnidentifiedError(ValueError):
    """A value that cannot be told apart from another one, so nothing may be kept under its name."""


def digest(*parts: Any) -> str:
    """The name of these values, 32 hexadecimal digits.

    Arrays, tensors, sparse matrices and frames are taken by their bytes, containers by their members (sets and mappings
    whatever their order), functions and classes of the user's by their code and all that it refers to, those of
    installed libraries by their names, and every other object by what pickle would keep of it.

    Raises:
        UnidentifiedError: a value without contents of its own (an open file, a generator, a compiled function).
    """
    sink = blake2b(digest_size=SIZE)
    _Writer(sink).write(parts)
    return sink.hexdigest()


def checksum(*parts: Any) -> int:
    """A CRC-32 of the same contents, several times as fast: to notice in this process that data were changed in place.

    Raises:
        UnidentifiedError: as `digest`.
    """
    sink = _Crc()
    _Writer(sink).write(parts)
    return sink.value


class _Sink(Protocol):
    def update(self, data: Any, /) -> None: ...


class _Crc:
    """CRC-32 with the interface of hashlib."""

    value = 0

    def update(self, data: Any, /) -> None:
        self.value = zlib.crc32(data, self.value)


class _Writer:
    """Writes values to a sink so that different values never write the same bytes: every part has its kind and length.

    Attributes:
        open: the objects that are being written, to end circles.
        finished: digests of functions, classes and modules that were written, each of which may come many times.
    """

    def __init__(
        self, sink: _Sink, open_: dict[int, int] | None = None, finished: dict[int, Any] | None = None
    ) -> None:
        self.sink = sink
        self.open: dict[int, int] = {} if open_ is None else open_
        self.finished: dict[int, Any] = {} if finished is None else finished

    def write(self, value: Any) -> None:
        """One value of any kind."""
        if isinstance(value, PLAIN):
            self.tag(type(value).__name__, repr(value))
        elif isinstance(value, str):
            self.text(value)
        elif isinstance(value, bytes | bytearray | memoryview):
            self.tag("bytes", str(len(value)))
            self.sink.update(value)
        elif isinstance(value, np.ndarray | np.generic):
            self.array(np.asarray(value))
        elif id(value) in self.open:
            self.tag("circle", str(self.open[id(value)]))
        elif isinstance(value, FunctionType | type | ModuleType):
            self.once(value)
        else:
            self.open[id(value)] = len(self.open)
            self.composite(value)
            del self.open[id(value)]

    def composite(self, value: Any) -> None:
        """What has parts."""
        if isinstance(value, Named):
            self.parts("named", value.name)
        elif isinstance(value, list | tuple):
            self.sequence(value)
        elif isinstance(value, Mapping):
            self.mapping(value)
        elif isinstance(value, AbstractSet):
            self.parts("set", sorted(digest(member) for member in value))
        elif isinstance(value, Enum):
            self.parts("enum", type(value), value.name)
        elif isinstance(value, PurePath):
            self.parts("path", str(value))
        elif isinstance(value, MethodType):
            self.parts("method", value.__func__, value.__self__)
        elif isinstance(value, BuiltinFunctionType):
            owner = value.__self__
            self.parts(
                "builtin", value.__module__, value.__qualname__, None if isinstance(owner, ModuleType) else owner
            )
        elif (data := _data_parts(value)) is not None:
            self.parts(*data)
        elif is_dataclass(value) and type(value).__reduce__ is object.__reduce__:
            compared = [(item.name, getattr(value, item.name)) for item in fields(value) if item.compare]
            self.parts("dataclass", type(value), compared)
        else:
            self.parts("object", *_pickled(value))

    def parts(self, kind: str, *parts: Any) -> None:
        """A kind of value, made of these."""
        self.tag(kind, str(len(parts)))
        for part in parts:
            self.write(part)

    def tag(self, kind: str, text: str) -> None:
        """A kind and a short text that says how much follows."""
        self.sink.update(f"{kind}({text})".encode())

    def text(self, value: str) -> None:
        encoded = value.encode(errors="surrogatepass")
        self.tag("str", str(len(encoded)))
        self.sink.update(encoded)

    def array(self, array: NDArray[Any]) -> None:
        """Numbers by their bytes in this machine's order; texts and objects one by one."""
        if isinstance(array, np.ma.MaskedArray):
            self.parts("masked", np.asarray(array.mask), array.filled())
        elif array.dtype.hasobject or array.dtype.kind in "UT":
            self.tag("words", str(array.shape))
            self.sequence(array.ravel().tolist())
        else:
            native = np.ascontiguousarray(array, array.dtype.newbyteorder("="))
            self.tag("array", f"{native.dtype.descr if native.dtype.names else native.dtype.name} {array.shape}")
            self.sink.update(native.reshape(-1).view(np.uint8))

    def sequence(self, values: Sequence[Any]) -> None:
        """Members in their order; many of one plain kind at once."""
        self.tag("sequence", str(len(values)))
        kinds = set(map(type, values)) if len(values) > 1 else ()
        if kinds == {str}:
            self.array(np.fromiter(map(len, values), np.int64, len(values)))
            self.text("".join(values))
        elif kinds == {float}:
            self.array(np.array(values, dtype=np.float64))
        else:
            for value in values:
                self.write(value)

    def mapping(self, value: Mapping[Any, Any]) -> None:
        """Members in the order of their keys' names."""
        self.tag("mapping", str(len(value)))
        by_name = {(key if isinstance(key, str) else digest(key)): key for key in value}
        for name in sorted(by_name):
            self.write(by_name[name])
            self.write(value[by_name[name]])

    def once(self, value: Any) -> None:
        """A function, class or module: worked out where it comes first, and by its digest wherever it comes again."""
        if id(value) not in self.finished:
            self.open[id(value)] = len(self.open)
            sink = blake2b(digest_size=SIZE)
            parts: Callable[[Any], tuple[Any, ...]] = (
                function_parts
                if isinstance(value, FunctionType)
                else module_parts
                if isinstance(value, ModuleType)
                else class_parts
            )
            _Writer(sink, self.open, self.finished).parts(*parts(value))
            del self.open[id(value)]
            self.finished[id(value)] = (sink.hexdigest(), value)  # the value too, so that its id stays its own
        self.tag("once", self.finished[id(value)][0])


def _data_parts(value: Any) -> tuple[Any, ...] | None:
    """(kind, parts) of data and nets, told apart by what they can do, so that no library is imported; else None."""
    if is_sparse(value):
        csr = value.tocsr(copy=True)
        csr.sum_duplicates()
        return "sparse", csr.shape, csr.data, csr.indices.astype(np.int64), csr.indptr.astype(np.int64)
    if hasattr(value, "detach") and hasattr(value, "untyped_storage"):
        return _tensor_parts(value)
    return _frame_parts(value) or _module_parts(value)


def _frame_parts(value: Any) -> tuple[Any, ...] | None:
    """Frames, Arrow tables and single columns; a frame's index has no part in it."""
    if (names := columns_of(value)) is not None:
        columns = (value.iloc[:, place] if hasattr(value, "iloc") else value[:, place] for place in range(len(names)))
        return "frame", names, [column.to_numpy() for column in columns]
    if hasattr(value, "to_pandas") and hasattr(value, "schema"):
        return "table", value.to_pandas()
    if hasattr(value, "to_numpy") and hasattr(value, "dtype"):
        return "column", str(getattr(value, "name", None)), value.to_numpy()
    return None


def _module_parts(value: Any) -> tuple[Any, ...] | None:
    """A network: its class, parameters, buffers, modules inside and settings, whether it is in training mode or not."""
    if hasattr(value, "_parameters") and hasattr(value, "_buffers") and hasattr(value, "_modules"):
        settings = {name: part for name, part in vars(value).items() if not name.startswith("_") and name != "training"}
        return "module", type(value), value._parameters, value._buffers, value._modules, settings
    return None


def _tensor_parts(tensor: Any) -> tuple[Any, ...]:
    """A torch tensor: numpy has no bfloat16 and no float8, of which float32 holds every value."""
    plain = tensor.detach().cpu()
    if str(plain.layout) != "torch.strided":
        plain = plain.to_dense()
    try:
        array = plain.numpy()
    except (TypeError, RuntimeError):
        array = plain.float().numpy()
    return "tensor", str(tensor.dtype), bool(tensor.requires_grad), array


def _pickled(value: Any) -> tuple[Any, ...]:
    """What pickle would keep of an object: (how it is made, from what, its state, its members)."""
    reduce = copyreg.dispatch_table.get(type(value))
    try:
        reduced = value.__reduce_ex__(4) if reduce is None else reduce(value)
    except Exception as error:  # every library has its own way of saying that it cannot be pickled
        raise UnidentifiedError(
            f"a {type(value).__name__} has no contents by which it could be told apart from another ({error}), so "
            f'nothing can be kept under its name; give what uses it a name of its own: uw.named("name", function)'
        ) from error
    if isinstance(reduced, str):
        return (type(value), reduced)
    made_by, made_from, state, listed, mapped = (*reduced[:5], None, None, None)[:5]
    if isinstance(state, dict):
        state = {name: part for name, part in state.items() if name not in ADDRESSES}
    return made_by, made_from, state, None if listed is None else list(listed), None if mapped is None else dict(mapped)
