"""The members of an archive as arrays: each is exactly as large as its header says, and none is decompressed."""

from __future__ import annotations

import functools
import operator
import os
import zipfile
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

SUFFIX = ".npy"


def require_stored(members: zipfile.ZipFile) -> None:
    """Raise ValueError if a member is compressed, occurs twice, or is no array: together they are as large as the file.

    Nothing is read.
    """
    infos = members.infolist()
    names = [info.filename for info in infos]
    assert members.fp is not None
    file_size = members.fp.seek(0, os.SEEK_END)
    if len(set(names)) < len(names) or not all(name.endswith(SUFFIX) for name in names):
        raise ValueError(f"expected arrays with names of their own, got {names[:5]}")
    if any(info.compress_type != zipfile.ZIP_STORED for info in infos) or sum(i.file_size for i in infos) > file_size:
        raise ValueError("its members are compressed or overlap")


def read_members(members: zipfile.ZipFile) -> dict[str, NDArray[Any]]:
    """Every member by its name without suffix. Raises ValueError for what is not a whole array of numbers or texts."""
    arrays = {}
    for info in members.infolist():
        with members.open(info) as member:
            arrays[info.filename.removesuffix(SUFFIX)] = _read_array(member, info.file_size)
    return arrays


def _read_array(member: IO[bytes], size: int) -> NDArray[Any]:
    try:
        shape, is_fortran, dtype = _read_header(member)
    except Exception as error:  # numpy and the parser inside of it raise many types of error for damaged headers
        raise ValueError(f"a member is not an array ({error})") from error
    if dtype.hasobject or dtype.names is not None or dtype.subdtype is not None:
        raise ValueError("an array of Python objects or records, which upweight does not write")
    count: int = functools.reduce(operator.mul, shape, 1)  # in Python's integers, which do not overflow
    expected = count * dtype.itemsize
    if any(length < 0 for length in shape) or (dtype.itemsize == 0 and count):
        raise ValueError(f"an array of shape {shape} in {dtype}")
    if expected != size - member.tell():
        raise ValueError(f"expected {expected} bytes for shape {shape} in {dtype}, got {size - member.tell()}")
    array = np.frombuffer(bytearray(member.read()), dtype=dtype)
    return array.reshape(shape, order="F" if is_fortran else "C")


def _read_header(member: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = npy.read_magic(member)
    if version not in ((1, 0), (2, 0), (3, 0)):
        raise ValueError(f"numpy's format {version} is not known")
    # Format 3.0 differs from 2.0 by UTF-8 in the names of fields, which no array of ours has.
    read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    return read_header(member)
