"""The header of a store: what it was made of, in which encoding, and which rows are in which shard."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from upweight.core.archive import MALFORMED, as_plain, well_formed
from upweight.core.files import open_atomically, open_regular
from upweight.core.identity import digest
from upweight.store.encodings.coordinates import Coordinates
from upweight.store.encodings.encoding import Encoding, Layout
from upweight.store.encodings.exact_factors import ExactFactors
from upweight.store.encodings.logra import LoGra
from upweight.store.encodings.low_rank import LowRank
from upweight.store.encodings.sjlt import SJLT
from upweight.store.shard_files import sync_folder

HEADER = "header.json"
SCHEMA, WITH_LOOKUPS = 1, 2  # older versions do not know layouts of lookups
ENCODINGS: dict[str, type[Encoding]] = {
    kind.__name__: kind for kind in (Coordinates, LowRank, ExactFactors, LoGra, SJLT)
}


@dataclass(frozen=True)
class Header:
    """What is fixed before the first shard is written.

    Attributes:
        identity: digests of parameters, loss and training set.
        encoding: the encoding.
        layouts: name of the weight or parameter → what a row keeps of it.
        left_out: names of the parameters that rows do not keep.
        coverage: share of the trainable numbers that rows are about.
        rows: training examples.
        rows_per_shard: of every shard but the last.
        batch: examples of one pass; it decides the last bits of a row.
        seed: of the sample for the factors, and of sketches.
        sample: examples from which the factors are computed.
        sample_per_shard: of them in one part.
        version: of the package that wrote it; for people.
    """

    identity: Mapping[str, str]
    encoding: Encoding
    layouts: Mapping[str, Layout]
    left_out: Sequence[str]
    coverage: float
    rows: int
    rows_per_shard: int
    batch: int
    seed: int
    sample: int
    sample_per_shard: int
    version: str

    @property
    def bytes_per_row(self) -> int:
        """How many bytes one training example takes."""
        return sum(layout.bytes(self.encoding.precision) for layout in self.layouts.values())

    @property
    def digest(self) -> str:
        """The digest of everything that the contents of files depend on."""
        contents = self._contents()
        contents.pop("version")
        return digest(contents)

    def shards(self, phase: str) -> int:
        """How many files a phase of the build has."""
        if phase == "rows":
            return -(-self.rows // self.rows_per_shard)
        if self.encoding.keeps_gradients:
            return 0
        return -(-self.sample // self.sample_per_shard) if phase in ("factors", "moments") else 1

    def write(self, folder: Path) -> None:
        """Write the header of a new store."""
        contents = self._contents()
        with open_atomically(folder / HEADER) as file:
            file.write(json.dumps({**contents, "checksum": _checksum(contents)}, indent=1, sort_keys=True).encode())
        sync_folder(folder)

    @classmethod
    def read(cls, folder: Path) -> Header:
        """The header of a store.

        Raises:
            FileNotFoundError: the folder has none.
            ValueError: it is damaged, or was written by another version of the format.
        """
        path = folder / HEADER
        with open_regular(path) as file:
            text = file.read()
        try:
            contents = json.loads(text)
            schema, stored = contents["schema"], contents.pop("checksum")
            if contents["kind"] != "upweight store":
                raise ValueError("not a store")
        except MALFORMED as error:
            raise ValueError(
                f"{path} is damaged or was not written by upweight ({error}); build the store again in a new folder"
            ) from error
        if schema not in (SCHEMA, WITH_LOOKUPS):
            raise ValueError(
                f"{path} was written by another version of upweight (form {schema} of stores, this version reads forms "
                f"{SCHEMA} and {WITH_LOOKUPS}): build the store again, or use that version"
            )
        if stored != _checksum(contents):
            raise ValueError(f"{path} is damaged: it does not fit its checksum; build the store again in a new folder")
        with well_formed(path):
            return cls._of(contents)

    @classmethod
    def _of(cls, contents: Mapping[str, Any]) -> Header:
        """From the contents of the file. Raises one of `MALFORMED` for parts of another type than was written."""
        encoding = ENCODINGS[contents["encoding"]["name"]](**contents["encoding"]["settings"])
        layouts = {
            each["name"]: Layout(**{k: v for k, v in each.items() if k != "name"}) for each in contents["layouts"]
        }
        others = {name: contents[name] for name in cls.__dataclass_fields__ if name not in ("encoding", "layouts")}
        counts = ("rows", "rows_per_shard", "batch", "sample", "sample_per_shard")
        if any(type(others[name]) is not int or others[name] < 1 for name in counts) or type(others["seed"]) is not int:
            raise ValueError("expected numbers of rows and examples, and a seed")
        if not isinstance(others["identity"], dict) or not isinstance(others["left_out"], list):
            raise TypeError("expected the digests of a model and a list of parameters")
        return cls(encoding=encoding, layouts=layouts, **others)

    def _contents(self) -> dict[str, Any]:
        contents = {name: getattr(self, name) for name in self.__dataclass_fields__}
        contents["encoding"] = {"name": type(self.encoding).__name__, "settings": asdict(self.encoding)}
        contents["layouts"] = [{"name": name, **asdict(layout)} for name, layout in self.layouts.items()]
        schema = WITH_LOOKUPS if any(layout.form == "lookups" for layout in self.layouts.values()) else SCHEMA
        plain: dict[str, Any] = as_plain({"kind": "upweight store", "schema": schema, **contents})
        return plain


def _checksum(contents: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(contents, sort_keys=True).encode())
