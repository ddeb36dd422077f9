"""Published evaluations: what the code of other packages says of our scores. Packages that are absent are left out.

OMP_NUM_THREADS=1 python -m benchmarks.published --data DIR --peers DIR
OMP_NUM_THREADS=1 python -m benchmarks.published --data DIR --peers DIR --tables perceptron     the other tables stay

Any of these may be in the folder DIR of the peers; nothing of them is imported but the functions that evaluate:

pip install --no-deps --target DIR/dattri dattri==0.3.0
pip install --no-deps --target DIR/quanda quanda==0.5.0
pip install --no-deps --target DIR/bergson bergson==2.5.1
git clone https://github.com/DataAttributionEval/DATE-LM DIR/date-lm
"""

from __future__ import annotations

import argparse
import ast
import importlib.util
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import torch
from benchmarks import published_facts, published_logistic, published_mnist, published_perceptron
from benchmarks.results import Section, Table, kept_section, versions

FILES = {  # what must be there, in the folder of each peer
    "dattri": "dattri/metric/metrics.py",
    "quanda": "quanda/metrics/base.py",
    "bergson": "bergson/recall/recall.py",
    "date-lm": "evaluation/evaluate_application.py",
}
BARE = {"quanda": ["quanda.explainers", "quanda.utils"]}  # packages that the evaluations import, without their __init__
TABLES: dict[str, Callable[[Peers, Path], Table | None]] = {
    "logistic": published_logistic.logistic_regression,
    "perceptron": published_perceptron.multilayer_perceptron,
    "labels": published_mnist.labels,
    "recall": published_facts.recall,
}
TYPES_ONLY = ("lightning",)  # imported for the sake of annotations


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with mnist.npz")
    parser.add_argument("--peers", type=Path, required=True, help="folder with the packages")
    parser.add_argument("--tables", nargs="*", choices=list(TABLES), default=list(TABLES))
    options = parser.parse_args()
    torch.set_num_threads(1)
    peers = Peers(options.peers)
    made = [table for name in options.tables if (table := TABLES[name](peers, options.data)) is not None]
    before = kept_section("published") or Section("published", "", "", [], {})
    if made:
        tables = {table.title: table for table in [*before.tables, *made]}
        command = "OMP_NUM_THREADS=1 python -m benchmarks.published --data DIR --peers DIR"
        used = before.versions | versions(["numpy", "torch", "upweight"]) | peers.versions
        Section("published", "Published evaluations", command, list(tables.values()), used).keep()
    for table in made:
        print(table.markdown())


class Peers:
    """The packages in a folder; says once which are absent."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.present = {name for name, file in FILES.items() if (folder / name / file).exists()}
        for name in sorted(set(FILES) - self.present):
            print(f"{name} is left out: there is no {folder / name / FILES[name]}", file=sys.stderr)

    @property
    def versions(self) -> dict[str, str]:
        found = {}
        for name in sorted(self.present):
            for info in (self.folder / name).glob("*.dist-info"):
                found[name] = info.name.removesuffix(".dist-info").split("-")[-1]
        return found

    def module(self, name: str) -> Any:
        """A module of a peer, without running the `__init__` of the packages around it (they import much more)."""
        parts = name.split(".")
        for package in [".".join(parts[:end]) for end in range(1, len(parts))] + BARE.get(parts[0], []):
            if package not in sys.modules:
                bare = ModuleType(package)
                bare.__path__ = [str(self.folder / parts[0] / package.replace(".", "/"))]
                sys.modules[package] = bare
        for absent in TYPES_ONLY:
            if absent not in sys.modules and importlib.util.find_spec(absent) is None:
                sys.modules[absent] = MagicMock()
        return importlib.import_module(name)

    def functions(self, peer: str, names: Sequence[str], known: dict[str, Any]) -> list[Callable[..., Any]]:
        """Functions of a file whose other imports are not needed; `known` are the names that they use."""
        tree = ast.parse((self.folder / peer / FILES[peer]).read_text())
        tree.body = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name in names]
        space = {"np": np, **known}
        exec(compile(tree, FILES[peer], "exec"), space)  # the peer's own code, as it stands
        return [space[name] for name in names]


if __name__ == "__main__":
    main()
