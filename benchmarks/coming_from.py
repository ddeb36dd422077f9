"""Coming from other tools: the conversions of docs/coming-from.md held against the installed libraries.

python -m benchmarks --only coming_from --peers-env DIR
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.peers import install, one_thread
from benchmarks.results import HERE, Section, Table, verdict, versions
from numpy.typing import NDArray

ROOT = HERE.parent
PAGE = ROOT / "docs" / "coming-from.md"
SAMPLED = ("kronfluence EK-FAC",)  # labels are drawn there and summed over here
NEAR, ALIKE = 1e-4, 0.99  # float32 against float64; correlation where labels are drawn
OLD = ("release", "darkon", "nimarb", "fork")  # TensorFlow 1, or no package: the tests write their formulas out


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers-env", type=Path, required=True, help="folder of the peers' environment")
    chosen = parser.parse_args(arguments)
    page: dict[str, Any] = {}
    exec("\n".join(re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)), page)
    with tempfile.TemporaryDirectory() as folder:
        peer_answers = answers(install(chosen.peers_env), page, Path(folder))
    names = [name for name in page["theirs"] if not name.startswith(OLD)]
    command = "python -m benchmarks --only coming_from --peers-env DIR"
    title = "Coming from other tools: their numbers computed from ours"
    Section("coming_from", title, command, [table(names, page["theirs"], peer_answers)], versions(["upweight"])).keep()


def answers(python: Path, page: dict[str, Any], folder: Path) -> dict[str, Any]:
    """What the libraries return for the page's model, by the page's names; an error's text in place of an array."""
    (weight, bias), train, queries = page["net"].parameters(), page["train"], page["queries"]
    np.savez(
        folder / "page.npz",
        **{"x": train.x, "y": train.y, "xq": queries.x, "yq": queries.y, "l2": page["l2"]},
        weight=weight.detach().numpy(),
        bias=bias.detach().numpy(),
    )
    env = one_thread() | {"PYTHONPATH": str(ROOT)}
    worker = [python, "-m", "benchmarks.coming_from_peers", folder]
    subprocess.run(worker, check=True, env=env, cwd=os.fspath(folder), stdout=subprocess.DEVNULL)
    with np.load(folder / "answers.npz") as archive:
        return {name: archive[name] for name in archive.files}


def table(names: list[str], ours: dict[str, NDArray[np.float64]], peer_answers: dict[str, Any]) -> Table:
    result = Table(
        "A softmax regression on 300 digits, 20 queries",
        f"their number from ours to {NEAR:g} of the largest; correlation over {ALIKE:g} where they draw labels",
        ["call", "their largest / ours", "largest difference / largest", "correlation", "verdict"],
        notes=[
            "kronfluence samples labels (40 for each example), we sum over them.",
            "Ours in float64, theirs in float32. docs/coming-from.md says what is converted and how.",
        ],
    )
    for name in names:
        theirs = peer_answers.get(name, np.array("no answer"))
        if theirs.dtype.kind == "U":
            result.add(name, str(theirs), "", "", "not measured")
            continue
        largest = np.abs(ours[name]).max()
        far = float(np.abs(theirs - ours[name]).max() / largest)
        alike = float(np.corrcoef(theirs.ravel(), ours[name].ravel())[0, 1])
        met = alike > ALIKE if name in SAMPLED else far < NEAR
        size = f"{np.abs(theirs).max() / largest:.4f}"
        result.add(name, size, f"{far:.1e}", f"{alike:.6f}", verdict(bool(met)))
    return result


if __name__ == "__main__":
    main()
