"""A folder that is written whole or not at all."""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any


class ExportFolder:
    """A new folder, which has its name once everything is in it.

    Raises FileExistsError if there is anything of this name, and FileNotFoundError if there is no folder around it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        if os.path.lexists(path):
            raise FileExistsError(
                errno.EEXIST, "it exists, and what it holds would be lost; name a new folder", str(path)
            )
        if not path.resolve().parent.is_dir():
            raise FileNotFoundError(errno.ENOENT, "there is no folder around it; make it first", str(path))

    def __enter__(self) -> ExportFolder:
        self._partial = Path(tempfile.mkdtemp(prefix=f"{self._path.name}.", dir=self._path.resolve().parent))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                os.chmod(self._partial, 0o777 & ~_umask())
                if os.path.lexists(self._path):  # an empty folder would be replaced without an error
                    raise FileExistsError(errno.EEXIST, "it was made meanwhile", str(self._path))
                os.rename(self._partial, self._path)
        finally:
            shutil.rmtree(self._partial, ignore_errors=True)

    def add(self, name: str, content: bytes | str) -> None:
        """Write one file; its name may have a folder in front."""
        file = self._partial / name
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(content.encode("utf-8", errors="replace") if isinstance(content, str) else content)

    def add_json(self, name: str, value: Any) -> None:
        """Write one file of JSON."""
        self.add(name, json.dumps(value, ensure_ascii=False, allow_nan=False, indent=1))


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
