"""The files of a store: safetensors that say what they hold, with checksums in the manifest, written atomically."""

from __future__ import annotations

import errno
import json
import os
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.archive import MALFORMED, as_plain
from upweight.core.files import open_atomically

LABEL = "upweight"  # the one key of the metadata: with two, safetensors orders them anew in every process
FORMAT = 1


@dataclass(frozen=True)
class Receipt:
    """One line of the manifest: a file that is finished.

    Attributes:
        phase: of the build, such as "rows".
        number: of the shard in its phase.
        file: its path in the store.
        bytes: its size.
        crc32: of its bytes, checked whenever it is read for the first time.
        sha256: of its bytes, by which two files are compared.
        identity: of everything that its contents depend on.
    """

    phase: str
    number: int
    file: str
    bytes: int
    crc32: int
    sha256: str
    identity: str

    @property
    def key(self) -> tuple[str, int]:
        """Phase and number."""
        return self.phase, self.number

    def as_dict(self) -> dict[str, Any]:
        """The values as JSON holds them."""
        return asdict(self)

    @classmethod
    def of(cls, line: Mapping[str, Any]) -> Receipt:
        """The receipt of a line. Raises ValueError, KeyError or TypeError for anything else."""
        texts = {name: _typed(line, name, str) for name in ("phase", "file", "sha256", "identity")}
        numbers = {name: _typed(line, name, int) for name in ("number", "bytes", "crc32")}
        if Path(texts["file"]).is_absolute() or ".." in Path(texts["file"]).parts:
            raise ValueError(f"a file outside of the store: {texts['file']}")
        return cls(**texts, **numbers)


def serialise(arrays: Mapping[str, NDArray[Any]], label: Mapping[str, Any]) -> bytes:
    """Arrays and a label as bytes, which depend on nothing else."""
    from safetensors.numpy import save

    text = json.dumps(as_plain(dict(label)), sort_keys=True, separators=(",", ":"))
    plain = {name: np.asarray(arrays[name], order="C") for name in sorted(arrays)}
    return bytes(save(plain, {LABEL: text}))


def write_file(folder: Path, receipt_of: tuple[str, int, str], identity: str, content: bytes) -> Receipt:
    """Write the bytes of a shard: temporary file, fsync, rename, fsync of the folder.

    Args:
        folder: of the store.
        receipt_of: phase, number and path in the store.
        identity: of the contents.
        content: the bytes.

    Raises OSError with the name of the shard and the bytes that are missing if the disk is full.
    """
    phase, number, file = receipt_of
    path = folder / file
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with open_atomically(path) as stream:
            stream.write(content)
        sync_folder(path.parent)
    except OSError as error:
        raise full_disk(error, f"{file} ({len(content):,} bytes)") or error from error
    return Receipt(phase, number, file, len(content), zlib.crc32(content), sha256(content).hexdigest(), identity)


def full_disk(error: OSError, what: str) -> OSError | None:
    """An error that says that the disk has no room for this file; None if that is not why writing failed."""
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return None
    sentence = (
        f"the disk is full: no room for {what}; files before it are finished, and the same call continues with it"
    )
    return OSError(error.errno, sentence)


def read_file(folder: Path, receipt: Receipt) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Arrays and label of a finished file.

    Raises ValueError with its name if it is missing or damaged.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    content = checked_bytes(folder, receipt)
    try:
        arrays = load(content)
        label = json.loads(_metadata(content)[LABEL])
    except (SafetensorError, *MALFORMED) as error:
        raise ValueError(f"{receipt.file} is damaged or was not written by upweight ({error})") from error
    expected = {"phase": receipt.phase, "number": receipt.number, "identity": receipt.identity}
    others = [name for name, value in expected.items() if label.get(name) != value]
    if others:
        raise ValueError(f"{receipt.file} is another file than the manifest says (another {' and '.join(others)})")
    return arrays, label


def checked_bytes(folder: Path, receipt: Receipt) -> bytes:
    """The bytes of a file. Raises ValueError with its name if it is gone or they are not those that were written."""
    advice = "delete it and build again, which makes only this file"
    try:
        content = (folder / receipt.file).read_bytes()
    except FileNotFoundError as error:
        raise ValueError(f"{receipt.file} of {folder} is gone; build again, which makes only this file") from error
    if len(content) != receipt.bytes:
        raise ValueError(
            f"{receipt.file} of {folder} has {len(content):,} bytes instead of {receipt.bytes:,}; {advice}"
        )
    if zlib.crc32(content) != receipt.crc32:
        raise ValueError(f"{receipt.file} of {folder} does not fit its checksum; {advice}")
    return content


def sync_folder(folder: Path) -> None:
    """Write the folder's entries to disk, where the system can (not on Windows)."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _metadata(content: bytes) -> dict[str, str]:
    length = int.from_bytes(content[:8], "little")
    metadata: dict[str, str] = json.loads(content[8 : 8 + length])["__metadata__"]
    return metadata


def _typed(line: Mapping[str, Any], name: str, kind: type) -> Any:
    value = line[name]
    if type(value) is not kind:
        raise ValueError(f"expected {name} to be {kind.__name__}, got {value!r}")
    return value
