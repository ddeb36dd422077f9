"""Evaluations of other packages are loaded without what surrounds them; absent ones are named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from benchmarks.published import FILES, Peers
from benchmarks.published_mnist import interval


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    heavy = "import a_package_that_nobody_has"
    for name in ("dattri", "dattri/metric"):
        (tmp_path / "dattri" / name).mkdir(parents=True)
        (tmp_path / "dattri" / name / "__init__.py").write_text(heavy)
    (tmp_path / "dattri" / FILES["dattri"]).write_text("def lds(x):\n    return 2 * x\n")
    recall = tmp_path / "bergson" / FILES["bergson"]
    recall.parent.mkdir(parents=True)
    recall.write_text(f"{heavy}\n\ndef gold_ranks(x):\n    return np.sort(x)\n\ndef other():\n    raise ValueError\n")
    (tmp_path / "dattri" / "dattri-9.8.dist-info").mkdir()
    return tmp_path


def test_only_what_evaluates_is_loaded_and_absent_peers_are_named(
    folder: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.modules", dict(__import__("sys").modules))
    peers = Peers(folder)
    stderr = capsys.readouterr().err
    assert "quanda is left out: there is no" in stderr and "date-lm is left out" in stderr and "dattri" not in stderr
    assert peers.present == {"dattri", "bergson"} and peers.versions == {"dattri": "9.8"}
    assert peers.module("dattri.metric.metrics").lds(3) == 6
    (gold_ranks,) = peers.functions("bergson", ["gold_ranks"], {})
    assert gold_ranks([2, 1]).tolist() == [1, 2]


def test_an_interval_holds_the_mean_of_known_values() -> None:
    values = np.array([0.2, 0.4, np.nan, 0.6] * 25)
    low, high = interval(values)
    assert 0.35 < low < 0.4 < high < 0.45
