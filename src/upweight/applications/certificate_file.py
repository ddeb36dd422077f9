"""Certificates of `forget` in files: with a checksum, and read beside the estimator that they are about."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from upweight.core.archive import MALFORMED
from upweight.core.files import open_regular
from upweight.core.forgettable import Route
from upweight.core.identity import digest

KIND = "upweight certificate"
VERSION = 2  # since version 2 the certificate has a checksum of its own
CHECKSUM = "crc32"
TYPES: Mapping[str, type] = {
    "statement": str,
    "deletion": bool,
    "route": str,
    "forgotten": int,
    "examples": int,
    "digests": dict,
    "steps": list,
    "facts": dict,
    "measurement": str,
    "membership": list,
    "distances": list,
}
DIGESTS = {"estimator_before", "estimator_after", "train", "ids"}
ENTRIES = {
    "steps": {"name", "class", "how", "remembers"},
    "membership": {"model", "auc", "interval", "gap", "gap_interval"},
    "distances": {"part", "examples", "before", "after"},
}


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """The certificate with its kind, version and checksum."""
    whole = {"kind": KIND, "version": VERSION, **content}
    return {**whole, CHECKSUM: _crc32(whole)}


def check_certificate(path: str | Path, estimator: Any) -> dict[str, Any]:
    """The certificate in a file, if it is about this estimator.

    Args:
        path: what `Forgotten.save_certificate` wrote.
        estimator: the estimator without the forgotten examples, for example loaded from a file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is anything but a certificate, was changed since it was written, contradicts itself, or is about
            another estimator.
        UnidentifiedError: the estimator holds something whose contents cannot be compared.
    """
    with open_regular(path) as file:
        text = file.read()
    try:
        certificate = json.loads(text.decode("utf-8-sig"))
        _require_form(certificate)
    except MALFORMED as error:
        words = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise ValueError(
            f"{path} is not a complete certificate that this version of upweight can read ({words})"
        ) from error
    certified, after = certificate["digests"]["estimator_after"], digest(estimator)
    if certified != after:
        because = f"expected an estimator with the digest {certified}, got one with {after}"
        if certified is None:
            because = "the contents of its estimator could not be compared when it was written"
        if after == certificate["digests"]["estimator_before"]:
            because = "this is the estimator from before, with the examples"
        raise ValueError(f"{path} is not the certificate of this {type(estimator).__name__}: {because}")
    return dict(certificate)


def _require_form(certificate: Any) -> None:
    """Raise one of `MALFORMED` if a part is missing or of another type, or if two parts contradict each other."""
    version = certificate["version"]
    if certificate["kind"] != KIND or type(version) is not int or not 1 <= version <= VERSION:
        raise ValueError(f"it is a {certificate['kind']!r:.40} of version {version!r:.40}")
    content = {name: value for name, value in certificate.items() if name != CHECKSUM}
    if (CHECKSUM in certificate or version >= 2) and certificate[CHECKSUM] != _crc32(content):
        raise ValueError("it does not fit its checksum, so it was changed since it was written")
    for name, expected in TYPES.items():
        if type(certificate[name]) is not expected:
            raise TypeError(f"expected {name} to be {expected.__name__}, got {certificate[name]!r:.40}")
    if not 0 < certificate["forgotten"] < certificate["examples"]:
        raise ValueError(f"{certificate['forgotten']} of {certificate['examples']} examples cannot be forgotten")
    digests = certificate["digests"]
    if set(digests) != DIGESTS or not all(value is None or isinstance(value, str) for value in digests.values()):
        raise ValueError(f"expected the digests of {', '.join(sorted(DIGESTS))}, got {digests!r:.80}")
    for name, parts in ENTRIES.items():
        if not all(isinstance(entry, dict) and set(entry) == parts for entry in certificate[name]):
            raise ValueError(
                f"expected {', '.join(sorted(parts))} of each of the {name}, got {certificate[name]!r:.80}"
            )
    remembers = any(step["remembers"] is not None for step in certificate["steps"])
    if certificate["deletion"] != (Route(certificate["route"]).is_deletion and not remembers):
        raise ValueError("its route and its steps contradict its entry about a deletion")


def _crc32(content: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(content, separators=(",", ":")).encode())
