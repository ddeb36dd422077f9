"""Digests of the contents of values: equal in every process if and only if the contents are equal."""

from __future__ import annotations

import mmap
import zlib
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import Field, fields, is_dataclass
from enum import Enum
from functools import cached_property
from hashlib import blake2b
from pathlib import PurePath
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from upweight.core.contents import UnidentifiedError, data_parts, object_parts, unidentified
from upweight.core.dataset_rows import dataset_blocks, is_dataset
from upweight.core.functions import Named, class_parts, function_parts, is_library, module_parts

SIZE = 16  # bytes of a digest
CHUNK_BYTES = 1 << 26  # that are read of an array at a time
AS_BEFORE = "as before"  # in the metadata of a field that came later: the value with which nothing is other than before
PLAIN = (type(None), bool, int, float, complex, type(...), type(NotImplemented))


def digest(*parts: Any) -> str:
    """A digest of these values, 32 hexadecimal digits.

    Arrays, tensors, sparse matrices and data frames are digested by their bytes, and containers by their members (sets
    and mappings in any order). Functions and classes of the user are digested by their code and everything it refers
    to, those of installed libraries by their names, and every other object by what pickle would store of it.

    Raises:
        UnidentifiedError: a value has no comparable contents (an open file, a generator, a compiled function).
    """
    sink = blake2b(digest_size=SIZE)
    _write(sink, parts)
    return sink.hexdigest()


def digests(**parts: Any) -> dict[str, str]:
    """The digest of every part of a model, by name. Raises UnidentifiedError that names a part without one."""
    by_name = {}
    for name, part in parts.items():
        try:
            by_name[name] = digest(*part) if type(part) is tuple else digest(part)
        except UnidentifiedError as error:
            raise UnidentifiedError(f"of the model's {name}: {error}") from error
    return by_name


def checksum(*parts: Any) -> int:
    """A CRC-32 of the same contents. Several times faster; used to notice changes in place within a process.

    Raises:
        UnidentifiedError: as `digest`.
    """
    sink = _Crc()
    _write(sink, parts)
    return sink.value


def _write(sink: _Sink, parts: Any) -> None:
    try:
        _Writer(sink).write(parts)
    except RecursionError as error:
        raise unidentified(parts, "it is nested too deeply") from error


class _Sink(Protocol):
    def update(self, data: Any, /) -> None: ...


class _Crc:
    """CRC-32 behind the interface of hashlib."""

    value = 0

    def update(self, data: Any, /) -> None:
        self.value = zlib.crc32(data, self.value)


