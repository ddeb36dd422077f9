"""The table of fine-tunes: retrainings are made once, methods are ordered, and a missed target is written as missed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

import torch
from benchmarks import language_models, language_tasks, replayed
from benchmarks.language_models import DEFAULT, is_above, rises, table_of
from benchmarks.language_tasks import METAGRADIENT, FineTune, label_losses
from benchmarks.results import verdict

import upweight as uw

KEPT = (METAGRADIENT, DEFAULT, "GradDot", "BM25", "loss", "chance")


def small_net(seed: int) -> torch.nn.Module:
    torch.manual_seed(seed)
    return torch.nn.Linear(3, 2)


@pytest.fixture
def task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FineTune:
    """Softmax regression in place of the encoder."""
    monkeypatch.setattr(replayed, "FOLDER", tmp_path)
    monkeypatch.setattr(language_models, "METHODS", {name: language_models.METHODS[name] for name in KEPT})
    monkeypatch.setattr(language_models, "BASELINES", ("BM25", "loss", "chance"))
    monkeypatch.setattr(language_models, "TOP", 0.1)
    monkeypatch.setattr(language_models, "RESAMPLES", 100)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(56, 3)).astype(np.float32)
    y = (x[:, 0] + rng.normal(size=56) > 0).astype(np.int64)
    words = [" ".join(rng.choice(["good", "bad", "film", "plot"], 3)) for _ in x]
    train = uw.Examples(x[:40], y[:40], shown=words[:40])
    queries = uw.Examples(x[40:46], y[40:46], [f"q{i}" for i in range(6)], shown=words[40:46])
    training = uw.Training(lr=0.3, epochs=6, batch_size=8)
    held = uw.Examples(x[46:], y[46:])
    parts = tuple(words[:40]), tuple(words[40:46]), held
    return FineTune(
        "small", "a small net", training, small_net, label_losses, None, train, queries, 12, (0.1, 0.5), 0, *parts
    )


def test_the_table_orders_methods_and_says_what_missed(task: FineTune, monkeypatch: pytest.MonkeyPatch) -> None:
    table = table_of(task)
    of_metagradient = next(row for row in table.rows if row[0] == METAGRADIENT)
    reached = float(of_metagradient[1].split()[0])
    assert of_metagradient[-1] == verdict(reached >= language_models.REPLAYED) and "metagradient" in table.target
    halves = [float(row[2].split()[0].replace("−", "-")) for row in table.rows[1:]]
    assert [row[0] for row in table.rows][:1] == ["another seed's retraining"]
    assert {row[0] for row in table.rows[1:]} == set(KEPT) and halves == sorted(halves, reverse=True)
    ours = next(row for row in table.rows if row[0] == DEFAULT)
    target = next(note for note in table.notes if note.startswith("The target of Influence() is"))
    assert ("missed" in ours[-1]) == ("missed" in target)
    monkeypatch.setattr(language_models, "BASELINES", (DEFAULT,))  # nothing is above itself
    monkeypatch.setattr(language_models, "REPLAYED", reached + 0.01)
    again = table_of(task)
    assert any(row[0] == METAGRADIENT and "missed" in row[-1] for row in again.rows)
    assert any(f"missed: it is not clearly above {DEFAULT} at 10%" in note for note in again.notes)
    assert any(row[0] == DEFAULT and "missed" in row[-1] for row in again.rows)
    sequences = replace(task, held=None, absent=("GradDot", METAGRADIENT), remark="What is to be known.")
    unlabelled = table_of(sequences)
    assert (task.signs < 0).any() and (sequences.signs == 1).all()
    assert {row[0] for row in unlabelled.rows[1:]} == set(KEPT) - {"GradDot", METAGRADIENT}
    assert "held out" in table.notes[0] and "held out" not in unlabelled.notes[0]
    assert "metagradient" not in unlabelled.target and unlabelled.notes[-1] == "What is to be known."


def test_a_retraining_is_made_once_and_belongs_to_its_weights_and_seed(
    task: FineTune, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = task.removed(0.5)[:3]
    first, other = task.retrained(weights), task.retrained(weights, 1)
    direct = task.model.retrain(task.train, weights[2], 0).measure(task.queries)
    np.testing.assert_allclose(first[:, 2], direct, rtol=1e-6)
    assert np.abs(first - other).max() > 1e-4

    def no_more(*_: Any) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(uw.TorchModel, "retrain", no_more)
    np.testing.assert_array_equal(task.retrained(weights[::-1]), first[:, ::-1])
    with pytest.raises(AssertionError, match="trained again"):
        task.retrained(1 - weights)


def test_the_rise_removes_each_query_s_strongest_texts(task: FineTune) -> None:
    best = language_models.scored(task, "GradDot")[0]
    expected = []
    for query, values in enumerate(best[: task.alone]):
        weights = np.ones(40)
        weights[np.argsort(values)[-4:]] = 0.0
        after = task.model.retrain(task.train, weights, 0)
        expected.append((task.model.measure(task.queries) - after.measure(task.queries))[query])
    assert np.mean(expected) > 0
    assert rises(task, "GradDot").split(" ±")[0] == f"{np.mean(expected):+.4f}"


def test_only_a_clear_lead_counts() -> None:
    rng = np.random.default_rng(1)
    actual = rng.normal(size=(4, 40))
    near, noise = actual + 0.1 * rng.normal(size=actual.shape), rng.normal(size=actual.shape)
    assert is_above(near, noise, actual) and not is_above(noise, near, actual) and not is_above(near, near, actual)


def test_words_are_counted_and_rare_ones_share_an_id(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(language_tasks, "VOCABULARY", 3)
    assert language_tasks.word_ids(["a b a", "b a c", "d a b"]).tolist() == [[0, 1, 0], [1, 0, 2], [2, 0, 1]]
    monkeypatch.setattr(language_tasks, "TOKENS", 2)
    monkeypatch.setattr(language_tasks, "phrases", lambda _: dict.fromkeys(["a b c d", "a b c e", "a b", "b c d"], 1))
    assert sorted(language_tasks.openings(Path(), 5)) == ["a b c", "b c d"]