class _Writer:
    """Writes values to a sink as bytes. Different values never give the same bytes: every part has its kind and length.

    Attributes:
        open: objects whose writing has begun, to end circular references.
        finished: digests of the functions, classes and modules written so far, each of which may occur many times.
    """

    def __init__(
        self, sink: _Sink, open_: dict[int, int] | None = None, finished: dict[int, Any] | None = None
    ) -> None:
        self.sink = sink
        self.open: dict[int, int] = {} if open_ is None else open_
        self.finished: dict[int, Any] = {} if finished is None else finished

    def write(self, value: Any) -> None:
        """Write one value of any kind."""
        if type(value) in PLAIN:
            self.tag(type(value).__name__, repr(value))
        elif type(value) is str:
            self.text(value)
        elif type(value) in (bytes, bytearray, memoryview):
            content = value.tobytes() if isinstance(value, memoryview) else value
            self.tag("bytes", str(len(content)))
            self.sink.update(content)
        elif isinstance(value, np.ndarray | np.generic):
            self.array(np.asanyarray(value))
        elif id(value) in self.open:
            self.tag("circle", str(self.open[id(value)]))
        elif isinstance(value, FunctionType | type | ModuleType):
            self.once(value)
        else:
            self.open[id(value)] = len(self.open)
            self.composite(value)
            del self.open[id(value)]

    def composite(self, value: Any) -> None:
        """Write a value that has parts."""
        if isinstance(value, Enum):
            self.parts("enum", type(value), value.name)
        elif isinstance(value, Named):
            self.parts("named", value.name)
        elif isinstance(value, str | bytes | int | float | list | tuple | Mapping | AbstractSet):
            self.container(value)
        elif isinstance(value, PurePath):
            self.parts("path", str(value))
        elif isinstance(value, MethodType):
            self.parts("method", value.__func__, value.__self__)
        elif isinstance(value, BuiltinFunctionType):
            owner = value.__self__
            self.parts(
                "builtin", value.__module__, value.__qualname__, None if isinstance(owner, ModuleType) else owner
            )
        elif _is_library_model(value):
            self.parts("model", dict(value.identity()))
        elif is_dataset(value):
            self.parts("dataset", len(value), value.column_names, value.format)
            for block in dataset_blocks(value):
                self.write(block)
        elif (data := data_parts(value)) is not None:
            self.parts(*data)
        elif is_dataclass(value) and type(value).__reduce__ is object.__reduce__:
            self.dataclass(value)
        else:
            self.parts(*object_parts(value))

    def container(self, value: Any) -> None:
        """Write the members of a container, and its class if it is the user's, which may treat them differently."""
        if not is_library(type(value)):
            state = dict(getattr(value, "__dict__", {}))
            self.parts("subclass", type(value), state)
        if isinstance(value, list | tuple):
            self.sequence(value)
        elif isinstance(value, OrderedDict):
            self.parts("ordered", list(value.items()))
        elif isinstance(value, Mapping):
            self.mapping(value)
        elif isinstance(value, AbstractSet):
            self.parts("set", sorted(digest(member) for member in value))
        else:
            self.tag("plain", repr(value))

    def dataclass(self, value: Any) -> None:
        """Write the fields that are compared, and other attributes."""
        kind = type(value)
        compared = {item.name: item.compare and not _is_as_before(item, value) for item in fields(value)}
        shown = [(name, getattr(value, name)) for name, counts in compared.items() if counts]
        beside = {
            name: part
            for name, part in getattr(value, "__dict__", {}).items()
            if name not in compared and not isinstance(getattr(kind, name, None), cached_property)
        }
        self.parts("dataclass", kind, shown, beside)

    def parts(self, kind: str, *parts: Any) -> None:
        """Write a kind of value and its parts."""
        self.tag(kind, str(len(parts)))
        for part in parts:
            self.write(part)

    def tag(self, kind: str, text: str) -> None:
        """Write a kind and a short text that says how much follows."""
        self.sink.update(f"{kind}({text})".encode())

    def text(self, value: str) -> None:
        encoded = value.encode(errors="surrogatepass")
        self.tag("str", str(len(encoded)))
        self.sink.update(encoded)

    def array(self, array: NDArray[Any]) -> None:
        """Write numbers as bytes in the machine's byte order, and texts and objects one by one."""
        if isinstance(array, np.ma.MaskedArray):
            self.parts("masked", np.asarray(array.mask), array.filled())
        elif array.dtype.names is not None:  # field by field: the padding between fields is arbitrary
            self.parts("record", *((name, array[name]) for name in array.dtype.names))
        elif array.dtype.hasobject or array.dtype.kind in "UT":
            self.tag("words", str(array.shape))
            self.sequence(array.ravel().tolist())
        else:
            native = np.ascontiguousarray(array, array.dtype.newbyteorder("="))
            self.tag("array", f"{native.dtype.name} {array.shape}")
            flat = native.reshape(-1).view(np.uint8)
            for start in range(0, len(flat), CHUNK_BYTES):
                self.sink.update(flat[start : start + CHUNK_BYTES])
                _release_pages(array)

    def sequence(self, values: Sequence[Any]) -> None:
        """Write members in order; members that are all str or all float at once."""
        kinds = set(map(type, values)) if len(values) > 1 else ()
        self.tag("texts" if kinds == {str} else "floats" if kinds == {float} else "sequence", str(len(values)))
        if kinds == {str}:
            self.array(np.fromiter(map(len, values), np.int64, len(values)))
            self.text("".join(values))
        elif kinds == {float}:
            self.array(np.array(values, dtype=np.float64))
        else:
            for value in values:
                self.write(value)

    def mapping(self, value: Mapping[Any, Any]) -> None:
        """Write members in the order of the digests of their keys; str keys stand for themselves."""
        self.tag("mapping", str(len(value)))
        by_name = {(key if isinstance(key, str) else digest(key)): key for key in value}
        for name in sorted(by_name):
            self.write(by_name[name])
            self.write(value[by_name[name]])

    def once(self, value: Any) -> None:
        """Write a function, class or module by its digest, which is computed once."""
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
            self.finished[id(value)] = (sink.hexdigest(), value)  # keep the value, so that its id is not reused
        self.tag("once", self.finished[id(value)][0])


def _release_pages(array: NDArray[Any]) -> None:
    """Let the system take back the memory of a file that was read through a memory map.

    A map whose changes are kept in memory (mode "c") is left alone.
    """
    if isinstance(array, np.memmap) and array.mode != "c" and hasattr(mmap, "MADV_DONTNEED"):
        mapped = getattr(array, "_mmap", None)
        if isinstance(mapped, mmap.mmap):
            mapped.madvise(mmap.MADV_DONTNEED)


def _is_as_before(setting: Field[Any], value: Any) -> bool:
    """Whether this field came later and changes nothing: what was saved without it is then still the same."""
    return AS_BEFORE in setting.metadata and bool(getattr(value, setting.name) == setting.metadata[AS_BEFORE])


def _is_library_model(value: Any) -> bool:
    """Whether this is a model of the package, which has an `identity` of its own."""
    return type(value).__module__.partition(".")[0] == "upweight" and hasattr(value, "identity")
